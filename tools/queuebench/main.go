// Queuebench measures the store beside what it could be at best and beside its
// peers, in one run and in one process: the figures of docs/benchmarks.md.
//
//	go -C tools/queuebench run . -dir /var/tmp            everything: 20 minutes, 15 GB of disk
//	go -C tools/queuebench run . -only append,pipelined   a part of it
//
// The floor is a raw log in a preallocated file that is written round and round,
// with group commit and one fdatasync a group: what any durable queue on this disk
// could do at best. The peers are tidwall/wal with the same group commit in front
// of its WriteBatch, and an in-process NATS JetStream with SyncAlways.
//
// Records have 256 B; each producer has a device, a source and a channel of its
// own in the store, and waits for its commit before its next append. All are
// measured in turns, in each round anew, and the floor before and after. Ratios
// are of one round; the median of the rounds counts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const bodySize = 256

// options are the command line's.
type options struct {
	dir     string
	memory  string // a folder in memory
	rounds  int
	time    time.Duration // of one measurement
	records int           // in the stores that are opened again
	backlog int64         // bytes in the queue when memory is measured
	log     func(format string, args ...any)
}

// part is a group of lines of the issue.
type part struct {
	name string
	run  func(*options, *table) error
}

func parts() []part {
	return []part{
		{"append", measureAppend},
		{"latency", measureLatency},
		{"pipelined", measurePipelined},
		{"together", measureTogether},
		{"backlog", measureBacklog},
		{"reopen", measureReopen},
		{"memory", measureMemory},
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "queuebench:", err)
		os.Exit(1)
	}
}

func run() error {
	o := options{log: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
	}}
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	only := flag.String("only", strings.Join(names, ","), "parts to measure")
	child := flag.String("child", "", "used by the program itself: what to measure in a process of its own")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "a folder on the disk to measure, with 15 GB of room")
	flag.StringVar(&o.memory, "memory", "/dev/shm", "a folder in memory, where large queues are made; with 4 GB of room")
	flag.IntVar(&o.rounds, "rounds", 5, "how often, of which the median counts")
	flag.DurationVar(&o.time, "time", time.Second, "how long each time")
	flag.IntVar(&o.records, "records", 10_000_000, "in the stores that are opened again")
	flag.Int64Var(&o.backlog, "backlog", 10_000_000_000, "bytes in the queue when memory is measured")
	flag.Parse()
	if *child != "" {
		return runChild(*child, flag.Args())
	}
	for _, dir := range []*string{&o.dir, &o.memory} {
		var err error
		if *dir, err = os.MkdirTemp(*dir, "queuebench-"); err != nil {
			return err
		}
		defer os.RemoveAll(*dir)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		_, _ = os.RemoveAll(o.dir), os.RemoveAll(o.memory)
		os.Exit(1)
	}()
	return measure(&o, strings.Split(*only, ","))
}

func measure(o *options, only []string) error {
	t := &table{}
	t.begin()
	var failed error
	for _, p := range parts() {
		if !slices.Contains(only, p.name) {
			continue
		}
		o.log("%s; load average %s", p.name, loadAverage())
		if err := p.run(o, t); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return failed
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

// table prints as it goes: a run takes long.
type table struct{}

func (*table) begin() {
	fmt.Println("| what | rounds, sorted | median | wanted |")
	fmt.Println("|---|---|---|---|")
}

// line has the figures of all rounds.
func (*table) line(what, format, wanted string, rounds ...float64) {
	rounds = slices.Sorted(slices.Values(rounds))
	texts := make([]string, len(rounds))
	for i, v := range rounds {
		texts[i] = fmt.Sprintf(format, v)
	}
	fmt.Printf("| %s | %s | **%s** | %s |\n", what, strings.Join(texts, " · "), fmt.Sprintf(format, median(rounds)), wanted)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
