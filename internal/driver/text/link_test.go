package text

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// raw hands out bytes as they come; the tests write with it.
type raw struct{}

func (raw) Split(buf []byte, _ bool) (int, []byte, error) { return len(buf), buf, nil }
func (raw) Idle() time.Duration                           { return 0 }
func (raw) Max() int                                      { return 1 << 16 }

var _ transport.Framer = raw{}

// sink keeps what it takes, as JSON from the quality on.
type sink struct {
	mu    sync.Mutex
	taken []string
	err   error
}

var _ Sink = (*sink)(nil)

func (s *sink) Deliver(_ context.Context, r record.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, text, _ := strings.Cut(string(r.AppendJSON(nil)), `"quality":`)
	s.taken = append(s.taken, r.Device+" "+r.Stream+" "+r.Time.Format(time.TimeOnly)+" "+text)
	return s.err
}

func (s *sink) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.taken, "\n")
}

// bench is a link under test, open, and the device at the other end.
type bench struct {
	*Link
	sink   *sink
	device transport.Conn
}

// open runs in a bubble, where the clock begins at midnight.
func open(t *testing.T, c Config) *bench {
	t.Helper()
	x := transporttest.NewExchange("scale", func() transport.Framer { return raw{} })
	b := &bench{sink: new(sink)}
	now := func() record.Stamp { return record.Stamp{Time: time.Now(), Clock: record.ClockSynced} }
	var err error
	if b.Link, err = NewLink(x, "scale-1", c, b.sink, now, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		b.device, _ = x.Accept(t.Context())
	}()
	if err := b.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-accepted
	t.Cleanup(func() { _ = b.Close(); _ = b.device.Close() })
	return b
}

func (b *bench) say(t *testing.T, text string) {
	t.Helper()
	if err := b.device.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (b *bench) want(t *testing.T, records ...string) {
	t.Helper()
	if got, want := b.sink.all(), strings.Join(records, "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func weight(c *Config) { c.Rules = []RuleConfig{{Name: "weight", Match: `^W (?P<w>[-\d.]+)$`}} }

func TestEachLineBecomesARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(weight))
		b.say(t, "W 1\r\n\r\nW 2")
		<-time.After(time.Second)
		b.say(t, ".5\nw")
		b.want(t,
			`scale-1 weight 00:00:00 "good","values":{"w":1}}`,
			`scale-1 weight 00:00:01 "good","values":{"w":2.5}}`)
		if got := b.Counters(); got != (Counters{Lines: 2}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestALineThatIsNotUnderstoodIsKeptAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(weight))
		b.say(t, "Hello\nW 1\n")
		b.want(t,
			`scale-1 line 00:00:00 "bad","payload":"SGVsbG8=","content_type":"text/plain"}`,
			`scale-1 weight 00:00:00 "good","values":{"w":1}}`)
		if got := b.Counters(); got != (Counters{Lines: 2, NotUnderstood: 1}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestALineThatIsTooLongIsDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(weight))
		b.say(t, strings.Repeat("x", 5000))
		b.say(t, strings.Repeat("x", 5000)+"\nW 1\n")
		b.want(t, `scale-1 weight 00:00:00 "good","values":{"w":1}}`)
		if got := b.Counters(); got != (Counters{Lines: 1, TooLong: 1}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestASilenceEndsALineWhereThatIsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(func(c *Config) { weight(c); c.Delimiter, c.Idle = "", 50*time.Millisecond }))
		b.say(t, "W 1")
		<-time.After(40 * time.Millisecond)
		b.say(t, "2")
		b.want(t)
		<-time.After(60 * time.Millisecond)
		synctest.Wait()
		b.want(t, `scale-1 weight 00:00:00 "good","values":{"w":12}}`)
	})
}

func TestALineWithoutPointsKeepsItsText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(func(c *Config) { c.Rules = []RuleConfig{{Name: "ready", Match: "^OK$"}} }))
		b.say(t, "OK\n")
		b.want(t, `scale-1 ready 00:00:00 "good","payload":"T0s=","content_type":"text/plain"}`)
	})
}

func TestASinkThatFailsStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(weight))
		b.sink.err = errors.New("full")
		b.say(t, "W 1\nW 2\n")
		if got := b.Counters(); got != (Counters{Lines: 2}) || len(b.sink.taken) != 2 {
			t.Errorf("%+v, %d delivered", got, len(b.sink.taken))
		}
	})
}

func TestADeviceThatSaysNothingForTooLongIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(func(c *Config) { weight(c); c.Silence = time.Minute }))
		expect := func(when string, want bool, wantSince time.Time) {
			t.Helper()
			if since, silent := b.Silent(); silent != want || !since.Equal(wantSince) {
				t.Errorf("%s: silent %v since %v", when, silent, since)
			}
		}
		opened := time.Now()
		<-time.After(time.Minute)
		expect("for a minute", false, time.Time{})
		<-time.After(time.Second)
		expect("for longer", true, opened)
		b.say(t, "what is this\n")
		expect("after a line", false, time.Time{})
		heard := time.Now()
		<-time.After(time.Hour)
		expect("again", true, heard)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		expect("on a closed line", false, time.Time{})
	})
}

func TestADeviceMaySayNothingForEverUnlessConfiguredOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(weight))
		<-time.After(24 * time.Hour)
		if _, silent := b.Silent(); silent {
			t.Error("it counts as silent")
		}
	})
}

func TestALostLineIsToldAndCanBeOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, base(weight))
		lost := b.Lost()
		b.say(t, "W 1\n")
		select {
		case <-lost:
			t.Fatal("lost while the device is there")
		default:
		}
		_ = b.device.Close()
		<-lost
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if b.Lost() != nil {
			t.Error("a closed link still has a line to lose")
		}
		if err := b.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
	})
}

func TestOpenFailsWithTheEndpointAndTheCause(t *testing.T) {
	x := transporttest.NewExchange("scale", nil)
	_ = x.Close()
	l, err := NewLink(x, "scale-1", base(weight), new(sink), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Open(t.Context()); !errors.Is(err, transport.ErrLost) || !strings.HasPrefix(err.Error(), "text: memory scale: ") || strings.Count(err.Error(), "memory scale") != 1 {
		t.Errorf("got %v", err)
	}
}

func TestNewLinkRefusesWhatCannotWork(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"neither delimiter nor idle": func(c *Config) { c.Delimiter = "" },
		"rule a: error parsing":      func(c *Config) { c.Rules = []RuleConfig{{"a", "("}} },
		"separator":                  func(c *Config) { c.Format, c.Separator = FormatCSV, "" },
		`format "xml"`:               func(c *Config) { c.Format = "xml" },
	} {
		if _, err := NewLink(nil, "d", base(change), nil, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// once is a dialer of a Conn that is there already.
type once struct{ transport.Conn }

func (o once) Dial(context.Context, transport.Framer) (transport.Conn, error) { return o.Conn, nil }
func (once) Endpoint() string                                                 { return "udp scale" }

func TestADatagramHoldsLinesAndItsEndEndsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, device := transporttest.Datagrams(transporttest.Weather{MaxMessage: 1200})
		b := &bench{sink: new(sink), device: device}
		now := func() record.Stamp { return record.Stamp{Time: time.Now(), Clock: record.ClockSynced} }
		var err error
		if b.Link, err = NewLink(once{ours}, "scale-1", base(weight), b.sink, now, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if err := b.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer device.Close()
		defer b.Close()
		b.say(t, "W 1\r\nW 2")
		b.say(t, ".5\r\n")
		b.say(t, "W 3")
		b.want(t,
			`scale-1 weight 00:00:00 "good","values":{"w":1}}`,
			`scale-1 weight 00:00:00 "good","values":{"w":2}}`,
			`scale-1 line 00:00:00 "bad","payload":"LjU=","content_type":"text/plain"}`,
			`scale-1 weight 00:00:00 "good","values":{"w":3}}`)
	})
}
