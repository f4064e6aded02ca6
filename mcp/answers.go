package mcp

import (
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// Bounds of an Answers table.
const (
	answerTime  = 30 * time.Second
	maxAnswers  = 1024
	answerBytes = 4 << 20 // of payload; the requests that run may add theirs on top
)

// Answers keeps each response for 30 s, so that a request repeated with its id
// is answered again and not done again. Sessions share one, because a peer may
// repeat a request after it has connected anew. When the table is full, new
// requests get CodeBusy: an answer is never given up early.
//
// All methods may be called concurrently.
type Answers struct {
	mu     sync.Mutex
	known  map[answerKey]*answer
	oldest []answerKey // finished ones, by the time they finished
	bytes  int
}

// NewAnswers makes an empty table.
func NewAnswers() *Answers { return &Answers{known: make(map[answerKey]*answer)} }

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
	case len(a.known) >= maxAnswers || a.bytes >= answerBytes:
		return Response{}, answerFull
	}
	a.known[k] = new(answer)
	return Response{}, answerNew
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

// expire forgets what has been kept for long enough.
func (a *Answers) expire(now time.Time) {
	n := 0
	for ; n < len(a.oldest); n++ {
		known := a.known[a.oldest[n]]
		if now.Sub(known.finished) < answerTime {
			break
		}
		a.bytes -= len(known.response.Payload)
		delete(a.known, a.oldest[n])
	}
	a.oldest = append(a.oldest[:0], a.oldest[n:]...)
}
