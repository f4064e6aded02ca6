package mcp

import (
	"context"
	"time"
)

// job is a request of the peer's to be answered.
type job struct {
	request Request
	key     answerKey
	due     time.Time // when it is of no use any more; zero: never
}

// employ has a worker do the job: one that rests, else a new one. A worker is a
// goroutine; it rests between jobs because a fresh stack must grow each time,
// which takes longer than a quick handler does. A session that is idle has none.
func (s *Session) employ(j job) {
	s.mu.Lock()
	if last := len(s.resting) - 1; last >= 0 {
		worker := s.resting[last]
		s.resting = s.resting[:last]
		s.mu.Unlock()
		worker <- j
		return
	}
	s.mu.Unlock()
	s.running.Add(1)
	go s.work(j)
}

// work does a job, and others until it is dismissed.
func (s *Session) work(j job) {
	defer s.running.Done()
	s.answer(j)
	jobs := make(chan job, 1)
	for s.restUntil(jobs) {
		next, more := <-jobs
		if !more {
			return
		}
		s.answer(next)
	}
}

// restUntil lets a worker be found by employ, unless there is nothing left to do.
func (s *Session) restUntil(jobs chan job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return false
	}
	s.resting = append(s.resting, jobs)
	return true
}

// dismiss ends the workers that rest. The caller holds mu.
func (s *Session) dismiss() {
	for _, jobs := range s.resting {
		close(jobs)
	}
	s.resting = nil
}

// answer runs the handler.
func (s *Session) answer(j job) {
	ctx := s.working
	if !j.due.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, j.due)
		defer cancel()
	}
	a := s.handler.Request(ctx, j.request)
	a.ID = j.request.ID
	if s.cfg.Answers != nil {
		s.cfg.Answers.end(j.key, a, time.Now())
	}
	err := s.queue(&a)
	crowd := s.hasRun()
	if err != nil {
		s.fail(err)
		return
	}
	s.flush(crowd)
}
