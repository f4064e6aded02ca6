package store_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/store"
)

// The floor is what any durable queue on this disk could do at best: a raw log
// in a preallocated, zero-filled file that is written round and round, with group
// commit and one fdatasync a group. Each benchmark measures it in the same run,
// right before and after, and reports the ratio.
//
//	go test ./store -run '^$' -bench . -benchtime 5x
//
// "-benchtime 5x" is five times a second of load, of which the median counts.

const (
	bodySize  = 256
	benchTime = time.Second
)

// appender commits one body and returns when it is on disk.
type appender func(producer int) error

// load runs n producers, each waiting for its commit before its next append, and
// returns records a second.
func load(b testing.TB, n int, d time.Duration, appendOne appender) float64 {
	var done atomic.Bool
	var total atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			count := int64(0)
			for !done.Load() {
				if err := appendOne(i); err != nil {
					b.Error(err)
					return
				}
				count++
			}
			total.Add(count)
		})
	}
	timer := time.NewTimer(d)
	<-timer.C
	done.Store(true)
	wg.Wait()
	return float64(total.Load()) / time.Since(start).Seconds()
}

// rawLog is the floor.
type rawLog struct {
	f      *os.File
	offset int64
	mu     sync.Mutex
	buf    []byte
	spare  []byte
	done   chan struct{}
	kick   chan struct{}
	stop   chan struct{}
}

const rawSize = 64 << 20

func newRawLog(b testing.TB, dir string) *rawLog {
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		b.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range rawSize >> 20 {
		if _, err := f.Write(zeros); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	l := &rawLog{f: f, done: make(chan struct{}), kick: make(chan struct{}, 1), stop: make(chan struct{})}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		l.run(b)
	}()
	b.Cleanup(func() {
		close(l.stop)
		<-finished
		f.Close()
	})
	return l
}

