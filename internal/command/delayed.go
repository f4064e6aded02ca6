package command

import (
	"container/heap"
	"time"
)

// delayed are the devices that wait before they are tried again, soonest first:
// a heap, as there may be ten thousand that are away.
type delayed struct{ byTime byRetry }

// add lets d wait until d.retryAt.
func (q *delayed) add(d *device) {
	q.remove(d)
	heap.Push(&q.byTime, d)
}

func (q *delayed) remove(d *device) {
	if d.place > 0 {
		heap.Remove(&q.byTime, d.place-1)
	}
}

// first is the one to be tried next; nil: none waits.
func (q *delayed) first() *device {
	if len(q.byTime) == 0 {
		return nil
	}
	return q.byTime[0]
}

// byRetry implements heap.Interface.
type byRetry []*device

func (q byRetry) Len() int           { return len(q) }
func (q byRetry) Less(i, j int) bool { return q[i].retryAt < q[j].retryAt }

func (q byRetry) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

func (q *byRetry) Push(x any) {
	d, _ := x.(*device)
	*q = append(*q, d)
	d.place = len(*q)
}

func (q *byRetry) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q, d.place = (*q)[:last], 0
	return d
}

// delay lets a device wait.
func (r *Room) delay(d *device, now Instant, wait time.Duration) {
	d.retryAt = now.Up + wait
	r.delayed.add(d)
	r.rouse()
}

// retry goes on with devices that have waited, a thousand at a look, so that it
// does not hold the room for long.
func (r *Room) retry(now Instant) {
	for range 1000 {
		d := r.delayed.first()
		if d == nil || now.Up < d.retryAt {
			return
		}
		r.advance(d, now)
	}
}
