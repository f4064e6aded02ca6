package mcp_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/sim/mcpdevice"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func now() record.Stamp { return record.Stamp{Time: time.Now(), Clock: record.ClockSynced} }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// bench is a running store with one cursor that takes everything.
type bench struct {
	store  *store.Store
	cursor *store.Cursor
}

func openStore(t testing.TB, dir string, cfg store.Config) *bench {
	t.Helper()
	if cfg.MaxSize == 0 {
		cfg.MaxSize = 64 << 20
	}
	if cfg.WhenFull == "" {
		cfg.WhenFull = store.Block
	}
	s, err := store.Open(dir, cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Cursor(store.CursorConfig{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	background(t, s.Run)
	return &bench{store: s, cursor: c}
}

// background runs something until the test ends.
func background(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// item is a stored record.
type item struct {
	key store.SourceKey
	seq uint64
	record.Record
}

// read takes n records out of the queue.
func (b *bench) read(t testing.TB, n int) (items []item) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(items) < n {
		got, err := b.cursor.Read(ctx, nil, n-len(items), 1<<20)
		if err != nil {
			t.Fatalf("%d of %d records: %v", len(items), n, err)
		}
		for _, i := range got {
			x := item{key: i.Source.Key(), seq: i.Seq}
			if i.Gap != nil {
				x.Gap = i.Gap
			} else {
				_ = x.Unmarshal(append([]byte(nil), i.Body...)) // a record may leave its names out
			}
			items = append(items, x)
		}
		b.cursor.Ack(got[len(got)-1].Position)
	}
	return items
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for giveUp := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-giveUp:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

type server struct {
	*driver.Server
	address string
	stop    func()
}

// limits are those of the configuration, but for the number of connections.
func limits() driver.ListenConfig {
	return driver.ListenConfig{
		HeartbeatInterval: 30 * time.Second, HelloTimeout: 10 * time.Second, FrameTimeout: 10 * time.Second,
		MaxConnections: 100, MaxConnectionsPerAddress: 100, MaxHandshakes: 100,
		MaxPayload: 1 << 20, Window: 1024, WindowBytes: 4 << 20, MaxBuffered: 4 << 20, MaxRequests: 8,
	}
}

func startServer(t testing.TB, q driver.Queue, cfg driver.ServerConfig) *server {
	t.Helper()
	return startServerOn(t, q, cfg, func(s *driver.Server) (transport.Listener, error) {
		return tcp.Listen(t.Context(), "127.0.0.1:0", s.Framer, nil)
	})
}

func startServerOn(t testing.TB, q driver.Queue, cfg driver.ServerConfig, listen func(*driver.Server) (transport.Listener, error)) *server {
	t.Helper()
	return startServerLogging(t, q, cfg, discard(), listen)
}

func startServerLogging(
	t testing.TB, q driver.Queue, cfg driver.ServerConfig, log *slog.Logger, listen func(*driver.Server) (transport.Listener, error),
) *server {
	t.Helper()
	return startServerAt(t, q, cfg, now, log, listen)
}

func startServerAt(
	t testing.TB, q driver.Queue, cfg driver.ServerConfig, now driver.Now, log *slog.Logger, listen func(*driver.Server) (transport.Listener, error),
) *server {
	t.Helper()
	cfg.Agent, cfg.Epoch = "gw-01", 9
	if cfg.ListenConfig == (driver.ListenConfig{}) {
		cfg.ListenConfig = limits()
	}
	s, err := driver.NewServer(cfg, q, now, log)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	stop := background(t, func(ctx context.Context) error { return s.Run(ctx, l) })
	_, address, _ := strings.Cut(l.Endpoint(), " ")
	return &server{Server: s, address: address, stop: stop}
}

func newDevice(t testing.TB, name string, d transport.Dialer, count uint64) *mcpdevice.Device {
	t.Helper()
	device, err := mcpdevice.New(mcpdevice.Config{
		Publisher: mcp.PublisherConfig{
			Session: mcp.Config{Name: name}, Dialer: d, RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond,
		},
		Count: count,
	})
	if err != nil {
		t.Fatal(err)
	}
	return device
}

func mustRun(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := run(ctx); err != nil || ctx.Err() != nil {
		t.Fatalf("Run: %v, %v", err, ctx.Err())
	}
}

// expectNumbered wants the device's records in order, none missing or twice.
func expectNumbered(t testing.TB, items []item) {
	t.Helper()
	last := make(map[string]uint64)
	for _, i := range items {
		last[i.Device]++
		var n uint64
		if len(i.Points) == 1 {
			n, _ = i.Points[0].Value.Uint()
		}
		if n != last[i.Device] || i.seq != n {
			t.Fatalf("record %d of %s has the number %d and seq %d", last[i.Device], i.Device, n, i.seq)
		}
	}
}
