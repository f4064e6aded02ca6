package modbus_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/pty"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

func TestAnErrorOfTheLineComesFirstAndNamesItOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	link := opened(t, tcp.NewDialer(address, nil), modbus.FramingRTU)
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	peer.Close()
	_, err = ask(t, link, 1, 5*time.Second, 0, 2)
	if !errors.Is(err, transport.ErrLost) || !strings.HasPrefix(err.Error(), "modbus: tcp "+address) ||
		!strings.Contains(err.Error(), "closed the connection, while ") || strings.Count(err.Error(), address) != 1 {
		t.Errorf("asking: %v", err)
	}
	_ = link.Close()
	if err := link.Open(t.Context()); !errors.Is(err, transport.ErrLost) || strings.Count(err.Error(), address) != 1 {
		t.Errorf("opening: %v", err)
	}
}

func TestAnAdapterThatIsUnpluggedBetweenPollsIsNoticed(t *testing.T) {
	far, path, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	link := opened(t, serial.NewDialer(path, serial.Config{Baud: 19200, DataBits: 8, Parity: "even", StopBits: 1}), modbus.FramingRTU)
	lost := link.Lost()
	select {
	case <-lost:
		t.Fatal("it was lost before")
	default:
	}
	far.Close()
	select {
	case <-lost:
	case <-time.After(10 * time.Second):
		t.Error("nobody has noticed")
	}
}
