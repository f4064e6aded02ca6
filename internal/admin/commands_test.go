package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/record"
)

// fakeRoom remembers commands and ends none; finish does.
type fakeRoom struct {
	mu      sync.Mutex
	list    []command.Command
	ended   chan struct{} // closed when the commands have ended
	err     error         // of Submit
	waiting chan struct{} // gets a value for each Wait
}

var (
	_ admin.Commands = (*command.Room)(nil)
	_ admin.Commands = (*fakeRoom)(nil)
)

func newRoom() *fakeRoom {
	return &fakeRoom{ended: make(chan struct{}), waiting: make(chan struct{}, 16)}
}

func (r *fakeRoom) Submit(_ context.Context, q command.Request) (command.Command, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := command.Command{ID: fmt.Sprintf("c%d", len(r.list)+1), Request: q, State: command.Queued}
	if q.Point == "read_only" {
		c.State, c.Reason = command.Refused, "the point is read-only"
		r.list = append(r.list, c)
		return c, fmt.Errorf("%w: the point is read-only", command.ErrRefused)
	}
	if r.err != nil {
		return command.Command{}, r.err
	}
	r.list = append(r.list, c)
	return c, nil
}

func (r *fakeRoom) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.list {
		r.list[i].State = command.Succeeded
	}
	close(r.ended)
}

func (r *fakeRoom) Get(id string) (command.Command, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.list {
		if c.ID == id {
			return c, nil
		}
	}
	return command.Command{}, fmt.Errorf("%w: %s", command.ErrNotFound, id)
}

func (r *fakeRoom) Wait(ctx context.Context, id string) (command.Command, error) {
	r.waiting <- struct{}{}
	select {
	case <-r.ended:
		return r.Get(id)
	case <-ctx.Done():
		c, _ := r.Get(id)
		return c, ctx.Err()
	}
}

func (r *fakeRoom) List(f command.Filter) []command.Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []command.Command
	for _, c := range r.list {
		if (f.Device == "" || f.Device == c.Device) && (f.State == "" || f.State == c.State) && (f.Limit == 0 || len(list) < f.Limit) {
			list = append(list, c)
		}
	}
	return list
}

func (r *fakeRoom) Stats() command.Stats {
	return command.Stats{Waiting: 2, Kept: 9, Ended: map[command.State]uint64{command.Succeeded: 6, command.Unknown: 1}}
}

func (r *fakeRoom) last() command.Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list[len(r.list)-1]
}

const (
	boiler   = "/api/v1/devices/boiler-1/commands"
	setpoint = `{"kind":"write","point":"setpoint","value":21.5,"read_back":true,"timeout":"5s"}`
)

func post(t *testing.T, url, body string, header ...string) (int, string) {
	t.Helper()
	return do(t, "POST", url, body, append(header, "Authorization", "Bearer "+token)...)
}

func TestACommandIsTakenAsItStandsInTheBody(t *testing.T) {
	room := newRoom()
	base := serveRoom(t, &fakeAgent{}, room)
	code, text := post(t, base+boiler, setpoint, "Idempotency-Key", "k-1")
	var c command.Command
	if err := json.Unmarshal([]byte(text), &c); err != nil || code != http.StatusAccepted || c.ID != "c1" || c.State != command.Queued {
		t.Errorf("%v: %d %s", err, code, text)
	}
	want := command.Request{
		Key: "k-1", Device: "boiler-1", Kind: command.Write, Point: "setpoint", Value: &command.Value{Value: record.Float64(21.5)},
		ReadBack: true, Timeout: command.Duration(5 * time.Second), By: "admin",
	}
	if got := room.last().Request; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// The header may stand in quotes, and say what the body says.
	if code, text = post(t, base+boiler, `{"kind":"read","device":"boiler-1","key":"k-2"}`, "Idempotency-Key", `"k-2"`); code != http.StatusAccepted || room.last().Key != "k-2" {
		t.Errorf("%d %s", code, text)
	}
}

