package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mcp-edge/edge-agent/internal/pattern"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
)

// Replays sends again what was delivered.
type Replays interface {
	// Start begins to send to an upstream, for each route that leads there. It fails
	// with ErrNotFound for one that no route leads to, and while a replay to it is
	// under way.
	Start(r ReplayRequest) error
	// Stop ends what Start began, or fails with ErrNotFound.
	Stop(upstream string) error
}

// ReplayRequest is the body of POST /api/v1/queue/replay.
type ReplayRequest struct {
	Upstream string       `json:"upstream"`
	From     time.Time    `json:"from,omitzero"`     // of the records' times, inclusive
	To       time.Time    `json:"to,omitzero"`       // not inclusive
	Devices  pattern.List `json:"devices,omitempty"` // as a route's match.device; all unless given
	Rate     int          `json:"rate,omitempty"`    // records a second and route; 1,000 unless given
}

func (r *ReplayRequest) check() error {
	switch {
	case r.Upstream == "":
		return errors.New(`say where to: {"upstream": "cloud"}`)
	case !r.From.IsZero() && !r.To.IsZero() && !r.From.Before(r.To):
		return errors.New("from is not before to")
	case r.Rate < 0, r.Rate > pipeline.MaxReplayRate:
		return fmt.Errorf("rate must be from 1 to %d records a second", pipeline.MaxReplayRate)
	}
	for _, glob := range r.Devices {
		if err := pattern.Check(glob); err != nil {
			return fmt.Errorf("device %q %w", glob, err)
		}
	}
	return nil
}

// replay answers 202 once it has begun; status shows how far it is.
func (s *Server) replay(w http.ResponseWriter, r *http.Request) {
	var request ReplayRequest
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	body.DisallowUnknownFields()
	if err := body.Decode(&request); err != nil {
		s.refuse(w, http.StatusBadRequest, `the body must be like {"upstream":"cloud","from":"2026-11-29T06:00:00Z","to":"2026-11-29T07:00:00Z"}: `+err.Error())
		return
	}
	if err := request.check(); err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	switch err := s.agent.Replays().Start(request); {
	case errors.Is(err, ErrNotFound):
		s.refuse(w, http.StatusNotFound, "no route leads to an upstream "+request.Upstream)
	case err != nil:
		s.refuse(w, http.StatusConflict, err.Error())
	default:
		s.log.Info("replay asked for through the admin interface", "upstream", request.Upstream, "from", request.From, "to", request.To)
		s.answerWith(w, http.StatusAccepted, request)
	}
}

func (s *Server) stopReplay(w http.ResponseWriter, r *http.Request) {
	if err := s.agent.Replays().Stop(r.PathValue("upstream")); err != nil {
		s.refuse(w, http.StatusNotFound, "no route leads to an upstream "+r.PathValue("upstream"))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
