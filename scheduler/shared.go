package scheduler

import "sync"

// Shared bounds what is scarce among all lanes: attempts to open a link at the
// same time, and workers. It may be used concurrently; the lanes own what runs
// in it, and wait for it before their Run returns.
type Shared struct {
	opening chan struct{} // holds one for each link in the middle of being opened
	most    int           // workers

	mu      sync.Mutex
	grace   *grace   // of the lanes that started last
	work    []func() // at most one of each device
	workers int
}

// SharedStatus is what an operator sees of it.
type SharedStatus struct {
	Opening    int `json:"opening"`     // links in the middle of being opened
	MaxOpening int `json:"max_opening"` // the most that may be
	Working    int `json:"working"`     // workers that have something to do
	MaxWorkers int `json:"max_workers"` // the most that may have
	Waiting    int `json:"waiting"`     // pieces of work without a worker
}

// NewShared makes what the lanes of an agent share.
func NewShared(cfg SharedConfig) *Shared {
	return &Shared{opening: make(chan struct{}, max(cfg.MaxOpening, 1)), most: max(cfg.Workers, 1)}
}

// Status may be called at any time.
func (s *Shared) Status() SharedStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SharedStatus{
		Opening: len(s.opening), MaxOpening: cap(s.opening),
		Working: s.workers, MaxWorkers: s.most, Waiting: len(s.work),
	}
}

// do has a worker call f. It returns at once.
func (s *Shared) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = append(s.work, f)
	if s.workers < s.most {
		s.workers++
		go s.worker()
	}
}

// worker works for as long as there is work.
func (s *Shared) worker() {
	for {
		s.mu.Lock()
		if len(s.work) == 0 {
			s.work = nil // what a burst has made of it is given back
			s.workers--
			s.mu.Unlock()
			return
		}
		f := s.work[0]
		s.work[0] = nil
		s.work = s.work[1:]
		s.mu.Unlock()
		f()
	}
}
