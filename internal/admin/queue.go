package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/internal/pattern"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
)

// Queue is the queue itself, to look into and to mend: a store.Store.
type Queue interface {
	doctor.Queue
	Path() string // of its file
	// Compact gives free space in the file back, and waits for one that is under way.
	Compact(ctx context.Context) error
	Quarantine() Quarantine
}

// Quarantine are the records that could not be delivered: a pipeline.Retrier.
type Quarantine interface {
	Page(from int64, limit int) (pipeline.QuarantinePage, error)
	Retry(ids []string) (int, error)
	Delete(ids []string) (int, error)
}

// defaultPage is how many records are shown unless the request says otherwise.
const defaultPage = 100

func (s *Server) queueStatus(w http.ResponseWriter, _ *http.Request) {
	st := s.agent.State()
	file := s.agent.Queue().Path()
	if whole, err := filepath.Abs(file); err == nil {
		file = whole
	}
	s.answer(w, doctor.Status{Agent: st.Agent, Epoch: st.Epoch, File: file, Running: true, Started: st.Started, Store: st.Store, Quarantine: st.Quarantine, Retry: st.Retry})
}

// listRecords answers a page of what is in the queue, delivered or not.
func (s *Server) listRecords(w http.ResponseWriter, r *http.Request) {
	filter, limit, err := recordsOf(r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	e := doctor.Encoder{Agent: s.agent.State().Agent}
	if r.URL.Query().Get("exact") == "true" {
		e.Form = doctor.Exact
	}
	page, err := doctor.ReadPage(r.Context(), s.agent.Queue(), filter, &e, limit)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	s.answerLine(w, page)
}

// answerLine is answer without indents, which would cost as much again.
func (s *Server) answerLine(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	s.write(w, append(text, '\n'))
}

func recordsOf(r *http.Request) (f doctor.Filter, limit int, err error) {
	query := r.URL.Query()
	limit = defaultPage
	f.Devices, f.Streams = query["device"], query["stream"]
	for _, globs := range []pattern.List{f.Devices, f.Streams} {
		for _, glob := range globs {
			if err := pattern.Check(glob); err != nil {
				return f, 0, fmt.Errorf("the pattern %q %w", glob, err)
			}
		}
	}
	for name, t := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		if text := query.Get(name); text != "" {
			if *t, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return f, 0, fmt.Errorf("%s=%q is no time; write it as 2026-11-22T05:08:00Z", name, text)
			}
		}
	}
	if f.Position, err = positionOf(r); err != nil {
		return f, 0, err
	}
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > doctor.MaxPageRecords {
			return f, 0, fmt.Errorf("limit=%q can't be; write a number from 1 to %d", text, doctor.MaxPageRecords)
		}
	}
	return f, limit, nil
}

func positionOf(r *http.Request) (uint64, error) {
	text := r.URL.Query().Get("position")
	if text == "" {
		return 0, nil
	}
	position, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("position=%q is no position; write a whole number from 1", text)
	}
	return position, nil
}

// listSources sums up a part of the queue by device and stream.
func (s *Server) listSources(w http.ResponseWriter, r *http.Request) {
	position, err := positionOf(r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	sums, err := doctor.ReadSums(r.Context(), s.agent.Queue(), s.agent.State().Agent, position)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	s.answerLine(w, sums)
}
