package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

func TestACommandIsOnItsLineAfterOneCommitAndNotBefore(t *testing.T) {
	r := newRig(t)
	id := r.submit(write("a", "p"))
	r.step()
	if len(r.lines["a"].jobs) != 0 {
		t.Error("sent before it was on disk")
	}
	if _, err := r.Get(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("told before it was on disk: %v", err)
	}
	r.turn()
	r.is(id, Sending)
	j := r.job("a")
	j.Task.(*job).Task.(*task).answer = record.Record{Points: []record.Point{
		{Name: "p", Value: record.Int(1)}, {Name: "q", Bad: "timeout"},
	}}
	do(j, nil)
	r.is(id, Sending) // its end is not on disk yet
	r.turn()
	c := r.is(id, Succeeded)
	if c.Answer == nil || c.Answer.Values["p"].Value != record.Int(1) || c.Answer.Bad["q"] != "timeout" || c.Attempts != 1 || c.Sent.IsZero() || c.Ended.IsZero() {
		t.Errorf("%+v", c)
	}
}

func TestCommandsOfADeviceFollowEachOtherAndThoseOfOthersDoNotWait(t *testing.T) {
	r := newRig(t)
	var ids []string
	for _, q := range []Request{write("a", "1"), write("a", "2"), write("b", "3")} {
		ids = append(ids, r.submit(q))
	}
	r.turn()
	r.is(ids[0], Sending)
	r.is(ids[1], Queued)
	r.is(ids[2], Sending)
	do(r.job("a"), nil)
	r.step()
	if len(r.lines["a"].jobs) != 0 {
		t.Error("the second was sent before its mark was on disk")
	}
	r.turn()
	r.is(ids[1], Sending)
	do(r.job("a"), errors.New("exception-2"))
	r.turn()
	if c := r.is(ids[1], Failed); c.Reason != "exception-2" {
		t.Errorf("%+v", c)
	}
}

func TestTheEndOfAJobSaysWhatBecameOfTheCommand(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		sent bool
		kind Kind
		want State
	}{
		"done":                     {nil, true, Write, Succeeded},
		"not seen":                 {fmt.Errorf("%w: timeout", scheduler.ErrUnknown), true, Write, Unknown},
		"too late":                 {scheduler.ErrExpired, false, Write, Expired},
		"too late for a retry":     {scheduler.ErrExpired, true, Write, Unknown},
		"silent though repeated":   {context.DeadlineExceeded, true, Write, Unknown},
		"a read without an answer": {context.DeadlineExceeded, true, Read, Failed},
		"a read not seen":          {fmt.Errorf("%w: timeout", scheduler.ErrUnknown), true, Read, Failed},
		"a read stopped, as sent":  {fmt.Errorf("%w: %w", scheduler.ErrUnknown, scheduler.ErrStopped), true, Read, Queued},
		"said no":                  {errors.New("exception-4"), true, Write, Failed},
		"stopped":                  {scheduler.ErrStopped, false, Write, Queued},
		"stopped and may be again": {scheduler.ErrStopped, true, Read, Queued},
		"stopped and sent":         {scheduler.ErrStopped, true, Write, Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			q := write("a", "p")
			if test.kind == Read {
				q = Request{Device: "a", Kind: Read}
			}
			id := r.submit(q)
			r.turn()
			j := r.job("a")
			if test.sent {
				do(j, test.err)
			} else {
				j.Task.End(test.err)
			}
			r.turn()
			r.is(id, test.want)
		})
	}
}

