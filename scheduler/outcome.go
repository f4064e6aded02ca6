package scheduler

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"

	"github.com/mcp-edge/edge-agent/transport"
)

// ended is a round whose Task is still to be told.
type ended struct {
	round *round
	err   error
}

// Unseen tells whether err leaves open what became of a request that was sent:
// the device was silent, the line was lost, or the job was given up before an
// answer came.
func Unseen(err error) bool {
	return slices.ContainsFunc([]error{
		os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled, transport.ErrLost, net.ErrClosed,
		ErrLinkDown, ErrExpired, ErrStopped,
	}, func(open error) bool { return errors.Is(err, open) })
}

// end closes a round: its Task is told, at once or when it is its turn among
// those of its device, and a poll's next round goes on the agenda when that is
// done. A job never waits: its device's readings may, for room in the queue.
func (l *Lane) end(work context.Context, r *round, err error) {
	if !r.begun {
		r.begin() // each End has a Begin, whatever became of the round
	}
	r.begun = false
	if r.job != nil {
		if rest := r.task.End(endOfJob(work, r, err)); rest != nil {
			rest(work)
		}
		l.closed(r)
		return
	}
	d := r.device
	d.ended = append(d.ended, ended{r, err})
	if len(d.ended) == 1 { // else a worker has the first one
		l.tell(work, d)
	}
}

// tell tells the Tasks of d's ended rounds, in order, until one of them leaves
// work to a worker. That round stays the first of them until the work is done.
func (l *Lane) tell(work context.Context, d *device) {
	for len(d.ended) > 0 {
		first := d.ended[0]
		if rest := first.round.task.End(first.err); rest != nil {
			l.handOver(work, d, rest)
			return
		}
		l.told(d)
	}
}

// handOver has a worker do the rest of d's first ended round.
func (l *Lane) handOver(work context.Context, d *device, rest func(context.Context)) {
	l.mu.Lock()
	l.working++
	l.mu.Unlock()
	l.shared.do(func() {
		rest(work)
		l.mu.Lock()
		l.working--
		l.returned = append(l.returned, d)
		l.mu.Unlock()
		l.rouse()
	})
}

// goOn follows a worker that has finished d's first ended round.
func (l *Lane) goOn(work context.Context, d *device) {
	l.told(d)
	l.tell(work, d)
}

// told takes off d's first ended round.
func (l *Lane) told(d *device) {
	first := d.ended[0].round
	d.ended = slices.Delete(d.ended, 0, 1)
	l.closed(first)
}

// closed is when a round is over and its Task has been told.
func (l *Lane) closed(r *round) {
	l.mu.Lock()
	if r.job != nil {
		l.jobs--
		l.status.Commands++
	} else {
		l.status.Rounds++
	}
	l.mu.Unlock()
	if r.job == nil {
		l.again(r)
	}
}
