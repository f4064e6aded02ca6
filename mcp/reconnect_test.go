package mcp_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
)

// attempts is a Dialer that notes when it was asked, and fails.
type attempts struct {
	dialer
	mu    sync.Mutex
	at    []time.Time
	fails bool
}

func (a *attempts) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	a.mu.Lock()
	a.at = append(a.at, time.Now())
	fails := a.fails
	a.mu.Unlock()
	if fails {
		return nil, transport.ErrLost
	}
	return a.dialer.Dial(ctx, f)
}

func (a *attempts) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// reconnecting runs a Publisher whose sessions the agent accepts.
func reconnecting(t *testing.T, a *agent, cfg mcp.PublisherConfig) (*mcp.Publisher, *attempts) {
	t.Helper()
	d := &attempts{dialer: dialer{accept: a.accept}}
	cfg.Session.Name, cfg.Dialer = "press-7", d
	p, err := mcp.NewPublisher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		a.wg.Wait()
	})
	return p, d
}

func TestAReceiverThatAcceptsAndRefusesIsAskedLessAndLessOften(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &agent{handler: newReceiver()}
		a.handler.refuse = &mcp.Error{Code: mcp.CodeUnauthorized, Reason: "no"}
		p, d := reconnecting(t, a, mcp.PublisherConfig{})
		<-time.After(time.Hour)
		if n := d.count(); n < 100 || n > 500 { // a wait of 15 s on average, and 1 s to hang up
			t.Errorf("%d attempts in an hour", n)
		}
		if state, since, reason := p.State(); state != mcp.Connecting || !mcp.IsCode(reason, mcp.CodeUnauthorized) || time.Since(since) < time.Minute {
			t.Errorf("%v, %v, for %v", state, reason, time.Since(since))
		}
	})
}

func TestOnlyAMinuteOfBeingOpenResetsTheWaits(t *testing.T) {
	for open, most := range map[time.Duration]int{time.Second: 600, 2 * time.Minute: 31} {
		bubble(t, func(t *testing.T) {
			a := &agent{handler: newReceiver()}
			_, d := reconnecting(t, a, mcp.PublisherConfig{})
			begun := time.Now()
			for time.Since(begun) < time.Hour {
				<-time.After(open)
				a.cut()
			}
			n := d.count()
			if n > most || open > time.Minute && n < 29 { // then it is back at once
				t.Errorf("open for %v each: %d connections in an hour", open, n)
			}
		})
	}
}

func TestTheTokenIsAskedForAtEachConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &agent{handler: newReceiver()}
		asked := 0
		reconnecting(t, a, mcp.PublisherConfig{Token: func() (string, error) {
			if asked++; asked == 1 {
				return "", errors.New("no such file")
			}
			return fmt.Sprintf("token %d", asked), nil
		}})
		<-time.After(time.Minute)
		a.cut()
		<-time.After(time.Minute)
		a.handler.mu.Lock()
		defer a.handler.mu.Unlock()
		if got := a.handler.opened; len(got) != 2 || got[0].Token != "token 2" || got[1].Token != "token 3" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAfterAWarningAFreshTokenIsUsedAtOnce(t *testing.T) {
	for _, renewed := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			a := &agent{handler: newReceiver()}
			var mu sync.Mutex
			token := "old"
			_, d := reconnecting(t, a, mcp.PublisherConfig{RetryMin: time.Hour, RetryMax: time.Hour, Token: func() (string, error) {
				mu.Lock()
				defer mu.Unlock()
				return token, nil
			}})
			synctest.Wait()
			s := a.session()
			if _, err := s.Call(t.Context(), mcp.Request{Method: mcp.MethodTokenExpires, Payload: []byte("60")}); err != nil {
				t.Errorf("the warning is answered with %v", err)
			}
			if renewed {
				mu.Lock()
				token = "new"
				mu.Unlock()
			}
			s.Close(&mcp.Error{Code: mcp.CodeTokenExpired})
			<-time.After(2 * time.Second)
			if n := d.count(); (n == 2) != renewed {
				t.Errorf("renewed %v: %d connections", renewed, n)
			}
		})
	}
}

func TestAPublisherTellsHowItIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &agent{handler: newReceiver()}
		d := &attempts{dialer: dialer{accept: a.accept}, fails: true}
		p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-7"}, Dialer: d})
		if err != nil {
			t.Fatal(err)
		}
		expect := func(want mcp.State, reason error, age time.Duration) {
			t.Helper()
			synctest.Wait()
			state, since, why := p.State()
			if state != want || !errors.Is(why, reason) || time.Since(since) < age {
				t.Errorf("%v since %v because of %v", state, time.Since(since), why)
			}
		}
		expect(mcp.Closed, nil, 0)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = p.Run(ctx)
		}()
		<-time.After(5 * time.Minute)
		expect(mcp.Connecting, transport.ErrLost, 4*time.Minute)
		d.mu.Lock()
		d.fails = false
		d.mu.Unlock()
		<-time.After(time.Minute)
		expect(mcp.Open, nil, 30*time.Second)
		cancel()
		<-done
		expect(mcp.Closed, nil, 0)
		a.wg.Wait()
	})
}
