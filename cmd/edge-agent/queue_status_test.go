package main

import (
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/store"
)

func TestTheStatusOfABadDayIsPlain(t *testing.T) {
	now := time.Date(2026, 11, 29, 3, 0, 0, 0, time.Local)
	st := doctor.Status{
		Agent: "gw-01", File: "/var/lib/edge-agent/queue.db", Running: true, Started: now.Add(-50 * time.Hour),
		Quarantine: pipeline.QuarantineStats{Entries: 1},
		Store: store.Stats{
			State: store.StateFull, Reason: "max_size is used up by all/cloud", Since: now.Add(-41 * time.Minute),
			Bytes: 1 << 30, MaxBytes: 1 << 30, FileBytes: 3 << 29, Records: 1_204_331, Kept: 12, KeptBytes: 5000,
			Written: 9 << 30, WrittenPerDay: 3 << 30, Damaged: 2, Failures: 7, Rescues: 1, Unwanted: 3,
			Notices:    []string{"the file was damaged and has been repaired"},
			Compaction: store.CompactionStats{Free: 80 << 20},
			Cursors: []store.CursorStats{
				{Name: "all/cloud", WhenFull: store.DropOldest, Lag: 1_204_319, LagBytes: 1 << 30, Oldest: now.Add(-75 * time.Hour), Dropped: []store.DroppedFrom{
					{Device: "boiler-1", Records: 5, First: now.Add(-3 * time.Hour), Last: now.Add(-2 * time.Hour)},
					{Device: "boiler-2", Records: 6, First: now.Add(-4 * time.Hour), Last: now.Add(-3 * time.Hour)},
				}},
				{Name: "old/cloud", Held: true, Lag: 3, LagBytes: 612, Oldest: now.Add(-41 * 24 * time.Hour)},
			},
		},
	}
	var out strings.Builder
	if err := showStatus(&out, &queueTarget{agent: "gw-01"}, &st, now); err != nil {
		t.Fatal(err)
	}
	const want = `queue     /var/lib/edge-agent/queue.db of agent gw-01
state     full for 41 min 0 s: max_size is used up by all/cloud
stored    1,204,331 records, 1.0 GiB of 1.0 GiB (100 %)
kept      12 records of these, 4.9 KiB, are delivered and there for replay
file      1.5 GiB, with 80.0 MiB free inside
written   9.0 GiB to disk since the start, lately 3.0 GiB a day
damage    2 records could not be read since the start
disk      7 commits failed and had to be tried again; the file was written anew once
unwanted  3 records that no route takes were freed since the start

ROUTE/UPSTREAM  TO DELIVER  SIZE     OLDEST        WHEN FULL
all/cloud       1,204,319   1.0 GiB  3 d 3 h ago   drop-oldest
old/cloud       3           612 B    41 d 0 h ago  held

the file was damaged and has been repaired

1 record could not be delivered: edge-agent queue quarantine list

all/cloud: 11 records of 2 devices dropped since the start,
from 2026-11-28 23:00:00 to 2026-11-29 01:00:00

old/cloud is no route of the configuration any more, and keeps what it has not
delivered. To give that up: edge-agent queue forget old/cloud
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
