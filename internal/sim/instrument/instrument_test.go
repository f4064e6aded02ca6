package instrument_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/internal/driver/text"
	"github.com/mcp-edge/edge-agent/internal/pty"
	"github.com/mcp-edge/edge-agent/internal/sim/instrument"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAScaleSpeaksAtItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		var line bytes.Buffer
		i := instrument.New(&line, instrument.Config{Says: instrument.Scale, Every: time.Second})
		if err := i.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got, want := line.String(), "W 1 12.1 kg\r\nW 2 12.2 kg\r\nW 3 12.3 kg\r\n"; got != want || i.Sent() != 3 {
			t.Errorf("sent %d: %q", i.Sent(), got)
		}
	})
}

func TestAnInstrumentStopsAtItsCountAndTellsOfEach(t *testing.T) {
	var told []uint64
	i := instrument.New(io.Discard, instrument.Config{Says: instrument.Scale, Count: 3, OnSent: func(n uint64) { told = append(told, n) }})
	if err := i.Run(t.Context()); err != nil || i.Sent() != 3 || len(told) != 3 || told[2] != 3 {
		t.Errorf("%v, sent %d, told %v", err, i.Sent(), told)
	}
}

func TestALineThatFailsEndsTheRun(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	if err := instrument.New(w, instrument.Config{Says: instrument.Scale}).Run(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

func TestALineThatNobodyReadsDoesNotHoldUpTheEnd(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := instrument.New(near, instrument.Config{Says: instrument.Scale}).Run(ctx); err != nil {
		t.Error(err)
	}
}

// collect is a text.Sink that passes on the values of the point n.
type collect struct{ numbers chan int64 }

var _ text.Sink = collect{}

func (c collect) Deliver(ctx context.Context, r record.Record) error {
	if r.Quality != record.Good {
		r.Points = []record.Point{{Name: "n", Value: record.Int(-1)}}
	}
	for _, p := range r.Points {
		if n, ok := p.Value.Int(); ok && p.Name == "n" {
			select {
			case c.numbers <- n:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// wantAll lets the text driver read an instrument on line, dialed by dialer, and
// checks that it hears each number once and in order.
func wantAll(t *testing.T, dialer transport.Dialer, cfg text.Config, line func() io.Writer, says instrument.Speech) {
	t.Helper()
	cfg.Delimiter, cfg.MaxLine, cfg.Stream = "\n", 1024, "line"
	const count = 1000
	sink := collect{numbers: make(chan int64)}
	now := func() record.Stamp { return record.Stamp{Time: time.Now(), Clock: record.ClockSynced} }
	link, err := text.NewLink(dialer, "d", cfg, sink, now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	ended := make(chan error, 1)
	go func() { ended <- instrument.New(line(), instrument.Config{Says: says, Count: count}).Run(t.Context()) }()
	for want := int64(1); want <= count; want++ {
		select {
		case got := <-sink.numbers:
			if got != want {
				t.Fatalf("heard %d, want %d", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("heard nothing after %d; %+v", want-1, link.Counters())
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheTextDriverHearsAScaleOnASerialLine(t *testing.T) {
	master, path, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	cfg := text.Config{Format: text.FormatRules, Rules: []text.RuleConfig{{Name: "weight", Match: `^W (?P<n>\d+) (?P<weight>[-\d.]+) kg$`}}}
	dialer := serial.NewDialer(path, serial.Config{Baud: 115200, DataBits: 8, Parity: "none", StopBits: 1})
	wantAll(t, dialer, cfg, func() io.Writer { return master }, instrument.Scale)
}

func TestTheTextDriverHearsAReceiverOnATCPConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wantAll(t, tcp.NewDialer(l.Addr().String(), nil), text.Config{Format: text.FormatNMEA}, func() io.Writer {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return io.Discard
		}
		t.Cleanup(func() { c.Close() })
		return c
	}, instrument.GPS)
}

func TestAReceiverSpeaksAsTheStandardHasIt(t *testing.T) {
	want := "$GPGGA,000017.00,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*"
	if got := string(instrument.GPS(nil, 17)); !strings.HasPrefix(got, want) || !strings.Contains(got, "\r\n$GPXDR,G,17,,n*") {
		t.Errorf("got %q", got)
	}
}
