package modbus_test

import (
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/pty"
	"github.com/mcp-edge/edge-agent/transport/serial"
)

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