func TestABodyThatIsNoCommandIsRefusedInWords(t *testing.T) {
	room := newRoom()
	base := serveRoom(t, &fakeAgent{}, room)
	for name, c := range map[string]struct {
		body   string
		header []string
		code   int
		says   string
	}{
		"another device":   {`{"kind":"read","device":"boiler-2"}`, nil, 400, `the device \"boiler-2\", the path \"boiler-1\"`},
		"two keys":         {`{"kind":"read","key":"a"}`, []string{"Idempotency-Key", "b"}, 400, "give one of them"},
		"an unknown field": {`{"kind":"write","pont":"x"}`, nil, 400, `there is no field \"pont\"; there are kind, point, value`},
		"a wrong type":     {`{"kind":"read","points":"x"}`, nil, 400, "points can't be a string"},
		"a bad duration":   {`{"kind":"read","timeout":"soon"}`, nil, 400, `is no duration`},
		"no time at all":   {`{"kind":"read","timeout":"0s"}`, nil, 400, `write a positive duration, such as \"5s\"`},
		"no object":        {`[]`, nil, 400, "write an object"},
		"no JSON":          {`write`, nil, 400, "the body is no command"},
		"nothing":          {``, nil, 400, "it is empty"},
		"two":              {`{"kind":"read"}{"kind":"read"}`, nil, 400, "something follows"},
		"too large":        {`{"kind":"call","method":"` + strings.Repeat("x", 3<<20) + `"}`, nil, 413, "too large"},
	} {
		if code, text := post(t, base+boiler, c.body, c.header...); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s, want %d %s", name, code, text, c.code, c.says)
		}
	}
	for _, wait := range []string{"soon", "-1s", "61s"} {
		if code, text := post(t, base+boiler+"?wait="+wait, setpoint); code != 400 || !strings.Contains(text, "write a time up to 1m0s") {
			t.Errorf("wait=%s: %d %s", wait, code, text)
		}
	}
	if len(room.list) != 0 {
		t.Errorf("taken: %+v", room.list)
	}
}

func TestTheWordsForAnUnknownFieldNameAllThereAre(t *testing.T) {
	_, text := post(t, serveRoom(t, &fakeAgent{}, newRoom())+boiler, `{"x":1}`)
	for field := range reflect.TypeFor[command.Request]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "device" && name != "by" && !strings.Contains(text, " "+name) {
			t.Errorf("no %s in %s", name, text)
		}
	}
}

func TestACommandTakesTheTokenAndOurOwnSite(t *testing.T) {
	room := newRoom()
	base := serveRoom(t, &fakeAgent{}, room)
	if code, text := do(t, "POST", base+boiler, setpoint); code != 401 {
		t.Errorf("%d %s", code, text)
	}
	if code, text := post(t, base+boiler, setpoint, "Origin", "http://evil.example"); code != 403 {
		t.Errorf("%d %s", code, text)
	}
	if len(room.list) != 0 {
		t.Errorf("taken: %+v", room.list)
	}
}

func TestWhatARoomRefusesHasItsStatusCode(t *testing.T) {
	room := newRoom()
	base := serveRoom(t, &fakeAgent{}, room)
	for err, want := range map[error]int{
		command.ErrNoDevice: 404, command.ErrKeyTaken: 409, command.ErrRefused: 422, command.ErrFull: 429,
		command.ErrNotStored: 503, errors.New("of another kind"): 500,
	} {
		room.err = fmt.Errorf("in words: %w", err)
		if code, text := post(t, base+boiler, setpoint); code != want || !strings.Contains(text, `"error":"in words`) {
			t.Errorf("%v: %d %s, want %d", err, code, text, want)
		}
	}
	code, text := post(t, base+boiler, `{"kind":"write","point":"read_only","value":1}`)
	var c command.Command
	if err := json.Unmarshal([]byte(text), &c); err != nil || code != 422 || c.State != command.Refused || c.Reason != "the point is read-only" {
		t.Errorf("a refused command is answered with its reason: %d %s", code, text)
	}
	if code, text := do(t, "GET", base+"/api/v1/commands/none", ""); code != 404 {
		t.Errorf("%d %s", code, text)
	}
}

func TestWaitingEndsWithTheCommand(t *testing.T) {
	room := newRoom()
	base := serveRoom(t, &fakeAgent{}, room)
	go func() {
		<-room.waiting
		room.finish()
	}()
	if code, text := post(t, base+boiler+"?wait=50s", setpoint); code != 200 || !strings.Contains(text, `"state": "succeeded"`) {
		t.Errorf("%d %s", code, text)
	}
	// What has ended is not waited for.
	if code, text := do(t, "GET", base+"/api/v1/commands/c1?wait=50s", ""); code != 200 || !strings.Contains(text, `"state": "succeeded"`) {
		t.Errorf("%d %s", code, text)
	}
}

func TestWaitingInVainAnswersTheCommandAsItIs(t *testing.T) {
	base := serveRoom(t, &fakeAgent{}, newRoom())
	code, text := post(t, base+boiler+"?wait=10ms", setpoint)
	if code != http.StatusAccepted || !strings.Contains(text, `"state": "queued"`) {
		t.Errorf("%d %s", code, text)
	}
	if code, text = do(t, "GET", base+"/api/v1/commands/c1?wait=10ms", ""); code != http.StatusOK || !strings.Contains(text, `"state": "queued"`) {
		t.Errorf("%d %s", code, text)
	}
}

