package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// rig is everything that is measured in turns.
type rig struct {
	dir   string
	ring  *ring
	wal   *tidwall
	jet   *jet
	queue *queue
}

func newRig(o *options, producers int) (r *rig, err error) {
	r = new(rig)
	if r.dir, err = os.MkdirTemp(o.dir, "rig-"); err != nil {
		return nil, err
	}
	if r.ring, err = newRing(r.dir); err != nil {
		return nil, err
	}
	if r.wal, err = newTidwall(r.dir); err != nil {
		return nil, err
	}
	if r.jet, err = newJet(r.dir); err != nil {
		return nil, err
	}
	if r.queue, err = openQueue(r.dir, producers); err != nil {
		return nil, err
	}
	return r, r.queue.ready(r.dir)
}

func (r *rig) close() error {
	return errors.Join(r.ring.close(), r.wal.close(), r.jet.close(), r.queue.close(), os.RemoveAll(r.dir))
}

// figures of some rounds.
type figures struct {
	ring, wal, jet, queue      []float64 // records/s
	ofRing, ofWAL, ofJet       []float64
	toDisk                     []float64 // bytes to disk a byte of records
	median, p99, ringMed, tail []float64 // ms, and p99 of the median
}

// round measures all once. In the middle of it the store is.
func (f *figures) round(o *options, r *rig, one func(subject, time.Duration) (float64, error)) error {
	before, err := one(r.ring, o.time/2)
	if err != nil {
		return err
	}
	w, err := one(r.wal, o.time)
	if err != nil {
		return err
	}
	if err := r.queue.reopen(r.dir); err != nil {
		return err
	}
	from, err := written()
	if err != nil {
		return err
	}
	start := r.queue.Stats()
	q, err := one(r.queue, o.time)
	if err != nil {
		return err
	}
	to, err := written()
	if err != nil {
		return err
	}
	end := r.queue.Stats()
	payload := float64(end.Appended-start.Appended) * bodySize
	commits := float64(max(1, end.Commits-start.Commits))
	o.log("the store: %.0f records/s in commits of %.0f records and %.2f ms", q,
		payload/bodySize/commits, (end.CommitTime-start.CommitTime).Seconds()*1000/commits)
	after, err := one(r.ring, o.time/2)
	if err != nil {
		return err
	}
	j, err := one(r.jet, o.time)
	if err != nil {
		return err
	}
	floor := (before + after) / 2
	f.ring, f.wal, f.jet, f.queue = append(f.ring, floor), append(f.wal, w), append(f.jet, j), append(f.queue, q)
	f.ofRing, f.ofWAL, f.ofJet = append(f.ofRing, q/floor), append(f.ofWAL, q/w), append(f.ofJet, q/j)
	f.toDisk = append(f.toDisk, (to-from)/payload)
	r.queue.drain(0)
	return r.wal.trim()
}

func (f *figures) print(t *table, what string, wantRing, wantWAL, wantJet string) {
	t.line(what+": the store, records/s", "%.0f", "", f.queue...)
	t.line(what+": raw ring, records/s", "%.0f", "", f.ring...)
	t.line(what+": tidwall/wal, records/s", "%.0f", "", f.wal...)
	t.line(what+": JetStream, records/s", "%.0f", "", f.jet...)
	t.line(what+": store / ring", "%.3f", wantRing, f.ofRing...)
	t.line(what+": store / tidwall", "%.2f", wantWAL, f.ofWAL...)
	t.line(what+": store / JetStream", "%.1f", wantJet, f.ofJet...)
}