func (l *rawLog) append(body []byte) {
	l.mu.Lock()
	first := len(l.buf) == 0
	l.buf = binary.LittleEndian.AppendUint32(l.buf, uint32(len(body)))
	l.buf = binary.LittleEndian.AppendUint32(l.buf, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	l.buf = append(l.buf, body...)
	done := l.done
	l.mu.Unlock()
	if first {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
	<-done
}

func (l *rawLog) run(b testing.TB) {
	for {
		select {
		case <-l.kick:
		case <-l.stop:
			return
		}
		last := 0
		for range 20 {
			runtime.Gosched()
			l.mu.Lock()
			n := len(l.buf)
			l.mu.Unlock()
			if n == last {
				break
			}
			last = n
		}
		l.mu.Lock()
		buf, done := l.buf, l.done
		l.buf, l.done = l.spare[:0], make(chan struct{})
		l.mu.Unlock()
		if l.offset+int64(len(buf)) > rawSize {
			l.offset = 0
		}
		if _, err := l.f.WriteAt(buf, l.offset); err != nil {
			b.Error(err)
		}
		if err := unix.Fdatasync(int(l.f.Fd())); err != nil {
			b.Error(err)
		}
		l.offset += (int64(len(buf)) + 4095) &^ 4095
		l.spare = buf
		close(done)
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// openRunning opens a store and runs it until the test ends.
func openRunning(t testing.TB, dir string, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(dir, cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return s
}

func run(t testing.TB, s *store.Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// producers give each producer a device, a source and a channel of its own.
func producers(b testing.TB, s *store.Store, n int) appender {
	body := []byte(strings.Repeat("x", bodySize))
	type producer struct {
		source  *store.Source
		channel *store.Channel
		number  uint64
	}
	all := make([]producer, n)
	for i := range all {
		var err error
		if all[i].source, err = s.Source(store.SourceKey{Device: "device-" + strconv.Itoa(i), Stream: "s"}); err != nil {
			b.Fatal(err)
		}
		if all[i].channel, err = s.Channel(store.ChannelKey{Sender: "sender-" + strconv.Itoa(i), Epoch: 1}); err != nil {
			b.Fatal(err)
		}
	}
	now := time.Now()
	return func(i int) error {
		p := &all[i]
		commit, err := s.Append(context.Background(), store.Batch{
			Entries: []store.Entry{{Source: p.source, Time: now, Number: p.number + 1, Body: body}},
			Channel: p.channel, Previous: p.number,
		})
		if err != nil {
			return err
		}
		<-commit.Done()
		p.number++
		return commit.Err()
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// drain reads and acknowledges everything until ctx ends.
func drain(ctx context.Context, c *store.Cursor) {
	var items []store.Item
	for {
		var err error
		if items, err = c.Read(ctx, items[:0], 4096, 2<<20); err != nil {
			return
		}
		c.Ack(items[len(items)-1].Position)
	}
}

// BenchmarkAppend appends only: a cursor that does not read keeps everything.
// BenchmarkAppendReadAck also has a cursor that does read and acknowledge. Both
// run in a file that has had its size before, as the floor does; see
// BenchmarkGrow for the first time.
func BenchmarkAppend(b *testing.B)        { benchmark(b, false) }
func BenchmarkAppendReadAck(b *testing.B) { benchmark(b, true) }

func benchmark(b *testing.B, read bool) {
	for _, n := range []int{1, 64, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			raw := newRawLog(b, b.TempDir())
			body := []byte(strings.Repeat("x", bodySize))
			floor := func() float64 {
				return load(b, n, benchTime/2, func(int) error { raw.append(body); return nil })
			}
			s := openRunning(b, b.TempDir(), store.Config{MaxSize: 4 << 30})
			cursor, err := s.Cursor(store.CursorConfig{Name: "c"})
			if err != nil {
				b.Fatal(err)
			}
			grow(b, s, 512<<20)
			empty(b, s, cursor)
			appendOne := producers(b, s, n)
			b.ReportAllocs()
			var rates, ratios, written []float64
			for b.Loop() {
				b.StopTimer()
				before := floor()
				ctx, cancel := context.WithCancel(b.Context())
				var reader sync.WaitGroup
				if read {
					reader.Go(func() { drain(ctx, cursor) })
				}
				start := s.Stats()
				b.StartTimer()
				rate := load(b, n, benchTime, appendOne)
				b.StopTimer()
				end := s.Stats()
				written = append(written, float64(end.Written-start.Written)/float64((end.Appended-start.Appended)*bodySize))
				cancel()
				reader.Wait()
				rates = append(rates, rate)
				ratios = append(ratios, 2*rate/(before+floor()))
				empty(b, s, cursor)
				b.StartTimer()
			}
			b.ReportMetric(median(rates), "records/s")
			b.ReportMetric(median(ratios), "of-raw")
			b.ReportMetric(median(written), "disk-bytes/byte")
			b.ReportMetric(float64(s.Stats().CommitTime.Microseconds())/float64(s.Stats().Commits), "µs/commit")
		})
	}
}

// grow appends some bytes of records.
func grow(b *testing.B, s *store.Store, size int) {
	source, err := s.Source(store.SourceKey{Device: "filler", Stream: "s"})
	if err != nil {
		b.Fatal(err)
	}
	entries := slices.Repeat([]store.Entry{{Source: source, Body: make([]byte, bodySize)}}, 1000)
	for range size / bodySize / len(entries) {
		if _, err := s.Append(b.Context(), store.Batch{Entries: entries}); err != nil {
			b.Fatal(err)
		}
	}
}

// empty delivers everything and waits until it is freed.
func empty(b *testing.B, s *store.Store, c *store.Cursor) {
	ctx, cancel := context.WithCancel(b.Context())
	var reader sync.WaitGroup
	reader.Go(func() { drain(ctx, c) })
	for tick := time.Tick(10 * time.Millisecond); s.Stats().Bytes > 1<<20; {
		<-tick
	}
	cancel()
	reader.Wait()
}
