package mcp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/sim/mcpdevice"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// order is a command under way.
type order struct {
	*driver.Call
	ended chan error
}

func (o order) End(err error) func(context.Context) {
	o.ended <- err
	return o.Call.End(err)
}

// submit sends a call of method on its way.
func submit(l *driver.Line, method string, deadline time.Time, repeat bool) (order, error) {
	c, err := l.Call(method, []byte("full speed"), "text/plain")
	o := order{c, make(chan error, 2)}
	if err != nil {
		return o, err
	}
	return o, l.Submit(scheduler.Job{Device: "press-7", Task: o, Deadline: deadline, Repeat: repeat})
}

func mustSubmit(t testing.TB, l *driver.Line, method string, within time.Duration, repeat bool) order {
	t.Helper()
	o, err := submit(l, method, time.Now().Add(within), repeat)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// plant is a Server in memory whose peers publish nothing.
type plant struct {
	*driver.Server
	exchange *transporttest.Exchange
	stop     func()
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	s, err := driver.NewServer(driver.ServerConfig{ListenConfig: limits(), Agent: "gw-01", Epoch: 9}, nil, now, discard())
	if err != nil {
		t.Fatal(err)
	}
	x := transporttest.NewExchange("plant", s.Framer)
	t.Cleanup(func() { x.Close() })
	return &plant{Server: s, exchange: x}
}

func (p *plant) run(t *testing.T) {
	p.stop = background(t, func(ctx context.Context) error { return p.Run(ctx, p.exchange) })
}

// connect brings press-7 in, until leave cuts its line.
func (p *plant) connect(t testing.TB, answers *mcp.Answers, answer func(context.Context, mcp.Request) mcp.Response) (leave func()) {
	t.Helper()
	conn, err := p.exchange.Dial(t.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	s := mcp.NewSession(conn, mcp.Config{Name: "press-7", Epoch: 1, Answers: answers}, answering{answer: answer})
	stop := background(t, func(ctx context.Context) error {
		_ = s.Run(ctx)
		return nil
	})
	<-s.Opened()
	return func() {
		conn.Close()
		stop()
	}
}

func echo(_ context.Context, q mcp.Request) mcp.Response { return mcp.Response{Payload: q.Payload} }

// mute does not answer.
func mute(ctx context.Context, _ mcp.Request) mcp.Response {
	<-ctx.Done()
	return mcp.Response{}
}

func TestACommandReachesADeviceThatIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		p.run(t)
		var asked mcp.Request
		p.connect(t, nil, func(_ context.Context, q mcp.Request) mcp.Response {
			asked = q
			return mcp.Response{Payload: []byte("running")}
		})
		o := mustSubmit(t, p.Line("press-7"), "run", time.Minute, false)
		if err := <-o.ended; err != nil || string(o.Answer().Payload) != "running" {
			t.Errorf("%v, %+v", err, o.Answer())
		}
		if asked.Method != "run" || asked.Device != "" || string(asked.Payload) != "full speed" || asked.ContentType != "text/plain" {
			t.Errorf("%+v", asked)
		}
	})
}

func TestACommandWaitsForItsDeviceUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		l := p.Line("press-7")
		early, late := mustSubmit(t, l, "run", 10*time.Second, true), mustSubmit(t, l, "run", time.Minute, false)
		p.run(t) // a command may be there before
		start := time.Now()
		if err := <-early.ended; !errors.Is(err, scheduler.ErrExpired) || !strings.Contains(err.Error(), "press-7 is not connected") || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		p.connect(t, nil, echo)
		if err := <-late.ended; err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if err := <-mustSubmit(t, l, "run", 0, true).ended; !errors.Is(err, scheduler.ErrExpired) {
			t.Errorf("a command that is late already: %v", err)
		}
	})
}

func TestACommandWhoseOutcomeNobodySawIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		p.run(t)
		l := p.Line("press-7")

		leave := p.connect(t, mcp.NewAnswers(), mute)
		once, again := mustSubmit(t, l, "run", time.Minute, false), mustSubmit(t, l, "run", time.Minute, true)
		<-time.After(time.Second)
		leave()
		if err := <-once.ended; !errors.Is(err, scheduler.ErrUnknown) || !errors.Is(err, transport.ErrLost) {
			t.Errorf("a line lost: %v", err)
		}
		p.connect(t, nil, echo)
		if err := <-again.ended; err != nil {
			t.Errorf("a command that may be repeated: %v", err)
		}

		p.connect(t, nil, mute) // takes the place of the session before
		once, again = mustSubmit(t, l, "run", time.Minute, false), mustSubmit(t, l, "run", time.Minute, true)
		start := time.Now()
		if err := <-once.ended; !errors.Is(err, scheduler.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != mcp.RequestTimeout {
			t.Errorf("no answer: %v after %s", err, time.Since(start))
		}
		if err := <-again.ended; !errors.Is(err, scheduler.ErrUnknown) || time.Since(start) < time.Minute || time.Since(start) > time.Minute+mcp.RequestTimeout {
			t.Errorf("no answer up to the deadline: %v after %s", err, time.Since(start))
		}
	})
}

