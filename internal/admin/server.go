// Package admin answers operators and their tools over HTTP: health, metrics,
// status, and commands toward devices. It shows what the agent hands it through
// narrow interfaces and knows nothing of how that comes about.
//
// Reading is open to whoever reaches the port, which is loopback unless the
// configuration says otherwise; that includes what was commanded, with payloads
// and answers. Changing anything, and commanding a device, takes the token in
// data_dir/admin.token, and a Host and Origin that are this server's own, so
// that a web page in an operator's browser can't do it.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Agent is what the server shows and changes.
type Agent interface {
	// State is a snapshot, taken anew at each call.
	State() State
	// Devices lists all devices by id.
	Devices() []Device
	// Peers lists the MCP peers of all listeners, by listener and sender.
	Peers() []Peer
	// SetLogLevel takes "debug", "info", "warn" or "error".
	SetLogLevel(level string) error
	// Queue is what is stored, to look into.
	Queue() Queue
	// ForgetCursor gives up what a route that is gone has not delivered.
	ForgetCursor(name string) error
	// Replays sends again what was delivered.
	Replays() Replays
}

// ErrNotFound is the answer of ForgetCursor and Replays for a name that there is not.
var ErrNotFound = errors.New("not found")

// Server is the admin interface. New binds nothing; Listen does, then Run serves.
type Server struct {
	agent    Agent
	commands Commands
	token    string
	log      *slog.Logger
	listen   string
	listener net.Listener
	server   *http.Server

	importing sync.Mutex // held during an import
}

// writeTimeout is how long a client may take for an answer.
const writeTimeout = 30 * time.Second

// New makes a server; token is what changing anything takes.
func New(cfg Config, agent Agent, commands Commands, token string, log *slog.Logger) *Server {
	s := &Server{agent: agent, commands: commands, token: token, log: log, listen: cfg.Listen}
	s.server = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Listen takes the port, so that a port in use is an error at start.
func (s *Server) Listen(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.listen)
	if err != nil {
		return fmt.Errorf("admin: can't listen on %s: %w; is another edge-agent running, or another program on the port? [admin] listen chooses another", s.listen, err)
	}
	s.listener = listener
	return nil
}

// Address is where the server listens, with the port that was really taken.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Run serves until ctx ends, lets requests under way finish for a second, and
// returns nil then. Who waits for a command is answered at once. Listen comes
// before it.
func (s *Server) Run(ctx context.Context) error {
	s.server.BaseContext = func(net.Listener) context.Context { return ctx }
	defer context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.server.Shutdown(grace) != nil {
			_ = s.server.Close() // what is left has had its second
		}
	})()
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: serving on %s: %w", s.listen, err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &metrics{s.agent, s.commands})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, paths)
	})
	mux.HandleFunc("GET /healthz", s.health(func(st State) []string { return st.Stuck }))
	mux.HandleFunc("GET /readyz", s.health(func(st State) []string { return append(st.Stuck, st.NotReady...) }))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.agent.State()) })
	mux.HandleFunc("GET /api/v1/devices", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.agent.Devices()) })
	mux.HandleFunc("GET /api/v1/peers", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.agent.Peers()) })
	mux.HandleFunc("GET /api/v1/links", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.links()) })
	mux.HandleFunc("GET /api/v1/commands", s.listCommands)
	mux.HandleFunc("GET /api/v1/commands/{id}", s.showCommand)
	mux.HandleFunc("GET /api/v1/devices/{id}/commands", s.listCommands)
	mux.HandleFunc("POST /api/v1/devices/{id}/commands", s.guarded(s.submitCommand))
	mux.HandleFunc("PUT /api/v1/log/level", s.guarded(s.setLogLevel))
	mux.HandleFunc("GET /api/v1/queue", s.queueStatus)
	mux.HandleFunc("GET /api/v1/queue/records", s.listRecords)
	mux.HandleFunc("GET /api/v1/queue/sources", s.listSources)
	mux.HandleFunc("POST /api/v1/queue/import", s.guarded(s.importRecords))
	mux.HandleFunc("POST /api/v1/queue/compact", s.guarded(s.compactQueue))
	mux.HandleFunc("GET /api/v1/queue/quarantine", s.listQuarantine)
	mux.HandleFunc("DELETE /api/v1/queue/quarantine", s.guarded(s.deleteQuarantine))
	mux.HandleFunc("POST /api/v1/queue/quarantine/retry", s.guarded(s.retryQuarantine))
	mux.HandleFunc("DELETE /api/v1/queue/cursors/{name...}", s.guarded(s.forgetCursor))
	mux.HandleFunc("POST /api/v1/queue/replay", s.guarded(s.replay))
	mux.HandleFunc("DELETE /api/v1/queue/replay/{upstream}", s.guarded(s.stopReplay))
	return mux
}

