package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What is measured in a process of its own, so that nothing else is in its memory
// and nothing of the file in any cache.

func runChild(what string, args []string) error {
	if len(args) != 1 {
		return errors.New("one folder is wanted")
	}
	var v map[string]float64
	var err error
	switch what {
	case "reopen":
		v, err = reopen(args[0])
	case "memory":
		v, err = memory(args[0])
	default:
		err = fmt.Errorf("no %q", what)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(v)
}

func spawn(what, dir string) (v map[string]float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-child", what, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	return v, json.Unmarshal(out, &v)
}

// reopen tells how long the store takes until it takes records, and until the first
// one is read, in seconds.
func reopen(dir string) (map[string]float64, error) {
	start := time.Now()
	q, err := openQueue(dir, 0)
	if err != nil {
		return nil, err
	}
	opened := time.Since(start)
	items, err := q.cursor.Read(context.Background(), nil, 1, 1<<20)
	if err != nil {
		return nil, err
	}
	read := time.Since(start)
	if len(items) != 1 {
		return nil, errors.New("no record was read")
	}
	records := q.Stats().Records
	return map[string]float64{"open": opened.Seconds(), "read": read.Seconds(), "records": float64(records)}, q.close()
}

// measureReopen opens stores that were written in large batches, and at a trickle:
// ten records in each commit, which are folded as the log goes on. They are made in
// memory, where a sync costs nothing: a million commits would take half an hour.
func measureReopen(o *options, t *table) error {
	for _, c := range []struct {
		what  string
		batch int
	}{{"large batches", 1000}, {"ten records a commit, folded", 10}} {
		dir := filepath.Join(o.dir, "reopen")
		if err := makeStore(o, dir, c.batch); err != nil {
			return err
		}
		if _, err := spawn("reopen", dir); err != nil { // it has been copied, which it notices once
			return err
		}
		var opened, read []float64
		var records float64
		for range o.rounds {
			if err := evict(dir); err != nil {
				return err
			}
			v, err := spawn("reopen", dir)
			if err != nil {
				return err
			}
			opened, read, records = append(opened, v["open"]), append(read, v["read"]), v["records"]
		}
		what := fmt.Sprintf("%.0f records, %s, cold", records, c.what)
		t.line(what+": open, s", "%.3f", "1", opened...)
		t.line(what+": until the first record is read, s", "%.3f", "", read...)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func makeStore(o *options, dir string, batch int) error {
	made, err := os.MkdirTemp(o.memory, "made-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	q, err := openQueue(made, 0)
	if err != nil {
		return err
	}
	if batch < 1000 {
		for left := o.records; left > 0 && err == nil; left -= batch {
			err = q.fill(min(batch, left), batch)
		}
	} else {
		err = q.fill(o.records, batch)
	}
	if err := errors.Join(err, q.close()); err != nil {
		return err
	}
	return os.CopyFS(dir, os.DirFS(made))
}

// evict takes a folder's files out of the page cache.
func evict(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	})
}

// memory tells what the process takes while it appends and reads over the backlog,
// in MiB.
func memory(dir string) (map[string]float64, error) {
	q, err := openQueue(dir, 64)
	if err != nil {
		return nil, err
	}
	most := make(map[string]float64)
	if most["while opening"], err = field("/proc/self/status", "VmHWM:"); err != nil {
		return nil, err
	}
	most["while opening"] /= 1024
	note := func() error {
		for name, key := range map[string]string{"anonymous": "Anonymous:", "resident": "Rss:"} {
			v, err := field("/proc/self/smaps_rollup", key)
			if err != nil {
				return err
			}
			most[name] = max(most[name], v/1024)
		}
		return nil
	}
	if err := note(); err != nil {
		return nil, err
	}
	most["opened"] = most["anonymous"]
	most["backlog"] = float64(q.Stats().Bytes)
	r := q.read(q.Stats().Records)
	for range 50 {
		if _, err := rate(q, 64, 100*time.Millisecond); err != nil {
			return nil, err
		}
		if err := note(); err != nil {
			return nil, err
		}
	}
	r.stop()
	most["file"] = most["resident"] - most["anonymous"]
	return most, q.close()
}

func measureMemory(o *options, t *table) error {
	for _, size := range []int64{o.backlog / 100, o.backlog} {
		dir := filepath.Join(o.dir, "memory")
		q, err := openQueue(dir, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(q.fill(int(size/bodySize), 1000), q.close()); err != nil {
			return err
		}
		var anonymous, opened, peak, file []float64
		var backlog float64
		for range o.rounds {
			v, err := spawn("memory", dir)
			if err != nil {
				return err
			}
			peak = append(peak, v["while opening"])
			anonymous, opened, file, backlog = append(anonymous, v["anonymous"]), append(opened, v["opened"]), append(file, v["file"]), v["backlog"]
		}
		what := fmt.Sprintf("a backlog of %.1f GB, 64 producers and a reader", backlog/1e9)
		t.line(what+": anonymous memory, the most, MiB", "%.1f", "64", anonymous...)
		t.line(what+": of it after opening, MiB", "%.1f", "", opened...)
		t.line(what+": resident at most while opening, files included, MiB", "%.0f", "", peak...)
		t.line(what+": file-backed pages, MiB", "%.0f", "", file...)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
