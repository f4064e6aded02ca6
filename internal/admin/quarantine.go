package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
)

// listQuarantine answers a page of what could not be delivered, oldest first.
func (s *Server) listQuarantine(w http.ResponseWriter, r *http.Request) {
	position, limit := int64(0), defaultPage
	var err error
	if text := r.URL.Query().Get("position"); text != "" {
		if position, err = strconv.ParseInt(text, 10, 64); err != nil || position < 0 {
			s.refuse(w, http.StatusBadRequest, fmt.Sprintf(`position=%q can't be; take "next" of the answer before`, text))
			return
		}
	}
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > doctor.MaxPageRecords {
			s.refuse(w, http.StatusBadRequest, fmt.Sprintf("limit=%q can't be; write a number from 1 to %d", text, doctor.MaxPageRecords))
			return
		}
	}
	page, err := s.agent.Queue().Quarantine().Page(position, limit)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	s.answerLine(w, page)
}

// retryQuarantine takes {"ids": ["…"]} or {"all": true}, and answers how many are
// sent again now.
func (s *Server) retryQuarantine(w http.ResponseWriter, r *http.Request) {
	ids, err := entriesOf(w, r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	n, err := s.agent.Queue().Quarantine().Retry(ids)
	switch {
	case errors.Is(err, pipeline.ErrNoEntry):
		s.refuse(w, http.StatusNotFound, err.Error())
	case err != nil:
		s.refuse(w, http.StatusConflict, err.Error())
	default:
		s.log.Info("quarantine: entries are sent again, as asked for through the admin interface", "entries", n)
		s.answerWith(w, http.StatusAccepted, map[string]int{"retrying": n})
	}
}

// deleteQuarantine takes the same and answers how many are gone.
func (s *Server) deleteQuarantine(w http.ResponseWriter, r *http.Request) {
	ids, err := entriesOf(w, r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	n, err := s.agent.Queue().Quarantine().Delete(ids)
	switch {
	case err != nil:
		s.refuse(w, http.StatusInternalServerError, err.Error())
	case n == 0 && ids != nil:
		s.refuse(w, http.StatusNotFound, pipeline.ErrNoEntry.Error())
	default:
		s.log.Warn("quarantine: entries deleted through the admin interface", "entries", n)
		s.answer(w, map[string]int{"deleted": n})
	}
}

// entriesOf reads which entries are meant; nil is all of them.
func entriesOf(w http.ResponseWriter, r *http.Request) ([]string, error) {
	var body struct {
		IDs []string `json:"ids"`
		All bool     `json:"all"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&body) != nil || body.All == (len(body.IDs) > 0) {
		return nil, errors.New(`the body must be {"ids": ["…"]} or {"all": true}`)
	}
	return body.IDs, nil
}
