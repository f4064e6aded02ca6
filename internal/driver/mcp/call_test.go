package mcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// memoryLink is an open link to a device in memory that publishes nothing.
func memoryLink(t *testing.T, d transport.Dialer, sink driver.Sink) *driver.Link {
	t.Helper()
	l, err := driver.NewLink(d, driver.LinkConfig{Agent: "gw-01", Epoch: 9}, nil, sink, now, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// round brings a task to its end as a lane does, but for repeating it, and says
// how many steps were on the line.
func round(t *testing.T, task scheduler.Task) (steps int, last scheduler.Turn, err error) {
	t.Helper()
	task.Begin(time.Now())
	for more := true; more; {
		steps++
		last = scheduler.Turn{Timeout: 5 * time.Second}
		more, err = task.Step(t.Context(), &last)
		var notYet *scheduler.NotYet
		if errors.As(err, &notYet) {
			<-time.After(time.Until(notYet.Until))
			more = true
		}
	}
	end(t, task, err)
	return steps, last, err
}

func call(t *testing.T, l *driver.Link, method string) *driver.Call {
	t.Helper()
	c, err := l.Call("press-7", method, []byte("full speed"), "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACallBringsWhatTheDeviceAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := memoryDevice(t, func(_ context.Context, q mcp.Request) mcp.Response {
			<-time.After(30 * time.Millisecond)
			if q.Method == "measure" {
				r := record.Record{Points: []record.Point{{Name: "level", Value: record.Float64(2.5)}}}
				return mcp.Response{Payload: r.Append(nil), ContentType: mcp.ContentTypeRecord}
			}
			return mcp.Response{Payload: append([]byte(q.Device+": "), q.Payload...), ContentType: q.ContentType}
		})
		l := memoryLink(t, x, nil)
		c := call(t, l, "run")
		if _, turn, err := round(t, c); err != nil || !turn.Sent || turn.Took != 30*time.Millisecond {
			t.Errorf("%v, %+v", err, turn)
		}
		if a := c.Answer(); string(a.Payload) != "press-7: full speed" || a.ContentType != "text/plain" || a.Device != "press-7" || a.Stream != "run" {
			t.Errorf("%+v", a)
		}
		c = call(t, l, "measure")
		if a := c.Answer(); a.Payload != nil || a.ContentType != "" {
			t.Errorf("an answer before it was asked for: %+v", a)
		}
		if _, _, err := round(t, c); err != nil {
			t.Error(err)
		}
		if a := c.Answer(); len(a.Points) != 1 || a.Points[0].Value != record.Float64(2.5) || a.Payload != nil {
			t.Errorf("%+v", a)
		}
	})
}

func TestADevicesNoIsSaidInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := memoryDevice(t, func(context.Context, mcp.Request) mcp.Response {
			return mcp.Response{Code: mcp.CodeNotAllowed, Reason: "the guard is open"}
		})
		c := call(t, memoryLink(t, x, nil), "run")
		_, turn, err := round(t, c)
		if err == nil || err.Error() != "device press-7 refuses run: not allowed: the guard is open" || turn.Took == 0 {
			t.Errorf("%v, %+v", err, turn)
		}
		if a := c.Answer(); a.Device != "" {
			t.Errorf("%+v", a)
		}
	})
}

func TestEachTryOfACallSaysHowMuchTimeIsLeftAndNoneComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left []time.Duration
		x := memoryDevice(t, func(ctx context.Context, q mcp.Request) mcp.Response {
			by, limited := ctx.Deadline()
			if limited != (q.TimeLeft > 0) || limited && time.Until(by) != q.TimeLeft {
				t.Errorf("%s left, and the context ends in %s", q.TimeLeft, time.Until(by))
			}
			left = append(left, q.TimeLeft)
			return mcp.Response{Code: mcp.CodeBusy}
		})
		c := call(t, memoryLink(t, x, nil), "run")
		deadline := time.Now().Add(2 * time.Second)
		step := func(deadline time.Time) (scheduler.Turn, error) {
			turn := scheduler.Turn{Timeout: 5 * time.Second, Deadline: deadline}
			_, err := c.Step(t.Context(), &turn)
			return turn, err
		}
		c.Begin(time.Now())
		for _, pause := range []time.Duration{1500, 499, 1} {
			if turn, err := step(deadline); turn.Sent || err == nil {
				t.Errorf("%+v, %v", turn, err)
			}
			<-time.After(pause * time.Millisecond)
		}
		if turn, err := step(deadline); turn.Sent || !errors.Is(err, scheduler.ErrExpired) {
			t.Errorf("at the deadline: %+v, %v", turn, err)
		}
		_, _ = step(time.Time{})
		if want := []time.Duration{2 * time.Second, 500 * time.Millisecond, time.Millisecond, 0}; !slices.Equal(left, want) {
			t.Errorf("%v were left", left)
		}
	})
}

