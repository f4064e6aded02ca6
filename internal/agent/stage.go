package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// part is something with a Run: it blocks until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// stage is a group of parts that start and stop together. The stages start in
// the order of the way of a record, from the disk outward, and stop the other
// way round.
type stage struct {
	name   string
	log    *slog.Logger
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	failed map[string]string // part → why it is not running now
}

// restart bounds the wait before a part that failed is run again.
const (
	restartMin = time.Second
	restartMax = time.Minute
)

// start runs the parts. A part that fails is run again after a while, and
// nobody else notices: what it failed with stands in failures.
func start(name string, log *slog.Logger, parts []part) *stage {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stage{name: name, log: log, cancel: cancel, failed: make(map[string]string)}
	for i := range parts {
		s.done.Go(func() { s.keep(ctx, &parts[i]) })
	}
	return s
}

// keep runs p until ctx ends. It does little itself: ten thousand links each have
// its frame on their stack.
func (s *stage) keep(ctx context.Context, p *part) {
	for wait := restartMin; ; wait = min(2*wait, restartMax) {
		began := time.Now()
		err := p.run(ctx)
		if time.Since(began) > restartMax {
			wait = restartMin
		}
		if !s.pause(ctx, p.name, err, wait) {
			return
		}
	}
}

// pause waits before a part that ended with err is run again; false means that it
// was to end.
func (s *stage) pause(ctx context.Context, name string, err error, wait time.Duration) bool {
	if ctx.Err() != nil {
		if err != nil {
			s.log.Warn("stopped with an error", "part", name, "error", err)
		}
		return false
	}
	if err == nil {
		err = fmt.Errorf("ended by itself")
	}
	s.log.Error("a part failed, it is run again", "part", name, "error", err)
	s.note(name, err.Error())
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.note(name, "")
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *stage) note(name, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason == "" {
		delete(s.failed, name)
		return
	}
	s.failed[name] = reason
}

// failures lists the parts that wait to be run again, with the reason.
func (s *stage) failures() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]string, 0, len(s.failed))
	for name, reason := range s.failed {
		list = append(list, name+": "+reason)
	}
	return list
}

// stop ends the parts and waits for them, at most for limit: a part that hangs
// must not keep the others from stopping in good order.
func (s *stage) stop(limit time.Duration) {
	s.cancel()
	ended := make(chan struct{})
	go func() {
		s.done.Wait()
		close(ended)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		s.log.Error("did not stop in time, going on without it", "stage", s.name, "limit", limit)
	}
}
