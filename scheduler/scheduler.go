// Package scheduler shares lines among the devices on them.
//
// A Lane works one link: it opens it, keeps it open, and does what is due on
// it. It knows neither the protocol nor the transport: a driver hands it a Link
// to open, a Task for each poll and a Job for each command, and the lane says
// when. A Shared holds what is scarce among all lanes: workers for what is too
// heavy for a line, and attempts to open a link at the same time.
//
// What it promises:
//
//   - A line carries one transaction at a time, or as many as it is configured
//     for. A command goes before polls, polls go by earliest deadline, and
//     nothing starves: see agenda.
//   - Polls keep their phase: round n of a poll is due at start + n × Every,
//     however late round n-1 was. A round that is still waiting when the next
//     falls due is skipped and counted, never queued twice. At start they are
//     spread over their periods.
//   - One bad device hurts nobody else. Its unanswered requests may take a
//     share of the line's time and no more (see device), a retry waits for its
//     turn, a device that stays silent is quarantined: probed with growing,
//     jittered distances, each time for no longer than its neighbours can bear
//     (see patience). Its first good answer brings it back to its period.
//   - A lost line is a fault of the link, not of its devices: it is opened
//     again with exponential backoff and full jitter, without a last try, and
//     more seldom once its breaker is open. A time-out is never a fault of the
//     line.
//   - What a round leads to leaves in order for each device, and none of it
//     holds the line: what would wait or is heavy is done by a worker.
package scheduler

import (
	"context"
	"errors"
	"time"
)

// Link is the line that a lane works on; a driver implements it. The lane
// calls Open and Close in turn, one at a time, and never while a Task steps.
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

// Task is a round of one or more transactions with one device: a poll's, again
// and again, or a command's, once. The lane calls it from one goroutine at a
// time, and interleaves the steps of its tasks; on a link with several
// transactions at a time, different tasks step at the same time.
//
// Each Begin is followed by any number of Steps and then by one End, and there is
// no End without a Begin: a round that the lane gives up untried begins and ends
// at once.
type Task interface {
	// Begin starts a round that fell due at due.
	Begin(due time.Time)

	// Step does the next transaction of the round. The device has t.Timeout for
	// its answer; the step fills in the rest of t. ctx ends when the lane gives
	// up the line or is stopped. more says that the round needs another step. An
	// error says that this one failed, and its class what comes next:
	//
	//	os.ErrDeadlineExceeded, context.DeadlineExceeded   the device was silent: tried again in its turn
	//	transport.ErrLost, net.ErrClosed                    the line is gone: opened again, the step repeated
	//	*NotYet                                             not before a certain time: asked again then
	//	any other                                           the round ends with it
	Step(ctx context.Context, t *Turn) (more bool, err error)

	// End closes the round: err is nil when every step was done, and otherwise
	// why the lane gave it up. It must be quick and must not wait: what takes
	// long or may have to wait, End returns as work, and a worker does it. The
	// next End of the same device's polls comes after that, and so does the
	// poll's next Begin. ctx ends when the agent can't wait any longer; nil means
	// that there is nothing left to do. The work of a job is done on the spot, so
	// it must not wait.
	End(err error) (work func(ctx context.Context))
}

// Turn is one transaction's time on the line: the lane says how long it may
// take, the step says how long it took.
type Turn struct {
	// Timeout is how long the device may take to answer, > 0: from when the
	// request has left until its answer would begin. A step on a slow line adds
	// the time that the answer itself takes on the wire.
	Timeout time.Duration

	// Deadline of a command: past it the step sends nothing any more, however long
	// it had to wait for the line, and returns ErrExpired. Zero for a poll, and once a
	// step of the command was answered.
	Deadline time.Time

	// Sent is set by the step before the first byte may leave. A command whose
	// outcome nobody saw is not sent again after that, unless it may be repeated.
	Sent bool
	// Took, set by the step, is how much of Timeout the device needed to answer;
	// 0 when it did not, or the step can't tell. Time-outs adapt to it.
	Took time.Duration
	// Unanswered is set by a step that succeeded although no device answers it, as
	// a broadcast: it says nothing about any.
	Unanswered bool
	// Garbled and Foreign, set by the step, are how many bad frames it met while it
	// waited, and how many good ones that were not the answer: of another device,
	// to another request, or late.
	Garbled, Foreign int
}

// NotYet is a Step's answer when it must not go on the line before Until.
type NotYet struct{ Until time.Time }

func (n *NotYet) Error() string { return "not before " + n.Until.Format(time.TimeOnly) }

// Poll is what a lane does again and again for a device.
type Poll struct {
	Device string
	Name   string
	Every  time.Duration // the period, > 0
	Task   Task
}

// Job is what is to be done once, ahead of polls: a command toward a device. It
// waits for a line that is down, and for a device that must not be asked yet,
// until its deadline.
type Job struct {
	Device string
	Task   Task // its Begin gets the time of Submit
	// Deadline is when it is too late: from then on nothing of it is sent, unless
	// the device has answered a step already, and it ends with ErrExpired.
	Deadline time.Time
	// Repeat says that a step may be sent again although it was sent and its
	// outcome was not seen: after a time-out as a poll's, and after a loss of the
	// line, unless an earlier step was answered. The job ends with the last
	// attempt's error then, or with ErrExpired or ErrStopped, and it is up to the
	// caller what that means. Without Repeat it ends with ErrUnknown at once.
	Repeat bool
}

// Errors that End gets beside those of Step.
var (
	// ErrSilent: the device has not answered for a while and is only probed now
	// and then; this round was not tried.
	ErrSilent = errors.New("device is silent, being probed")
	// ErrLinkDown: the line could not be opened.
	ErrLinkDown = errors.New("link is down")
	// ErrExpired: the job's deadline passed before it could be sent.
	ErrExpired = errors.New("its deadline passed before it could be sent")
	// ErrUnknown, with the cause: a job without Repeat was sent, or answered in
	// part, and its outcome not seen. It may have been carried out.
	ErrUnknown = errors.New("outcome unknown")
	// ErrStopped: the lane was stopped before the job was sent, or could be sent
	// again.
	ErrStopped = errors.New("the agent was stopped before it was sent")
)

// Errors of Submit.
var (
	// ErrBusy: too many jobs wait on the lane.
	ErrBusy = errors.New("too many commands wait for this link")
)
