package command

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"
)

const (
	// reserve is what each command that has not ended keeps free in the mailbox,
	// so that its end has room: a reason, of which JSON may make six times as much.
	reserve = 4 << 10

	// A line that takes no more jobs is asked again after these.
	minBusy = 50 * time.Millisecond
	maxBusy = 2 * time.Second

	// So is one that is not open, the longer it stays away the more seldom.
	minAway = 100 * time.Millisecond
	maxAway = 2 * time.Second

	// expireEvery is how often at most what waits is looked through for what has
	// expired.
	expireEvery = 50 * time.Millisecond

	// tidyEvery is how often what is old enough is forgotten, and the longest that
	// Run sleeps: its timers don't run while the machine is suspended.
	tidyEvery = time.Minute

	// Submit waits for the disk as long as its command is worth anything, within
	// these bounds.
	minStoring = time.Second
	maxStoring = 10 * time.Second

	// endStoring is how long Wait waits for the disk once a command has ended.
	endStoring = 2 * time.Second

	never = time.Duration(math.MaxInt64)
)

// Room keeps the commands. All its methods may be called concurrently.
//
// What Submit, Get and List tell of a command is on disk: no crash takes it back.
// The same goes for Wait, except where the disk fails. The end of a command that nobody waits for is on disk, and told, within
// the store's commit_delay; with somebody in Wait it is written at once.
type Room struct {
	cfg     Config
	mailbox Mailbox
	clock   Clock
	log     *slog.Logger

	wake chan struct{} // holds one token when Run should look again

	mu       sync.Mutex
	running  bool
	devices  map[string]*device
	byID     map[string]*entry
	byKey    map[string]*entry
	order    []*entry // by ID, which is the order of Submit
	commits  []saving // under way, in the order of the mailbox
	ready    []*entry // their mark is on disk: to be handed to the line
	delayed  delayed
	unsaved  []*entry // the mailbox did not take them
	open     int      // commands that have not ended
	bytes    int64    // in the mailbox
	damaged  int
	ended    map[State]uint64
	lastID   string
	base     Instant       // from which age is measured
	baseAge  time.Duration // at base
	expireAt time.Duration // by Instant.Up: when a waiting command expires
	tidyAt   time.Duration // likewise
	retryAt  time.Duration // likewise: the unsaved
}

// device is one that commands are for.
type device struct {
	id      string
	target  Target
	current *entry        // being marked, or on the line
	waiting []*entry      // in the order of Submit
	retryAt time.Duration // by Instant.Up: not before
	place   int           // in Room.delayed, from 1 on; 0: not there
	busy    time.Duration // how long it waited after the last ErrBusy
	away    time.Duration // how long it waits while its line is not open
	why     string        // what its commands wait for, if that is not each other
	stopped bool          // its line has been: no more in this process
}

// entry is a command in memory. Guarded by Room.mu. A Command that it points to
// never changes.
type entry struct {
	now     *Command // as it is
	shown   *Command // as it is told, which is as it is on disk; nil: not yet
	from    Instant
	worth   time.Duration
	age     time.Duration // of the room when it was saved last
	size    int           // in the mailbox
	device  *device
	task    Task
	first   Commit
	handed  bool // to the line
	waiters int
	endBy   time.Duration // by Instant.Up: when its end should be on disk; 0: there is no hurry
	over    chan struct{} // closed when its end is known
	done    chan struct{} // closed when its end is told, or it has been withdrawn
}

// saving is a commit under way.
type saving struct {
	commit  Commit
	entry   *entry
	version *Command
}

// New takes up the commands that the mailbox holds: those that were being sent
// when the agent stopped are unknown now, unless they may be repeated. It starts
// nothing. devices are those that can be commanded, by name.
func New(cfg Config, mailbox Mailbox, devices map[string]Target, clock Clock, log *slog.Logger) (*Room, error) {
	r := &Room{
		cfg: cfg, mailbox: mailbox, clock: clock, log: log, wake: make(chan struct{}, 1),
		devices: make(map[string]*device, len(devices)),
		byID:    make(map[string]*entry), byKey: make(map[string]*entry),
		ended: make(map[State]uint64), expireAt: never, retryAt: never,
	}
	for id, target := range devices {
		r.devices[id] = &device{id: id, target: target}
	}
	if err := r.load(clock.Now()); err != nil {
		return nil, fmt.Errorf("commands: %w", err)
	}
	return r, nil
}

// Run sends what waits, lets expire what is too late and forgets what is old,
// until ctx ends; then it returns nil, and what was not sent waits for the next
// start. It is called once. The mailbox's store must be running.
func (r *Room) Run(ctx context.Context) error {
	r.mu.Lock()
	r.running = true
	now := r.clock.Now()
	for _, d := range r.devices {
		r.advance(d, now)
	}
	r.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		commit, pause := r.step()
		timer.Reset(pause)
		select {
		case <-commit:
		case <-timer.C:
		case <-r.wake:
		case <-ctx.Done():
		}
	}
	r.stop()
	return nil
}

// step does what can be done now. It returns when to look again: when the next
// commit is done, or after a pause.
func (r *Room) step() (commit <-chan struct{}, pause time.Duration) {
	r.mu.Lock()
	r.settle()
	now := r.clock.Now()
	r.expire(now)
	r.saveAgain(now)
	r.tidy(now)
	r.retry(now)
	ready := r.ready
	r.ready = nil
	r.mu.Unlock()

	for _, e := range ready {
		r.hand(e)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.commits) > 0 {
		commit = r.commits[0].commit.Done()
	}
	next := min(r.expireAt, r.retryAt, r.tidyAt, now.Up+tidyEvery)
	if d := r.delayed.first(); d != nil {
		next = min(next, d.retryAt)
	}
	return commit, max(next-r.clock.Now().Up, 0)
}

func (r *Room) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// stop puts back what has been marked and not handed to its line.
func (r *Room) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = false
	r.settle()
	for _, d := range r.devices {
		if e := d.current; e != nil && !e.handed {
			r.putBack(e, false, "")
		}
	}
	r.ready = nil
}
