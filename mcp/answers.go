package mcp

import (
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// Bounds of an Answers table.
const (
	answerTime      = 30 * time.Second
	maxAnswers      = 1 << 14
	maxAnswersOfOne = 1 << 10 // peer, so that no one takes the room of all
	answerBytes     = 4 << 20 // of payload; the requests that run may add theirs on top
)

// Answers keeps each response for 30 s, so that a request repeated with its id
// is answered again and not done again. Sessions share one, because a peer may
// repeat a request after it has connected anew. When the table is full, new
// requests get CodeBusy: an answer is never given up early. A peer has a share
// of it that is a sixteenth.
//
// All methods may be called concurrently.
type Answers struct {
	mu     sync.Mutex
	known  map[answerKey]*answer
	of     map[string]int // how many of known a sender has
	brief  bool           // gives up the oldest answer rather than refuse
	oldest []answerKey    // finished ones, by the time they finished
	bytes  int
}

// NewAnswers makes an empty table.
func NewAnswers() *Answers {
	return &Answers{known: make(map[answerKey]*answer), of: make(map[string]int)}
}

// newBriefAnswers makes a table for requests that the network repeats, which it
// does within moments: the peer was not promised anything.
func newBriefAnswers() *Answers {
	a := NewAnswers()
	a.brief = true
	return a
}

type answerKey struct {
	sender string
	epoch  record.Epoch
	id     uint64
}

type answer struct {
	response Response
	finished time.Time // zero while it runs
}

type answerVerdict uint8

const (
	answerNew     answerVerdict = iota // do it
	answerKnown                        // here is the response
	answerRunning                      // it is being done
	answerFull                         // no room
)

// begin says what to do with a request; answerNew demands that end follows.
func (a *Answers) begin(k answerKey, now time.Time) (Response, answerVerdict) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire(now)
	known := a.known[k]
	switch {
	case known != nil && known.finished.IsZero():
		return Response{}, answerRunning
	case known != nil:
		return known.response, answerKnown
	case !a.hasRoom(k.sender):
		return Response{}, answerFull
	}
	a.known[k] = new(answer)
	a.of[k.sender]++
	return Response{}, answerNew
}

// hasRoom says whether one more of the sender's may be kept. The caller holds mu.
func (a *Answers) hasRoom(sender string) bool {
	full := func() bool {
		return a.of[sender] >= maxAnswersOfOne || len(a.known) >= maxAnswers || a.bytes >= answerBytes
	}
	for a.brief && full() && len(a.oldest) > 0 {
		a.forget(1)
	}
	return !full()
}

// end keeps the response to a request that begin let run.
func (a *Answers) end(k answerKey, r Response, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.known[k]
	known.response, known.finished = r, now
	a.bytes += len(r.Payload)
	a.oldest = append(a.oldest, k)
}

// expire forgets what has been kept for long enough. The caller holds mu.
func (a *Answers) expire(now time.Time) {
	n := 0
	for n < len(a.oldest) && now.Sub(a.known[a.oldest[n]].finished) >= answerTime {
		n++
	}
	a.forget(n)
}

// forget drops the n oldest. The caller holds mu.
func (a *Answers) forget(n int) {
	for _, k := range a.oldest[:n] {
		a.bytes -= len(a.known[k].response.Payload)
		delete(a.known, k)
		if a.of[k.sender]--; a.of[k.sender] == 0 {
			delete(a.of, k.sender)
		}
	}
	a.oldest = append(a.oldest[:0], a.oldest[n:]...)
}