func TestWaitingOutlivesTheServersOwnTimeouts(t *testing.T) {
	room := newRoom()
	s := admin.New(admin.Config{Listen: "127.0.0.1:0"}, &fakeAgent{}, room, token, discard())
	s.SetTimeouts(50*time.Millisecond, 50*time.Millisecond)
	base := serveServer(t, s)
	go func() {
		<-room.waiting
		<-time.After(200 * time.Millisecond) // both are over by then
		room.finish()
	}()
	if code, text := post(t, base+boiler+"?wait=20s", setpoint); code != 200 || !strings.Contains(text, `"state": "succeeded"`) {
		t.Errorf("%d %s", code, text)
	}
}

func TestWhoeverWaitsIsAnsweredWhenTheAgentStops(t *testing.T) {
	room := newRoom()
	s := admin.New(admin.Config{Listen: "127.0.0.1:0"}, &fakeAgent{}, room, token, discard())
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	go func() {
		<-room.waiting
		stop()
	}()
	if code, text := post(t, "http://"+s.Address()+boiler+"?wait=50s", setpoint); code != http.StatusAccepted || !strings.Contains(text, `"state": "queued"`) {
		t.Errorf("%d %s", code, text)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHistoryIsFilteredAndLeavesPayloadsToTheCommandsOwnPage(t *testing.T) {
	room := newRoom()
	room.list = []command.Command{
		{ID: "3", Request: command.Request{Device: "press-7", Payload: []byte("order")}, State: command.Succeeded, Answer: &command.Answer{Payload: []byte("done"), ContentType: "text/plain"}},
		{ID: "2", Request: command.Request{Device: "boiler-1"}, State: command.Failed},
		{ID: "1", Request: command.Request{Device: "boiler-1"}, State: command.Succeeded},
	}
	base := serveRoom(t, &fakeAgent{}, room)
	if code, text := do(t, "GET", base+"/api/v1/devices/none/commands", ""); code != 404 || !strings.Contains(text, "no such device") {
		t.Errorf("of a device that is not there: %d %s", code, text)
	}
	for path, want := range map[string]string{
		"/api/v1/commands":                               "3 2 1",
		"/api/v1/commands?state=succeeded":               "3 1",
		"/api/v1/commands?device=boiler-1&limit=1":       "2",
		"/api/v1/devices/boiler-1/commands?state=failed": "2",
		"/api/v1/commands?device=press-9":                "",
	} {
		code, text := do(t, "GET", base+path, "")
		var list []command.Command
		if err := json.Unmarshal([]byte(text), &list); err != nil || code != 200 || list == nil {
			t.Errorf("%s: %v: %d %s", path, err, code, text)
		}
		var ids []string
		for _, c := range list {
			ids = append(ids, c.ID)
			if c.Payload != nil || c.Answer != nil && (c.Answer.Payload != nil || c.Answer.ContentType == "") {
				t.Errorf("%s: %+v", path, c)
			}
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if _, text := do(t, "GET", base+"/api/v1/commands/3", ""); !strings.Contains(text, `"payload": "ZG9uZQ=="`) {
		t.Error(text)
	}
	for _, path := range []string{"/api/v1/commands?state=done", "/api/v1/commands?limit=0", "/api/v1/commands?limit=1001", "/api/v1/commands?limit=x"} {
		if code, text := do(t, "GET", base+path, ""); code != 400 {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
}

func FuzzWhateverIsPostedIsTakenOrRefusedInWords(f *testing.F) {
	for _, seed := range []string{
		setpoint, `{"kind":"call","method":"m","payload":"AAE=","repeat":true}`, `{"kind":"read","points":["a"]}`,
		`{"value":1e999}`, `{"value":null}`, `{"value":{"a":[1]}}`, `{"timeout":5}`, `{"payload":"%"}`, `{"kind":"read"}}`, `[`, ``,
	} {
		f.Add(seed)
	}
	room := newRoom()
	handler := admin.New(admin.Config{Listen: "127.0.0.1:9600"}, &fakeAgent{}, room, token, discard()).Handler()
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:9600"+boiler, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		room.list = nil
		handler.ServeHTTP(w, r)
		var answer struct{ Error, State string }
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		switch taken := len(room.list) == 1; {
		case w.Code == http.StatusAccepted && taken && answer.State == "queued":
			if q := room.last().Request; q.Device != "boiler-1" || q.By != "admin" {
				t.Errorf("taken as %+v", q)
			}
		case w.Code == http.StatusUnprocessableEntity && taken && answer.State == "refused":
		case w.Code == http.StatusBadRequest && !taken && answer.Error != "":
		default:
			t.Errorf("%d %s, taken %t", w.Code, w.Body, taken)
		}
	})
}
