package scheduler

import (
	"container/heap"
	"context"
	"time"
)

// round is a poll's current round. The lane's goroutine owns it.
type round struct {
	poll   Poll
	device *device

	due      time.Time // when this round is or was due; due + Every is its deadline
	wake     time.Time // when it moves from waiting to ready
	deadline time.Time // its rank among the ready ones
	begun    bool      // Begin was called and End was not
	tries    int       // of the current transaction
	losses   int       // of the line, in the current transaction
	reported bool      // this poll has said that device or link is away

	queue *queue // that it stands in, nil for neither
	index int    // in the queue
}

func (r *round) begin() {
	r.begun, r.tries, r.losses = true, 0, 0
	r.poll.Task.Begin(r.due)
}

func (r *round) end(ctx context.Context, err error) {
	r.begun = false
	r.poll.Task.End(ctx, err)
}

// advance moves due to the newest round that is due by now, but at least to the
// next one, and returns how many it left out. The phase stays.
func (r *round) advance(now time.Time) (skipped uint64) {
	steps := max(int64(now.Sub(r.due)/r.poll.Every), 1)
	r.due = r.due.Add(time.Duration(steps) * r.poll.Every)
	return uint64(steps - 1)
}

// skipTo moves due to the first round at or after t.
func (r *round) skipTo(t time.Time) {
	if behind := t.Sub(r.due); behind > 0 {
		steps := (behind + r.poll.Every - 1) / r.poll.Every
		r.due = r.due.Add(steps * r.poll.Every)
	}
}

// resume moves due back to the first round after now, when it lies further on.
func (r *round) resume(now time.Time) {
	if ahead := r.due.Sub(now); ahead > 0 {
		r.due = r.due.Add(-(ahead / r.poll.Every) * r.poll.Every)
	}
}

// agenda is what a lane has to do: rounds waiting for their time, and rounds
// that are due, by deadline.
type agenda struct {
	rounds  []*round // all of them, in the order of configuration
	waiting queue    // by wake
	ready   queue    // by deadline
}

func newAgenda(n int) *agenda {
	return &agenda{
		rounds:  make([]*round, 0, n),
		waiting: queue{before: func(a, b *round) bool { return a.wake.Before(b.wake) }},
		ready:   queue{before: func(a, b *round) bool { return a.deadline.Before(b.deadline) }},
	}
}

// start gives each poll its phase: they are spread evenly over their periods,
// so that polls of one period don't all fall due at once.
func (a *agenda) start(now time.Time) {
	for i, r := range a.rounds {
		r.due = now.Add(r.poll.Every / time.Duration(len(a.rounds)) * time.Duration(i))
		a.schedule(r, r.due)
	}
}

// schedule lets r wait until due.
func (a *agenda) schedule(r *round, due time.Time) {
	r.due = due
	r.deadline = due.Add(r.poll.Every)
	a.scheduleKeeping(r, due)
}

// scheduleKeeping lets r wait until t without moving its deadline.
func (a *agenda) scheduleKeeping(r *round, t time.Time) {
	r.wake = t
	a.waiting.add(r)
}

// reschedule moves a round that stands in a queue to its new due time.
func (a *agenda) reschedule(r *round) {
	if r.queue != nil {
		heap.Remove(r.queue, r.index)
	}
	a.schedule(r, r.due)
}

// push makes r ready again with its rank kept.
func (a *agenda) push(r *round) { a.ready.add(r) }

// pushLast makes r ready behind everything that is ready now.
func (a *agenda) pushLast(r *round) {
	for _, other := range a.ready.rounds {
		if !other.deadline.Before(r.deadline) {
			r.deadline = other.deadline.Add(1)
		}
	}
	a.ready.add(r)
}

// promote makes ready what has waited long enough.
func (a *agenda) promote(now time.Time) {
	for a.waiting.Len() > 0 && !a.waiting.rounds[0].wake.After(now) {
		a.ready.add(heap.Pop(&a.waiting).(*round))
	}
}

// pop takes the ready round with the earliest deadline; nil if none is ready.
func (a *agenda) pop() *round {
	if a.ready.Len() == 0 {
		return nil
	}
	return heap.Pop(&a.ready).(*round)
}

// nextWake is when something falls due, but not after limit.
func (a *agenda) nextWake(limit time.Time) time.Time {
	if a.waiting.Len() > 0 && a.waiting.rounds[0].wake.Before(limit) {
		return a.waiting.rounds[0].wake
	}
	return limit
}

// queue is a heap of rounds that know their place in it.
type queue struct {
	rounds []*round
	before func(a, b *round) bool
}

func (q *queue) add(r *round) { heap.Push(q, r) }

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
