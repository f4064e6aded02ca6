package clock

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

const (
	// maxBoots is how many boots are remembered, the newest: records that are
	// delivered after more are sent as they were recorded.
	maxBoots = 16

	// An offset that has changed by less is no step: what is measured jitters, and
	// whoever keeps a clock steps it only when it is further off.
	minStep = 10 * time.Millisecond

	// How often the clock is looked at, until it is synchronised and then.
	lookUnsynced = time.Second
	lookSynced   = 10 * time.Second
)

// Keep holds the offsets across restarts. Save returns without waiting for the
// disk; it fails when it can't take the value, and is called again then.
type Keep interface {
	Load() ([]byte, error) // nil: nothing was saved
	Save(value []byte) error
}

// Offsets knows how far the time is from the time since the machine's start, for
// each of the last boots in which the clock was synchronised. With it the time of
// a record can be corrected that was made before that, also after restarts.
//
// A clock that is slewed moves both alike. So an offset changes only with a step,
// and is written only when the clock becomes synchronised, and when it is stepped.
// Correct may be called concurrently, Run once.
type Offsets struct {
	clock *Clock
	keep  Keep
	log   *slog.Logger
	table atomic.Pointer[[]offset] // by boot, the newest last; replaced as a whole

	// Owned by Run.
	checked bool // since the start
	unsaved bool
	failed  bool // saving, the last time
}

// offset of one boot.
type offset struct {
	Boot record.Boot `json:"boot"`
	// Add to the time since the boot, to have Unix nanoseconds.
	Add int64 `json:"add"`
	// Until is when it was measured: what was recorded later, with a clock that was
	// not synchronised any more, may be wrong in another way.
	Until time.Duration `json:"until"`
}

// NewOffsets takes up what is kept. What can't be read is logged, and begun anew:
// records of earlier boots are delivered as they were recorded then.
func NewOffsets(c *Clock, keep Keep, log *slog.Logger) *Offsets {
	o := &Offsets{clock: c, keep: keep, log: log}
	table := []offset{}
	value, err := keep.Load()
	if err == nil && value != nil {
		err = json.Unmarshal(value, &table)
	}
	if err != nil {
		log.Error("the clock's offsets in earlier boots can't be read: times of records from then stay as they were recorded", "error", err)
		table = nil
	}
	o.table.Store(&table)
	o.look()
	return o
}

// Correct returns the right time of what happened up after a boot. It is not known
// if the clock has not been synchronised in that boot since then, or the boot is
// another machine's.
func (o *Offsets) Correct(boot record.Boot, up time.Duration) (t time.Time, known bool) {
	for _, e := range *o.table.Load() {
		if e.Boot == boot && up >= 0 && up <= e.Until {
			return time.Unix(0, e.Add+int64(up)).UTC(), true
		}
	}
	return time.Time{}, false
}

// Run looks at the clock until ctx ends; then it returns nil.
func (o *Offsets) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		timer.Reset(o.step())
	}
}

// step looks, saves what is news, and returns when to do so again.
func (o *Offsets) step() (wait time.Duration) {
	wait = lookUnsynced
	if o.look() {
		wait = lookSynced
	}
	if o.unsaved && !o.save() {
		wait = lookUnsynced
	}
	return wait
}

// look measures the offset if the clock is synchronised, and takes it if it is
// news: after the start, after a step, and when times were told since the last one
// that it can correct.
func (o *Offsets) look() (synced bool) {
	unsure := o.clock.unsure.Swap(false)
	found, synced := o.clock.measure()
	switch {
	case synced:
		o.take(found, unsure)
	case unsure:
		o.clock.unsure.Store(true)
	}
	return synced
}

func (o *Offsets) take(found offset, unsure bool) {
	table := *o.table.Load()
	i := slices.IndexFunc(table, func(e offset) bool { return e.Boot == found.Boot })
	stepped := i >= 0 && time.Duration(found.Add-table[i].Add).Abs() > minStep
	if i >= 0 && o.checked && !unsure && !stepped {
		return
	}
	if stepped {
		o.log.Info("the clock was set: times of this boot from before it was synchronised are corrected by the new time from now on",
			"by", time.Duration(found.Add-table[i].Add))
	}
	o.checked = true
	table = slices.DeleteFunc(slices.Clone(table), func(e offset) bool { return e.Boot == found.Boot })
	table = append(table, found)
	table = table[max(0, len(table)-maxBoots):]
	o.table.Store(&table)
	o.unsaved = true
}

func (o *Offsets) save() (saved bool) {
	value, err := json.Marshal(*o.table.Load())
	if err == nil {
		err = o.keep.Save(value)
	}
	if err != nil && !o.failed {
		o.log.Error("the clock's offset can't be saved: after a restart times stay as they were recorded; it is tried again", "error", err)
	}
	o.unsaved, o.failed = err != nil, err != nil
	return err == nil
}

// measure tells how far the time is from the time since the start, if the clock is
// synchronised. Reading the two takes a moment, and in between something else may
// run: of a few attempts the quickest counts.
func (c *Clock) measure() (found offset, synced bool) {
	best := minStep / 2
	for range 5 {
		if !c.ask() {
			return offset{}, false
		}
		before := c.machine.Up()
		wall := c.machine.Wall().UnixNano()
		after := c.machine.Up()
		if !c.machine.Synchronised() {
			return offset{}, false
		}
		if took := after - before; took < best {
			best, synced = took, true
			found = offset{Boot: c.boot, Add: wall - int64(before+took/2), Until: after}
		}
	}
	return found, synced
}
