package dialin

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// journal is what was logged. It may be used concurrently.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) lines(with string) (lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, with) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// caller is a connection from an address.
type caller struct {
	transport.Conn
	remote string
}

func (c caller) Info() transport.Info { return transport.Info{Remote: c.remote} }
func (caller) Close() error           { return nil }

func TestAStrangerIsLoggedWithItsAddressAndManyAreNotLoggedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		d := New(Config{Endpoint: "tcp :5502", Remote: netip.MustParseAddr("10.0.0.7"), Log: log.logger()})
		for range 5 {
			d.receive(t.Context(), caller{remote: "192.0.2.9:4711"}, nil)
		}
		lines := log.lines("level=WARN")
		if len(lines) != 1 || !strings.Contains(lines[0], "remote=192.0.2.9:4711") || !strings.Contains(lines[0], "expected=10.0.0.7") {
			t.Fatalf("%q", lines)
		}
		<-time.After(complaintEvery)
		d.receive(t.Context(), caller{remote: "192.0.2.10:4711"}, nil)
		if lines := log.lines("level=WARN"); len(lines) != 2 || !strings.Contains(lines[1], "and_others=4") {
			t.Errorf("%q", lines)
		}
		if s := d.Stats(); s.Foreign != 6 {
			t.Errorf("%+v", s)
		}
	})
}

func TestACallerThatFindsNoPlaceIsLogged(t *testing.T) {
	var log journal
	d := New(Config{Endpoint: "tcp :5502", Log: log.logger()})
	for range maxHandshakes {
		d.handshakes <- struct{}{}
	}
	d.receive(t.Context(), caller{remote: "192.0.2.9:4711"}, nil)
	if lines := log.lines("too many"); len(lines) != 1 || !strings.Contains(lines[0], "remote=192.0.2.9:4711") {
		t.Errorf("%q", lines)
	}
}

func TestTheDevicesCallIsLoggedWithItsAddress(t *testing.T) {
	var log journal
	listening := make(chan *transporttest.Exchange, 1)
	d := New(Config{
		Endpoint: "memory", Log: log.logger(),
		Listen: func(_ context.Context, framers func() transport.Framer) (transport.Listener, error) {
			x := transporttest.NewExchange("line", framers)
			listening <- x
			return x, nil
		},
	})
	defer d.Close()
	waiting := dial(t, d)
	device, err := (<-listening).Dial(t.Context(), framing())
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	conn := (<-waiting).must(t)
	eventually(t, "the call in the log", func() bool {
		lines := log.lines("the device has called")
		return len(lines) == 1 && strings.Contains(lines[0], "remote="+conn.Info().Remote)
	})
}
