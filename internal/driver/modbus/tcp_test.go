package modbus_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// onTCP opens a link to simulated slaves 1 and 2 behind one TCP address.
func onTCP(t *testing.T, framing string) (*modbus.Link, [2]*modbusslave.Slave) {
	t.Helper()
	var slaves [2]*modbusslave.Slave
	for i := range slaves {
		slaves[i] = modbusslave.New(modbusslave.Config{Unit: i + 1})
		slaves[i].Set(modbus.Holding, 0, 1, 2, 3, 4, 5)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		server := &modbusslave.Server{RTU: framing == modbus.FramingRTU, Slaves: slaves[:]}
		if err := server.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return opened(t, tcp.NewDialer(ln.Addr().String(), nil), framing), slaves
}

func ask(t *testing.T, link *modbus.Link, unit int, timeout time.Duration, first, count int) ([]byte, error) {
	t.Helper()
	r, err := modbus.Read(modbus.Holding, first, count)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return link.Do(ctx, unit, r)
}

func TestModbusTCPTellsALateReplyByItsTransaction(t *testing.T) {
	link, slaves := onTCP(t, modbus.FramingTCP)
	slaves[0].Next(modbusslave.Late(200 * time.Millisecond))
	if _, err := ask(t, link, 1, 20*time.Millisecond, 0, 2); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	// The same request need not wait, and does not get the late reply.
	data, err := ask(t, link, 1, 5*time.Second, 2, 2)
	if err != nil || !bytes.Equal(data, []byte{0, 3, 0, 4}) {
		t.Errorf("% X %v", data, err)
	}
	if c := link.Counters(); c.WrongTransaction != 1 || c.Timeouts != 1 {
		t.Errorf("%+v", c)
	}
}

func TestOnTCPWhatIsNoReplyIsDiscardedToo(t *testing.T) {
	for _, framing := range []string{modbus.FramingTCP, modbus.FramingRTU} {
		link, slaves := onTCP(t, framing)
		slaves[0].Next(modbusslave.WrongUnit)
		slaves[1].Next(modbusslave.WrongFunction)
		for unit := 1; unit <= 2; unit++ {
			if _, err := ask(t, link, unit, 100*time.Millisecond, 0, 2); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", framing, err)
			}
		}
		if c := link.Counters(); c.WrongUnit != 1 || c.WrongFunction != 1 || c.Timeouts != 2 {
			t.Errorf("%s: %+v", framing, c)
		}
		if data, err := ask(t, link, 2, 5*time.Second, 0, 3); err != nil || len(data) != 6 {
			t.Errorf("%s: then % X %v", framing, data, err)
		}
	}
}

func TestABrokenModbusTCPHeaderTakesTheConnectionDown(t *testing.T) {
	link, slaves := onTCP(t, modbus.FramingTCP)
	slaves[0].Next(modbusslave.Babble(0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF))
	if _, err := ask(t, link, 1, 5*time.Second, 0, 2); !errors.Is(err, transport.ErrLost) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(link.Close(), link.Open(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, link, 1, 5*time.Second, 0, 2); err != nil {
		t.Error(err)
	}
}

func TestATransactionEndsAtOnceWhenItIsCancelled(t *testing.T) {
	link, slaves := onTCP(t, modbus.FramingTCP)
	asked := make(chan struct{})
	slaves[0].Next(func(r *modbusslave.Reply) { modbusslave.Dead(r); close(asked) })
	r, _ := modbus.Read(modbus.Holding, 0, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { <-asked; cancel() }()
	if _, err := link.Do(ctx, 1, r); !errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := ask(t, link, 1, 5*time.Second, 0, 2); err != nil {
		t.Error(err)
	}
}

func TestAGatewayThatIsNotThereIsLostAndNotTheDevicesFault(t *testing.T) {
	link, err := modbus.NewLink(tcp.NewDialer("127.0.0.1:1", nil), modbus.LinkConfig{Framing: modbus.FramingTCP}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Open(t.Context()); !errors.Is(err, transport.ErrLost) {
		t.Errorf("%v", err)
	}
	if _, err := modbus.NewLink(tcp.NewDialer("127.0.0.1:1", nil), modbus.LinkConfig{}, quiet); err == nil {
		t.Error("a link without a framing was made")
	}
}
