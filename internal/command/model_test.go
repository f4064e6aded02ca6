package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// model watches a rig from outside, with a clock that is always right.
type model struct {
	*rig
	t        *rapid.T
	all      []*promise
	owners   map[string]*promise // by key
	last     map[string]int      // by device: the command that was sent last for the first time
	underway []*flight
}

// promise is what a Submit means.
type promise struct {
	id       string
	number   int
	request  Request
	at       time.Duration // in truth
	accepted bool          // on disk
	sends    int
	ended    time.Duration // in truth; valid if final
	final    State         // "": not yet
	gone     bool
}

// flight is a job on a line.
type flight struct {
	scheduler.Job
	stepped bool
}

func (m *model) worth(p *promise) time.Duration {
	if p.request.Timeout > 0 {
		return time.Duration(p.request.Timeout)
	}
	return m.cfg.Timeout
}

// mustKnow says whether a command may not be forgotten: without a key it may be
// as soon as it has ended.
func (m *model) mustKnow(p *promise) bool {
	return p.final == "" || p.request.Key != "" && m.clock.truth-p.ended < m.cfg.Keep
}

func (p *promise) repeatable() bool { return p.request.Repeat || p.request.Kind == Read }

func (m *model) submit(t *rapid.T) {
	q := Request{
		Device:  rapid.SampledFrom([]string{"a", "b"}).Draw(t, "device"),
		Key:     rapid.SampledFrom([]string{"", "", "", "k1", "k2", "k3"}).Draw(t, "key"),
		Kind:    rapid.SampledFrom([]Kind{Write, Read}).Draw(t, "kind"),
		Repeat:  rapid.Bool().Draw(t, "repeat"),
		Timeout: Duration(rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, 2 * time.Hour}).Draw(t, "timeout")),
	}
	p := &promise{number: len(m.all), at: m.clock.truth, request: q}
	owner := m.owners[q.Key]
	same := owner != nil && rapid.Bool().Draw(t, "same")
	switch name := fmt.Sprint("p", p.number); {
	case same:
		q = owner.request
	case q.Kind == Write:
		q.Point, q.Value = name, &Value{record.Int(int64(p.number))}
	default:
		q.Points = []string{name}
	}
	p.request = q
	c, err := m.Submit(ended(), q)
	p.id = c.ID
	switch {
	case same && (c.ID != owner.id || err != nil && !errors.Is(err, ErrNotStored)):
		t.Fatalf("key %s was answered with %s and then %s, %v", q.Key, owner.id, c.ID, err)
	case owner != nil && !same && !errors.Is(err, ErrKeyTaken):
		t.Fatalf("key %s was taken twice: %v", q.Key, err)
	case owner != nil, errors.Is(err, ErrFull):
		return
	case !errors.Is(err, ErrNotStored) || c.ID == "":
		t.Fatal(c, err)
	}
	m.all = append(m.all, p)
	if q.Key != "" {
		m.owners[q.Key] = p
	}
}

// sends is called for each request that leaves.
func (m *model) sends(q Request) {
	name := q.Point
	if q.Kind == Read {
		name = q.Points[0]
	}
	i := slices.IndexFunc(m.all, func(p *promise) bool { return fmt.Sprint("p", p.number) == name })
	if i < 0 {
		m.t.Fatalf("%s was sent and never submitted", name)
	}
	p := m.all[i]
	p.sends++
	var s stored
	if err := s.decode(keyPrefix+p.id, m.box.disk[keyPrefix+p.id]); err != nil || s.State != Sending {
		m.t.Fatalf("%s was sent, and on disk it is %q, %v", name, s.State, err)
	}
	switch {
	case m.clock.truth-p.at >= m.worth(p):
		m.t.Fatalf("%s was sent after its deadline", name)
	case p.sends > 1 && !p.repeatable():
		m.t.Fatalf("%s was sent twice", name)
	case p.final != "":
		m.t.Fatalf("%s was sent when it was %s", name, p.final)
	case p.sends == 1 && p.number < m.last[q.Device]:
		m.t.Fatalf("%s was sent behind p%d", name, m.last[q.Device])
	case p.sends == 1:
		m.last[q.Device] = p.number
	}
}

func (m *model) write(*rapid.T) {
	m.box.write()
	for _, p := range m.all {
		if _, onDisk := m.box.disk[keyPrefix+p.id]; onDisk {
			p.accepted = true
		}
	}
}

// look lets the room act, and takes what it puts on the lines.
func (m *model) look(*rapid.T) {
	m.step()
	for d, l := range m.lines {
		for _, j := range l.jobs {
			m.underway = append(m.underway, &flight{Job: j})
		}
		l.jobs = nil
		if n := len(slices.DeleteFunc(slices.Clone(m.underway), func(f *flight) bool { return f.Device != d })); n > 1 {
			m.t.Fatalf("%d commands are on the line of %s", n, d)
		}
	}
}

func (m *model) busy(t *rapid.T) {
	l := m.lines[rapid.SampledFrom([]string{"a", "b"}).Draw(t, "device")]
	l.err = nil
	if rapid.Bool().Draw(t, "busy") {
		l.err = scheduler.ErrBusy
	}
	l.away = rapid.Bool().Draw(t, "away")
}

// work is what a lane does with a job.
func (m *model) work(t *rapid.T) {
	if len(m.underway) == 0 {
		return
	}
	f := rapid.SampledFrom(m.underway).Draw(t, "job")
	what := rapid.SampledFrom([]string{"answer", "no", "silence", "silence, tried again"}).Draw(t, "device says")
	m.says = nil
	switch what {
	case "no":
		m.says = errors.New("exception-2")
	case "silence", "silence, tried again":
		m.says = os.ErrDeadlineExceeded
	}
	turn := &scheduler.Turn{Timeout: time.Second}
	_, err := f.Task.Step(context.Background(), turn)
	f.stepped = f.stepped || turn.Sent
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		m.end(f, err)
	case what == "silence" || !f.Repeat:
		m.end(f, m.lost(f))
	}
}

