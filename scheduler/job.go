package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Submit puts a job ahead of the lane's polls. It returns at once; the job's
// Task is told once how it ended, at the latest when Run returns. When Submit
// fails, the Task is told nothing: with ErrBusy when too many wait, with
// ErrStopped when the lane does not run any more. It may be called before Run,
// and from a Task's End.
func (l *Lane) Submit(j Job) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stopped:
		return ErrStopped
	case l.jobs >= maxJobs:
		return fmt.Errorf("link %s: %w (%d)", l.status.Link, ErrBusy, l.jobs)
	}
	l.jobs++
	l.inbox = append(l.inbox, &round{task: j.Task, job: &j, due: time.Now(), deadline: j.Deadline})
	l.rouse()
	return nil
}

// takeIn takes over what others have left for the lane: jobs, and what workers
// have finished.
func (l *Lane) takeIn(work context.Context) {
	l.mu.Lock()
	jobs, returned := l.inbox, l.returned
	l.inbox, l.returned = nil, nil
	l.mu.Unlock()
	for _, r := range jobs {
		r.device = l.device(r.job.Device)
		l.agenda.push(r)
	}
	for _, d := range returned {
		l.goOn(work, d)
	}
}

// endOfJob is what a job's Task is told. Of one that was sent, or answered in
// part, nobody can say that it has failed, expired or been stopped, when nobody
// saw the rest; it is up to whoever may repeat it to do so.
func endOfJob(work context.Context, r *round, err error) error {
	if work.Err() != nil && errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	if (r.sent || r.acted) && !r.job.Repeat && Unseen(err) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// finish brings the rounds under way to their end when the lane is stopped: one
// try for each step that is left. No command is begun any more.
func (l *Lane) finish(work context.Context) {
	for _, r := range append(l.agenda.allJobs(), l.agenda.begun()...) {
		if r.expires() {
			continue
		}
		l.agenda.remove(r)
		for r.begun && work.Err() == nil {
			l.finishStep(work, r)
		}
		if r.begun {
			l.end(work, r, work.Err())
		}
	}
}

func (l *Lane) finishStep(work context.Context, r *round) {
	r.turn = Turn{Timeout: l.timeout(r, time.Now())}
	more, err := r.task.Step(work, &r.turn)
	r.sent = r.sent || r.turn.Sent
	notYet, early := errors.AsType[*NotYet](err)
	switch {
	case early:
		l.pause(work, notYet.Until, nil)
	case err == nil && more:
		r.sent, r.acted = false, true
	default:
		l.end(work, r, err)
	}
}

// leave ends everything when the lane stops: it sends nothing any more.
func (l *Lane) leave(work context.Context) {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.takeIn(work)
	for _, r := range l.agenda.allJobs() {
		l.agenda.remove(r)
		l.end(work, r, ErrStopped)
	}
	for _, r := range l.agenda.begun() {
		l.agenda.remove(r)
		l.end(work, r, ErrLinkDown)
	}
	for { // workers give up when work ends
		l.mu.Lock()
		busy := l.working > 0 || len(l.returned) > 0
		l.mu.Unlock()
		if !busy {
			l.setState(Down, "stopped")
			return
		}
		<-l.wake
		l.takeIn(work)
	}
}
