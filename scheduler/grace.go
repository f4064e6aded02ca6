package scheduler

import "context"

// grace is a context that outlives that of the lanes which run, so that an answer
// on its way when the agent is stopped is still taken. They share one: a context of
// its own would cost each lane more memory than its polls do.
type grace struct {
	of     <-chan struct{} // Done of the lanes' context
	work   context.Context
	cancel context.CancelFunc
	lanes  int // that use it; guarded by Shared.mu
}

// graced returns a context that ends stopGrace after ctx, and what lets go of it.
func (s *Shared) graced(ctx context.Context) (work context.Context, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.grace
	if g == nil || g.of != ctx.Done() {
		g = newGrace(ctx)
		s.grace = g
	}
	g.lanes++
	return g.work, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if g.lanes--; g.lanes > 0 {
			return
		}
		g.cancel()
		if s.grace == g {
			s.grace = nil
		}
	}
}

func newGrace(ctx context.Context) *grace {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		last, done := context.WithTimeout(work, stopGrace)
		defer done()
		<-last.Done()
		cancel()
	})
	return &grace{of: ctx.Done(), work: work, cancel: cancel}
}
