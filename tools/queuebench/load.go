package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// subject is a log under test.
type subject interface {
	// append returns when a record of the producer is on disk.
	append(producer int) error
	// pipeline appends as one producer that waits for the oldest record only when a
	// window of them is under way, until done; and returns how many are on disk.
	pipeline(window int, done *atomic.Bool) (int64, error)
}

// rate runs n producers for a while and returns records a second.
func rate(s subject, n int, d time.Duration) (float64, error) {
	total, took, err := load(n, d, func(i int, done *atomic.Bool) (count int64, err error) {
		for ; !done.Load(); count++ {
			if err := s.append(i); err != nil {
				return 0, err
			}
		}
		return count, nil
	})
	return float64(total) / took.Seconds(), err
}

// pipelinedRate is that of one producer with a window.
func pipelinedRate(s subject, window int, d time.Duration) (float64, error) {
	total, took, err := load(1, d, func(_ int, done *atomic.Bool) (int64, error) { return s.pipeline(window, done) })
	return float64(total) / took.Seconds(), err
}

// latencies are how long each append took, sorted.
func latencies(s subject, n int, d time.Duration) ([]time.Duration, error) {
	all := make([][]time.Duration, n)
	_, _, err := load(n, d, func(i int, done *atomic.Bool) (int64, error) {
		for start := time.Now(); !done.Load(); {
			if err := s.append(i); err != nil {
				return 0, err
			}
			now := time.Now()
			all[i] = append(all[i], now.Sub(start))
			start = now
		}
		return int64(len(all[i])), nil
	})
	return slices.Sorted(slices.Values(slices.Concat(all...))), err
}

func load(n int, d time.Duration, produce func(producer int, done *atomic.Bool) (int64, error)) (int64, time.Duration, error) {
	var done atomic.Bool
	var total atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, n)
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			count, err := produce(i, &done)
			errs[i] = err
			total.Add(count)
		})
	}
	timer := time.NewTimer(d)
	<-timer.C
	done.Store(true)
	wg.Wait()
	return total.Load(), time.Since(start), errors.Join(errs...)
}

// pipelined sends until done with at most window records under way.
func pipelined[T any](window int, done *atomic.Bool, send func() (T, error), wait func(T) error) (count int64, err error) {
	flight := make([]T, 0, window)
	oldest := 0
	for !done.Load() {
		ticket, err := send()
		if err != nil {
			return count, err
		}
		if len(flight) < window {
			flight = append(flight, ticket)
			continue
		}
		if err := wait(flight[oldest]); err != nil {
			return count, err
		}
		count++
		flight[oldest] = ticket
		oldest = (oldest + 1) % window
	}
	for i := range flight {
		if err := wait(flight[(oldest+i)%len(flight)]); err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

// written is how many bytes this process has caused to be written to disk.
func written() (float64, error) { return field("/proc/self/io", "write_bytes:") }

// field finds a number in a file of /proc.
func field(path, name string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
