package main

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// front is group commit for a log that has none: producers add to one group while
// the other is written. It gathers as the store does: a producer that is about to
// append is given the chance to.
type front struct {
	body []byte
	mu   sync.Mutex
	next group
	done chan struct{} // of next
	kick chan struct{}
	stop chan struct{}
	ran  chan struct{}
	err  error // the first one; set before done is closed
}

// group is what one write commits.
type group interface {
	add(body []byte)
	size() int
	write() error // and empties it
}

func newFront(a, b group) *front {
	f := &front{
		body: make([]byte, bodySize), next: a,
		done: make(chan struct{}), kick: make(chan struct{}, 1), stop: make(chan struct{}), ran: make(chan struct{}),
	}
	go f.run(b)
	return f
}

func (f *front) send() (<-chan struct{}, error) {
	f.mu.Lock()
	first := f.next.size() == 0
	f.next.add(f.body)
	done := f.done
	f.mu.Unlock()
	if first {
		select {
		case f.kick <- struct{}{}:
		default:
		}
	}
	return done, nil
}

func (f *front) wait(done <-chan struct{}) error {
	<-done
	return f.err
}

func (f *front) append(int) error {
	done, _ := f.send()
	return f.wait(done)
}

func (f *front) pipeline(window int, done *atomic.Bool) (int64, error) {
	return pipelined(window, done, f.send, f.wait)
}

func (f *front) run(other group) {
	defer close(f.ran)
	for {
		select {
		case <-f.kick:
		case <-f.stop:
			return
		}
		last := 0
		for range 20 {
			runtime.Gosched()
			f.mu.Lock()
			n := f.next.size()
			f.mu.Unlock()
			if n == last {
				break
			}
			last = n
		}
		f.mu.Lock()
		full, done := f.next, f.done
		f.next, f.done = other, make(chan struct{})
		f.mu.Unlock()
		if err := full.write(); err != nil && f.err == nil {
			f.err = err
		}
		other = full
		close(done)
	}
}

func (f *front) close() {
	close(f.stop)
	<-f.ran
}
