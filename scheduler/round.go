package scheduler

import "time"

// round is a poll's current round, or a job. The lane's goroutine owns it, but
// turn, what follows it and more while it is on the line.
type round struct {
	task   Task
	device *device
	every  time.Duration // the poll's period
	job    *Job          // nil for a poll

	due      time.Time // when this round is or was due; when a job was submitted
	deadline time.Time // its rank among the ready ones
	wake     time.Time // when it moves from waiting to ready
	begun    bool      // Begin was called and End was not
	sent     bool      // the current transaction may have left, now or in an earlier try
	acted    bool      // a transaction before was answered
	reported bool      // this poll has said that device or link is away
	more     bool      // the transaction that ended last is not the round's last
	tries    int       // of the current transaction, that timed out
	losses   int       // of the line, in the current transaction

	began time.Time // when the transaction under way went on the line; the lane's mutex guards it
	turn  Turn      // of that transaction
	ended time.Time // how it went, as what follows
	err   error

	queue *queue // that it stands in, nil for none
	index int    // in the queue
}

func (r *round) begin() {
	r.begun, r.sent, r.acted, r.tries, r.losses = true, false, false, 0, 0
	r.task.Begin(r.due)
}

// expires tells whether r is a command that its deadline can still stop: once a
// device has answered a part of it, it is brought to its end.
func (r *round) expires() bool { return r.job != nil && !r.acted }

// advance moves due to the newest round that is due by now, but at least to the
// next one, and returns how many it left out. The phase stays.
func (r *round) advance(now time.Time) (skipped uint64) {
	steps := max(int64(now.Sub(r.due)/r.every), 1)
	r.due = r.due.Add(time.Duration(steps) * r.every)
	return uint64(steps - 1)
}

// skipTo moves due to the first round at or after t.
func (r *round) skipTo(t time.Time) {
	if behind := t.Sub(r.due); behind > 0 {
		steps := (behind + r.every - 1) / r.every
		r.due = r.due.Add(steps * r.every)
	}
}

// resume moves due back to the first round after now, when it lies further on.
func (r *round) resume(now time.Time) {
	if ahead := r.due.Sub(now); ahead > 0 {
		r.due = r.due.Add(-((ahead - 1) / r.every) * r.every)
	}
}
