package mcp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/mcp"
)

func of(device string, records int) []share {
	return []share{{device: deviceKey{device: device}, records: records}}
}

func TestADeviceNeverGetsMoreThanItsRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, 100000).Draw(t, "rate")
		burst := rapid.IntRange(1, 1000).Draw(t, "burst")
		r := newRates(rate, burst)
		start := time.Now()
		now, taken, largest := start, 0, 0
		for range rapid.IntRange(1, 200).Draw(t, "batches") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms")) * time.Millisecond)
			records := rapid.IntRange(1, 500).Draw(t, "records")
			wait, err := r.take(of("press-1", records), now)
			for err == nil && wait > 0 {
				if wait > maxDebt {
					t.Fatalf("it is to wait for %v", wait)
				}
				now = now.Add(wait)
				wait, err = r.take(of("press-1", records), now)
			}
			if err != nil {
				if !mcp.IsCode(err, mcp.CodeRateExceeded) {
					t.Fatal(err)
				}
				now = now.Add(maxDebt)
				continue
			}
			taken += records
			largest = max(largest, records)
			// One batch may go into debt; each record's time is rounded down to 1 ns.
			if most := float64(burst+largest) + now.Sub(start).Seconds()*float64(rate)*1.0001; float64(taken) > most+1 {
				t.Fatalf("%d records within %v, at %d/s and %d at once", taken, now.Sub(start), rate, burst)
			}
		}
	})
}

func TestABatchLargerThanTheBurstPassesOnceAndTheNextIsRefused(t *testing.T) {
	r := newRates(10, 20)
	now := time.Now()
	if wait, err := r.take(of("press-1", 100), now); wait != 0 || err != nil {
		t.Fatalf("the first: %v, %v", wait, err)
	}
	_, err := r.take(of("press-1", 1), now)
	if !mcp.IsCode(err, mcp.CodeRateExceeded) || !strings.Contains(err.Error(), "go on in 8s") {
		t.Errorf("at once: %v", err)
	}
	if wait, err := r.take(of("press-1", 1), now.Add(4*time.Second)); wait != 4*time.Second || err != nil {
		t.Errorf("while the debt is small: %v, %v", wait, err)
	}
	if wait, err := r.take(of("press-1", 1), now.Add(8*time.Second)); wait != 0 || err != nil {
		t.Errorf("without debt: %v, %v", wait, err)
	}
	if wait, err := r.take(of("press-2", 1), now); wait != 0 || err != nil {
		t.Errorf("another device: %v, %v", wait, err)
	}
}

func TestABatchOfSeveralDevicesIsTakenAsAWholeOrNotAtAll(t *testing.T) {
	r := newRates(10, 10)
	now := time.Now()
	if _, err := r.take(of("press-1", 30), now); err != nil {
		t.Fatal(err)
	}
	both := append(of("press-2", 10), of("press-1", 1)...)
	if wait, err := r.take(both, now); wait != 2*time.Second || err != nil {
		t.Errorf("got %v, %v", wait, err)
	}
	if wait, err := r.take(of("press-2", 11), now); wait != 0 || err != nil {
		t.Errorf("a device has paid for records that were not taken: %v, %v", wait, err)
	}
	if wait, _ := r.take(of("press-2", 1), now); wait != 100*time.Millisecond {
		t.Errorf("got %v", wait)
	}
}

func TestFullBucketsTakeNoRoom(t *testing.T) {
	r := newRates(1000, 1)
	now := time.Now()
	for i := range 3 * maxBuckets {
		wait, err := r.take(of(fmt.Sprint(i), 1), now)
		for wait > 0 && err == nil {
			now = now.Add(wait)
			wait, err = r.take(of(fmt.Sprint(i), 1), now)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(r.full) > maxBuckets {
		t.Errorf("%d buckets", len(r.full))
	}
}

func TestWithoutARateNobodyIsCounted(t *testing.T) {
	if newRates(0, 100) != nil {
		t.Error("there is a limit")
	}
}
