package wire_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// dialed plays in a bubble with a Conn on a line at 9600 baud and an echo, which
// answers as soon as the line has been quiet.
func dialed(t *testing.T, f transport.Framer, play func(t *testing.T, d *wire.Dialer, c transport.Conn, log *wire.Log)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var log wire.Log
		l := wire.New(wire.Config{Baud: 9600, OnTalk: log.Note})
		echo := &echo{}
		echo.tap = l.Attach("echo", echo)
		d := l.Dialer("master")
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		c, err := d.Dial(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		play(t, d, c, &log)
		cancel()
		running.Wait()
		if _, err := c.Read(); !errors.Is(err, transport.ErrLost) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("when the line has ended: %v", err)
		}
		c.Close()
	})
}

const char = 11 * time.Second / 9600

func TestWriteReturnsWhenTheLastCharacterHasLeft(t *testing.T) {
	dialed(t, &transporttest.LengthFramer{}, func(t *testing.T, _ *wire.Dialer, c transport.Conn, _ *wire.Log) {
		start := time.Now()
		if err := c.Write(transporttest.Frame([]byte("four"))); err != nil {
			t.Fatal(err)
		}
		if took, want := time.Since(start), 10*char; took != want {
			t.Errorf("Write took %v, want %v", took, want)
		}
		msg, err := c.Read()
		if string(msg) != string(transporttest.Frame([]byte("four"))) || err != nil {
			t.Errorf("Read %q, %v", msg, err)
		}
		if took, want := time.Since(start), 20*char+char*7/2; took != want {
			t.Errorf("the answer took %v, want %v", took, want)
		}
	})
}

func TestASilenceEndsAMessageAtItsTime(t *testing.T) {
	f := &transporttest.SilenceFramer{Silence: 5 * char}
	dialed(t, f, func(t *testing.T, _ *wire.Dialer, c transport.Conn, _ *wire.Log) {
		start := time.Now()
		if err := c.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		if msg, err := c.Read(); string(msg) != "abc" || err != nil {
			t.Errorf("Read %q, %v", msg, err)
		}
		if took, want := time.Since(start), 3*char+char*7/2+3*char+5*char; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
	})
}

func TestDeadlinesEndReadAndWriteAtTheirTime(t *testing.T) {
	dialed(t, &transporttest.LengthFramer{}, func(t *testing.T, _ *wire.Dialer, c transport.Conn, _ *wire.Log) {
		start := time.Now()
		_ = c.SetReadDeadline(start.Add(30 * time.Millisecond))
		if _, err := c.Read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 30*time.Millisecond {
			t.Errorf("Read failed after %v: %v", time.Since(start), err)
		}
		_ = c.SetWriteDeadline(start.Add(50 * time.Millisecond))
		err := c.Write(make([]byte, 100))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 50*time.Millisecond {
			t.Errorf("Write failed after %v: %v", time.Since(start), err)
		}
		_ = c.SetWriteDeadline(time.Time{})
		if err := c.Write([]byte("more")); err == nil {
			t.Error("after half a message the next one was sent")
		}
	})
}

func TestAPortIsOpenOnceAtATimeAndLostWhenItIsUnplugged(t *testing.T) {
	dialed(t, &transporttest.LengthFramer{}, func(t *testing.T, d *wire.Dialer, c transport.Conn, _ *wire.Log) {
		dial := func() (transport.Conn, error) { return d.Dial(t.Context(), &transporttest.LengthFramer{}) }
		if _, err := dial(); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("the second Dial: %v", err)
		}
		time.AfterFunc(time.Second, d.Unplug)
		if _, err := c.Read(); !errors.Is(err, transport.ErrLost) {
			t.Errorf("Read: %v", err)
		}
		<-c.Info().Lost
		if err := c.Write([]byte("x")); !errors.Is(err, transport.ErrLost) {
			t.Errorf("Write: %v", err)
		}
		if _, err := dial(); !errors.Is(err, transport.ErrLost) {
			t.Errorf("Dial while it is unplugged: %v", err)
		}
		d.Plug()
		again, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		c.Close() // the old one's end does not touch the new one
		if err := again.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		again.Close()
		if err := again.Write(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
	})
}

func TestTheLogMeasuresWhatWasSaid(t *testing.T) {
	dialed(t, &transporttest.LengthFramer{}, func(t *testing.T, _ *wire.Dialer, c transport.Conn, log *wire.Log) {
		start := time.Now()
		for range 3 {
			if err := c.Write(transporttest.Frame([]byte("four"))); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(); err != nil {
				t.Fatal(err)
			}
			<-time.After(5 * char)
		}
		talks := log.Talks()
		if gap, ok := talks.ShortestGap(); gap != char*7/2 || !ok {
			t.Errorf("shortest gap %v, want %v", gap, char*7/2)
		}
		period := 20*char + char*7/2 + 5*char
		for _, p := range talks.By("master").Periods() {
			if p != period {
				t.Errorf("a period of %v, want %v", p, period)
			}
		}
		if got := len(talks.Within(start.Add(period), start.Add(2*period))); got != 2 || len(talks) != 6 {
			t.Errorf("%d talks in the second round, %d in all", got, len(talks))
		}
		if got, want := talks.Utilisation(), float64(60*char)/float64(3*period-5*char); got < want-1e-9 || got > want+1e-9 {
			t.Errorf("utilisation %v, want %v", got, want)
		}
		if len(talks.Requests("master", 0xA5)) != 3 || len(talks.Requests("master", 1)) != 0 || talks.Garbled() != 0 {
			t.Errorf("talks %v", talks)
		}
	})
}
