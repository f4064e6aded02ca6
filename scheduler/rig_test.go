package scheduler_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// fakeLink opens as its script says; once the script is used up, always.
type fakeLink struct {
	script []error
	opened int
	closed int
	lost   chan struct{}
}

var _ scheduler.Link = (*fakeLink)(nil)

func (l *fakeLink) Open(context.Context) error {
	l.opened++
	l.lost = make(chan struct{})
	if len(l.script) == 0 {
		return nil
	}
	err := l.script[0]
	l.script = l.script[1:]
	return err
}
func (l *fakeLink) Lost() <-chan struct{} { return l.lost }
func (l *fakeLink) Close() error          { l.closed++; return nil }

// fakeTask takes a fixed time for each transaction and fails as its script says.
type fakeTask struct {
	start  time.Time // of the test
	took   time.Duration
	steps  int
	answer func(due time.Duration, step, try int) error

	due      time.Duration
	step     int
	try      int
	begun    []time.Duration
	stepped  []time.Duration
	ended    []error
	order    *[]string
	name     string
	overlaps *int // transactions under way on the line
}

var _ scheduler.Task = (*fakeTask)(nil)

func (f *fakeTask) Begin(due time.Time) {
	f.due, f.step, f.try = due.Sub(f.start), 0, 0
	f.begun = append(f.begun, f.due)
}

func (f *fakeTask) Step(ctx context.Context, t *scheduler.Turn) (bool, error) {
	t.Sent = true
	f.stepped = append(f.stepped, time.Since(f.start))
	if f.order != nil {
		*f.order = append(*f.order, f.name)
	}
	var err error
	if f.answer != nil {
		err = f.answer(f.due, f.step, f.try)
	}
	f.try++
	if errors.Is(err, os.ErrDeadlineExceeded) {
		select {
		case <-time.After(t.Timeout):
		case <-ctx.Done():
		}
		return false, err
	}
	if f.overlaps != nil {
		*f.overlaps++
		if *f.overlaps > 1 {
			panic("two transactions on one line at a time")
		}
		defer func() { *f.overlaps-- }()
	}
	<-time.After(f.took) // the transaction's time on the wire
	if err != nil {
		return false, err
	}
	t.Took = max(f.took, 1)
	f.step++
	f.try = 0
	return f.step < f.steps, nil
}

func (f *fakeTask) End(err error) func(context.Context) {
	f.ended = append(f.ended, err)
	return nil
}

// fixed has time-outs that don't adapt.
func fixed() scheduler.Config {
	return scheduler.Config{Timeout: 500 * time.Millisecond, TimeoutMin: 500 * time.Millisecond, RetryCount: 3, Breaker: scheduler.BreakerConfig{Failures: 5}}
}

func newLane(t *testing.T, link scheduler.Link, cfg scheduler.Config, polls ...scheduler.Poll) *scheduler.Lane {
	t.Helper()
	lane, err := scheduler.NewLane("line", link, polls, cfg, scheduler.NewShared(scheduler.SharedConfig{Workers: 2, MaxOpening: 2}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return lane
}

// run works the lane for d of the bubble's time and then stops it.
func run(t *testing.T, link scheduler.Link, d time.Duration, polls ...scheduler.Poll) *scheduler.Lane {
	t.Helper()
	lane := newLane(t, link, fixed(), polls...)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := lane.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return lane
}

func poll(device string, every time.Duration, task *fakeTask) scheduler.Poll {
	task.start, task.name = time.Now(), device
	if task.steps == 0 {
		task.steps = 1
	}
	return scheduler.Poll{Device: device, Name: "p", Every: every, Task: task}
}

func silent(time.Duration, int, int) error { return os.ErrDeadlineExceeded }

// dies answers its first round and never again.
func dies(due time.Duration, _, _ int) error {
	if due == 0 {
		return nil
	}
	return os.ErrDeadlineExceeded
}

// running is a lane at work in its own goroutine.
type running struct {
	*scheduler.Lane
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, link scheduler.Link, cfg scheduler.Config, polls ...scheduler.Poll) *running {
	t.Helper()
	return startLane(t, newLane(t, link, cfg, polls...))
}

func startLane(t *testing.T, lane *scheduler.Lane) *running {
	ctx, stop := context.WithCancel(t.Context())
	r := &running{Lane: lane, t: t, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- lane.Run(ctx) }()
	return r
}

// end stops the lane and waits for it.
func (r *running) end() {
	r.t.Helper()
	_ = r.Status() // as in at
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
}

// at waits until d after start. Status makes what the test has read until here
// safe for the lane to change.
func (r *running) at(start time.Time, d time.Duration) {
	_ = r.Status()
	<-time.After(time.Until(start.Add(d)))
	synctest.Wait()
}

// submit hands the lane a command that has d of time.
func (r *running) submit(o *order, d time.Duration) *order {
	r.t.Helper()
	if err := r.Submit(scheduler.Job{Device: o.device, Task: o, Deadline: time.Now().Add(d), Repeat: o.repeat}); err != nil {
		r.t.Fatal(err)
	}
	return o
}

// order is a command's task: it takes a fixed time for each transaction and fails
// as its script says.
type order struct {
	device string
	repeat bool
	steps  int // 0: one
	took   time.Duration
	answer func(step, try int) error // nil: all is well
	unsent bool                      // nothing leaves

	start   time.Time
	step    int
	tries   int
	begun   int
	stepped []time.Duration
	ended   []error
	order   *[]string
	name    string
	work    func(context.Context)
}

var _ scheduler.Task = (*order)(nil)

func (o *order) Begin(time.Time) { o.begun++ }

func (o *order) Step(ctx context.Context, t *scheduler.Turn) (more bool, err error) {
	t.Sent = !o.unsent
	o.stepped = append(o.stepped, time.Since(o.start))
	if o.order != nil {
		*o.order = append(*o.order, o.name)
	}
	if o.answer != nil {
		err = o.answer(o.step, o.tries)
	}
	o.tries++
	took := o.took
	if errors.Is(err, os.ErrDeadlineExceeded) {
		took = t.Timeout
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if err != nil {
		return false, err
	}
	o.step++
	o.tries = 0
	return o.step < o.steps, nil
}

func (o *order) End(err error) func(context.Context) {
	o.ended = append(o.ended, err)
	return o.work
}

// wants fails the test unless the command has begun and ended once, after so many
// steps, with errors of these classes; none: with success.
func (o *order) wants(t *testing.T, steps int, classes ...error) {
	t.Helper()
	if o.begun != 1 || len(o.ended) != 1 || len(o.stepped) != steps {
		t.Errorf("command %s: begun %d times, stepped at %v, ended with %v; want %d steps", o.name, o.begun, o.stepped, o.ended, steps)
		return
	}
	err := o.ended[0]
	if len(classes) == 0 && err != nil {
		t.Errorf("command %s has failed: %v", o.name, err)
	}
	for _, class := range classes {
		if !errors.Is(err, class) {
			t.Errorf("command %s ended with %v, not with %v", o.name, err, class)
		}
	}
	if !slices.Contains(classes, scheduler.ErrUnknown) && errors.Is(err, scheduler.ErrUnknown) {
		t.Errorf("command %s ended with %v although its outcome is known", o.name, err)
	}
}

// script answers each try with the next of these, and the tries after that well.
func script(errs ...error) func(step, try int) error {
	return func(int, int) error {
		if len(errs) == 0 {
			return nil
		}
		err := errs[0]
		errs = errs[1:]
		return err
	}
}