func TestACallThatCannotBeIsRefusedInWords(t *testing.T) {
	l, err := driver.NewLink(nil, driver.LinkConfig{Agent: "gw-01", Epoch: 9, DialConfig: driver.DialConfig{MaxPayload: 4096}}, nil, nil, now, discard())
	if err != nil {
		t.Fatal(err)
	}
	l.Poll("press-7", "temp", driver.PollConfig{})
	l.Poll("press-7", "level", driver.PollConfig{})
	call := func(method string, payload []byte, contentType string) error {
		_, err := l.Call("press-7", method, payload, contentType)
		return err
	}
	read := func(device, name string) error {
		_, err := l.Read(device, name)
		return err
	}
	for want, err := range map[string]error{
		"the method's name":            call("", nil, ""),
		"contains '/'":                 call("a/b", nil, ""),
		"a frame to this device":       call("run", make([]byte, 4096), ""),
		"must be UTF-8":                call("run", nil, "\xFF"),
		"at most 1024 bytes":           call("run", nil, strings.Repeat("x", 1025)),
		"has several polls":            read("press-7", ""),
		"there are temp, level":        read("press-7", "speed"),
		"press-8 has no poll that cou": read("press-8", ""),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestReadNowAsksWhatThePollAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := memoryDevice(t, func(_ context.Context, q mcp.Request) mcp.Response {
			return mcp.Response{Payload: []byte(q.Method), ContentType: "text/plain"}
		})
		l := memoryLink(t, x, nil)
		l.Poll("press-7", "temp", driver.PollConfig{Method: "get-temp"})
		for _, name := range []string{"temp", ""} {
			c, err := l.Read("press-7", name)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := round(t, c); err != nil {
				t.Error(err)
			}
			if a := c.Answer(); string(a.Payload) != "get-temp" || a.Stream != "temp" {
				t.Errorf("%+v", a)
			}
		}
	})
}

func TestASilentDeviceIsAskedAgainOnlyWhereThatIsSafe(t *testing.T) {
	for _, c := range []struct {
		answers *mcp.Answers
		after   time.Duration // the device answers
		steps   int
		done    bool
	}{
		{mcp.NewAnswers(), 12 * time.Second, 3, true},
		{mcp.NewAnswers(), time.Hour, 1 + mcp.RequestRetries, false},
		{nil, 12 * time.Second, 1, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var done atomic.Int32
			x := memoryDeviceOf(t, mcp.Config{Answers: c.answers}, func(ctx context.Context, _ mcp.Request) mcp.Response {
				done.Add(1)
				select {
				case <-time.After(c.after):
				case <-ctx.Done():
				}
				return mcp.Response{}
			})
			steps, turn, err := round(t, call(t, memoryLink(t, x, nil), "run"))
			if steps != c.steps || !turn.Sent || done.Load() != 1 {
				t.Errorf("%d steps, %+v; the device has done it %d times", steps, turn, done.Load())
			}
			if c.done && err != nil || !c.done && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
}

func TestABusyDeviceIsAskedALittleLaterAndNotForEver(t *testing.T) {
	for times, want := range map[int]error{3: nil, 1000: &mcp.Error{}} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int32
			x := memoryDeviceOf(t, mcp.Config{Answers: mcp.NewAnswers()}, func(context.Context, mcp.Request) mcp.Response {
				if asked.Add(1) <= int32(times) {
					return mcp.Response{Code: mcp.CodeBusy}
				}
				return mcp.Response{Payload: []byte("done")}
			})
			sink := polled{make(chan record.Record, 1)}
			l := memoryLink(t, x, sink)
			for name, task := range map[string]scheduler.Task{"call": call(t, l, "run"), "poll": l.Poll("press-7", "temp", driver.PollConfig{})} {
				asked.Store(0)
				start := time.Now()
				steps, turn, err := round(t, task)
				if steps != min(times, 5)+1 || time.Since(start) > 3200*time.Millisecond || time.Since(start) < time.Duration(steps-1)*50*time.Millisecond {
					t.Errorf("%s: %d steps in %s", name, steps, time.Since(start))
				}
				if (err == nil) != (want == nil) || name == "call" && turn.Sent != (err == nil) {
					t.Errorf("%s: %v, %+v", name, err, turn)
				}
			}
			if r := <-sink.records; want != nil && r.Points[0].Bad != "mcp-7" || want == nil && string(r.Payload) != "done" {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestADeviceThatIsBusyWithAnUnseenTryHasNotRefusedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first, others atomic.Uint64
		x := memoryDevice(t, func(ctx context.Context, q mcp.Request) mcp.Response {
			switch {
			case first.CompareAndSwap(0, q.ID):
				<-ctx.Done()
			case first.Load() != q.ID:
				others.Add(1)
			}
			return mcp.Response{Code: mcp.CodeBusy}
		})
		// It promises to remember, and only says that it is busy.
		c := call(t, memoryLink(t, promising{x}, nil), "run")
		_, _, err := round(t, c)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "busy") {
			t.Error(err)
		}
		if n := others.Load(); n > 0 {
			t.Errorf("it was asked %d times with another id", n)
		}
	})
}

