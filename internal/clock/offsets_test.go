package clock_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/internal/clock"
	"github.com/mcp-edge/edge-agent/record"
)

// machine is one whose clock can be set.
type machine struct {
	name   string
	up     time.Duration
	now    time.Time     // what it really is
	off    time.Duration // wall is that much ahead
	synced bool
	slow   time.Duration // reading the wall takes that long
}

// boot starts a machine without a battery for its clock.
func boot(name string) *machine {
	m := &machine{name: name, now: time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)}
	m.set(time.Unix(0, 0))
	return m
}

func (m *machine) Boot() string       { return m.name }
func (m *machine) Up() time.Duration  { return m.up }
func (m *machine) Synchronised() bool { return m.synced }
func (m *machine) Wall() time.Time {
	m.pass(m.slow)
	return m.now.Add(m.off)
}

func (m *machine) pass(d time.Duration) { m.up, m.now = m.up+d, m.now.Add(d) }
func (m *machine) set(wall time.Time)   { m.off = wall.Sub(m.now) }
func (m *machine) sync()                { m.off, m.synced = 0, true }

// reboot begins another boot a while later.
func (m *machine) reboot(name string, later time.Duration) {
	m.pass(later)
	m.name, m.up, m.synced = name, 0, false
	m.set(time.Unix(0, 0))
}

// disk keeps offsets, or loses them.
type disk struct {
	value []byte
	saves int
	fail  error
}

func (d *disk) Load() ([]byte, error) { return d.value, nil }
func (d *disk) Save(value []byte) error {
	if d.fail != nil {
		return d.fail
	}
	d.value = value
	d.saves++
	return nil
}

// agent is one start of the agent.
type agent struct {
	*clock.Clock
	*clock.Offsets
}

func start(m *machine, d *disk) agent {
	c := clock.Of(m)
	return agent{c, clock.NewOffsets(c, d, slog.New(slog.DiscardHandler))}
}

// told is a time that was told, and what it really was.
type told struct {
	record.Stamp
	truth time.Time
}

func (a agent) tell(m *machine) told { return told{a.Now(), m.now} }

// wrong tells how a time comes out that should be right.
func (a agent) wrong(x told) string {
	t, known := a.Correct(x.Boot, x.Up)
	if !known {
		return fmt.Sprintf("%v after boot %s is not known", x.Up, x.Boot)
	}
	if d := t.Sub(x.truth).Abs(); d > clock.MinStep {
		return fmt.Sprintf("%v after boot %s is off by %v", x.Up, x.Boot, d)
	}
	return ""
}

func check(t *testing.T, a agent, right ...told) {
	t.Helper()
	for _, x := range right {
		if why := a.wrong(x); why != "" {
			t.Error(why)
		}
	}
}

func TestTimesFromBeforeTheClockWasSynchronisedAreCorrected(t *testing.T) {
	m, d := boot("one"), new(disk)
	a := start(m, d)
	var before []told
	for i := range 300 { // five minutes, in which the clock jumps by years
		before = append(before, a.tell(m))
		m.pass(time.Second)
		if i%60 == 0 {
			m.set(m.now.AddDate(i/10-20, 0, 0))
		}
		a.Step()
		if _, known := a.Correct(before[i].Boot, before[i].Up); known {
			t.Fatal("corrected by a clock that is not synchronised")
		}
	}
	m.sync()
	a.Step()
	check(t, a, before...)
	for range 1000 {
		m.pass(time.Minute)
		a.Step()
	}
	if d.saves != 1 {
		t.Errorf("saved %d times", d.saves)
	}
}

func TestTheOffsetOfABootOutlivesTheAgentAndTheBoot(t *testing.T) {
	m, d := boot("one"), new(disk)
	a := start(m, d)
	first := a.tell(m)
	m.pass(5 * time.Minute)
	m.sync()
	a.Step()

	a = start(m, d) // the agent again, in the same boot
	check(t, a, first)
	a.Step()

	m.reboot("two", time.Hour)
	a = start(m, d)
	a.Step()
	second := a.tell(m)
	check(t, a, first)
	if _, known := a.Correct(second.Boot, second.Up); known {
		t.Error("the boot before says what the time is in this one")
	}

	m.reboot("three", time.Hour) // without having been synchronised in the second
	m.sync()
	a = start(m, d)
	check(t, a, first)
	if _, known := a.Correct(second.Boot, second.Up); known {
		t.Error("nobody can know the time in a boot that was never synchronised")
	}
}

func TestAKillBeforeTheOffsetIsOnDiskCostsNothingInTheSameBoot(t *testing.T) {
	m, d := boot("one"), new(disk)
	a := start(m, d)
	x := a.tell(m)
	m.pass(time.Minute)
	m.sync() // and nobody has looked yet
	check(t, start(m, d), x)
}

func TestAStepOfASynchronisedClockIsNoticedAndWritten(t *testing.T) {
	m, d := boot("one"), new(disk)
	a := start(m, d)
	x := a.tell(m)
	m.pass(time.Minute)
	m.off, m.synced = time.Hour, true // by a server that was wrong
	a.Step()
	m.pass(time.Minute)
	m.off = 0
	if wait := a.Step(); wait < time.Second || d.saves != 2 {
		t.Errorf("saved %d times, looks again after %v", d.saves, wait)
	}
	check(t, a, x)
	check(t, start(m, d), x)
	m.off = clock.MinStep / 2
	a.Step()
	if d.saves != 2 {
		t.Error("what may be an error of measurement was taken for a step")
	}
}

