package mcp_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// fate is what a device does with a request.
type fate int

const (
	answers fate = iota
	refuses
	isBusy
	isSlow // answers after the time-out
	isMute // does it, and says nothing
	isLost // does it, and is gone
	fates  // so many
)

// story is what becomes of a command, and how its device is meanwhile.
type story struct {
	repeat   bool
	promises bool // the device deduplicates
	within   time.Duration
	away     []time.Duration // before the device connects, each time
	stays    []time.Duration // how long at most, then
	fates    []fate          // of the requests; the last one is that of all others

	mu   sync.Mutex
	done []time.Time // when the device has done it
	gone chan struct{}
}

func aStory(t *rapid.T) *story {
	return &story{
		repeat:   rapid.Bool().Draw(t, "repeat"),
		promises: rapid.Bool().Draw(t, "deduplicates"),
		within:   upTo(time.Minute).Draw(t, "deadline"),
		away:     rapid.SliceOfN(upTo(20*time.Second), 7, 7).Draw(t, "away"),
		stays:    rapid.SliceOfN(upTo(time.Minute), 7, 7).Draw(t, "stays"),
		fates: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) fate {
			return fate(rapid.IntRange(0, int(fates)-1).Draw(t, "fate"))
		}), 1, 6).Draw(t, "fates"),
	}
}

func upTo(limit time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, limit.Milliseconds()).Draw(t, "ms")) * time.Millisecond
	})
}

func (s *story) next() fate {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fates[0]
	if len(s.fates) > 1 {
		s.fates = s.fates[1:]
	}
	if f != isBusy && f != refuses {
		s.done = append(s.done, time.Now())
	}
	return f
}

// device answers.
func (s *story) device(ctx context.Context, _ mcp.Request) mcp.Response {
	switch s.next() {
	case refuses:
		return mcp.Response{Code: mcp.CodeNotAllowed}
	case isBusy:
		return mcp.Response{Code: mcp.CodeBusy}
	case isSlow:
		select {
		case <-time.After(7 * time.Second):
		case <-ctx.Done():
		}
	case isLost:
		select {
		case s.gone <- struct{}{}:
		default:
		}
		<-ctx.Done()
	case isMute:
		<-ctx.Done()
	}
	return mcp.Response{}
}

// comeAndGo connects the device again and again, until over.
func (s *story) comeAndGo(t *testing.T, p *plant, over <-chan struct{}) {
	for i, away := range s.away {
		select {
		case <-time.After(away):
		case <-over:
			return
		}
		var remembered *mcp.Answers // it restarts, and has forgotten what it did
		if s.promises {
			remembered = mcp.NewAnswers()
		}
		leave := p.connect(t, remembered, s.device)
		select {
		case <-s.gone:
		case <-time.After(s.stays[i]):
		case <-over:
		}
		leave()
	}
}

// tell lets it happen and says what is not as it should be.
func (s *story) tell(t *testing.T) (problem string) {
	s.gone = make(chan struct{}, 1)
	p := newPlant(t)
	p.run(t)
	over := make(chan struct{})
	var device sync.WaitGroup
	device.Go(func() { s.comeAndGo(t, p, over) })
	deadline := time.Now().Add(s.within)
	o := mustSubmit(t, p.Line("press-7"), "run", s.within, s.repeat)
	err := <-o.ended
	late := time.Since(deadline)
	close(over)
	device.Wait()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	times := len(s.done)
	var refusal *mcp.Error
	refused := errors.As(err, &refusal)
	unknown := errors.Is(err, scheduler.ErrUnknown)
	expired := errors.Is(err, scheduler.ErrExpired)
	switch {
	case err != nil && strings.Contains(err.Error(), "%!"):
		return "its end reads " + err.Error()
	case late > mcp.RequestTimeout:
		return "its end comes long after the deadline"
	case len(o.ended) > 0:
		return "it ended twice"
	case times > 0 && s.done[times-1].After(deadline):
		return "it was done after its deadline"
	case times > 1 && !s.repeat:
		return "it was done twice"
	case err == nil && times == 0:
		return "it has succeeded, and was not done"
	case expired && times > 0:
		return "it has expired, and was done"
	case refused && !unknown && times > 0 && !s.repeat:
		return "it was refused, and done"
	case err != nil && !refused && !unknown && !expired:
		return "it ends with " + err.Error()
	}
	return ""
}

// Whatever the device does, and whenever it comes and goes.
func TestTheEndOfACommandIsTheTruth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := aStory(rt)
		problem := ""
		synctest.Test(t, func(t *testing.T) { problem = s.tell(t) })
		if problem != "" {
			rt.Error(problem)
		}
	})
}
