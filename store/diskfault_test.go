package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mcp-edge/edge-agent/internal/sim/disk"
)

// faultsEach, in the environment, is for the long form, in which no operation is
// left out.
const faultsEach = "STORE_TEST_FAULTS_EACH"

// diskFaults are ways in which a disk fails once, or for a moment. Each is brought
// about at the first operation of its kind, at the second, and so on until a
// short program ends undisturbed.
func diskFaults() map[string]disk.Fault {
	return map[string]disk.Fault{
		"EIO at each change":                   {Kinds: disk.Changes, Count: 1, Err: syscall.EIO},
		"EIO at each change, three times":      {Kinds: disk.Changes, Count: 3, Err: syscall.EIO, Forget: true},
		"EIO at each sync":                     {Kinds: disk.Sync | disk.SyncDir, Count: 1, Err: syscall.EIO},
		"EIO at each sync, and the cache goes": {Kinds: disk.Sync | disk.SyncDir, Count: 2, Err: syscall.EIO, Forget: true},
		"ENOSPC at each write":                 {Kinds: disk.Write | disk.Resize | disk.Create, Count: 2, Err: syscall.ENOSPC},
		"EIO at each read":                     {Kinds: disk.Read, Count: 2, Err: syscall.EIO}, // the kernel tries twice
	}
}

func TestADiskThatFailsAtAnyOperationLosesNothing(t *testing.T) {
	for name, fault := range diskFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := parameter(t, powerSeed, rand.Uint64())
			t.Logf("%s=%d", powerSeed, seed)
			r := rand.New(rand.NewPCG(seed, 0))
			trace := workOn(t, disk.New(nil, r.Uint64()), nil, name, r.Uint64())
			cutter := trace.Cutter()
			cases := caseSpans(t, trace)
			if len(cases) < 5 {
				t.Fatalf("%d cases only: nothing failed", len(cases))
			}
			// A power cut soon afterwards, too.
			for i, span := range cases {
				at := span[0] + 1 + r.IntN(span[1]-span[0])
				if fault.Kinds == disk.Read || i%4 != 0 {
					at = span[1]
				}
				cutSeed := r.Uint64()
				if _, err := checkCut(t, trace, cutter, at, cutSeed, caseDir(i+1)); err != nil {
					t.Fatal(failed(t, trace, at, cutSeed, err, caseDir(i+1)))
				}
			}
		})
	}
}

func caseDir(n int) string { return fmt.Sprint("case-", n) }

// caseSpans returns where each case begins and is over in the trace.
func caseSpans(t *testing.T, trace *disk.Trace) (list [][2]int) {
	t.Helper()
	trace.Marks(trace.Len(), func(at int, text string) {
		switch word, n, _ := strings.Cut(text, " "); word {
		case "case":
			if n != strconv.Itoa(len(list)+1) {
				t.Fatalf("case %s is number %d", n, len(list)+1)
			}
			list = append(list, [2]int{at, 0})
		case "over":
			list[len(list)-1][1] = at
		}
	})
	return list
}

// failEach runs in the process on the test disk.
func (l *lab) failEach(mount, name string) error {
	fault, stride := diskFaults()[name], 1
	if os.Getenv(faultsEach) == "" && fault.Kinds == disk.Changes { // what takes longest
		stride = 2*fault.Count - 1
	}
	fault.Nth = 1 + l.random.IntN(stride)
	for n := 1; ; n++ {
		fired, err := l.failOnce(n, filepath.Join(mount, caseDir(n)), fault)
		if err != nil {
			return fmt.Errorf("%s, number %d: %w", name, fault.Nth, err)
		}
		fault.Nth += stride
		if fired == 0 {
			break
		}
	}
	if l.failures == 0 {
		return fmt.Errorf("%s: the queue never noticed: the test shows little", name)
	}
	return nil
}

// failOnce runs the short program on a disk that is going to fail.
func (l *lab) failOnce(n int, dir string, fault disk.Fault) (fired int, err error) {
	p := newPromise()
	l.mark = func(text string) error { return errors.Join(p.take(text), l.remote.Mark(text)) }
	if err := errors.Join(l.mark(fmt.Sprint("case ", n)), l.remote.Inject(fault)); err != nil {
		return 0, err
	}
	if err := l.open(dir); err != nil {
		return 0, err
	}
	go func() { _ = l.store.Run(l.ctx) }()
	worked := l.work(fault.Kinds == disk.Read)
	if worked != nil {
		worked = fmt.Errorf("%w, %+v", worked, l.store.Stats())
	}
	st := l.store.Stats()
	l.failures += st.Failures + st.Rescues
	closed := l.store.Close()
	if fired, err = l.remote.Mend(); fired > 0 {
		closed = nil // what it could not write was not promised
	}
	if err := errors.Join(worked, closed, err, l.mark(fmt.Sprint("over ", n))); err != nil {
		return 0, err
	}
	_, err = p.check(l.ctx, dir)
	return fired, err
}

// work is the short program. If it is to be cold, nothing is found in the kernel's
// cache.
func (l *lab) work(cold bool) error {
	for _, step := range []func() error{
		func() error { return l.append(0, 1, 100, false) },
		func() error { return l.append(1, 2, 3000, true) },
		func() error { return l.post(1, 1, true) },
		func() error { return l.readAll(0) },
		func() error { return l.append(2, 1, 9000, false) },
		func() error { return l.post(2, 1, false) },
		func() error { _ = l.store.Compact(l.ctx); return nil }, // it may fail, and does no harm then
		func() error { return l.append(3, 1, 100, false) },
		func() error { return l.readAll(1) },
	} {
		if cold {
			if err := l.remote.Forget(); err != nil {
				return err
			}
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads and acknowledges all that a cursor has, though reading may fail.
func (l *lab) readAll(i int) error {
	var covered [labDevices]uint64
	for failures := 0; l.lag(i) > 0; {
		items, err := l.cursors[i].Read(l.ctx, nil, 100, 1<<20)
		if err != nil {
			if failures++; failures > 3 {
				return err
			}
			continue
		}
		for k := range items {
			d, _, to, err := span(&items[k])
			if err != nil {
				return err
			}
			covered[d] = to
		}
		if err := l.mark(ackMark(i, covered)); err != nil {
			return err
		}
		l.cursors[i].Ack(items[len(items)-1].Position)
	}
	return nil
}

func (l *lab) lag(i int) uint64 {
	for _, c := range l.store.Stats().Cursors {
		if c.Name == labCursors()[i].Name {
			return c.Lag
		}
	}
	return 0
}
