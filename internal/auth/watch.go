package auth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// lookEvery is how often files are looked at. Looking costs little, and works
// where being told does not: network disks, files that are renamed into place,
// folders that are swapped by a link, as Kubernetes does.
const lookEvery = 5 * time.Second

// watcher has files loaded anew when they have changed.
type watcher struct {
	files []string
	load  func() error
	log   *slog.Logger
	every time.Duration

	failed atomic.Pointer[string] // why the last attempt failed; nil: it did not
	loaded []os.FileInfo          // what was there at the last attempt to load, good or not
	seen   []os.FileInfo          // what was there at the last look
}

// newWatcher loads for the first time.
func newWatcher(load func() error, log *slog.Logger, files ...string) (*watcher, error) {
	files = slices.DeleteFunc(files, func(f string) bool { return f == "" })
	w := &watcher{files: files, load: load, log: log, every: lookEvery}
	w.loaded = w.stat() // before they are read: a change in between is seen later
	w.seen = w.loaded
	return w, load()
}

// run looks until ctx ends; each is called at every look.
func (w *watcher) run(ctx context.Context, each func()) {
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for {
		w.look()
		each()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look loads what has changed and has then stayed the same for one look:
// somebody may be in the middle of copying a certificate and its key.
func (w *watcher) look() {
	now := w.stat()
	settled := same(now, w.seen)
	w.seen = now
	if !settled || same(now, w.loaded) {
		return
	}
	w.loaded = now
	if err := w.load(); err != nil {
		problem := err.Error()
		w.failed.Store(&problem)
		w.log.Warn("changed files are no good, what was loaded before stays in use", "files", w.files, "error", err)
		return
	}
	w.failed.Store(nil)
	w.log.Info("changed files are loaded", "files", w.files)
}

// problem is why changed files are not in use; empty if they are.
func (w *watcher) problem() string {
	if p := w.failed.Load(); p != nil {
		return *p
	}
	return ""
}

func (w *watcher) stat() []os.FileInfo {
	list := make([]os.FileInfo, len(w.files))
	for i, file := range w.files {
		list[i], _ = os.Stat(file) // nil is what a missing file looks like
	}
	return list
}

func same(a, b []os.FileInfo) bool {
	return slices.EqualFunc(a, b, func(a, b os.FileInfo) bool {
		if a == nil || b == nil {
			return a == b
		}
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// maxFile bounds what is read of a file with keys, certificates or a token: a
// large bundle of CAs has a quarter of it.
const maxFile = 1 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes: it is not what it should be", path, maxFile)
	}
	return text, err
}