func TestACommandThatMayRunIsNotAskedOfADeviceThatHasComeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		p.run(t)
		l := p.Line("press-7")
		var done atomic.Int32
		leave := p.connect(t, mcp.NewAnswers(), func(ctx context.Context, q mcp.Request) mcp.Response {
			done.Add(1)
			return mute(ctx, q)
		})
		var orders []order
		for range 8 { // so that the device is busy when it is asked again
			orders = append(orders, mustSubmit(t, l, "run", time.Minute, false))
		}
		<-time.After(mcp.RequestTimeout + 10*time.Millisecond)
		leave()
		p.connect(t, mcp.NewAnswers(), func(ctx context.Context, q mcp.Request) mcp.Response {
			done.Add(1)
			return echo(ctx, q)
		})
		for _, o := range orders {
			if err := <-o.ended; !errors.Is(err, scheduler.ErrUnknown) {
				t.Error(err)
			}
		}
		if n := done.Load(); n != 8 {
			t.Errorf("8 commands were done %d times", n)
		}
	})
}

func TestTheEndOfTheServerEndsItsCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		p.run(t)
		p.connect(t, nil, mute)
		waiting := mustSubmit(t, p.Line("press-8"), "run", time.Hour, false)
		sent, repeatable := mustSubmit(t, p.Line("press-7"), "run", time.Hour, false), mustSubmit(t, p.Line("press-7"), "run", time.Hour, true)
		<-time.After(time.Second)
		p.stop()
		select {
		case err := <-waiting.ended:
			if !errors.Is(err, scheduler.ErrStopped) {
				t.Errorf("not sent: %v", err)
			}
		default:
			t.Error("a command is left behind")
		}
		if err := <-sent.ended; !errors.Is(err, scheduler.ErrUnknown) {
			t.Errorf("sent: %v", err)
		}
		if err := <-repeatable.ended; !errors.Is(err, scheduler.ErrStopped) || errors.Is(err, scheduler.ErrUnknown) {
			t.Errorf("sent, and may be repeated: %v", err)
		}
		if _, err := submit(p.Line("press-7"), "run", time.Now().Add(time.Hour), false); !errors.Is(err, scheduler.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
		p.run(t) // a listener that failed is run again
		p.connect(t, nil, echo)
		if err := <-mustSubmit(t, p.Line("press-7"), "run", time.Minute, false).ended; err != nil {
			t.Error(err)
		}
	})
}

func TestADeviceHasAFewCommandsUnderWayAndOthersTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		p.run(t)
		l := p.Line("press-7")
		var orders []order
		for range 8 {
			orders = append(orders, mustSubmit(t, l, "run", time.Minute, false))
		}
		if _, err := submit(l, "run", time.Now().Add(time.Minute), false); !errors.Is(err, scheduler.ErrBusy) {
			t.Errorf("the ninth: %v", err)
		}
		other := mustSubmit(t, p.Line("press-8"), "run", time.Second, false)
		if err := <-other.ended; !errors.Is(err, scheduler.ErrExpired) {
			t.Error(err)
		}
		p.connect(t, nil, echo)
		for _, o := range orders {
			if err := <-o.ended; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if err := <-mustSubmit(t, l, "run", time.Minute, false).ended; err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestCommandsReachDevicesThatPublishOverTCP(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{})
	var orders []order
	for i := range 8 {
		name := fmt.Sprint("press-", i)
		if i%2 == 0 { // it is called before it comes
			orders = append(orders, mustSubmit(t, s.Line(name), mcpdevice.Echo, patience, false))
		}
		d := newDevice(t, name, tcp.NewDialer(s.address, nil), 0)
		background(t, d.Run)
		orders = append(orders, mustSubmit(t, s.Line(name), mcpdevice.Echo, patience, false))
	}
	for _, o := range orders {
		if err := <-o.ended; err != nil || string(o.Answer().Payload) != "full speed" || o.Answer().ContentType != "text/plain" {
			t.Errorf("%v, %+v", err, o.Answer())
		}
	}
	o := mustSubmit(t, s.Line("press-0"), mcpdevice.Method, patience, true)
	if err := <-o.ended; err != nil || len(o.Answer().Points) != 1 || o.Answer().Points[0].Value != record.Uint(1) {
		t.Errorf("%v, %+v", err, o.Answer())
	}
	o = mustSubmit(t, s.Line("press-0"), "explode", patience, false)
	if err := <-o.ended; err == nil || err.Error() != "device press-0 refuses explode: unknown method: no method explode" {
		t.Error(err)
	}
}