func measureAppend(o *options, t *table) error {
	for _, c := range []struct {
		producers                     int
		ring, wal, jet, bytesToDiskIs string
	}{
		{1, "", "", "", ""},
		{64, "0.36", "", "25", ""},
		{1000, "0.5", "1.3", "", "1.3"},
	} {
		r, err := newRig(o, c.producers)
		if err != nil {
			return err
		}
		var f figures
		for range o.rounds {
			if err := f.round(o, r, func(s subject, d time.Duration) (float64, error) { return rate(s, c.producers, d) }); err != nil {
				return err
			}
		}
		what := fmt.Sprintf("%d producers", c.producers)
		f.print(t, what, c.ring, c.wal, c.jet)
		t.line(what+": bytes to disk a byte", "%.2f", c.bytesToDiskIs, f.toDisk...)
		if err := r.close(); err != nil {
			return err
		}
	}
	return nil
}

func measurePipelined(o *options, t *table) error {
	const window = 1024
	r, err := newRig(o, 1)
	if err != nil {
		return err
	}
	var f figures
	for range o.rounds {
		if err := f.round(o, r, func(s subject, d time.Duration) (float64, error) { return pipelinedRate(s, window, d) }); err != nil {
			return err
		}
	}
	f.print(t, "one producer, window 1024", "0.32", "", "")
	return r.close()
}

func measureLatency(o *options, t *table) error {
	const producers = 64
	r, err := newRig(o, producers)
	if err != nil {
		return err
	}
	var f figures
	for range o.rounds {
		if err := r.queue.reopen(r.dir); err != nil {
			return err
		}
		for _, s := range []subject{r.ring, r.queue} {
			all, err := latencies(s, producers, o.time)
			if err != nil {
				return err
			}
			p50, p99 := all[len(all)/2].Seconds()*1000, all[len(all)*99/100].Seconds()*1000
			if s == subject(r.ring) {
				f.ringMed, f.ring = append(f.ringMed, p50), append(f.ring, p99/p50)
			} else {
				f.median, f.p99, f.tail = append(f.median, p50), append(f.p99, p99), append(f.tail, p99/p50)
			}
		}
		r.queue.drain(0)
	}
	t.line("64 producers: an append, p50, ms", "%.2f", "", f.median...)
	t.line("64 producers: an append, p99, ms", "%.2f", "", f.p99...)
	t.line("64 producers: p99 / p50", "%.2f", "3", f.tail...)
	t.line("64 producers, raw ring: p50, ms", "%.2f", "", f.ringMed...)
	t.line("64 producers, raw ring: p99 / p50", "%.2f", "", f.ring...)
	return r.close()
}

func measureTogether(o *options, t *table) error { return together(o, t, 0) }
func measureBacklog(o *options, t *table) error  { return together(o, t, 1_000_000) }

// together measures appending alone and with a reader that acknowledges, in turns;
// the queue never holds fewer than backlog records.
func together(o *options, t *table, backlog uint64) error {
	for _, producers := range []int{64, 1000} {
		dir := filepath.Join(o.dir, "together")
		q, err := openQueue(dir, producers)
		if err != nil {
			return err
		}
		if err := q.ready(dir); err != nil {
			return err
		}
		if err := q.fill(int(backlog), 1000); err != nil {
			return err
		}
		var alone, both, ratio []float64
		for range o.rounds {
			if err := q.reopen(dir); err != nil { // else the file is made smaller meanwhile, after a minute
				return err
			}
			half := func() (float64, error) {
				v, err := rate(q, producers, o.time/2)
				q.drain(backlog)
				return v, err
			}
			before, err := half()
			if err != nil {
				return err
			}
			reader := q.read(backlog)
			v, err := rate(q, producers, o.time)
			reader.stop()
			if err != nil {
				return err
			}
			q.drain(backlog)
			after, err := half()
			if err != nil {
				return err
			}
			alone, both = append(alone, (before+after)/2), append(both, v)
			ratio = append(ratio, 2*v/(before+after))
		}
		what := fmt.Sprintf("%d producers", producers)
		if backlog > 0 {
			what += ", a backlog of a million"
		}
		t.line(what+": append alone, records/s", "%.0f", "", alone...)
		t.line(what+": append, read and acknowledge, records/s", "%.0f", "", both...)
		t.line(what+": together / alone", "%.3f", "0.9", ratio...)
		if err := errors.Join(q.close(), os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	return nil
}