func TestATimeToldAfterTheClockWasLostIsCorrectedOnlyWhenItIsBack(t *testing.T) {
	m, d := boot("one"), new(disk)
	m.sync()
	a := start(m, d)
	a.Step()
	m.pass(time.Hour)
	m.synced = false
	x := a.tell(m)
	a.Step()
	if _, known := a.Correct(x.Boot, x.Up); known {
		t.Error("the clock may have run away since it was synchronised")
	}
	m.pass(time.Hour)
	m.sync()
	a.Step()
	check(t, a, x)
	check(t, start(m, d), x)
	if d.saves != 2 {
		t.Errorf("saved %d times", d.saves)
	}
}

func TestWhatCannotBeSavedIsTriedAgain(t *testing.T) {
	m, d := boot("one"), &disk{fail: errors.New("no room")}
	a := start(m, d)
	x := a.tell(m)
	m.sync()
	for range 3 {
		if wait := a.Step(); wait > time.Second {
			t.Errorf("tries again after %v", wait)
		}
	}
	check(t, a, x)
	d.fail = nil
	a.Step()
	check(t, start(m, d), x)
}

func TestDamagedOffsetsAreBegunAnew(t *testing.T) {
	m, d := boot("one"), &disk{value: []byte(`[{"boot":`)}
	a := start(m, d)
	x := a.tell(m)
	m.sync()
	a.Step()
	check(t, start(m, d), x)
}

func TestAnOffsetThatCannotBeMeasuredWellIsNotTaken(t *testing.T) {
	m, d := boot("one"), new(disk)
	a := start(m, d)
	x := a.tell(m)
	m.pass(time.Minute)
	m.sync()
	m.slow = clock.MinStep
	a.Step()
	if _, known := a.Correct(x.Boot, x.Up); known {
		t.Error("taken")
	}
	m.slow = 0
	a.Step()
	check(t, a, x)
}

func TestTheNewestBootsAreRemembered(t *testing.T) {
	m, d := boot("0"), new(disk)
	var all []told
	for i := range 3 * clock.MaxBoots {
		a := start(m, d)
		all = append(all, a.tell(m))
		m.pass(time.Minute)
		m.sync()
		a.Step()
		check(t, a, all[max(0, len(all)-clock.MaxBoots):]...)
		if len(all) > clock.MaxBoots {
			if old := all[len(all)-clock.MaxBoots-1]; a.wrong(old) == "" {
				t.Fatal("all of them")
			}
		}
		m.reboot(fmt.Sprint(i+1), time.Hour)
	}
}

// Whatever becomes of clock, agent and machine: corrected times of one boot have
// the order and the distances of what happened, and are right; and nothing is
// forgotten that was found out and written.
func TestCorrectedTimesKeepOrderAndDistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{m: boot("0"), d: new(disk)}
		w.a = start(w.m, w.d)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.m.pass(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "passes")))
			switch rapid.IntRange(0, 7).Draw(t, "event") {
			case 0, 1, 2:
				if x := w.a.tell(w.m); x.Clock == record.ClockUnsynced {
					w.all = append(w.all, history{told: x})
				}
			case 3:
				w.m.synced = false
				w.m.off += time.Duration(rapid.Int64Range(-1<<60, 1<<60).Draw(t, "jump"))
			case 4:
				w.m.sync()
			case 5:
				w.look()
			case 6:
				w.kill()
			case 7:
				if w.reboots++; w.reboots < clock.MaxBoots {
					w.m.reboot(fmt.Sprint(w.reboots), time.Hour)
					w.kill()
				}
			}
		}
		w.check(t)
	})
}

type world struct {
	m       *machine
	d       *disk
	a       agent
	all     []history
	reboots int
}

// history is what must be known of a time: by this start of the agent, by each.
type history struct {
	told
	held, safe bool
}

// look is a round of Run.
func (w *world) look() {
	w.a.Step()
	for i := range w.all {
		x := &w.all[i]
		x.held = x.held || w.m.synced && w.now(x)
		x.safe = x.safe || x.held
	}
}

// kill starts the agent anew.
func (w *world) kill() {
	w.a = start(w.m, w.d)
	for i := range w.all {
		w.all[i].held = w.m.synced && w.now(&w.all[i])
	}
}

// now tells whether x is of this boot.
func (w *world) now(x *history) bool { return x.Boot == bootOf(w.m) }

func (w *world) check(t *rapid.T) {
	var last told
	var lastAt time.Time
	for i := range w.all {
		x := &w.all[i]
		at, known := w.a.Correct(x.Boot, x.Up)
		why := w.a.wrong(x.told)
		switch {
		case why != "" && (known || x.held || x.safe):
			t.Fatal(why)
		case !known:
			continue
		case x.Boot == last.Boot && at.Sub(lastAt) != x.truth.Sub(last.truth):
			t.Fatalf("%v apart, and were %v", at.Sub(lastAt), x.truth.Sub(last.truth))
		}
		last, lastAt = x.told, at
	}
}

// bootOf is how the clock of a machine calls its boot.
func bootOf(m *machine) record.Boot {
	unsure := *m
	unsure.synced = false
	return clock.Of(&unsure).Now().Boot
}
