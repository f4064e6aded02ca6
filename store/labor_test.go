package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/disk"
	"github.com/mcp-edge/edge-agent/store"
)

// The program under test, in a process of its own, on a disk that fails.

const (
	labMount = "STORE_TEST_DISK" // in the environment of the process: where the disk is mounted
	labSeed  = "STORE_TEST_SEED"
	labWork  = "STORE_TEST_WORK" // one of diskFaults; empty: sessions
)

// labMain is the program. It exits with 1 and the reason on stderr.
func labMain() bool {
	mount := os.Getenv(labMount)
	if mount == "" {
		return false
	}
	if err := labRun(mount); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func labRun(mount string) error {
	remote, err := disk.Dial(mount)
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(os.Getenv(labSeed), 10, 64)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l := &lab{ctx: ctx, mark: remote.Mark, remote: remote, random: rand.New(rand.NewPCG(seed, 1))}
	if work := os.Getenv(labWork); work != "" {
		return l.failEach(mount, work)
	}
	return l.sessions(filepath.Join(mount, labDir))
}

// labDir is where the store is, within the disk: its directory is lost, too, if
// nobody syncs that.
const labDir = "data/queue"

// lab is a store that is used, and what that needs.
type lab struct {
	ctx      context.Context
	mark     func(text string) error
	remote   *disk.Remote
	random   *rand.Rand
	store    *store.Store
	cursors  []*store.Cursor
	failures uint64 // that the queue noticed
	trickle  bool   // only small records, which are not freed, so that there is something to fold
}

func labSource(d int) store.SourceKey {
	return store.SourceKey{Device: fmt.Sprint("d", d), Stream: "s"}
}

func (l *lab) channel(d int) (*store.Channel, error) {
	return l.store.Channel(store.ChannelKey{Sender: fmt.Sprint("sender-", d), Epoch: 1})
}

func (l *lab) openCursors() error {
	l.cursors = nil
	for _, cfg := range labCursors() {
		c, err := l.store.Cursor(cfg)
		if err != nil {
			return err
		}
		l.cursors = append(l.cursors, c)
	}
	return nil
}

// open opens the store, however often it must try.
func (l *lab) open(dir string) error {
	for try := 1; ; try++ {
		var err error
		if l.store, err = store.Open(dir, labConfig(), quiet()); err == nil {
			break
		}
		if try == 20 {
			return fmt.Errorf("tried %d times: %w", try, err)
		}
	}
	return errors.Join(l.openCursors(), l.mark(fmt.Sprint("epoch ", l.store.Epoch())))
}

// append stores records of a device, and waits until they are on disk.
func (l *lab) append(d, count, size int, delay bool) error {
	source, err := l.store.Source(labSource(d))
	if err != nil {
		return err
	}
	c, err := l.channel(d)
	if err != nil {
		return err
	}
	batch := store.Batch{Channel: c, Previous: c.Safe(), Delay: delay}
	number := c.Safe()
	for range count {
		number++
		body := strconv.AppendUint(nil, number, 10)
		batch.Entries = append(batch.Entries, store.Entry{
			Source: source, Number: number, Time: time.Unix(int64(number), 0),
			Body: append(body, " "+strings.Repeat("x", size)...),
		})
	}
	if err := l.mark(fmt.Sprint("begin ", d, " ", number)); err != nil {
		return err
	}
	commit, err := l.store.Append(l.ctx, batch)
	if err != nil {
		return err
	}
	if err := commit.Wait(l.ctx); err != nil {
		return err
	}
	return l.mark(fmt.Sprint("done ", d, " ", number))
}

func (l *lab) appendOneEach() error {
	for d := range labDevices {
		if err := l.append(d, 1, 10, false); err != nil {
			return fmt.Errorf("appending to device %d: %w", d, err)
		}
	}
	return nil
}

// post puts the next number into the mailbox, and puts a letter there or takes it
// out.
func (l *lab) post(n uint64, letter uint64, put bool) error {
	wait := func(commit *store.Commit, err error) error {
		if err != nil {
			return err
		}
		return commit.Wait(l.ctx)
	}
	box := l.store.Mailbox()
	if err := wait(box.Put(mailKey(n), strconv.AppendUint(nil, n, 10))); err != nil {
		return err
	}
	if err := l.mark(fmt.Sprint("mail ", n)); err != nil {
		return err
	}
	before, after := "take ", "gone "
	change := func() (*store.Commit, error) { return box.Delete(letterKey(letter)) }
	if put {
		before, after = "put ", "kept "
		change = func() (*store.Commit, error) {
			return box.Put(letterKey(letter), strconv.AppendUint(nil, letter, 10))
		}
	}
	if err := l.mark(fmt.Sprint(before, letter)); err != nil {
		return err
	}
	if err := wait(change()); err != nil {
		return err
	}
	return l.mark(fmt.Sprint(after, letter))
}

// sessions opens the store some times, uses it from all sides, and closes it; but
// for the last time, when the process just ends.
func (l *lab) sessions(dir string) error {
	const sessions = 3
	for session := range sessions {
		if err := l.trouble(); err != nil {
			return err
		}
		l.trickle = session == 1 || l.random.IntN(3) == 0
		if err := l.open(dir); err != nil {
			return err
		}
		if err := l.session(); err != nil {
			return err
		}
		if session == sessions-1 {
			return nil
		}
		_ = l.store.Close() // what it could not write was not promised
		if _, err := l.remote.Mend(); err != nil {
			return err
		}
	}
	return nil
}

// trouble makes the disk fail for a moment, in most sessions.
func (l *lab) trouble() error {
	f := disk.Fault{Nth: 1 + l.random.IntN(150), Count: 1 + l.random.IntN(3), Err: syscall.EIO, Forget: l.random.IntN(2) == 0}
	switch l.random.IntN(4) {
	case 0:
		return nil
	case 1:
		f.Kinds, f.Err = disk.Write|disk.Resize|disk.Create, syscall.ENOSPC
	case 2:
		f.Kinds = disk.Changes
	default:
		f.Kinds = disk.Sync | disk.SyncDir
	}
	return l.remote.Inject(f)
}

func (l *lab) session() error {
	ctx, stop := context.WithCancel(l.ctx)
	defer stop()
	go func() { _ = l.store.Run(l.ctx) }()
	var producers, consumers sync.WaitGroup
	errs := make(chan error, 16)
	start := func(group *sync.WaitGroup, work func(*rand.Rand) error) {
		random := rand.New(rand.NewPCG(l.random.Uint64(), 2))
		group.Go(func() {
			if err := work(random); err != nil && ctx.Err() == nil {
				errs <- err
				stop()
			}
		})
	}
	for d := range labDevices {
		start(&producers, func(r *rand.Rand) error { return l.produce(ctx, d, r) })
	}
	start(&producers, l.correspond)
	start(&consumers, func(r *rand.Rand) error { return l.compact(ctx, r) })
	for i := range l.cursors {
		start(&consumers, func(r *rand.Rand) error { return l.consume(ctx, i, r) })
	}
	producers.Wait()
	stop()
	consumers.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	if err := l.ctx.Err(); err != nil {
		return fmt.Errorf("it takes too long: %w, %+v", err, l.store.Stats())
	}
	return nil
}

func (l *lab) produce(ctx context.Context, d int, r *rand.Rand) error {
	batches := 40
	if l.trickle {
		batches = 60
	}
	for i := 0; i < batches && ctx.Err() == nil; i++ {
		size := 20 + r.IntN(200)
		switch dice := r.IntN(20); {
		case l.trickle:
		case dice == 0:
			size = 8000
		case dice < 4:
			size = 1000 + r.IntN(2000)
		}
		if err := l.append(d, 1+r.IntN(3), size, d == 0); err != nil {
			return err
		}
	}
	return nil
}

// compact makes the file give its space back now and then. On a disk that fails it may
// fail.
func (l *lab) compact(ctx context.Context, r *rand.Rand) error {
	for ctx.Err() == nil {
		select {
		case <-time.After(time.Duration(r.IntN(200)) * time.Millisecond):
		case <-ctx.Done():
		}
		_ = l.store.Compact(ctx)
	}
	return nil
}

// correspond works on the mailbox.
func (l *lab) correspond(r *rand.Rand) error {
	p, found := newPromise(), newPromise()
	if err := p.checkMail(l.store, found); err != nil {
		return err
	}
	for n := found.mail + 1; n <= found.mail+25; n++ {
		letter := uint64(r.IntN(6))
		if err := l.post(n, letter, r.IntN(2) == 0); err != nil {
			return err
		}
	}
	return nil
}

// consume reads and acknowledges, cursors of higher index more sluggishly.
func (l *lab) consume(ctx context.Context, i int, r *rand.Rand) error {
	c := l.cursors[i]
	var covered [labDevices]uint64
	var items []store.Item
	for ctx.Err() == nil {
		var err error
		if items, err = c.Read(ctx, items[:0], 1+r.IntN(20), 20000); err != nil {
			return err
		}
		for k := range items {
			d, _, to, err := span(&items[k])
			if err != nil {
				return err
			}
			covered[d] = to
		}
		switch dice := r.IntN(2 + i); {
		case dice == 0 && (i < 2 || !l.trickle): // in a trickle, one holds all
			if err := l.mark(ackMark(i, covered)); err != nil {
				return err
			}
			c.Ack(items[len(items)-1].Position)
		case dice != 1:
			c.Rewind()
			covered = [labDevices]uint64{}
			select {
			case <-time.After(time.Duration(i*i) * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	return nil
}
