package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// errRefused is an answer that says no.
var errRefused = errors.New("illegal data address")

// world is a line with all that can happen to it, and notes what must not.
type world struct {
	t            *testing.T
	start        time.Time
	transactions int
	sick         int // of a hundred transactions or openings, how many go wrong

	mu       sync.Mutex
	chance   *rand.Rand
	open     bool
	lost     chan struct{}
	flying   int
	problems []string
}

func (w *world) wrong(format string, args ...any) {
	if len(w.problems) < 10 {
		w.problems = append(w.problems, fmt.Sprintf("%v: ", time.Since(w.start))+fmt.Sprintf(format, args...))
	}
}

func (w *world) Open(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		w.wrong("opened twice")
	}
	if w.chance.IntN(100) < w.sick {
		return transport.Lost(errors.New("not now"))
	}
	w.open, w.lost = true, make(chan struct{})
	return nil
}

func (w *world) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open || w.flying > 0 {
		w.wrong("closed with %d transactions under way, open %v", w.flying, w.open)
	}
	w.open = false
	return nil
}

func (w *world) Lost() <-chan struct{} { return w.lost }

// fate is what becomes of a transaction.
func (w *world) fate() error {
	if w.chance.IntN(100) >= w.sick {
		return nil
	}
	switch w.chance.IntN(10) {
	case 0:
		return errLost
	case 1:
		select {
		case <-w.lost:
		default:
			close(w.lost)
		}
		return nil
	case 2, 3:
		return errRefused
	case 4:
		return &scheduler.NotYet{Until: time.Now().Add(time.Duration(w.chance.IntN(3000)) * ms)}
	}
	return os.ErrDeadlineExceeded
}

// worldly is a task of a poll or of a job in a world.
type worldly struct {
	*world
	name  string
	steps int
	took  time.Duration
	job   *scheduler.Job
	every time.Duration
	heavy int // of ten Ends, how many leave work

	begun, stepping bool
	rounds          int
	due             time.Time
	step            int
	ended           []error
	unseen          bool // something was sent, and no answer seen
	acted           bool
	working         bool
}

func (w *worldly) Begin(due time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun || w.working || w.job != nil && len(w.ended) > 0 {
		w.wrong("%s begins, begun %v, working %v, ended %v", w.name, w.begun, w.working, w.ended)
	}
	if gap := due.Sub(w.due); w.rounds > 0 && (gap <= 0 || gap%w.every != 0) {
		w.wrong("%s: %v between rounds of a period of %v", w.name, gap, w.every)
	}
	w.begun, w.due, w.step = true, due, 0
	w.rounds++
}

func (w *worldly) Step(ctx context.Context, t *scheduler.Turn) (bool, error) {
	w.mu.Lock()
	w.flying++
	if !w.begun || w.stepping || !w.open || w.flying > w.transactions || t.Timeout <= 0 {
		w.wrong("%s steps, begun %v, already %v, open %v, %d under way, timeout %v", w.name, w.begun, w.stepping, w.open, w.flying, t.Timeout)
	}
	if w.job != nil && !w.acted && !time.Now().Before(w.job.Deadline) {
		w.wrong("%s steps at its deadline or after", w.name)
	}
	if w.job != nil && w.unseen && !w.job.Repeat {
		w.wrong("%s is sent again", w.name)
	}
	err := w.fate()
	took := w.took
	if _, early := errors.AsType[*scheduler.NotYet](err); early {
		took = 0
	} else if w.chance.IntN(10) > 0 || err == nil {
		t.Sent = true
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		took = t.Timeout
	}
	w.unseen = w.unseen || t.Sent
	w.stepping = true
	w.mu.Unlock()

	select {
	case <-time.After(took):
	case <-ctx.Done():
		err = ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stepping = false
	w.flying--
	if err != nil {
		if errors.Is(err, errRefused) {
			w.unseen = false
		}
		return false, err
	}
	w.unseen, w.acted = false, true
	t.Took = took
	w.step++
	return w.step < w.steps, nil
}

func (w *worldly) End(err error) func(context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun || w.stepping || w.working {
		w.wrong("%s ends, begun %v, stepping %v, working %v", w.name, w.begun, w.stepping, w.working)
	}
	w.begun = false
	w.ended = append(w.ended, err)
	if w.job != nil {
		w.judge(err)
		return nil
	}
	if w.chance.IntN(10) >= w.heavy {
		return nil
	}
	w.working = true
	took := time.Duration(w.chance.IntN(500)) * ms
	return func(ctx context.Context) {
		select {
		case <-time.After(took):
		case <-ctx.Done():
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.working = false
	}
}

// judge holds how a job may end.
func (w *worldly) judge(err error) {
	unknown := errors.Is(err, scheduler.ErrUnknown)
	mustBe := !w.job.Repeat && w.unseen
	mayBe := mustBe || !w.job.Repeat && w.acted
	permitted := err == nil
	for _, class := range []error{
		scheduler.ErrUnknown, scheduler.ErrExpired, scheduler.ErrStopped, errRefused,
		os.ErrDeadlineExceeded, transport.ErrLost,
	} {
		permitted = permitted || errors.Is(err, class)
	}
	if !permitted || unknown && !mayBe || !unknown && mustBe {
		w.wrong("%s ends with %v; repeated %v, unseen %v, acted %v", w.name, err, w.job.Repeat, w.unseen, w.acted)
	}
	if (err == nil) != (w.step == w.steps) {
		w.wrong("%s ends with %v after %d of %d steps", w.name, err, w.step, w.steps)
	}
}