func (m *model) lost(f *flight) error {
	if f.Repeat {
		return os.ErrDeadlineExceeded
	}
	return fmt.Errorf("%w: %w", scheduler.ErrUnknown, os.ErrDeadlineExceeded)
}

func (m *model) end(f *flight, err error) {
	m.underway = slices.DeleteFunc(m.underway, func(other *flight) bool { return other == f })
	f.Task.End(err)
}

func (m *model) pass(t *rapid.T) {
	m.clock.pass(rapid.SampledFrom([]time.Duration{
		10 * time.Millisecond, 100 * time.Millisecond, time.Second, 20 * time.Second, time.Hour, 13 * time.Hour,
	}).Draw(t, "time"))
}

func (m *model) set(t *rapid.T) {
	if rapid.Bool().Draw(t, "synced") {
		m.clock.synced, m.clock.off = true, 0
		return
	}
	m.clock.synced = false
	m.clock.off = time.Duration(rapid.Int64Range(-1e17, 1e17).Draw(t, "off")) // three years
}

func (m *model) crash(t *rapid.T) {
	m.box.lose()
	m.restart(t)
}

// stopped is an orderly stop.
func (m *model) stopped(t *rapid.T) {
	for _, f := range slices.Clone(m.underway) {
		if f.stepped {
			m.end(f, m.lost(f))
		} else {
			m.end(f, scheduler.ErrStopped)
		}
	}
	m.stop()
	m.write(t)
	m.check(t)
	m.restart(t)
}

func (m *model) restart(t *rapid.T) {
	if rapid.Bool().Draw(t, "reboot") {
		off := time.Duration(rapid.Int64Range(-1e17, 1e17).Draw(t, "off"))
		m.clock.reboot(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 3 * time.Hour}).Draw(t, "for"), rapid.Bool().Draw(t, "synced"), off)
	}
	m.underway = nil
	for key, p := range m.owners {
		if !p.accepted {
			delete(m.owners, key)
		}
	}
	m.start()
	for _, p := range m.all {
		// One that was forgotten may be back, and is forgotten once more.
		p.gone = m.byID[p.id] == nil
		if p.gone && p.accepted && m.mustKnow(p) {
			t.Fatalf("p%d, %q, is gone", p.number, p.final)
		}
		if !p.gone && p.request.Key != "" {
			m.owners[p.request.Key] = p
		}
	}
}

// check looks at what the room tells.
func (m *model) check(t *rapid.T) {
	open := 0
	for _, p := range m.all {
		if p.gone {
			continue
		}
		e := m.byID[p.id]
		if e == nil {
			if m.mustKnow(p) {
				t.Fatalf("p%d, %q, was forgotten", p.number, p.final)
			}
			p.gone = true
			if m.owners[p.request.Key] == p {
				delete(m.owners, p.request.Key)
			}
			continue
		}
		c, err := m.Get(p.id)
		if p.accepted != (err == nil) {
			t.Fatalf("p%d: accepted %v, %v", p.number, p.accepted, err)
		}
		if p.final != "" && c.State != p.final {
			t.Fatalf("p%d was %s and is %s", p.number, p.final, c.State)
		}
		if err == nil && c.State.Final() {
			p.final = c.State
		}
		if !e.now.State.Final() {
			open++
			p.ended = m.clock.truth
		}
	}
	if st := m.Stats(); st.Waiting != open || st.Bytes > st.MaxBytes || st.Kept > st.Max {
		t.Fatalf("%d wait: %+v", open, st)
	}
}

// finish lets everything come to its end.
func (m *model) settleAll(t *rapid.T) {
	m.says = nil
	for _, l := range m.lines {
		l.err, l.away = nil, false
	}
	for range 100 {
		m.write(t)
		m.check(t)
		m.look(t)
		for _, f := range slices.Clone(m.underway) {
			_, err := f.Task.Step(context.Background(), &scheduler.Turn{})
			m.end(f, err)
		}
		m.clock.pass(maxBusy)
		m.check(t)
	}
	for _, p := range m.all {
		if p.accepted && p.final == "" {
			t.Fatalf("p%d has not ended: %+v", p.number, m.byID[p.id].now)
		}
		if p.final == Succeeded && p.sends == 0 {
			t.Fatalf("p%d has succeeded and was not sent", p.number)
		}
		if (p.final == Expired) && p.sends > 0 {
			t.Fatalf("p%d was sent and has expired", p.number)
		}
	}
}

func TestEveryPromiseIsKeptThroughCrashesAndClocksThatJump(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{rig: newRig(t), t: t, owners: make(map[string]*promise), last: make(map[string]int)}
		m.cfg.MaxWaiting = 3
		m.cfg.Max = rapid.SampledFrom([]int{4, 10, 1000}).Draw(t, "max")
		m.deliver = m.sends
		m.start()
		act := map[string]func(*rapid.T){
			"write": m.write, "look": m.look, "work": m.work, "pass": m.pass, "busy": m.busy,
			"set the clock": m.set, "crash": m.crash, "stop": m.stopped, "": m.check,
		}
		for i := range 3 { // the more likely ones
			act[fmt.Sprint("submit ", i)] = m.submit
			act[fmt.Sprint("write ", i)] = m.write
			act[fmt.Sprint("look ", i)] = m.look
		}
		t.Repeat(act)
		m.settleAll(t)
	})
}
