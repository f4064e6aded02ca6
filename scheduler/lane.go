package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mcp-edge/edge-agent/transport"
)

// Lane works one link. Its Run goroutine owns all of it but what stands below
// mu. Submit and Status may be called at any time.
type Lane struct {
	link   Link
	cfg    Config
	shared *Shared
	log    *slog.Logger

	agenda  agenda
	opening backoff
	breaker breaker
	budget  budget // of the whole line

	gone  error       // why the open line was lost; nil while it is there
	done  chan *round // whose transaction has ended, where there are several at a time
	wake  chan struct{}
	timer *time.Timer

	// mu guards what follows, and what of devices Status shows. What only the
	// lane's goroutine writes, it reads without mu.
	mu       sync.Mutex
	status   Status
	meter    meter
	devices  []*device
	underway []*round  // on the line
	inbox    []*round  // jobs submitted and not yet on the agenda
	jobs     int32     // submitted and not yet ended
	returned []*device // whose worker has finished
	working  int32     // devices with a worker
	stopped  bool      // no more jobs
}

// NewLane makes a lane; it starts nothing. Polls may be empty: then the lane
// only keeps the link open, for a device that speaks by itself, and does jobs. log
// should say which link it is.
func NewLane(name string, link Link, polls []Poll, cfg Config, shared *Shared, log *slog.Logger) (*Lane, error) {
	cfg = cfg.withDefaults()
	l := &Lane{
		link: link, cfg: cfg, shared: shared, log: log,
		agenda:  newAgenda(len(polls)),
		opening: backoff{min: reopenMin, max: reopenMax}, breaker: newBreaker(cfg.Breaker),
		wake:   make(chan struct{}, 1),
		status: Status{Link: name, State: Opening, Reason: "the first attempt to open it is under way", Since: time.Now(), Breaker: BreakerClosed},
	}
	if cfg.Transactions > 1 {
		l.done = make(chan *round, cfg.Transactions)
	}
	for _, p := range polls {
		if p.Every <= 0 || p.Task == nil {
			return nil, fmt.Errorf("scheduler: link %s: poll %s of device %s needs a period and a task", name, p.Name, p.Device)
		}
		d := l.device(p.Device)
		r := &round{task: p.Task, every: p.Every, device: d}
		d.rounds = append(d.rounds, r)
		l.agenda.rounds = append(l.agenda.rounds, r)
	}
	l.shareBudget()
	return l, nil
}

// device finds or makes the one of this id.
func (l *Lane) device(id string) *device {
	for _, d := range l.devices {
		if d.id == id {
			return d
		}
	}
	d := &device{id: id}
	if perSecond := l.cfg.Rates[id]; perSecond > 0 {
		d.rate = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*rateBurst.Seconds())))
	}
	if l.budget.share > 0 { // it comes with its first command
		d.orders = l.share(waste / float64(len(l.devices)+1))
	}
	l.mu.Lock()
	l.devices = append(l.devices, d)
	l.mu.Unlock()
	return d
}

// shareBudget gives each of several devices on a line an equal share of what may
// be wasted, for its polls and for commands.
func (l *Lane) shareBudget() {
	if l.cfg.Transactions > 1 || len(l.devices) < 2 {
		return
	}
	l.budget = budget{share: waste, most: 1} // saves nothing up: two probes in a row would be felt
	for _, d := range l.devices {
		d.budget = l.share(waste / float64(len(l.devices)))
		d.orders = d.budget
	}
}

// share is a budget that is saved for a round with all its retries.
func (l *Lane) share(of float64) budget {
	most := l.cfg.Timeout * time.Duration(1+min(l.cfg.RetryCount, 3))
	return budget{share: of, saved: most, most: most}
}

// Run opens the link and does what is due on it until ctx ends, then lets the
// rounds under way finish within some seconds, closes the link and returns nil.
// It is called once.
//
// A gateway may have ten thousand lanes, and each of them is a stack: 4 KiB, as
// long as little of it is in use in a rest, and not too much in a step. So what
// happens seldom is done in functions of its own.
func (l *Lane) Run(ctx context.Context) error {
	// Transactions outlive ctx by the grace, so that an answer on its way when
	// the agent is stopped is still taken.
	work, release := l.shared.graced(ctx)
	defer release()

	l.timer = time.NewTimer(0)
	defer l.timer.Stop()
	l.agenda.start(time.Now(), l.cfg.Phase)
	for ctx.Err() == nil {
		if err := l.open(ctx, work); err != nil {
			if ctx.Err() == nil {
				l.wait(ctx, work, l.notOpened(err), err)
			}
			continue
		}
		l.serve(ctx, work)
		if ctx.Err() != nil && l.gone == nil {
			l.finish(work)
		}
		l.close()
		l.waitAfterLoss(ctx, work)
	}
	l.leave(work)
	return nil
}

func (l *Lane) close() {
	if err := l.link.Close(); err != nil {
		l.log.Debug("closing the link", "error", err)
	}
}

