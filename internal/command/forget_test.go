package command

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// done submits a command and brings it to its end, with an answer of size bytes.
func (r *rig) done(q Request, size int) string {
	r.t.Helper()
	id := r.submit(q)
	r.turn()
	j := r.job(q.Device)
	j.Task.(*job).Task.(*task).answer = record.Record{Payload: make([]byte, size), ContentType: "text/plain"}
	do(j, nil)
	r.turn()
	r.is(id, Succeeded)
	r.clock.pass(time.Second)
	return id
}

func read(device string) Request { return Request{Device: device, Kind: Read} }

func (r *rig) isGone(id string) bool {
	_, err := r.Get(id)
	return errors.Is(err, ErrNotFound)
}

func TestAClientThatNeverStopsLocksNobodyOut(t *testing.T) {
	for name, size := range map[string]int{"by number": 0, "by the bytes of its answers": 900} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.cfg.Max, r.box.size = 100, 128<<10
			r.start()
			promised := withKey("mine", write("b", "p"))
			id := r.done(promised, 0)
			for i := range 1000 {
				q := write("a", fmt.Sprint(i))
				if i%2 == 0 {
					q = read("a")
				}
				r.done(q, size)
			}
			r.done(write("b", "p"), 0)
			if c, err := r.Submit(t.Context(), promised); err != nil || c.ID != id || !c.Known {
				t.Errorf("the key is forgotten: %+v, %v", c, err)
			}
			if st := r.Stats(); st.Kept > r.cfg.Max || st.Kept < r.cfg.Max/2 || st.Bytes > r.box.size || len(r.box.disk) != st.Kept {
				t.Errorf("%+v, %d on disk", st, len(r.box.disk))
			}
		})
	}
}

func TestWhatMakesWayIsReadsFirstAndThenTheOldest(t *testing.T) {
	r := newRig(t)
	r.cfg.Max = 6
	r.start()
	oldest := r.done(write("a", "1"), 0)
	key := r.done(withKey("k", read("a")), 0)
	second := r.done(write("b", "2"), 0)
	first, last := r.done(read("a"), 0), r.done(read("b"), 0)
	underway := r.submit(write("a", "3"))
	for i, want := range []string{first, last, oldest} {
		r.submit(withKey(fmt.Sprint("k", i), write("b", fmt.Sprint("x", i))))
		r.turn()
		if !r.isGone(want) || len(r.byID) != r.cfg.Max {
			t.Errorf("%d: %s has not made way; %d are kept", i, want, len(r.byID))
		}
	}
	r.is(key, Succeeded)
	r.is(second, Succeeded)
	r.is(underway, Sending)
}

func TestADeviceTakesAtMostHalfOfTheRoomWithKeys(t *testing.T) {
	for name, change := range map[string]func(*rig){
		"by number": func(r *rig) { r.cfg.Max = 20 },
		"by bytes":  func(r *rig) { r.box.size = 64 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			change(r)
			r.start()
			n := 0
			var err error
			for ; n < 100 && err == nil; n++ {
				q := withKey(fmt.Sprint("k", n), write("a", "p"))
				if r.hasRoomFor(q) {
					r.done(q, 900)
					continue
				}
				err = r.refused(q)
			}
			if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "half of the room") || n < 8 {
				t.Errorf("after %d: %v", n, err)
			}
			r.done(withKey("b", write("b", "p")), 900)
			r.done(write("b", "p"), 900)
			r.clock.pass(r.cfg.Keep + time.Minute)
			r.done(withKey("later", write("a", "p")), 900)
		})
	}
	t.Run("unless it is the only one", func(t *testing.T) {
		r := newRig(t)
		r.cfg.Max = 20
		delete(r.lines, "b")
		r.start()
		for i := range 20 {
			r.done(withKey(fmt.Sprint("k", i), write("a", "p")), 0)
		}
		if err := r.refused(write("a", "p")); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "max of [commands]") {
			t.Error(err)
		}
	})
}

// hasRoomFor asks without submitting.
func (r *rig) hasRoomFor(q Request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	return r.makeRoom(r.newEntry(q, now), now) == nil
}

func TestWhenTheBytesAreUsedUpItIsSaidWhatReservesThem(t *testing.T) {
	r := newRig(t)
	r.cfg.MaxWaiting, r.box.size = 100, 32<<10
	delete(r.lines, "b")
	r.start()
	for r.hasRoomFor(write("a", "p")) {
		r.submit(write("a", "p"))
	}
	err := r.refused(write("a", "p"))
	open := r.Stats().Waiting
	if want := fmt.Sprintf("the %d of them that have not ended reserve another %d", open, open*reserve); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
}

func TestABroadcastThatSucceededSaysThatNobodyConfirmedIt(t *testing.T) {
	r := newRig(t)
	q := write("a", "p")
	q.Broadcast = true
	if c := r.is(r.done(q, 0), Succeeded); !strings.Contains(c.Reason, "none of them confirms") {
		t.Errorf("%+v", c)
	}
}

func TestAtALimitACommandIsRefusedAndNothingForgotten(t *testing.T) {
	r := newRig(t)
	r.cfg.MaxWaiting, r.cfg.Max = 2, 5
	r.start()
	for i := range 3 { // one on the line, two waiting
		r.submit(write("a", fmt.Sprint(i)))
	}
	if err := r.refused(write("a", "p")); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "max_waiting") {
		t.Error(err)
	}
	r.submit(write("b", "none"))
	r.submit(write("b", "none"))
	r.turn()
	// Refused ones make way, accepted ones don't.
	r.submit(write("b", "1"))
	r.submit(write("b", "2"))
	if err := r.refused(write("b", "3")); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "max of [commands]") {
		t.Error(err)
	}
	r.turn()
	if st := r.Stats(); st.Kept != 5 || st.Waiting != 5 || len(r.box.disk) != 5 {
		t.Errorf("%+v", st)
	}
}

func TestAnEndHasRoomHoweverFullTheMailboxIs(t *testing.T) {
	r := newRig(t)
	r.box.size = 64 << 10
	var ids []string
	for i := range 100 {
		c, err := r.Submit(ended(), withKey(fmt.Sprint("k", i), write([]string{"a", "b"}[i%2], fmt.Sprint(i))))
		if errors.Is(err, ErrFull) {
			break
		}
		ids = append(ids, c.ID)
	}
	if len(ids) < 5 || len(ids) > 16 {
		t.Fatalf("%d commands in %d bytes", len(ids), r.box.size)
	}
	for range ids {
		r.turn()
		for _, d := range []string{"a", "b"} {
			if len(r.lines[d].jobs) == 0 {
				continue
			}
			j := r.job(d)
			j.Task.(*job).Task.(*task).answer = record.Record{Payload: make([]byte, 900)}
			do(j, errors.New(strings.Repeat("\x01", 10000)))
		}
		r.turn()
	}
	for _, id := range ids {
		r.is(id, Failed)
	}
	if st := r.Stats(); st.Bytes > r.box.size || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}
