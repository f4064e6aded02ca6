package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/mcp-edge/edge-agent/internal/doctor"
)

const (
	// importPatience is how long an import waits for room in the queue, and for its
	// sender to go on.
	importPatience = 20 * time.Second

	// compactWait is how long one request waits for a compaction to end.
	compactWait = 20 * time.Second
)

// importRecords stores the lines of the body, as edge-agent queue export writes them,
// and answers what became of them. One import goes on at a time.
func (s *Server) importRecords(w http.ResponseWriter, r *http.Request) {
	if !s.importing.TryLock() {
		s.refuse(w, http.StatusConflict, "another import is under way")
		return
	}
	defer s.importing.Unlock()
	body := &patientBody{Reader: r.Body, control: http.NewResponseController(w)}
	result, err := doctor.Import(r.Context(), s.agent.Queue(), s.agent.State().Agent, body, importPatience)
	s.log.Warn("records imported through the admin interface", "stored", result.Stored, "known", result.Known, "bad", result.Bad, "error", err)
	body.extend()
	switch {
	case err == nil, errors.Is(err, doctor.ErrImportFull):
		s.answer(w, result) // which says where it has stopped
	default:
		s.refuse(w, http.StatusInternalServerError, err.Error())
	}
}

// patientBody gives a long request time for as long as it goes on.
type patientBody struct {
	io.Reader
	control *http.ResponseController
	until   time.Time
}

func (b *patientBody) Read(p []byte) (int, error) {
	if time.Until(b.until) < 2*importPatience {
		b.extend()
	}
	return b.Reader.Read(p)
}

func (b *patientBody) extend() {
	b.until = time.Now().Add(3 * importPatience)
	// A connection that has no deadlines needs no longer ones.
	_ = errors.Join(b.control.SetReadDeadline(b.until), b.control.SetWriteDeadline(b.until))
}

// compactQueue gives free space in the queue's file back. It answers 200 when that is
// done, and 202 when it goes on; asking again waits for the same one.
func (s *Server) compactQueue(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), compactWait)
	defer cancel()
	err := s.agent.Queue().Compact(ctx)
	switch {
	case err == nil:
		s.answer(w, s.agent.State().Store.Compaction)
	case ctx.Err() != nil:
		s.answerWith(w, http.StatusAccepted, s.agent.State().Store.Compaction)
	default:
		s.refuse(w, http.StatusInternalServerError, err.Error())
	}
}
