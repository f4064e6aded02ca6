package scheduler

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// serve works the open link until it is lost or ctx ends, and returns when
// nothing is under way on it.
func (l *Lane) serve(ctx, work context.Context) {
	line, hangUp := l.interruptible(work)
	defer hangUp()
	lost := l.link.Lost()
	for ctx.Err() == nil && l.gone == nil {
		if isClosed(lost) {
			l.unplugged()
			continue
		}
		now := time.Now()
		l.tend(work, now)
		r := l.next(work, now)
		if r == nil {
			l.rest(ctx, work, now, lost)
			continue
		}
		l.takeOff(r, now)
		if l.cfg.Transactions == 1 {
			r.step(line)
			l.settle(work, r)
		} else {
			go l.fly(line, r)
		}
	}
	if l.gone != nil {
		hangUp()
	}
	for len(l.underway) > 0 {
		l.settle(work, <-l.done)
	}
}

// interruptible is the context of the steps on a line. One that is alone on it
// finds out by itself that it is lost.
func (l *Lane) interruptible(work context.Context) (line context.Context, hangUp func()) {
	if l.cfg.Transactions == 1 {
		return work, func() {}
	}
	return context.WithCancel(work)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (l *Lane) unplugged() {
	l.lost(transport.Lost(errors.New("it was closed or unplugged at the other end")))
}

// rest waits until something is to be done on the open line; a transaction that
// ends is that, too. The lane spends most of its life here.
func (l *Lane) rest(ctx, work context.Context, now time.Time, lost <-chan struct{}) {
	l.timer.Reset(time.Until(l.restUntil(now)))
	select {
	case r := <-l.done:
		l.settle(work, r)
	case <-l.timer.C:
	case <-l.wake:
	case <-lost:
	case <-ctx.Done():
	}
}

// restUntil is when the next thing is to be done that only time brings about.
func (l *Lane) restUntil(now time.Time) time.Time {
	l.note(func(s *Status) { s.Queue = l.agenda.ready() })
	until := l.agenda.nextEvent(now.Add(time.Hour))
	if l.breaker.troubled && !l.opening.lasted(now) {
		until = earlier(until, l.opening.stableAt())
	} else {
		l.works()
	}
	return until
}

// next is the round that goes now; nil when none may.
func (l *Lane) next(work context.Context, now time.Time) *round {
	for len(l.underway) < l.cfg.Transactions {
		r := l.agenda.pop()
		if r == nil || l.admit(work, r, now) {
			return r
		}
	}
	return nil
}

// admit tells whether r may go now; if not, it has put it elsewhere.
func (l *Lane) admit(work context.Context, r *round, now time.Time) bool {
	d := r.device
	if r.job == nil && now.Before(d.silentUntil) {
		l.giveUp(work, r, ErrSilent)
		return false
	}
	if t := l.affordable(r, now); t.After(now) {
		l.holdBack(work, r, t)
		return false
	}
	if d.rate != nil {
		reserved := d.rate.ReserveN(now, 1)
		if wait := reserved.DelayFrom(now); wait > 0 {
			reserved.CancelAt(now)
			l.agenda.postpone(r, now.Add(wait))
			return false
		}
	}
	if r.job == nil && !r.begun && now.Sub(r.due) >= r.every {
		// Overtaken by its next round, which takes its turn: sent back to the
		// queue with a later deadline, it would starve on a crowded line.
		l.leftOut(r, now, r.advance(now)+1)
	}
	return true
}

// leftOut counts rounds that came too late.
func (l *Lane) leftOut(r *round, now time.Time, rounds uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Skipped += rounds
	if !r.device.suspect() {
		l.meter.leave(now, rounds)
	}
}

// holdBack keeps r off the line until t. What waits for a device in quarantine
// does not wait in secret: the quarantine lasts until then.
func (l *Lane) holdBack(work context.Context, r *round, t time.Time) {
	if r.job == nil && r.device.silent() {
		l.mu.Lock()
		r.device.silentUntil = t
		l.mu.Unlock()
		if !t.Before(r.deadline) {
			l.giveUp(work, r, ErrSilent)
			return
		}
	}
	l.agenda.postpone(r, t)
}

// takeOff puts r on the line.
func (l *Lane) takeOff(r *round, now time.Time) {
	l.agenda.went(r)
	first := !r.begun
	if first {
		r.begin()
	}
	r.turn = Turn{Timeout: l.timeout(r, now)}
	if r.expires() {
		r.turn.Deadline = r.job.Deadline
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if first && r.job == nil {
		l.meter.round(now, now.Sub(r.due))
	}
	r.began = now
	l.underway = append(l.underway, r)
	l.status.Queue = l.agenda.ready()
}

// step does one transaction.
func (r *round) step(line context.Context) {
	r.more, r.err = r.task.Step(line, &r.turn)
	r.ended = time.Now()
}

// fly is step for one of several.
func (l *Lane) fly(line context.Context, r *round) {
	r.step(line)
	l.done <- r
}

// settle draws the conclusions from a transaction.
func (l *Lane) settle(work context.Context, r *round) {
	notYet := asNotYet(r.err)
	l.mu.Lock()
	i := slices.Index(l.underway, r)
	l.underway = slices.Delete(l.underway, i, i+1)
	if notYet == nil {
		l.meter.transaction(r.ended, r.ended.Sub(r.began))
		r.device.asked = r.ended
	}
	r.device.garbled += uint64(r.turn.Garbled)
	r.device.foreign += uint64(r.turn.Foreign)
	l.mu.Unlock()
	r.sent = r.sent || r.turn.Sent
	switch {
	case r.err == nil:
		l.answered(work, r)
	case notYet != nil:
		l.agenda.postpone(r, notYet.Until)
	default:
		l.failed(work, r, r.err)
	}
}

func asNotYet(err error) *NotYet {
	notYet, _ := errors.AsType[*NotYet](err)
	return notYet
}

// failed draws those from one that was not answered as it should be.
func (l *Lane) failed(work context.Context, r *round, err error) {
	switch {
	case errors.Is(err, transport.ErrLost), errors.Is(err, net.ErrClosed):
		l.lostDuring(work, r, err)
	case errors.Is(err, context.Canceled) && l.gone != nil: // another one has met the loss
		l.interrupted(work, r, l.gone)
	case errors.Is(err, context.Canceled) && work.Err() != nil: // the lane is stopped
		l.end(work, r, err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		l.timedOut(work, r)
	default:
		l.refused(r, err)
		l.end(work, r, err)
	}
}

func (l *Lane) answered(work context.Context, r *round) {
	r.tries, r.losses, r.sent, r.acted = 0, 0, false, true
	l.mu.Lock()
	l.status.Transactions++
	l.mu.Unlock()
	if !r.turn.Unanswered {
		l.heard(r)
	}
	if r.more {
		l.agenda.push(r)
		return
	}
	if !r.turn.Unanswered {
		l.recovered(r, r.ended)
	}
	l.end(work, r, nil)
}

// heard notes that a device has answered.
func (l *Lane) heard(r *round) {
	l.opening.reset()
	l.works()
	if r.job != nil {
		r.device.ignored = 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.device.lastGood = r.ended
	if r.turn.Took > 0 {
		r.device.patience.heard(r.turn.Took)
	}
	if r.job == nil && !r.more && !r.device.silent() {
		r.device.reason = ""
	}
}

// recovered ends a device's silence. It takes a whole round: a device that
// answers one read and is mute on the next would cost its line every retry of
// every round.
func (l *Lane) recovered(r *round, now time.Time) {
	d := r.device
	if !d.silent() {
		return
	}
	whole := l.bearable(d) == 0 && l.cfg.Transactions == 1
	l.mu.Lock()
	d.recovered()
	l.mu.Unlock()
	l.log.Info("device answers again", "device", d.id)
	l.resume(d, now)
	if whole { // all of the line were silent, so the others may be back as well
		for _, other := range l.devices {
			l.mu.Lock()
			other.silentUntil = time.Time{}
			l.mu.Unlock()
			l.resume(other, now)
		}
	}
}

// resume has a device's polls go on at their next period.
func (l *Lane) resume(d *device, now time.Time) {
	for _, r := range d.rounds {
		r.reported = false
		if !r.begun {
			r.resume(now)
			l.agenda.reschedule(r)
		}
	}
}

// refused notes an error that is neither silence nor a loss: the device has said
// no, or nothing was sent. Who says no is there: it is asked at its period.
func (l *Lane) refused(r *round, err error) {
	d := r.device
	if !r.turn.Sent {
		return
	}
	l.works()
	back := d.silent()
	l.mu.Lock()
	l.status.Transactions++
	d.recovered()
	if r.job == nil {
		d.reason = err.Error()
	}
	l.mu.Unlock()
	if r.job != nil {
		d.ignored = 0
	}
	if back {
		l.resume(d, r.ended)
	}
}

// timedOut puts the transaction at the end of the queue, or gives the round up
// when it was tried often enough. A retry is for an answer that got lost: a
// device that was silent before, or has never answered, gets one try, and so does
// one whose neighbours could not afford another within a period.
func (l *Lane) timedOut(work context.Context, r *round) {
	d, now := r.device, r.ended
	r.tries++
	l.wasted(r, now, now.Sub(r.began))
	retry := r.tries <= l.cfg.RetryCount && !d.suspect() && !l.affords(r, now).After(now.Add(period(r)))
	if r.job != nil {
		retry = retry && (r.job.Repeat || !r.sent)
	}
	l.mu.Lock()
	l.status.Transactions++
	l.status.Timeouts++
	d.timeouts++
	if retry {
		l.status.Retries++
	}
	l.mu.Unlock()
	if retry {
		l.agenda.promote(now)
		l.agenda.pushLast(r)
		return
	}
	if r.job != nil {
		d.ignored++ // which does not make it a silent device
		l.end(work, r, r.err)
		return
	}
	first := !d.silent()
	l.mu.Lock()
	d.unanswered(now, period(r), l.cfg.ProbeMax, r.err)
	l.mu.Unlock()
	if first {
		l.log.Warn("device is silent, probing it from now on", "device", d.id, "error", r.err)
	}
	r.reported = true
	l.end(work, r, r.err)
}

// period is what the distance of probes begins with.
func period(r *round) time.Duration {
	switch {
	case r.job == nil:
		return r.every
	case len(r.device.rounds) > 0:
		return r.device.rounds[0].every
	}
	return time.Second
}

// lostDuring repeats the step when the line is open again. A device that brings
// the line down twice in a row does not get a third chance in the round.
func (l *Lane) lostDuring(work context.Context, r *round, err error) {
	l.lost(err)
	if r.job == nil || r.turn.Sent { // a command that nothing was sent of has not brought it down
		r.losses++
	}
	if r.losses < 2 {
		l.interrupted(work, r, err)
		return
	}
	l.mu.Lock()
	r.device.refused(err)
	l.mu.Unlock()
	l.end(work, r, err)
}

// interrupted keeps a round for when the line is back. A job that may have been
// sent, or was answered in part, is over.
func (l *Lane) interrupted(work context.Context, r *round, err error) {
	if r.job != nil && (r.acted || r.sent && !r.job.Repeat) {
		l.end(work, r, err)
		return
	}
	l.agenda.push(r)
}

// hangUp is how long a line without polls must have held for its end to be no
// fault: a sensor may connect, say what it has, and leave.
const hangUp = time.Second

// lost notes that the line is gone, once.
func (l *Lane) lost(err error) {
	if l.gone != nil {
		return
	}
	l.gone = err
	now := time.Now()
	switch held := now.Sub(l.opening.since); {
	case l.cfg.Passive || len(l.agenda.rounds) == 0 && held >= hangUp:
		l.opening.reset() // whoever speaks by itself may hang up
	case l.opening.lasted(now):
		l.works()
		l.fault(err)
	default:
		l.fault(err)
	}
	reason := happened(err)
	l.setState(Down, reason)
	l.log.Warn("link is lost, opening it again", "reason", reason, "error", err)
}
