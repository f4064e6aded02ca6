package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// Errors that End gets beside those of Step.
var (
	// ErrSilent: the device has not answered for a while and is only probed now
	// and then; this round was not tried.
	ErrSilent = errors.New("device is silent, being probed")
	// ErrLinkDown: the line could not be opened.
	ErrLinkDown = errors.New("link is down")
)

// Config bounds how a lane waits. The zero value of a field means its default.
type Config struct {
	// SilentMax is the longest time between two probes of a silent device; 1 min.
	SilentMax time.Duration
	// OpenTimeout bounds one attempt to open the link; 15 s.
	OpenTimeout time.Duration
	// ReopenMin and ReopenMax bound the wait between attempts to open the link;
	// 500 ms and 30 s. The wait is random between 0 and a bound that doubles.
	ReopenMin, ReopenMax time.Duration
	// ReopenPermanent is the same wait after a permanent error; 30 s.
	ReopenPermanent time.Duration
	// StopGrace is how long a round under way may take to end when the lane is
	// stopped; 5 s.
	StopGrace time.Duration
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.SilentMax, time.Minute)
	set(&c.OpenTimeout, 15*time.Second)
	set(&c.ReopenMin, 500*time.Millisecond)
	set(&c.ReopenMax, 30*time.Second)
	set(&c.ReopenPermanent, 30*time.Second)
	set(&c.StopGrace, 5*time.Second)
	return c
}

// Lane works one link. Its Run goroutine owns all of it but the status.
type Lane struct {
	name string
	link Link
	cfg  Config
	log  *slog.Logger

	agenda  *agenda
	devices map[string]*device
	opening backoff

	mu     sync.Mutex // guards status, and what of devices it shows
	status Status
}

// NewLane makes a lane; it starts nothing. Polls may be empty: then the lane
// only keeps the link open, for a device that speaks by itself.
func NewLane(name string, link Link, polls []Poll, cfg Config, log *slog.Logger) (*Lane, error) {
	l := &Lane{
		name: name, link: link, cfg: cfg.withDefaults(), log: log.With("link", name),
		devices: make(map[string]*device),
		status:  Status{Link: name, State: Opening, Reason: "the first attempt to open it is under way", Since: time.Now()},
	}
	l.opening = backoff{min: l.cfg.ReopenMin, max: l.cfg.ReopenMax}
	l.agenda = newAgenda(len(polls))
	for _, p := range polls {
		if p.Every <= 0 || p.Timeout <= 0 || p.Retries < 0 || p.Task == nil {
			return nil, fmt.Errorf("scheduler: link %s: poll %s of device %s needs a period, a time-out and a task", name, p.Name, p.Device)
		}
		d := l.devices[p.Device]
		if d == nil {
			d = &device{id: p.Device}
			l.devices[p.Device] = d
		}
		r := &round{poll: p, device: d}
		d.rounds = append(d.rounds, r)
		l.agenda.rounds = append(l.agenda.rounds, r)
	}
	return l, nil
}

// Run opens the link and does what is due on it until ctx ends, then lets the
// rounds under way finish within StopGrace, closes the link and returns nil.
func (l *Lane) Run(ctx context.Context) error {
	// Transactions outlive ctx by the grace, so that an answer on its way when
	// the agent is stopped is still taken.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		grace, done := context.WithTimeout(work, l.cfg.StopGrace)
		defer done()
		<-grace.Done()
		cancel()
	})()

	l.agenda.start(time.Now())
	for ctx.Err() == nil {
		if !l.open(ctx, work) {
			continue
		}
		l.serve(ctx, work)
		if ctx.Err() != nil {
			l.finish(work)
		}
		if err := l.link.Close(); err != nil {
			l.log.Debug("closing the link", "error", err)
		}
		l.pause(ctx, time.Now().Add(l.opening.next()), nil)
	}
	for _, r := range l.agenda.rounds {
		if r.begun { // the line was away when the lane was stopped
			r.end(work, ErrLinkDown)
		}
	}
	l.setState(Down, "stopped")
	return nil
}