// promising makes the device say in WELCOME that it deduplicates.
type promising struct{ transport.Dialer }

type promisingConn struct{ transport.Conn }

func (p promising) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	c, err := p.Dialer.Dial(ctx, f)
	return promisingConn{c}, err
}

func (p promisingConn) Read() ([]byte, error) {
	msg, err := p.Conn.Read()
	f, bad := mcp.ParseFrame(msg)
	if err != nil || bad != nil || f.Command != mcp.CommandWelcome {
		return msg, err
	}
	payload := append(bytes.Clone(f.Payload), 8<<3, 1) // field 8, deduplicates, see docs/protocol.md
	return mcp.AppendFrame(nil, f.Version, f.Command, payload)
}

func TestALineThatIsLostWhileTheDeviceWorksLeavesItOpenWhatItDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := memoryDeviceOf(t, mcp.Config{Answers: mcp.NewAnswers()}, mute)
		l := memoryLink(t, x, nil)
		var closing sync.WaitGroup
		closing.Go(func() {
			<-time.After(time.Second)
			l.Close()
		})
		if _, turn, err := round(t, call(t, l, "run")); !errors.Is(err, transport.ErrLost) || !turn.Sent {
			t.Errorf("%v, %+v", err, turn)
		}
		closing.Wait()
	})
}

func TestNothingIsSentOnALineThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		l, err := driver.NewLink(p.exchange, driver.LinkConfig{Agent: "gw-02", Epoch: 9}, nil, nil, now, discard())
		if err != nil {
			t.Fatal(err)
		}
		c := call(t, l, "run")
		step := func(ctx context.Context, want error) {
			t.Helper()
			turn := scheduler.Turn{Timeout: time.Second}
			c.Begin(time.Now())
			if _, err := c.Step(ctx, &turn); !errors.Is(err, want) || turn.Sent {
				t.Errorf("%v, %+v", err, turn)
			}
		}
		step(t.Context(), transport.ErrLost) // never opened
		p.run(t)
		if err := l.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		stopped, stop := context.WithCancel(t.Context())
		stop()
		step(stopped, context.Canceled)
		p.stop()
		<-l.Lost()
		step(t.Context(), transport.ErrLost)
	})
}

func TestTasksMayStepAtTheSameTime(t *testing.T) {
	x := memoryDeviceOf(t, mcp.Config{Answers: mcp.NewAnswers()}, func(_ context.Context, q mcp.Request) mcp.Response {
		return mcp.Response{Payload: []byte(q.Method)}
	})
	sink := polled{make(chan record.Record, 100)}
	l := memoryLink(t, x, sink)
	var running sync.WaitGroup
	for i := range 8 { // as many as a link carries, unless configured otherwise
		name := fmt.Sprint("m", i)
		p, c := l.Poll("press-7", name, driver.PollConfig{}), call(t, l, name)
		running.Go(func() {
			for range 10 {
				if _, _, err := round(t, p); err != nil {
					t.Error(err)
				}
			}
			if _, _, err := round(t, c); err != nil || string(c.Answer().Payload) != name {
				t.Errorf("%s: %v, %q", name, err, c.Answer().Payload)
			}
		})
	}
	running.Wait()
	for range 80 {
		if r := <-sink.records; string(r.Payload) != r.Stream {
			t.Errorf("%+v", r)
		}
	}
}

// crowded is a sink that takes nothing at once.
type crowded struct{ polled }

func (crowded) Offer(record.Record) bool { return false }