func TestACommandThatCanNotBeDoneIsRefusedAndRemembered(t *testing.T) {
	r := newRig(t)
	for name, q := range map[string]Request{
		"no such point":     write("a", "none"),
		"no value":          {Device: "a", Kind: Write, Point: "p"},
		"no point":          {Device: "a", Kind: Write, Value: &Value{record.Int(1)}},
		"no kind":           {Device: "a"},
		"no such kind":      {Device: "a", Kind: "reset"},
		"no method":         {Device: "a", Kind: Call},
		"a read of a value": {Device: "a", Kind: Read, Value: &Value{record.Int(1)}},
		"a broadcast back":  {Device: "a", Kind: Write, Point: "p", Value: &Value{record.Int(1)}, ReadBack: true, Broadcast: true},
	} {
		q.Key = strings.ReplaceAll(name, " ", "-")
		id := r.submit(q)
		r.turn()
		reason := r.is(id, Refused).Reason
		c, err := r.Submit(t.Context(), q)
		if !errors.Is(err, ErrRefused) || c.ID != id || reason == "" || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if len(r.lines["a"].jobs) != 0 || r.Stats().Ended[Refused] != 8 || r.Stats().Waiting != 0 {
		t.Errorf("%+v", r.Stats())
	}
}

func TestWhatBreaksALimitOfStorageIsNotStored(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("x", 256)
	for name, change := range map[string]func(*Request){
		"key":          func(q *Request) { q.Key = "a/b" },
		"point":        func(q *Request) { q.Point = long },
		"points":       func(q *Request) { q.Points = []string{"p", "#"} },
		"many points":  func(q *Request) { q.Points = make([]string, maxPoints+1) },
		"method":       func(q *Request) { q.Method = long },
		"by":           func(q *Request) { q.By = "\xff" },
		"kind":         func(q *Request) { q.Kind = Kind(long) },
		"content type": func(q *Request) { q.ContentType = long },
		"payload":      func(q *Request) { q.Payload = make([]byte, 1001) },
		"timeout":      func(q *Request) { q.Timeout = -1 },
		"long timeout": func(q *Request) { q.Timeout = Duration(maxTimeout + 1) },
		"no value":     func(q *Request) { q.Value = &Value{} },
		"long value":   func(q *Request) { q.Value = &Value{record.String(strings.Repeat(long, 17))} },
	} {
		q := write("a", "p")
		change(&q)
		if err := r.refused(q); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.refused(write("c", "p")); !errors.Is(err, ErrNoDevice) {
		t.Error(err)
	}
	if len(r.box.pending) != 0 {
		t.Errorf("%+v", r.box.pending)
	}
}

func TestAKeyIsAnsweredOnceUntilItIsForgotten(t *testing.T) {
	r := newRig(t)
	q := write("a", "p")
	q.Key = "key"
	id := r.submit(q)
	if again := r.submit(q); again != id {
		t.Errorf("%s before it is on disk", again)
	}
	r.turn()
	do(r.job("a"), nil)
	r.turn()
	for _, key := range []string{"key", id} {
		q.Key = key
		if c, err := r.Submit(t.Context(), q); err != nil || c.ID != id || c.State != Succeeded || !c.Known {
			t.Errorf("%+v, %v", c, err)
		}
		other := write("b", "p")
		other.Key = key
		if err := r.refused(other); !errors.Is(err, ErrKeyTaken) || !strings.Contains(err.Error(), id) {
			t.Error(err)
		}
	}
	r.clock.pass(r.cfg.Keep - time.Second)
	r.turn()
	r.is(id, Succeeded)
	r.clock.pass(2 * tidyEvery)
	r.step()
	if _, err := r.Get(id); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	q.Key = "key"
	if again := r.submit(q); again == id {
		t.Error("the key is still known")
	}
	r.turn()
	if len(r.box.disk) != 1 {
		t.Errorf("%d are on disk", len(r.box.disk))
	}
}

func TestAnAnswerThatIsTooLargeIsDroppedAndThatIsSaid(t *testing.T) {
	r := newRig(t)
	id := r.submit(Request{Device: "a", Kind: Call, Method: "m", Payload: []byte("x"), ContentType: "text/plain"})
	r.turn()
	j := r.job("a")
	j.Task.(*job).Task.(*task).answer = record.Record{Payload: make([]byte, r.cfg.MaxPayload+1)}
	do(j, nil)
	r.turn()
	if c := r.is(id, Succeeded); c.Answer != nil || !strings.Contains(c.Reason, "max_payload") {
		t.Errorf("%+v", c)
	}
}

func TestAnEndIsWrittenAtOnceForWhoWaits(t *testing.T) {
	r := newRig(t)
	id := r.submit(write("a", "p"))
	r.turn()
	do(r.job("a"), nil)
	if r.box.urgent {
		t.Error("an end that nobody waits for is in a hurry")
	}
	if c, err := r.Wait(ended(), id); !errors.Is(err, context.Canceled) || c.State != Sending {
		t.Errorf("%+v, %v", c, err)
	}
	if !r.box.urgent {
		t.Error("an end that somebody waits for is in no hurry")
	}
	r.turn()
	if c, err := r.Wait(t.Context(), id); err != nil || c.State != Succeeded {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := r.Wait(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestABusyLineIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.lines["a"].err = scheduler.ErrBusy
	id := r.submit(write("a", "p"))
	for range 10 {
		r.turn()
		r.clock.pass(maxBusy)
		r.step()
	}
	r.lines["a"].err = nil
	r.clock.pass(maxBusy)
	r.step()
	r.turn()
	if c := r.is(id, Sending); c.Attempts != 1 {
		t.Errorf("%+v", c)
	}
	do(r.job("a"), nil)
	r.turn()
	r.is(id, Succeeded)
}

func TestACrashWhileTheLineIsAwayLeavesNoDoubtThatNothingWasSent(t *testing.T) {
	r := newRig(t)
	r.lines["a"].away = true
	id := r.submit(write("a", "p"))
	r.turn()
	r.is(id, Queued)
	r.crash()
	r.start()
	r.turn()
	r.is(id, Queued)
	r.lines["a"].away = false
	r.clock.pass(minAway)
	r.step()
	r.turn()
	if c := r.is(id, Sending); c.Attempts != 1 {
		t.Errorf("%+v", c)
	}
	do(r.job("a"), nil)
	r.turn()
	r.is(id, Succeeded)
}

func TestACommandExpiresWhileItWaits(t *testing.T) {
	r := newRig(t)
	r.submit(write("a", "1"))
	id := r.submit(write("a", "2"))
	r.turn()
	r.clock.pass(r.cfg.Timeout - time.Second)
	if _, pause := r.step(); pause > time.Second {
		t.Errorf("it looks again after %s", pause)
	}
	r.clock.pass(time.Second)
	r.turn()
	r.turn()
	r.is(id, Expired)
}

func TestAStepAfterASuspensionDoesNotSend(t *testing.T) {
	r := newRig(t)
	id := r.submit(write("a", "p"))
	r.turn()
	j := r.job("a")
	r.clock.pass(time.Hour) // of which the lane knows nothing
	_, err := j.Task.Step(t.Context(), &scheduler.Turn{})
	if !errors.Is(err, scheduler.ErrExpired) || len(r.sent) != 0 {
		t.Errorf("%v, %v", r.sent, err)
	}
	j.Task.End(err)
	r.turn()
	r.is(id, Expired)
}

func TestARestartTellsWhatCanBeKnown(t *testing.T) {
	repeated := write("a", "p")
	repeated.Repeat = true
	for name, test := range map[string]struct {
		request Request
		marked  bool // it was being sent
		change  func(*rig)
		want    State
	}{
		"it waited":                         {write("a", "p"), false, nil, Sending},
		"it was being sent":                 {write("a", "p"), true, nil, Unknown},
		"a read was being sent":             {Request{Device: "a", Kind: Read}, true, nil, Sending},
		"it was and may be repeated":        {repeated, true, nil, Sending},
		"it may be repeated and is late":    {repeated, true, func(r *rig) { r.clock.pass(time.Hour) }, Unknown},
		"it waited too long":                {write("a", "p"), false, func(r *rig) { r.clock.pass(time.Hour) }, Expired},
		"its device is gone":                {write("a", "p"), false, func(r *rig) { delete(r.lines, "a") }, Refused},
		"a reboot with a clock":             {write("a", "p"), false, func(r *rig) { r.clock.reboot(10*time.Second, true, 0) }, Sending},
		"a reboot without one":              {write("a", "p"), false, func(r *rig) { r.clock.reboot(time.Second, false, 0) }, Expired},
		"a long reboot with a clock":        {write("a", "p"), false, func(r *rig) { r.clock.reboot(time.Minute, true, 0) }, Expired},
		"a snapshot of a virtual machine":   {write("a", "p"), false, func(r *rig) { r.clock.truth += time.Hour }, Expired},
		"one whose clock is set back, too":  {write("a", "p"), false, func(r *rig) { r.clock.up = 0 }, Sending},
		"the clock jumps, without a reboot": {write("a", "p"), false, func(r *rig) { r.clock.synced, r.clock.off = false, 1e17 }, Sending},
		"the clock runs backwards":          {write("a", "p"), false, func(r *rig) { r.clock.reboot(-time.Hour, true, 0) }, Expired},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if !test.marked {
				r.submit(write("a", "first"))
			}
			id := r.submit(test.request)
			r.box.write()
			if test.change != nil {
				test.change(r)
			}
			r.crash()
			r.turn()
			r.turn()
			if c := r.is(id, test.want); c.State != Sending && c.Reason == "" {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestAnOrderlyStopLeavesCommandsForTheNextStart(t *testing.T) {
	r := newRig(t)
	sent, marked, waits := r.submit(write("a", "1")), r.submit(write("b", "2")), r.submit(write("a", "3"))
	r.box.write()
	r.mu.Lock()
	r.settle()
	ready := r.ready[0]
	r.mu.Unlock()
	r.hand(ready)
	r.stop()
	r.job("a").Task.End(scheduler.ErrStopped)
	r.box.write()
	for _, id := range []string{sent, marked, waits} {
		if c := r.is(id, Queued); c.Attempts != 0 {
			t.Errorf("%+v", c)
		}
	}
	r.start()
	r.turn()
	r.is(sent, Sending)
	r.is(marked, Sending)
	r.is(waits, Queued)
}

func TestADamagedEntryIsCountedAndLeftAlone(t *testing.T) {
	r := newRig(t)
	id := r.submit(write("a", "p"))
	r.box.write()
	r.box.disk[keyPrefix+"x"] = []byte("{")
	r.box.disk["another's"] = []byte("?")
	r.crash()
	if st := r.Stats(); st.Damaged != 1 || st.Kept != 1 {
		t.Errorf("%+v", st)
	}
	r.turn()
	r.is(id, Unknown)
	if len(r.box.disk) != 3 {
		t.Errorf("%d entries", len(r.box.disk))
	}
}

func TestWithoutADiskNothingIsAccepted(t *testing.T) {
	r := newRig(t)
	r.box.refuses = store.ErrClosed
	c, err := r.Submit(t.Context(), write("a", "p"))
	if !errors.Is(err, ErrNotStored) || !errors.Is(err, store.ErrClosed) || c.ID != "" {
		t.Errorf("%+v, %v", c, err)
	}
	r.box.refuses = store.ErrMailboxFull
	if _, err := r.Submit(t.Context(), write("a", "p")); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if st := r.Stats(); st.Kept != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	r.box.refuses = nil
	id := r.submit(write("a", "p"))
	r.clock.pass(time.Minute)
	r.turn()
	r.turn()
	r.is(id, Expired)
}

func TestAnEndThatTheMailboxDoesNotTakeIsTriedAgain(t *testing.T) {
	r := newRig(t)
	id := r.submit(write("a", "p"))
	r.turn()
	r.box.refuses = store.ErrMailboxFull
	do(r.job("a"), nil)
	r.turn()
	r.is(id, Sending)
	r.box.refuses = nil
	r.clock.pass(time.Second)
	r.step()
	r.turn()
	r.is(id, Succeeded)
}

func TestTheListIsNewestFirst(t *testing.T) {
	r := newRig(t)
	var ids []string
	for _, d := range []string{"a", "b", "a"} {
		ids = append(ids, r.submit(write(d, "p")))
	}
	r.turn()
	for _, test := range []struct {
		filter Filter
		want   []string
	}{
		{Filter{}, []string{ids[2], ids[1], ids[0]}},
		{Filter{Limit: 1}, []string{ids[2]}},
		{Filter{Device: "b"}, []string{ids[1]}},
		{Filter{Device: "a", State: Sending}, []string{ids[0]}},
		{Filter{State: Unknown}, nil},
	} {
		var got []string
		for _, c := range r.List(test.filter) {
			got = append(got, c.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%+v: %v", test.filter, got)
		}
	}
}