// paths is what / answers.
const paths = `edge-agent

/healthz                        200 while every part that has work makes progress
/readyz                         200 while records can be taken
/metrics                        Prometheus
/api/v1/status                  links, listeners, queue, routes, upstreams, certificates
/api/v1/links                   each link and the devices on it: load, lateness, time-outs, bad frames
/api/v1/devices                 each device, its state and its last record
/api/v1/peers                   who has connected by MCP
/api/v1/queue                   the queue: state, size, what each route has still to deliver
/api/v1/queue/records           what is in it; ?device=GLOB&stream=GLOB&from=TIME&to=TIME&position=N&limit=100
/api/v1/queue/sources           what is in it, by device and stream; ?position=N
/api/v1/queue/import            POST takes back the lines of edge-agent queue export
/api/v1/queue/compact           POST gives free space in the queue's file back to the disk
/api/v1/queue/quarantine        records that could not be delivered, and why; ?position=N&limit=100
/api/v1/commands                what was commanded, newest first; ?state=failed&device=ID&limit=100
/api/v1/commands/ID             one command; ?wait=10s waits for its end
/api/v1/queue/replay            POST {"upstream":"cloud","from":"2026-11-29T06:00:00Z","to":"…"} sends again what is kept; DELETE …/cloud stops it
/api/v1/queue/cursors/NAME      DELETE forgets what a route that is gone has not delivered
/api/v1/devices/ID/commands     the commands of a device; POST commands it, with the token:

    curl http://127.0.0.1:9600/api/v1/devices/boiler-1/commands?wait=10s \
      -H "Authorization: Bearer $(cat /var/lib/edge-agent/admin.token)" \
      -d '{"kind": "write", "point": "setpoint", "value": 21.5}'
`

// links is never nil, so that it is a list in JSON.
func (s *Server) links() []Link { return append([]Link{}, s.agent.State().Links...) }

// health answers 200 and "ok", or 503 and a problem a line.
func (s *Server) health(problems func(State) []string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		st := s.agent.State()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		text := "ok\n"
		if bad := problems(st); len(bad) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			text = strings.Join(bad, "\n") + "\n"
		}
		for _, d := range st.Degraded {
			text += "degraded: " + d + "\n"
		}
		s.write(w, []byte(text))
	}
}

func (s *Server) setLogLevel(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Level string `json:"level"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body); err != nil {
		s.refuse(w, http.StatusBadRequest, `the body must be {"level":"debug"}, or info, warn, error`)
		return
	}
	if err := s.agent.SetLogLevel(body.Level); err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	s.log.Info("log level changed through the admin interface", "level", body.Level)
	s.answer(w, body)
}

func (s *Server) forgetCursor(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	switch err := s.agent.ForgetCursor(name); {
	case errors.Is(err, ErrNotFound):
		s.refuse(w, http.StatusNotFound, "there is no cursor "+name)
	case err != nil:
		s.refuse(w, http.StatusConflict, err.Error())
	default:
		s.log.Warn("cursor forgotten through the admin interface", "cursor", name)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) answer(w http.ResponseWriter, v any) { s.answerWith(w, http.StatusOK, v) }

func (s *Server) answerWith(w http.ResponseWriter, code int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	s.write(w, append(text, '\n'))
}

func (s *Server) refuse(w http.ResponseWriter, code int, why string) {
	text, err := json.Marshal(map[string]string{"error": why})
	if err != nil {
		text = []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	s.write(w, append(text, '\n'))
}

func (s *Server) write(w http.ResponseWriter, text []byte) {
	if _, err := w.Write(text); err != nil {
		s.log.Debug("an admin client went away", "error", err)
	}
}
