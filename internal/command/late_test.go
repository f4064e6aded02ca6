package command

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

func TestACommandThatDoesNotGetToDiskIsWithdrawn(t *testing.T) {
	for own, want := range map[time.Duration]time.Duration{
		time.Millisecond: minStoring, 3 * time.Second: 3 * time.Second, time.Hour: maxStoring,
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			q := withKey("k", write("a", "p"))
			q.Timeout = Duration(own)
			start := time.Now()
			c, err := r.Submit(t.Context(), q)
			if !errors.Is(err, ErrNotStored) || c.ID != "" || !strings.Contains(err.Error(), "disk is full") {
				t.Errorf("%+v, %v", c, err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("it took %s, not %s", took, want)
			}
			if st := r.Stats(); st.Kept != 0 || st.Waiting != 0 || st.Bytes != 0 {
				t.Errorf("it has left %+v", st)
			}
			// The disk recovers: what was withdrawn is not sent, and its key is free.
			r.turn()
			r.turn()
			if len(r.lines["a"].jobs) != 0 || len(r.box.disk) != 0 {
				t.Errorf("%d jobs, on disk %d", len(r.lines["a"].jobs), len(r.box.disk))
			}
			id := r.submit(withKey("k", write("a", "other")))
			r.turn()
			do(r.job("a"), nil)
			r.turn()
			r.is(id, Succeeded)
		})
	}
}

func TestACommandThatIsWithdrawnMakesWayForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := withKey("k", write("a", "1"))
		first.Timeout = Duration(2 * time.Second)
		refused := make(chan error, 2)
		for range 2 { // the second one finds its key
			go func() {
				_, err := r.Submit(t.Context(), first)
				refused <- err
			}()
		}
		synctest.Wait()
		r.submit(write("a", "2"))
		for range 2 {
			if err := <-refused; !errors.Is(err, ErrNotStored) {
				t.Error(err)
			}
		}
		r.turn()
		do(r.job("a"), nil)
		if len(r.sent) != 1 || r.sent[0].Point != "2" {
			t.Errorf("sent: %+v", r.sent)
		}
	})
}

func TestWhoWaitsForACommandThatIsWithdrawnIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		go func() { _, _ = r.Submit(t.Context(), write("a", "p")) }()
		synctest.Wait()
		if c, err := r.Wait(t.Context(), r.lastID); !errors.Is(err, ErrNotStored) || c.ID != "" {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

func TestAnEndIsToldThoughTheDiskDoesNotTakeIt(t *testing.T) {
	for name, refuses := range map[string]error{"it hangs": nil, "it refuses": store.ErrMailboxFull} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				id := r.submit(write("a", "p"))
				r.turn()
				j := r.job("a")
				r.box.refuses = refuses
				go do(j, nil)
				start := time.Now()
				c, err := r.Wait(t.Context(), id)
				if err != nil || c.State != Succeeded || time.Since(start) != endStoring {
					t.Errorf("%+v, %v after %s", c, err, time.Since(start))
				}
				r.is(id, Succeeded) // it is not taken back
				r.box.refuses = nil
				r.clock.pass(time.Second)
				r.step()
				r.turn()
				r.crash()
				r.is(id, Succeeded)
			})
		})
	}
}

func TestACommandWhoseMarkDoesNotGetToDiskExpires(t *testing.T) {
	r := newRig(t)
	r.lines["a"].away = true
	id, behind := r.submit(write("a", "p")), r.submit(write("a", "q"))
	r.turn()
	r.lines["a"].away = false
	r.clock.pass(minAway)
	r.step() // marks it
	r.clock.pass(r.cfg.Timeout)
	r.step() // the mark is not on disk
	r.turn()
	for _, id := range []string{id, behind} {
		if c := r.is(id, Expired); !strings.Contains(c.Reason, "could not be stored in time") || c.Attempts != 0 {
			t.Errorf("%+v", c)
		}
	}
	if len(r.lines["a"].jobs) != 0 {
		t.Error("it was sent")
	}
}

func TestAKeyThatCanNotBeIsRefusedWithWhatAKeyIs(t *testing.T) {
	if err := newRig(t).refused(withKey("a/b", write("a", "p"))); !strings.Contains(err.Error(), "no / + #") {
		t.Error(err)
	}
}

func TestACommandThatExpiresSaysWhatItHasWaitedFor(t *testing.T) {
	r := newRig(t)
	r.lines["a"].away = true
	id := r.submit(write("a", "p"))
	r.turn()
	r.clock.pass(r.cfg.Timeout)
	r.turn()
	r.turn()
	if c := r.is(id, Expired); c.Reason != "its deadline passed while it waited: its link is down" {
		t.Error(c.Reason)
	}
	r.lines["b"].err = scheduler.ErrBusy
	id = r.submit(write("b", "p"))
	r.turn()
	r.turn()
	r.clock.pass(r.cfg.Timeout)
	r.turn()
	r.turn()
	if c := r.is(id, Expired); c.Reason != "its deadline passed while it waited for its turn" {
		t.Error(c.Reason)
	}
}