func TestWhatWouldWaitOrIsLargeIsLeftToAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := polled{make(chan record.Record, 1)}
		for _, c := range []struct {
			sink driver.Sink
			size int
			work bool
		}{{took, 100, false}, {took, 17 << 10, true}, {crowded{took}, 100, true}} {
			x := memoryDevice(t, func(context.Context, mcp.Request) mcp.Response {
				return mcp.Response{Payload: make([]byte, c.size)}
			})
			p := memoryLink(t, x, c.sink).Poll("press-7", "temp", driver.PollConfig{})
			p.Begin(time.Now())
			if _, err := p.Step(t.Context(), &scheduler.Turn{Timeout: time.Second}); err != nil {
				t.Fatal(err)
			}
			work := p.End(nil)
			p.Begin(time.Now()) // the next round does not disturb it
			if (work != nil) != c.work {
				t.Errorf("%d bytes: work is left: %v", c.size, work != nil)
			}
			if work != nil {
				work(t.Context())
			}
			if r := <-took.records; len(r.Payload) != c.size {
				t.Errorf("%d bytes came of %d", len(r.Payload), c.size)
			}
		}
	})
}

// slow is a dialer of connections that say how long a byte takes.
type slow struct{ transport.Dialer }

type slowConn struct{ transport.Conn }

func (s slow) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	c, err := s.Dialer.Dial(ctx, f)
	return slowConn{c}, err
}

func (s slowConn) Info() transport.Info {
	info := s.Conn.Info()
	info.CharTime = time.Millisecond
	return info
}

func TestOnASlowLineTheBytesHaveTheirOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := memoryDevice(t, func(context.Context, mcp.Request) mcp.Response {
			<-time.After(1500 * time.Millisecond)
			return mcp.Response{Payload: make([]byte, 1000)}
		})
		c := call(t, memoryLink(t, slow{x}, nil), "run")
		c.Begin(time.Now())
		turn := scheduler.Turn{Timeout: time.Second}
		if _, err := c.Step(t.Context(), &turn); err != nil {
			t.Error(err)
		}
		if turn.Took < 300*time.Millisecond || turn.Took > 500*time.Millisecond {
			t.Errorf("of 1.5 s, 1,100 bytes of 1 ms each, the device took %s", turn.Took)
		}
	})
}

func TestACommandOnALaneIsAskedAgainAndNotAfterItsDeadline(t *testing.T) {
	for within, want := range map[time.Duration]error{time.Minute: nil, 8 * time.Second: scheduler.ErrUnknown} {
		synctest.Test(t, func(t *testing.T) {
			var asked, done atomic.Int32
			x := memoryDeviceOf(t, mcp.Config{Answers: mcp.NewAnswers()}, func(_ context.Context, q mcp.Request) mcp.Response {
				if q.Method == "run" {
					done.Add(1)
					<-time.After(12 * time.Second)
				}
				return mcp.Response{Payload: []byte(q.Method)}
			})
			sink := polled{make(chan record.Record, 1000)}
			l, err := driver.NewLink(counting{x, &asked}, driver.LinkConfig{Agent: "gw-01", Epoch: 9}, nil, sink, now, discard())
			if err != nil {
				t.Fatal(err)
			}
			polls := []scheduler.Poll{{Device: "press-7", Name: "temp", Every: time.Second, Task: l.Poll("press-7", "temp", driver.PollConfig{})}}
			lane, err := scheduler.NewLane("plant", l, polls, scheduler.Config{Timeout: 5 * time.Second, Transactions: 8}, scheduler.NewShared(scheduler.SharedConfig{}), discard())
			if err != nil {
				t.Fatal(err)
			}
			background(t, lane.Run)
			o := order{call(t, l, "run"), make(chan error, 2)}
			if err := lane.Submit(scheduler.Job{Device: "press-7", Task: o, Deadline: time.Now().Add(within)}); err != nil {
				t.Fatal(err)
			}
			if err := <-o.ended; want == nil && err != nil || !errors.Is(err, want) || done.Load() != 1 {
				t.Errorf("%v; done %d times", err, done.Load())
			}
			if n := asked.Load(); want == nil && n != 3 || want != nil && n != 2 {
				t.Errorf("asked %d times", n)
			}
			if n := len(sink.records); n < 7 {
				t.Errorf("only %d polls went on meanwhile", n)
			}
		})
	}
}

// counting counts the requests for "run" that leave.
type counting struct {
	transport.Dialer
	asked *atomic.Int32
}

type countingConn struct {
	transport.Conn
	asked *atomic.Int32
}

func (c counting) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	conn, err := c.Dialer.Dial(ctx, f)
	return countingConn{conn, c.asked}, err
}

func (c countingConn) Write(b []byte) error {
	c.asked.Add(int32(bytes.Count(b, []byte("\x03run"))))
	return c.Conn.Write(b)
}
