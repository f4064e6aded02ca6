package wire_test

import (
	"bytes"
	"context"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/internal/sim/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listener notes what it hears, and when.
type listener struct {
	heard []byte
	at    []time.Duration // of each byte
	quiet []time.Duration
	start time.Time
}

var _ wire.Station = (*listener)(nil)

func (s *listener) Hear(b []byte) {
	for range b {
		s.at = append(s.at, time.Since(s.start))
	}
	s.heard = append(s.heard, b...)
}

func (s *listener) Quiet(at time.Time) { s.quiet = append(s.quiet, at.Sub(s.start)) }

// bubble runs a line in simulated time: play acts on it, and when it returns
// the line goes on for a second.
func bubble(t *testing.T, cfg wire.Config, play func(l *wire.Line)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := wire.New(cfg)
		var running sync.WaitGroup
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		play(l)
		<-time.After(time.Second)
		cancel()
		running.Wait()
	})
}

func TestEachCharacterTakesItsTime(t *testing.T) {
	a, b := &listener{}, &listener{}
	bubble(t, wire.Config{Baud: 1200, CharBits: 12}, func(l *wire.Line) {
		a.start, b.start = time.Now(), time.Now()
		tap := l.Attach("a", a)
		l.Attach("b", b)
		tap.Say([]byte("12345"))
	})
	if string(b.heard) != "12345" || len(a.heard) != 0 {
		t.Fatalf("b heard %q, a heard itself: %q", b.heard, a.heard)
	}
	for i, at := range b.at {
		if want := time.Duration(i+1) * 10 * time.Millisecond; at != want {
			t.Errorf("byte %d at %v, want %v", i, at, want)
		}
	}
	if want := 85 * time.Millisecond; len(b.quiet) != 1 || b.quiet[0] != want {
		t.Errorf("quiet at %v, want %v", b.quiet, want)
	}
}

func TestOneStationSaysOneThingAfterTheOther(t *testing.T) {
	b := &listener{}
	var talks []wire.Talk
	cfg := wire.Config{Baud: 9600, OnTalk: func(talk wire.Talk) { talks = append(talks, talk) }}
	bubble(t, cfg, func(l *wire.Line) {
		tap := l.Attach("a", &listener{})
		l.Attach("b", b)
		tap.Say([]byte("one "))
		tap.Say([]byte("two"))
		if l.Collisions() != 0 {
			t.Error("a station collided with itself")
		}
	})
	if string(b.heard) != "one two" {
		t.Errorf("heard %q", b.heard)
	}
	if len(talks) != 1 || talks[0].Who != "a" || talks[0].Garbled || talks[0].Ended.Sub(talks[0].Began).Round(time.Microsecond) != 8021*time.Microsecond {
		t.Errorf("talks %+v", talks)
	}
}

func TestWhenTwoSpeakAtOnceNobodyUnderstandsEither(t *testing.T) {
	c := &listener{}
	var garbled []bool
	var line *wire.Line
	bubble(t, wire.Config{}, func(l *wire.Line) {
		line = l
		a, b := l.Attach("a", &listener{}), l.Attach("b", &listener{})
		l.Attach("c", c)
		note := func(talk wire.Talk) { garbled = append(garbled, talk.Garbled) }
		now := time.Now()
		a.SayAt(now, []byte("aaaaaaaa"), note)
		b.SayAt(now.Add(4*l.CharTime()), []byte("bbbbbbbb"), note)
		a.SayAt(now.Add(500*time.Millisecond), []byte("again"), note)
	})
	if line.Collisions() != 1 || len(garbled) != 3 || !garbled[0] || !garbled[1] || garbled[2] {
		t.Errorf("%d collisions, garbled %v", line.Collisions(), garbled)
	}
	if !bytes.HasPrefix(c.heard, []byte("aaaa")) || bytes.Contains(c.heard, []byte("b")) || !bytes.HasSuffix(c.heard, []byte("again")) {
		t.Errorf("heard %q", c.heard)
	}
}

func TestAProgramOpensThePortAndIsOnTheLine(t *testing.T) {
	l := wire.New(wire.Config{Baud: 115200})
	echo := &echo{}
	echo.tap = l.Attach("echo", echo)
	port, err := l.OpenPort("program")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })

	for range 2 { // it may come and go
		f, err := os.OpenFile(port.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		said := []byte("\x00\r\n\x03\x11\xff: any byte")
		if _, err := f.Write(said); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, len(said))
		for n := 0; n < len(heard); {
			more, err := f.Read(heard[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += more
		}
		if !bytes.Equal(heard, said) {
			t.Errorf("heard %q", heard)
		}
		f.Close()
	}
	cancel()
	running.Wait()
}

// echo says again what it heard.
type echo struct {
	tap   *wire.Tap
	heard []byte
}

func (e *echo) Hear(b []byte) { e.heard = append(e.heard, b...) }

func (e *echo) Quiet(at time.Time) {
	e.tap.SayAt(at, e.heard, nil)
	e.heard = nil
}
