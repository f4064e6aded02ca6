package command

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

func TestIDsSortByTheTimeOfSubmitAlsoWhenTheClockIsSetBack(t *testing.T) {
	now := time.Now()
	last := newID(now, "")
	for _, d := range []time.Duration{0, 0, time.Millisecond, -time.Hour, -100 * 365 * 24 * time.Hour, time.Minute} {
		id := newID(now.Add(d), last)
		if id <= last || !isID(id) || record.CheckName(id) != nil {
			t.Errorf("%s after %s", id, last)
		}
		last = id
	}
}

func full() stored {
	at := time.Date(2026, 11, 23, 5, 8, 0, 123456789, time.UTC)
	c := Command{
		ID: newID(at, ""), State: Succeeded, Reason: "why", Submitted: at, Deadline: at.Add(time.Minute), Sent: at, Ended: at, Attempts: 2,
		Request: Request{
			Key: "k", Device: "boiler-1", Kind: Write, Point: "setpoint", Value: &Value{record.Float32(21.5)}, ReadBack: true,
			Repeat: true, Timeout: Duration(time.Minute), By: "admin", Payload: []byte{0, 255}, Method: "m", Points: []string{"p"},
		},
		Answer: &Answer{Values: map[string]Value{"setpoint": {record.Uint(1 << 63)}}, Bad: map[string]string{"flow": "timeout"}},
	}
	from := Instant{Boot: "b", Up: time.Hour, Wall: at, Synced: true}
	return stored{Version: storedVersion, Command: c, From: from, Worth: time.Minute, Saved: from, Age: time.Hour}
}

func TestACommandComesBackFromDiskAsItWas(t *testing.T) {
	s := full()
	value, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	var back stored
	if err := back.decode(keyPrefix+s.ID, value); err != nil {
		t.Fatal(err)
	}
	again, err := back.encode()
	if err != nil || string(again) != string(value) || !sameRequest(s.Request, back.Request) {
		t.Errorf("%s\n%s\n%v", value, again, err)
	}
}

func TestTheSameRequestMayComeFromElsewhereAndWithLessTime(t *testing.T) {
	a := full().Request
	b := a
	b.By, b.Timeout = "mqtt", 0
	if !sameRequest(a, b) {
		t.Error("another By or Timeout makes another request")
	}
	b.Value = &Value{record.Float64(21.6)}
	if sameRequest(a, b) {
		t.Error("another value makes no other request")
	}
}

func FuzzDecode(f *testing.F) {
	s := full()
	value, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.ID, string(value))
	f.Add(s.ID, strings.ReplaceAll(string(value), `"succeeded"`, `"sending"`))
	f.Add(s.ID, strings.ReplaceAll(string(value), `"v":1`, `"v":2`))
	f.Add(s.ID, `{"v":1,"id":"`+s.ID+`","device":"d","state":"queued","from":{"up":-1}}`)
	f.Add(s.ID, `{"v":1,"id":"`+s.ID+`","device":"d","state":"queued","worth":9223372036854775807}`)
	f.Add("", `null`)
	f.Fuzz(func(t *testing.T, id, value string) {
		box := newBox()
		box.disk[keyPrefix+id] = []byte(value)
		r := &rig{t: t, clock: &handClock{up: time.Hour}, box: box, lines: map[string]*line{"boiler-1": {}}}
		r.cfg = Config{Timeout: time.Minute, MaxWaiting: 10, Max: 10, MaxPayload: 1000, Keep: 24 * time.Hour}
		r.start()
		r.turn()
		st := r.Stats()
		if st.Kept+st.Damaged != 1 {
			t.Fatalf("%+v", st)
		}
		for _, c := range r.List(Filter{}) {
			if _, err := json.Marshal(c); err != nil {
				t.Fatal(err)
			}
		}
	})
}