// open makes one attempt; when it fails it waits before it returns false.
func (l *Lane) open(ctx, work context.Context) bool {
	attempt, cancel := context.WithTimeout(ctx, l.cfg.OpenTimeout)
	err := l.link.Open(attempt)
	cancel()
	if err == nil {
		l.setState(Up, "")
		l.opening.opened(time.Now())
		for _, r := range l.agenda.rounds {
			r.reported = false
		}
		l.log.Info("link is up")
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	wait := l.opening.next()
	if errors.Is(err, transport.ErrPermanent) {
		wait = max(wait, l.cfg.ReopenPermanent)
	}
	if l.setState(Down, err.Error()) {
		l.log.Warn("link is down, trying again until it is there", "error", err)
	}
	l.idleWhileDown(ctx, work, wait, err)
	return false
}

// idleWhileDown lets the polls that fall due report once that the link is down.
func (l *Lane) idleWhileDown(ctx, work context.Context, wait time.Duration, cause error) {
	for until := time.Now().Add(wait); ctx.Err() == nil; {
		now := time.Now()
		if !now.Before(until) {
			return
		}
		l.agenda.promote(now)
		if r := l.agenda.pop(); r != nil {
			l.giveUp(work, r, fmt.Errorf("%w: %w", ErrLinkDown, cause))
			l.agenda.schedule(r, l.skip(r, now))
			continue
		}
		l.pause(ctx, l.agenda.nextWake(until), nil)
	}
}

// giveUp ends a round that never got on the line, or must leave it. An outage
// is reported once by each poll, not at its rate.
func (l *Lane) giveUp(work context.Context, r *round, err error) {
	if r.begun {
		r.end(work, err)
		r.reported = true
		return
	}
	if r.reported {
		l.note(func(s *Status) { s.Skipped++ })
		return
	}
	r.reported = true
	r.begin()
	r.end(work, err)
}

// serve works the open link until it is lost or ctx ends.
func (l *Lane) serve(ctx, work context.Context) {
	lost := l.link.Lost()
	for ctx.Err() == nil {
		select {
		case <-lost:
			l.lost(transport.Lost(errors.New("it was closed or unplugged at the other end")))
			return
		default:
		}
		now := time.Now()
		l.agenda.promote(now)
		r := l.agenda.pop()
		if r == nil {
			l.pause(ctx, l.agenda.nextWake(now.Add(time.Hour)), lost)
			continue
		}
		if now.Before(r.device.silentUntil) {
			l.giveUp(work, r, ErrSilent)
			r.skipTo(r.device.silentUntil)
			l.agenda.schedule(r, r.due)
			continue
		}
		if !r.begun && now.Sub(r.due) >= r.poll.Every {
			// Overtaken by its next round, which takes its turn: sent back to the
			// queue with a later deadline, it would starve on a crowded line.
			l.skip(r, now)
		}
		if !l.turn(work, r) {
			return
		}
	}
}

// skip moves r to the newest round that is due by now, or else to its next one,
// and counts what it leaves out.
func (l *Lane) skip(r *round, now time.Time) time.Time {
	skipped := r.advance(now)
	l.mu.Lock()
	l.status.Skipped += skipped
	l.mu.Unlock()
	return r.due
}

// turn does one transaction; false means that the link is lost.
func (l *Lane) turn(work context.Context, r *round) bool {
	if !r.begun {
		r.begin()
	}
	start := time.Now()
	l.note(func(s *Status) { s.BusySince = start })
	ctx, cancel := context.WithTimeout(work, r.poll.Timeout)
	more, err := r.poll.Task.Step(ctx)
	cancel()
	now := time.Now()
	l.note(func(s *Status) { s.BusySince = time.Time{} })

	var notYet *NotYet
	switch {
	case err == nil:
		l.answered(r, now)
		if more {
			l.agenda.push(r)
			return true
		}
		l.recovered(r, now)
		l.close(work, r, nil)
	case errors.As(err, &notYet):
		l.agenda.scheduleKeeping(r, notYet.Until)
	case errors.Is(err, transport.ErrLost), errors.Is(err, net.ErrClosed):
		l.lostDuring(work, r, err)
		return false
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		l.timedOut(work, r, err)
	default:
		l.refused(r, err)
		l.close(work, r, err)
	}
	return true
}

func (l *Lane) answered(r *round, now time.Time) {
	l.opening.reset()
	r.tries, r.losses = 0, 0
	l.mu.Lock()
	l.status.Transactions++
	r.device.lastGood = now
	l.mu.Unlock()
}

// recovered ends a device's silence. It takes a whole round: a device that
// answers one read and is mute on the next would cost its line every retry of
// every round.
func (l *Lane) recovered(r *round, now time.Time) {
	back := r.device.failures > 0
	l.mu.Lock()
	r.device.recovered()
	l.mu.Unlock()
	if back {
		l.log.Info("device answers again", "device", r.device.id)
		for _, other := range r.device.rounds {
			other.reported = false
			if other != r && !other.begun {
				other.resume(now)
				l.agenda.reschedule(other)
			}
		}
	}
}

func (l *Lane) refused(r *round, err error) {
	l.mu.Lock()
	l.status.Transactions++
	r.device.refused(err)
	l.mu.Unlock()
}

// timedOut puts the transaction at the end of the queue, or gives the round up
// when it was tried often enough. A retry is for an answer that got lost: a device
// that was silent before, or has never answered, gets one try.
func (l *Lane) timedOut(work context.Context, r *round, err error) {
	r.tries++
	retry := r.tries <= r.poll.Retries && r.device.failures == 0 && !r.device.lastGood.IsZero()
	l.mu.Lock()
	l.status.Transactions++
	l.status.Timeouts++
	r.device.timeouts++
	if retry {
		l.status.Retries++
	}
	l.mu.Unlock()
	now := time.Now()
	if retry {
		l.agenda.promote(now)
		l.agenda.pushLast(r)
		return
	}
	first := r.device.failures == 0
	l.mu.Lock()
	r.device.silent(now, r.poll.Every, l.cfg.SilentMax, err)
	l.mu.Unlock()
	if first {
		l.log.Warn("device is silent, probing it from now on", "device", r.device.id, "error", err)
	}
	r.end(work, err)
	r.reported = true
	r.skipTo(r.device.silentUntil)
	l.agenda.schedule(r, r.due)
}

// lostDuring repeats the step on the line when it is open again. A device that
// brings the line down twice in a row does not get a third chance in the round.
func (l *Lane) lostDuring(work context.Context, r *round, err error) {
	r.losses++
	if r.losses < 2 {
		l.agenda.push(r)
	} else {
		l.refused(r, err)
		l.close(work, r, err)
	}
	l.lost(err)
}

func (l *Lane) lost(err error) {
	reason := happened(err)
	l.setState(Down, reason)
	l.log.Warn("link is lost, opening it again", "reason", reason, "error", err)
}

// close ends a round and puts the poll's next one on the agenda.
func (l *Lane) close(work context.Context, r *round, err error) {
	r.end(work, err)
	l.mu.Lock()
	l.status.Rounds++
	l.mu.Unlock()
	l.agenda.schedule(r, l.skip(r, time.Now()))
}

// finish brings the rounds under way to their end when the lane is stopped: one
// try for each step that is left.
func (l *Lane) finish(work context.Context) {
	for _, r := range l.agenda.rounds {
		var err error
		for more := true; r.begun && more && err == nil; {
			ctx, cancel := context.WithTimeout(work, r.poll.Timeout)
			more, err = r.poll.Task.Step(ctx)
			cancel()
			if notYet := new(NotYet); errors.As(err, &notYet) {
				l.pause(work, notYet.Until, nil)
				more, err = true, work.Err()
			}
		}
		if r.begun {
			r.end(work, err)
		}
	}
}

// pause waits until the given time, or until ctx ends or the link is lost.
func (l *Lane) pause(ctx context.Context, until time.Time, lost <-chan struct{}) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-lost:
	}
}
