package mcp_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/pty"
	"github.com/mcp-edge/edge-agent/internal/sim/mcpdevice"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// line is a serial line: two pseudo-terminals whose masters are joined.
type line struct {
	agent, device *serial.Dialer
	toAgent       *os.File // writing here is noise on the line
}

func newLine(t *testing.T) *line {
	t.Helper()
	a, pathA, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, pathB, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	join := func(to, from *os.File) {
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				_, _ = to.Write(buf[:n])
			}
			switch {
			case errors.Is(err, os.ErrClosed):
				return
			case err != nil: // EIO: nobody has that end open
				<-time.After(time.Millisecond)
			}
		}
	}
	go join(a, b)
	go join(b, a)
	cfg := serial.Config{Baud: 4000000, DataBits: 8, Parity: "none", StopBits: 1}
	return &line{agent: serial.NewDialer(pathA, cfg), device: serial.NewDialer(pathB, cfg), toAgent: a}
}

// polled keeps what polls deliver.
type polled struct{ records chan record.Record }

func (p polled) Offer(r record.Record) bool { return p.Deliver(context.Background(), r) == nil }

func (p polled) Deliver(_ context.Context, r record.Record) error {
	p.records <- r
	return nil
}

func newLink(t *testing.T, d transport.Dialer, cfg driver.LinkConfig) (*driver.Link, *bench, polled) {
	t.Helper()
	b := openStore(t, t.TempDir(), store.Config{})
	sink := polled{make(chan record.Record, 100)}
	cfg.Agent, cfg.Epoch = "gw-01", 9
	l, err := driver.NewLink(d, cfg, b.store, sink, now, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, b, sink
}

// open tries until the device answers, as a lane would.
func open(t *testing.T, l *driver.Link) {
	t.Helper()
	for giveUp := time.Now().Add(patience); ; {
		err := l.Open(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(giveUp) {
			t.Fatal(err)
		}
	}
}

// serialDevice is the far end of a line.
func serialDevice(t *testing.T, l *line, count uint64) *mcpdevice.Device {
	t.Helper()
	d, err := mcpdevice.New(mcpdevice.Config{
		Publisher: mcp.PublisherConfig{
			Session: mcp.Config{Role: mcp.Server, Name: "press-7"}, Dialer: l.device,
			Framer:   func() transport.Framer { return mcp.NewSerialFramer(0, 0) },
			RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond,
		},
		Every: time.Millisecond, Count: count,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// step does one round of a poll.
func step(t *testing.T, l *driver.Link, poll string, cfg driver.PollConfig) {
	t.Helper()
	task := l.Poll("press-7", poll, cfg)
	task.Begin(time.Now())
	_, err := task.Step(t.Context(), &scheduler.Turn{Timeout: patience})
	end(t, task, err)
}

// end ends a round and does the work that is left.
func end(t *testing.T, task scheduler.Task, err error) {
	t.Helper()
	if work := task.End(err); work != nil {
		work(t.Context())
	}
}

func TestADeviceOnASerialLinePublishesAndIsPolled(t *testing.T) {
	wire := newLine(t)
	device := serialDevice(t, wire, 0)
	background(t, device.Run)
	l, b, sink := newLink(t, wire.agent, driver.LinkConfig{Serial: true})
	open(t, l)
	expectNumbered(t, b.read(t, 500))
	for n := uint64(1); n <= 3; n++ {
		step(t, l, "level", driver.PollConfig{Method: mcpdevice.Method})
		r := <-sink.records
		if got, _ := r.Points[0].Value.Uint(); got != n || r.Device != "press-7" || r.Stream != "level" || r.Time.IsZero() {
			t.Errorf("poll %d brought %+v", n, r)
		}
	}
	if s := l.Stats(); s.State != mcp.Open || s.Sender != "press-7" || s.Records < 500 {
		t.Errorf("%+v", s)
	}
}

func TestNoiseOnTheLineIsSkippedAndNothingIsLost(t *testing.T) {
	wire := newLine(t)
	l, b, _ := newLink(t, wire.agent, driver.LinkConfig{Serial: true})
	background(t, serialDevice(t, wire, 0).Run)
	open(t, l)
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails
	if _, err := wire.toAgent.Write(noise); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the noise to pass", func() bool { return l.Stats().Resync.SkippedBytes > 1<<19 })
	before := l.Stats().Records
	expectNumbered(t, b.read(t, int(before)+300))
}

func TestADeviceThatRestartsIsTakenUpAgain(t *testing.T) {
	wire := newLine(t)
	l, b, _ := newLink(t, wire.agent, driver.LinkConfig{Serial: true})
	for range 2 {
		stop := background(t, serialDevice(t, wire, 50).Run)
		open(t, l)
		for i, x := range b.read(t, 50) {
			if n, _ := x.Points[0].Value.Uint(); n != uint64(i+1) {
				t.Fatalf("record %d is number %d", i+1, n)
			}
		}
		stop()
		select {
		case <-l.Lost():
		case <-time.After(patience):
			t.Fatal("the link does not notice")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// answering is a device in memory that answers polls as it is told to.
type answering struct {
	mcp.NoHandler
	answer func(ctx context.Context, q mcp.Request) mcp.Response
}

func (a answering) Request(ctx context.Context, q mcp.Request) mcp.Response { return a.answer(ctx, q) }

func memoryDevice(t *testing.T, answer func(ctx context.Context, q mcp.Request) mcp.Response) *transporttest.Exchange {
	t.Helper()
	return memoryDeviceOf(t, mcp.Config{}, answer)
}

func memoryDeviceOf(t *testing.T, cfg mcp.Config, answer func(ctx context.Context, q mcp.Request) mcp.Response) *transporttest.Exchange {
	t.Helper()
	cfg.Role, cfg.Name, cfg.Epoch = mcp.Server, "press-7", 1
	x := transporttest.NewExchange("device", func() transport.Framer { return mcp.NewStreamFramer(0, 0) })
	t.Cleanup(func() { x.Close() })
	background(t, func(ctx context.Context) error {
		for ctx.Err() == nil {
			conn, err := x.Accept(ctx)
			if err != nil {
				continue
			}
			_ = mcp.NewSession(conn, cfg, answering{answer: answer}).Run(ctx)
		}
		return nil
	})
	return x
}

func TestThePayloadOfAnAnswerBecomesARecord(t *testing.T) {
	x := memoryDevice(t, func(_ context.Context, q mcp.Request) mcp.Response {
		switch q.Method {
		case "good":
			return mcp.Response{Payload: []byte("21.5 for " + q.Device), ContentType: "text/plain"}
		case "broken":
			return mcp.Response{Payload: []byte{0xFF}, ContentType: mcp.ContentTypeRecord}
		}
		return mcp.Response{Code: mcp.CodeUnknownMethod}
	})
	l, _, sink := newLink(t, x, driver.LinkConfig{})
	open(t, l)

	step(t, l, "temp", driver.PollConfig{Method: "good"})
	if r := <-sink.records; string(r.Payload) != "21.5 for press-7" || r.ContentType != "text/plain" || r.Stream != "temp" || r.Quality != record.Good {
		t.Errorf("%+v", r)
	}
	step(t, l, "temp", driver.PollConfig{Method: "broken"})
	if r := <-sink.records; string(r.Payload) != "\xFF" || r.Quality != record.Bad {
		t.Errorf("%+v", r)
	}
	step(t, l, "unknown", driver.PollConfig{})
	if r := <-sink.records; r.Quality != record.Bad || r.Points[0] != (record.Point{Name: "unknown", Bad: "mcp-15"}) {
		t.Errorf("%+v", r)
	}
}

func TestASilentDeviceIsATimeOutAndALostLineIsNot(t *testing.T) {
	x := memoryDevice(t, func(ctx context.Context, _ mcp.Request) mcp.Response {
		<-ctx.Done()
		return mcp.Response{}
	})
	l, _, sink := newLink(t, x, driver.LinkConfig{})
	open(t, l)
	task := l.Poll("press-7", "temp", driver.PollConfig{})
	turn := scheduler.Turn{Timeout: 10 * time.Millisecond}
	task.Begin(time.Now())
	_, err := task.Step(t.Context(), &turn)
	if !errors.Is(err, context.DeadlineExceeded) || !turn.Sent || turn.Took != 0 {
		t.Errorf("a silent device: %v, %+v", err, turn)
	}
	end(t, task, err)
	if r := <-sink.records; r.Points[0].Bad != record.BadTimeout {
		t.Errorf("%+v", r)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	turn = scheduler.Turn{Timeout: patience}
	task.Begin(time.Now())
	if _, err = task.Step(t.Context(), &turn); !errors.Is(err, transport.ErrLost) || turn.Sent {
		t.Errorf("a lost line: %v, %+v", err, turn)
	}
	end(t, task, err)
	if r := <-sink.records; r.Points[0].Bad != record.BadLinkDown {
		t.Errorf("%+v", r)
	}
}

func TestADeviceThatIsNotThereIsAnErrorOfOpen(t *testing.T) {
	l, _, _ := newLink(t, serial.NewDialer("/dev/does-not-exist", serial.Config{Baud: 9600, DataBits: 8, Parity: "none", StopBits: 1}), driver.LinkConfig{Serial: true})
	if err := l.Open(t.Context()); !errors.Is(err, transport.ErrLost) {
		t.Errorf("got %v", err)
	}
	if l.Lost() != nil {
		t.Error("a link that never opened can be lost")
	}
}
