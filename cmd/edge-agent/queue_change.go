package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/store"
)

// openStore opens the queue of a stopped agent to be changed, and runs it; close ends
// that. On a running agent's it returns a target with the agent and its token.
func (f *queueFlags) openStore(ctx context.Context, errs errorWriter) (t *queueTarget, s *store.Store, stop func() error, err error) {
	if t, err = f.find(); err != nil {
		return nil, nil, nil, err
	}
	if t.dir != "" {
		lock, err := store.Lock(t.dir)
		if err == nil {
			_ = lock.Close() // the store takes it itself
			s, stop, err = t.run(errs)
			return t, s, stop, err
		}
		if !errors.Is(err, store.ErrLocked) {
			return nil, nil, nil, inputError{err}
		}
	}
	if err := t.call(ctx, f); err != nil {
		return nil, nil, nil, err
	}
	return t, nil, func() error { return nil }, t.authorise(f)
}

// run opens the files, with the limits that the agent has.
func (t *queueTarget) run(errs errorWriter) (*store.Store, func() error, error) {
	if _, err := os.Stat(filepath.Join(t.dir, store.FileName)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, t.explain(store.ErrNoQueue) // Open would make one
	}
	if t.file == nil {
		return nil, nil, inputError{errors.New("the agent is stopped, and changing its queue takes its configuration, which says what may be freed: add -c FILE")}
	}
	if err := becomeOwner(t.dir); err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := store.Open(t.dir, t.file.Store, log)
	if err != nil {
		return nil, nil, t.explain(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return s, func() error {
		cancel() // and not Close, which Run must not begin behind
		return errors.Join(<-ended, s.Close())
	}, nil
}

type queueForgetCommand struct {
	queueFlags
	Name string `arg:"" help:"ROUTE/UPSTREAM, as queue status shows it."`
}

// Help is what --help says besides.
func (queueForgetCommand) Help() string {
	return `The queue keeps what a route has not delivered, also when the route is taken out of the configuration.
This gives it up, for good: what no other route needs is freed.

Example:

  edge-agent queue forget old/cloud`
}

func (c queueForgetCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) (err error) {
	t, s, stop, err := c.openStore(ctx, errs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	switch {
	case s == nil:
		err = t.api.call(ctx, http.MethodDelete, "/api/v1/queue/cursors/"+escapePath(c.Name), nil, nil)
	case t.routes()[c.Name]:
		err = inputError{fmt.Errorf("%s is in the configuration: take the route or its upstream out of it first", plain(c.Name))}
	default:
		if err = s.Forget(ctx, c.Name); errors.Is(err, store.ErrNoCursor) {
			err = inputError{fmt.Errorf("the queue knows no %s; edge-agent queue status lists those that there are", plain(c.Name))}
		}
	}
	if err == nil {
		fmt.Fprintf(out, "forgotten: %s\n", plain(c.Name))
	}
	return err
}

// escapePath leaves the / between route and upstream.
func escapePath(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// routes are the configuration's pairs of route and upstream.
func (t *queueTarget) routes() map[string]bool {
	used := make(map[string]bool)
	for i := range t.file.Routes {
		for _, to := range t.file.Routes[i].To {
			used[t.file.Routes[i].Name+"/"+to] = true
		}
	}
	return used
}

type queueCompactCommand struct{ queueFlags }

// Help is what --help says besides.
func (queueCompactCommand) Help() string {
	return `A running agent does this by itself when half of the file is free. It needs room on the disk for as much
as is stored, while it copies that.`
}

func (c queueCompactCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) (err error) {
	t, s, stop, err := c.openStore(ctx, errs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	meter := newMeter(errs, "compacting")
	defer meter.end()
	var before, after int64
	if s != nil {
		before = s.Stats().FileBytes
		err = compactStopped(ctx, s, meter)
		after = s.Stats().FileBytes
	} else {
		before = t.status.Store.FileBytes
		err = compactRunning(ctx, t, meter)
		after = t.status.Store.FileBytes
	}
	meter.end()
	if err != nil {
		return fmt.Errorf("the file is as it was: %w", err)
	}
	_, err = fmt.Fprintf(out, "the file takes %s now, it took %s\n", sized(after), sized(before))
	return err
}

func compactStopped(ctx context.Context, s *store.Store, meter *meter) error {
	ended := make(chan error, 1)
	go func() { ended <- s.Compact(ctx) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(250 * time.Millisecond):
			st := s.Stats().Compaction
			meter.show(uint64(st.Done), uint64(st.Total))
		}
	}
}

// compactRunning asks until it is done; each request waits a while.
func compactRunning(ctx context.Context, t *queueTarget, meter *meter) error {
	for {
		var st store.CompactionStats
		if err := t.api.call(ctx, http.MethodPost, "/api/v1/queue/compact", nil, &st); err != nil {
			return err
		}
		if !st.Running {
			return t.api.get(ctx, "/api/v1/queue", &t.status)
		}
		meter.show(uint64(st.Done), uint64(st.Total))
	}
}

type queueImportCommand struct {
	queueFlags
	File string `arg:"" help:"A file of JSON Lines as queue export writes them, or - for standard input."`
}

// Help is what --help says besides.
func (queueImportCommand) Help() string {
	return `The records go behind what is in the queue, under the numbers that they bear, and from there to the routes
that take them. What is in the queue already is left out, so an import can be repeated; what has been
delivered and freed meanwhile is delivered again. Lines that can't be taken are reported, and the rest goes on.

Examples:

  edge-agent queue import backup.jsonl
  zcat press.jsonl.gz | edge-agent queue import -

Exit code: 0 all is stored; 1 some lines were not; 2 it could not be done, or not to the end.`
}

func (c queueImportCommand) Run(ctx context.Context, in io.Reader, out io.Writer, errs errorWriter) (err error) {
	meter := newMeter(errs, "importing")
	defer meter.end()
	if c.File != "-" {
		f, size, err := openInput(c.File)
		if err != nil {
			return inputError{err}
		}
		defer f.Close()
		in = &measured{Reader: f, total: size, meter: meter}
	}
	t, s, stop, err := c.openStore(ctx, errs)
	if err != nil {
		return err
	}
	var result doctor.Imported
	switch {
	case s == nil:
		err = t.api.upload(ctx, "/api/v1/queue/import", in, &result)
	case len(s.Stats().Cursors) == 0:
		err = errors.New("no route has read from this queue yet, so what is imported would be freed at once: start the agent, then import into it while it runs")
	default:
		result, err = doctor.Import(ctx, s, t.agent, in, importPatience)
	}
	meter.end()
	if err = errors.Join(err, stop()); err == nil && result.Stopped != "" {
		err = errors.New(plain(result.Stopped))
	}
	return showImported(out, errs, &result, err)
}

// importPatience is how long to wait for room in the queue of a stopped agent, which
// nobody empties.
const importPatience = 3 * time.Second

func openInput(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func showImported(out io.Writer, errs errorWriter, r *doctor.Imported, err error) error {
	for _, p := range r.Problems {
		fmt.Fprintf(errs, "line %d: %s\n", p.Line, plain(p.Problem))
	}
	if more := r.Bad - uint64(len(r.Problems)); more > 0 {
		fmt.Fprintf(errs, "and %s more\n", counted(more, "line"))
	}
	if err == nil || r.Lines > 0 {
		fmt.Fprintf(out, "stored %s; %s were there already, %s could not be taken\n", counted(r.Stored, "record"), grouped(r.Known), grouped(r.Bad))
	}
	switch {
	case err != nil && r.Lines > 0:
		return fmt.Errorf("stopped at line %d: %w. Once that is mended, import the same again: what is stored is left out", r.Line, err)
	case err != nil:
		return err
	case r.Bad > 0:
		return errSilent
	}
	return nil
}

// measured shows how much has been read.
type measured struct {
	io.Reader
	done, total int64
	meter       *meter
}

func (m *measured) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.done += int64(n)
	m.meter.show(uint64(m.done), uint64(m.total))
	return n, err
}