// open makes one attempt, when it is the link's turn. A link that waits to be
// called takes no turn from those that dial.
func (l *Lane) open(ctx, work context.Context) error {
	opened := make(chan error, 1)
	attempt := func() {
		bounded, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		opened <- l.link.Open(bounded)
	}
	turn, stop := l.shared.opening, ctx.Done()
	if l.cfg.Passive {
		turn, stop = nil, nil // from here on the attempt itself ends with ctx
		go attempt()
	}
	for {
		now := time.Now()
		l.tend(work, now)
		l.timer.Reset(time.Until(l.agenda.nextEvent(now.Add(openTimeout))))
		select {
		case err := <-opened:
			if err == nil {
				l.isUp()
			}
			return err
		case turn <- struct{}{}:
			turn, stop = nil, nil
			go func() {
				defer func() { <-l.shared.opening }()
				attempt()
			}()
		case <-stop:
			return ctx.Err()
		case <-l.wake:
		case <-l.timer.C:
		}
	}
}

func (l *Lane) isUp() {
	l.gone = nil
	l.opening.opened(time.Now())
	for _, r := range l.agenda.rounds {
		r.reported = false
	}
	l.setState(Up, "")
	l.log.Info("link is up")
}

// notOpened draws the conclusions from a failed attempt, and says when the next
// one is due.
func (l *Lane) notOpened(err error) (next time.Time) {
	if !l.cfg.Passive && isPortFault(err) {
		l.fault(err)
	}
	if l.setState(Down, err.Error()) {
		l.log.Warn("link is down, trying again until it is there", "error", err)
	}
	now := time.Now()
	next = now.Add(l.opening.next())
	switch {
	case errors.Is(err, transport.ErrPermanent):
		return later(now.Add(reopenPermanent), l.breaker.until)
	case now.Before(l.breaker.until):
		return l.breaker.until
	}
	return next
}

// waitAfterLoss waits before a lost line is opened again. That the line comes
// back at once is likely the first time: polls wait for it, too.
func (l *Lane) waitAfterLoss(ctx, work context.Context) {
	now := time.Now()
	next, cause := now.Add(l.opening.next()), error(nil)
	if l.opening.bound > reopenMin {
		cause = l.gone
	}
	if now.Before(l.breaker.until) {
		next, cause = l.breaker.until, l.gone
	}
	l.wait(ctx, work, next, cause)
}

// wait lets time pass while the link is down. Commands wait for the line or for
// their deadline. With a cause, the polls that fall due report it, once each.
func (l *Lane) wait(ctx, work context.Context, until time.Time, cause error) {
	l.note(func(s *Status) { s.Breaker, s.NextOpen = l.breaker.state(time.Now()), until })
	for ctx.Err() == nil && time.Now().Before(until) {
		l.tend(work, time.Now())
		for cause != nil {
			r := l.agenda.popPoll()
			if r == nil {
				break
			}
			l.giveUp(work, r, fmt.Errorf("%w: %w", ErrLinkDown, cause))
		}
		l.pause(ctx, l.agenda.nextEvent(until), nil)
	}
	l.note(func(s *Status) { s.Breaker, s.NextOpen = l.breaker.state(time.Now()), time.Time{} })
}

// tend does what needs no line: it takes over what others have left for the lane,
// makes ready what is due, and ends the commands whose time is over.
func (l *Lane) tend(work context.Context, now time.Time) {
	l.takeIn(work)
	l.agenda.promote(now)
	for _, r := range l.agenda.expired(now) {
		l.end(work, r, l.expired(r))
	}
}

// expired says why a command was not sent in time.
func (l *Lane) expired(r *round) error {
	switch d := r.device; {
	case l.status.State != Up:
		return fmt.Errorf("%w: its link is down: %s", ErrExpired, l.status.Reason)
	case d.silent():
		return fmt.Errorf("%w: the device is silent, and asked only now and then", ErrExpired)
	case d.ignored > 0:
		return fmt.Errorf("%w: the device has not answered the %d commands before it, and its neighbours can't wait for it all the time", ErrExpired, d.ignored)
	}
	return ErrExpired
}

// giveUp ends a poll's round that never got on the line, or must leave it, and
// waits for the next. An outage is reported once by each poll, not at its rate.
func (l *Lane) giveUp(work context.Context, r *round, err error) {
	if r.reported && !r.begun {
		l.note(func(s *Status) { s.Skipped++ })
		l.again(r)
		return
	}
	r.reported = true
	l.end(work, r, err)
}

// again puts a poll's next round on the agenda.
func (l *Lane) again(r *round) {
	now := time.Now()
	if skipped := r.advance(now); skipped > 0 {
		l.leftOut(r, now, skipped)
	}
	if r.device.silent() {
		r.skipTo(r.device.silentUntil)
	}
	l.agenda.schedule(r)
}

// pause waits until the given time, or until ctx ends, the link is lost, or
// somebody has something for the lane.
func (l *Lane) pause(ctx context.Context, until time.Time, lost <-chan struct{}) {
	l.note(func(s *Status) { s.Queue = l.agenda.ready() })
	l.timer.Reset(time.Until(until))
	select {
	case <-l.timer.C:
	case <-l.wake:
	case <-lost:
	case <-ctx.Done():
	}
}

// rouse ends a pause.
func (l *Lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
