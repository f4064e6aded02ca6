package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handClock is set by hand. truth is how much time has really passed.
type handClock struct {
	boot   int
	up     time.Duration
	truth  time.Duration
	off    time.Duration // of the wall clock from the truth
	synced bool
}

func (c *handClock) Now() Instant {
	return Instant{
		Boot: fmt.Sprint("boot-", c.boot), Up: c.up, Synced: c.synced,
		Wall: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).Add(c.truth + c.off),
	}
}

func (c *handClock) pass(d time.Duration) { c.up, c.truth = c.up+d, c.truth+d }

// reboot takes d.
func (c *handClock) reboot(d time.Duration, synced bool, off time.Duration) {
	c.boot++
	c.up, c.truth, c.synced, c.off = time.Second, c.truth+d, synced, off
	if synced {
		c.off = 0
	}
}

// box is a mailbox whose one commit under way is done, or lost, by hand.
type box struct {
	size    int64
	disk    map[string][]byte
	pending []letter
	commit  *handCommit
	urgent  bool
	refuses error // set: takes nothing
}

type letter struct {
	key   string
	value []byte // nil: deleted
}

type handCommit struct {
	done chan struct{}
	err  error
}

func (c *handCommit) Done() <-chan struct{} { return c.done }
func (c *handCommit) Err() error            { return c.err }

func newBox() *box {
	return &box{size: 1 << 20, disk: make(map[string][]byte), commit: &handCommit{done: make(chan struct{})}}
}

func (b *box) Size() int64 { return b.size }

func (b *box) All() (list []store.Letter, err error) {
	for _, key := range slices.Sorted(maps.Keys(b.disk)) {
		list = append(list, store.Letter{Key: key, Value: slices.Clone(b.disk[key])})
	}
	return list, nil
}

func (b *box) post(key string, value []byte) (Commit, error) {
	if b.refuses != nil {
		return nil, b.refuses
	}
	b.pending = append(b.pending, letter{key, value})
	return b.commit, nil
}

func (b *box) Put(key string, value []byte) (Commit, error) {
	b.urgent = true
	return b.post(key, value)
}
func (b *box) PutLater(key string, value []byte) (Commit, error) { return b.post(key, value) }
func (b *box) Delete(key string) (Commit, error)                 { return b.post(key, nil) }

// write is the commit under way.
func (b *box) write() {
	for _, l := range b.pending {
		if l.value == nil {
			delete(b.disk, l.key)
		} else {
			b.disk[l.key] = l.value
		}
	}
	close(b.commit.done)
	b.lose()
}

// lose is a crash.
func (b *box) lose() {
	b.pending, b.urgent = nil, false
	b.commit = &handCommit{done: make(chan struct{})}
}

// line holds jobs until a test does something with them.
type line struct {
	jobs []scheduler.Job
	err  error // of Submit
	away bool  // not Ready
	asks int   // whether it is
}

func (l *line) Ready() (ready bool, why string) {
	l.asks++
	if l.away {
		return false, "its link is down"
	}
	return true, ""
}

func (l *line) Submit(j scheduler.Job) error {
	if l.err != nil {
		return l.err
	}
	l.jobs = append(l.jobs, j)
	return nil
}

// task tells the test what is sent.
type task struct {
	request Request
	send    func(Request) error
	answer  record.Record
}

func (t *task) Begin(time.Time) {}

func (t *task) Step(_ context.Context, turn *scheduler.Turn) (bool, error) {
	turn.Sent = true
	return false, t.send(t.request)
}

func (t *task) End(error) func(context.Context) { return nil }
func (t *task) Answer() record.Record           { return t.answer }

// fataler is a test of testing or of rapid.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// rig is a room in the test's hands: nothing happens by itself.
type rig struct {
	*Room
	t     fataler
	cfg   Config
	clock *handClock
	box   *box
	lines map[string]*line
	sent  []Request

	deliver func(Request) // called for each request that is sent
	says    error         // the device's answer
}

func newRig(t fataler) *rig {
	r := &rig{
		t: t, clock: &handClock{synced: true, up: time.Hour}, box: newBox(), lines: make(map[string]*line),
		cfg: Config{Timeout: 30 * time.Second, MaxWaiting: 10, Max: 1000, MaxPayload: 1000, Keep: 24 * time.Hour},
	}
	for _, d := range []string{"a", "b"} {
		r.lines[d] = &line{}
	}
	r.start()
	return r
}

// start makes a room, as after a restart.
func (r *rig) start() {
	r.t.Helper()
	targets := make(map[string]Target)
	for d, l := range r.lines {
		l.jobs = nil
		targets[d] = Target{Line: l, Prepare: r.prepare}
	}
	var err error
	if r.Room, err = New(r.cfg, r.box, targets, r.clock, slog.New(slog.DiscardHandler)); err != nil {
		r.t.Fatal(err)
	}
	r.running = true
	for _, d := range r.devices {
		r.advance(d, r.clock.Now())
	}
}

// crash loses what is not on disk.
func (r *rig) crash() {
	r.t.Helper()
	r.box.lose()
	r.start()
}

func (r *rig) prepare(q Request) (Task, error) {
	if q.Point == "none" {
		return nil, errors.New("there is no point none")
	}
	return &task{request: q, send: func(q Request) error {
		r.sent = append(r.sent, q)
		if r.deliver != nil {
			r.deliver(q)
		}
		return r.says
	}}, nil
}

// turn writes to disk and lets the room act on that.
func (r *rig) turn() {
	r.box.write()
	r.step()
}

func write(device, point string) Request {
	return Request{Device: device, Kind: Write, Point: point, Value: &Value{record.Int(1)}}
}

func withKey(key string, q Request) Request {
	q.Key = key
	return q
}

// submit takes a command up to its commit.
func (r *rig) submit(q Request) string {
	r.t.Helper()
	c, err := r.Submit(ended(), q)
	if !errors.Is(err, ErrNotStored) || c.ID == "" {
		r.t.Fatalf("%+v, %v", c, err)
	}
	return c.ID
}

// refused is a Submit that fails at once.
func (r *rig) refused(q Request) error {
	r.t.Helper()
	c, err := r.Submit(ended(), q)
	if err == nil || errors.Is(err, ErrNotStored) || c.ID != "" {
		r.t.Fatalf("%+v, %v", c, err)
	}
	return err
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// is wants a command to be on disk in a state.
func (r *rig) is(id string, want State) Command {
	r.t.Helper()
	c, err := r.Get(id)
	if err != nil || c.State != want {
		r.t.Fatalf("%s is %q (%s), want %q; %v", id, c.State, c.Reason, want, err)
	}
	return c
}

// job takes the next one off a device's line.
func (r *rig) job(device string) scheduler.Job {
	r.t.Helper()
	l := r.lines[device]
	if len(l.jobs) == 0 {
		r.t.Fatalf("nothing is on the line of %s", device)
	}
	j := l.jobs[0]
	l.jobs = l.jobs[1:]
	return j
}

// do sends a job, and ends it.
func do(j scheduler.Job, err error) {
	j.Task.Begin(time.Now())
	_, stepErr := j.Task.Step(context.Background(), &scheduler.Turn{Timeout: time.Second})
	j.Task.End(errors.Join(err, stepErr))
}
