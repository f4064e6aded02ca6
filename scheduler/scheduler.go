// Package scheduler shares a line among the devices on it.
//
// A Lane works one link: it opens it, keeps it open, and does what is due on
// it, one transaction at a time, in the order of deadlines. It knows neither
// the protocol nor the transport: a driver hands it a Link to open and a Task
// for each poll, and the lane says when.
//
// What it promises:
//
//   - Polls keep their phase: round n of a poll is due at start + n × Every,
//     however late round n-1 was. A round that is still waiting when the next
//     falls due is skipped and counted, never queued twice.
//   - A transaction that timed out is tried again up to Retries times, but each
//     time behind everything else that is due: a retry waits for its turn.
//   - A device that stays silent backs off, so that a dead one costs its
//     neighbours one time-out now and then. Its first good answer brings it
//     back to its period.
//   - A lost line is a fault of the link, not of its devices: it is opened
//     again with exponential backoff and full jitter, without a last try.
package scheduler

import (
	"context"
	"time"
)

// Link is the line that a lane works on; a driver implements it. The lane
// calls Open and Close from one goroutine, in turn.
type Link interface {
	// Open makes one attempt to bring the line up and returns when Tasks may
	// step on it. An error of class transport.ErrPermanent is retried slowly.
	Open(ctx context.Context) error

	// Lost returns a channel that is closed when the line that was opened last
	// is gone without a Task noticing; nil when the link can't tell by itself.
	Lost() <-chan struct{}

	// Close ends the line that was opened last, and what runs on it.
	Close() error
}

// Task is one poll of one device: a round of one or more transactions. The
// lane calls it from one goroutine, and interleaves the steps of its tasks.
type Task interface {
	// Begin starts a round that fell due at due.
	Begin(due time.Time)

	// Step does the next transaction of the round; ctx ends at its time-out.
	// more says that the round needs another step. An error says that this one
	// failed, and its class what comes next:
	//
	//	os.ErrDeadlineExceeded, context.DeadlineExceeded   the device was silent: tried again in its turn
	//	transport.ErrLost, net.ErrClosed                    the line is gone: opened again, the step repeated
	//	*NotYet                                             not before a certain time: asked again then
	//	any other                                           the round ends with it
	Step(ctx context.Context) (more bool, err error)

	// End closes the round: err is nil when every step was done, and otherwise
	// why the lane gave it up. The task delivers what it has, good or bad. ctx
	// may end before delivery is possible; then the record is given up.
	End(ctx context.Context, err error)
}

// NotYet is a Step's answer when it must not go on the line before Until.
type NotYet struct{ Until time.Time }

func (n *NotYet) Error() string { return "not before " + n.Until.Format(time.TimeOnly) }

// Poll is what a lane does again and again for a device.
type Poll struct {
	Device  string
	Name    string
	Every   time.Duration // the period, > 0
	Timeout time.Duration // of one transaction, > 0
	Retries int           // further tries of a transaction that timed out, ≥ 0
	Task    Task
}
