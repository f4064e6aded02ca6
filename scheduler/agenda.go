package scheduler

import (
	"container/heap"
	"math"
	"time"
)

// agenda is what a lane has to do: rounds waiting for their time, and those that
// may go now. A round stands in one queue, or in none while it is on the line or
// with a worker.
//
// A command goes before polls, the one with the earliest deadline first; so do
// polls among themselves. A poll's deadline is when its next round falls due, and
// does not move while it waits: whatever falls due after that comes behind it, so
// that it comes to its turn even on a line with too much to do. Commands that
// would keep the polls away for ever let one go after each commandRun of them.
//
// So no poll waits longer for its turn than its period, and then one round of
// each other poll with commandRun commands to each of its steps. (What else
// may hold a round, its device's rate or a request that was not answered, is up
// to Lane.admit.)
type agenda struct {
	rounds  []*round // of all polls, in the order of configuration
	waiting queue    // by wake
	polls   queue    // ready, by deadline
	jobs    queue    // ready, by deadline
	run     int      // commands that went since a poll did, while polls were ready
}

func newAgenda(n int) agenda {
	byDeadline := func(a, b *round) bool { return a.deadline.Before(b.deadline) }
	return agenda{
		rounds:  make([]*round, 0, n),
		waiting: queue{before: func(a, b *round) bool { return a.wake.Before(b.wake) }},
		polls:   queue{before: byDeadline},
		jobs:    queue{before: byDeadline},
	}
}

// start gives each poll its phase: they are spread evenly over their periods,
// so that polls of one period don't all fall due at once. shift, 0 to 1, moves
// all of them.
func (a *agenda) start(now time.Time, shift float64) {
	for i, r := range a.rounds {
		_, phase := math.Modf(float64(i)/float64(len(a.rounds)) + shift)
		r.due = now.Add(time.Duration(phase * float64(r.every)))
		a.schedule(r)
	}
}

// schedule lets a poll's round wait until it is due.
func (a *agenda) schedule(r *round) {
	r.deadline = r.due.Add(r.every)
	a.postpone(r, r.due)
}

// postpone lets r wait until t with its rank kept. A command that may still
// expire wakes up for that.
func (a *agenda) postpone(r *round, t time.Time) {
	if r.expires() && r.job.Deadline.Before(t) {
		t = r.job.Deadline
	}
	r.wake = t
	a.waiting.add(r)
}

// reschedule moves a poll's round that stands in a queue to its new due time.
func (a *agenda) reschedule(r *round) {
	if r.queue != nil {
		a.remove(r)
		a.schedule(r)
	}
}

// remove takes r out of the queue that it stands in, if any.
func (a *agenda) remove(r *round) {
	if r.queue != nil {
		heap.Remove(r.queue, r.index)
	}
}

// push makes r ready with its rank kept.
func (a *agenda) push(r *round) { a.readyQueue(r).add(r) }

func (a *agenda) readyQueue(r *round) *queue {
	if r.job != nil {
		return &a.jobs
	}
	return &a.polls
}

// pushLast makes r ready behind everything of its kind that is ready now; a
// command lets a poll go first, too.
func (a *agenda) pushLast(r *round) {
	q := a.readyQueue(r)
	if r.job != nil {
		a.run = commandRun
	}
	for _, other := range q.rounds {
		if !other.deadline.Before(r.deadline) {
			r.deadline = other.deadline.Add(1)
		}
	}
	q.add(r)
}

// promote makes ready what has waited long enough.
func (a *agenda) promote(now time.Time) {
	for a.waiting.Len() > 0 && !a.waiting.rounds[0].wake.After(now) {
		a.push(a.waiting.first())
	}
}

// pop takes the ready round whose turn it is; nil if none is ready. If it goes,
// went must be told.
func (a *agenda) pop() *round {
	if a.jobs.Len() > 0 && (a.run < commandRun || a.polls.Len() == 0) {
		return a.jobs.first()
	}
	return a.popPoll()
}

// popPoll is pop when no command may go.
func (a *agenda) popPoll() *round {
	if a.polls.Len() == 0 {
		return nil
	}
	return a.polls.first()
}

// went notes that r, which pop has returned, goes on the line.
func (a *agenda) went(r *round) {
	if r.job != nil && a.polls.Len() > 0 {
		a.run++
	} else {
		a.run = 0
	}
}

// ready is how many rounds could go now.
func (a *agenda) ready() int { return a.jobs.Len() + a.polls.Len() }

// nextEvent is when something falls due or expires, but not after limit.
func (a *agenda) nextEvent(limit time.Time) time.Time {
	if a.waiting.Len() > 0 {
		limit = earlier(limit, a.waiting.rounds[0].wake)
	}
	for _, r := range a.jobs.rounds {
		if r.expires() {
			limit = earlier(limit, r.job.Deadline)
		}
	}
	return limit
}

// expired takes the ready commands off whose deadline has passed.
func (a *agenda) expired(now time.Time) (list []*round) {
	for _, r := range a.jobs.rounds {
		if r.expires() && !r.job.Deadline.After(now) {
			list = append(list, r)
		}
	}
	for _, r := range list {
		a.remove(r)
	}
	return list
}

// allJobs lists the commands that are ready or wait.
func (a *agenda) allJobs() (list []*round) {
	list = append(list, a.jobs.rounds...)
	for _, r := range a.waiting.rounds {
		if r.job != nil {
			list = append(list, r)
		}
	}
	return list
}

// begun lists the polls' rounds that have begun.
func (a *agenda) begun() (list []*round) {
	for _, r := range a.rounds {
		if r.begun {
			list = append(list, r)
		}
	}
	return list
}

// queue is a heap of rounds that know their place in it.
type queue struct {
	rounds []*round
	before func(a, b *round) bool
}

func (q *queue) add(r *round) { heap.Push(q, r) }

// first takes the first one off; there must be one.
func (q *queue) first() *round { return heap.Pop(q).(*round) }

// The methods of heap.Interface.

func (q *queue) Len() int           { return len(q.rounds) }
func (q *queue) Less(i, j int) bool { return q.before(q.rounds[i], q.rounds[j]) }

func (q *queue) Swap(i, j int) {
	q.rounds[i], q.rounds[j] = q.rounds[j], q.rounds[i]
	q.rounds[i].index, q.rounds[j].index = i, j
}

func (q *queue) Push(x any) {
	r := x.(*round)
	r.queue, r.index = q, len(q.rounds)
	q.rounds = append(q.rounds, r)
}

func (q *queue) Pop() any {
	last := len(q.rounds) - 1
	r := q.rounds[last]
	q.rounds[last] = nil
	q.rounds = q.rounds[:last]
	r.queue = nil
	return r
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
