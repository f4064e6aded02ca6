package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// queueOf has n records of boiler-1, a minute apart, of which one can't be decoded.
func queueOf(t *testing.T, n int) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Config{MaxSize: 8 << 20}, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Cursor(store.CursorConfig{Name: "all/local"}); err != nil {
		t.Fatal(err)
	}
	source, err := s.Source(store.SourceKey{Device: "boiler-1", Stream: "temps"})
	if err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	for i := range n {
		r := record.Record{Device: "boiler-1", Stream: "temps", Time: time.Date(2026, 11, 22, 5, i, 0, 0, time.UTC), Points: []record.Point{{Name: "n", Value: record.Float32(float32(i))}}}
		e := store.Entry{Source: source, Time: r.Time, Body: r.Append(nil)}
		if i == 2 {
			e.Body = []byte{0xff}
		}
		b.Entries = append(b.Entries, e)
	}
	if _, err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// fakeQueue has a quarantine with one entry, q-1.
type fakeQueue struct {
	*store.Store
	asked [][]string
}

func (q *fakeQueue) Quarantine() admin.Quarantine { return q }

func (q *fakeQueue) Page(from int64, limit int) (pipeline.QuarantinePage, error) {
	return pipeline.QuarantinePage{Entries: []pipeline.Quarantined{{ID: "q-1", Route: "all/local"}}, Next: from + int64(limit)}, nil
}

func (q *fakeQueue) Retry(ids []string) (int, error) {
	q.asked = append(q.asked, ids)
	if slices.Contains(ids, "q-2") {
		return 0, pipeline.ErrNoEntry
	}
	if slices.Contains(ids, "q-3") {
		return 0, errors.New("its route is gone")
	}
	return 1, nil
}

func (q *fakeQueue) Delete(ids []string) (int, error) {
	q.asked = append(q.asked, ids)
	if ids == nil || slices.Contains(ids, "q-1") {
		return 1, nil
	}
	return 0, nil
}

func TestTheQuarantineIsListedRetriedAndDeleted(t *testing.T) {
	q := &fakeQueue{}
	base := serve(t, &fakeAgent{queue: q}) + "/api/v1/queue/quarantine"
	bearer := []string{"Authorization", "Bearer " + token}
	for _, c := range []struct {
		method, path, body string
		header             []string
		code               int
		says               string
	}{
		{"GET", "", "", nil, 200, `"id":"q-1"`},
		{"GET", "?position=7&limit=3", "", nil, 200, `"next":10`},
		{"GET", "?position=x", "", nil, 400, "position"},
		{"GET", "?limit=0", "", nil, 400, "limit"},
		{"POST", "/retry", `{"all":true}`, nil, 401, "token"},
		{"DELETE", "", `{"all":true}`, nil, 401, "token"},
		{"POST", "/retry", `{"ids":["q-1"]}`, bearer, 202, `"retrying": 1`},
		{"POST", "/retry", `{"ids":["q-2"]}`, bearer, 404, "no such entry"},
		{"POST", "/retry", `{"ids":["q-3"]}`, bearer, 409, "its route is gone"},
		{"POST", "/retry", ``, bearer, 400, "the body must be"},
		{"POST", "/retry", `{"all":true,"ids":["q-1"]}`, bearer, 400, "the body must be"},
		{"DELETE", "", `{}`, bearer, 400, "the body must be"},
		{"DELETE", "", `{"all":true}`, bearer, 200, `"deleted": 1`},
		{"DELETE", "", `{"ids":["q-9"]}`, bearer, 404, "no such entry"},
	} {
		if code, text := do(t, c.method, base+c.path, c.body, c.header...); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, code, text)
		}
	}
	if len(q.asked) != 5 || q.asked[3] != nil || len(q.asked[0]) != 1 {
		t.Errorf("asked for %v", q.asked)
	}
}

func TestTheQueueIsShownInPages(t *testing.T) {
	base := serve(t, &fakeAgent{state: admin.State{Agent: "gw-01"}, queue: &fakeQueue{Store: queueOf(t, 10)}})
	var lines []string
	for next := uint64(0); ; {
		code, text := do(t, "GET", fmt.Sprintf("%s/api/v1/queue/records?limit=4&position=%d", base, next), "")
		var p doctor.Page
		if err := json.Unmarshal([]byte(text), &p); err != nil || code != 200 {
			t.Fatal(code, text, err)
		}
		for _, r := range p.Records {
			lines = append(lines, string(r))
		}
		if next = p.Next; next > p.End {
			break
		}
	}
	if len(lines) != 10 || !strings.Contains(lines[0], `"agent":"gw-01"`) || !strings.Contains(lines[9], `"seq":10`) || strings.Contains(lines[1], "types") {
		t.Errorf("%q", lines)
	}
	if !strings.Contains(lines[2], `"payload":"/w==","content_type":"application/protobuf"`) {
		t.Errorf("what can't be decoded is shown as %s", lines[2])
	}
	_, text := do(t, "GET", base+"/api/v1/queue/records?exact=true&device=boil*&from=2026-11-22T05:01:00Z&to=2026-11-22T05:03:00Z", "")
	if !strings.Contains(text, `"types":{"n":"float32"}`) || !strings.Contains(text, `"raw":"/w=="`) || strings.Contains(text, `"seq":4`) {
		t.Error(text)
	}
	_, text = do(t, "GET", base+"/api/v1/queue/sources", "")
	if !strings.Contains(text, `"device":"boiler-1","stream":"temps","records":10`) {
		t.Error(text)
	}
	_, text = do(t, "GET", base+"/api/v1/queue", "")
	if !strings.Contains(text, `queue.db`) || !strings.Contains(text, `"running": true`) {
		t.Error(text)
	}
}

func TestRecordsAreImportedWithTheToken(t *testing.T) {
	s := queueOf(t, 3)
	base := serve(t, &fakeAgent{state: admin.State{Agent: "gw-01"}, queue: &fakeQueue{Store: s}}) + "/api/v1/queue"
	line := `{"agent":"gw-02","epoch":"0000000000000009","device":"d","stream":"s","seq":%d,"part":0,"time":"2026-11-22T05:08:00Z","clock":"synced","quality":"good","values":{"v":1}}` + "\n"
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, line, i+1)
	}
	body.WriteString("spoiled\n")
	if code, text := do(t, "POST", base+"/import", body.String()); code != 401 {
		t.Error(code, text)
	}
	code, text := do(t, "POST", base+"/import", body.String(), "Authorization", "Bearer "+token)
	if code != 200 || !strings.Contains(text, `"stored": 1000`) || !strings.Contains(text, `"line": 1001`) {
		t.Error(code, text)
	}
	_, text = do(t, "GET", base+"/records?position=1003", "")
	if !strings.Contains(text, `"agent":"gw-02","epoch":"0000000000000009","device":"d","stream":"s","seq":1000`) {
		t.Error(text)
	}
}

func TestTheQueueIsCompactedWithTheToken(t *testing.T) {
	base := serve(t, &fakeAgent{queue: &fakeQueue{Store: queueOf(t, 3)}}) + "/api/v1/queue/compact"
	if code, text := do(t, "POST", base, ""); code != 401 {
		t.Error(code, text)
	}
	if code, text := do(t, "POST", base, "", "Authorization", "Bearer "+token); code != 200 || !strings.Contains(text, `"free"`) {
		t.Error(code, text)
	}
}

func TestAQuestionAboutTheQueueThatCannotBeIsRefused(t *testing.T) {
	base := serve(t, &fakeAgent{queue: &fakeQueue{Store: queueOf(t, 3)}})
	for query, says := range map[string]string{
		"records?limit=0":        "write a number from 1 to 1000",
		"records?limit=5000":     "write a number from 1 to 1000",
		"records?from=yesterday": "write it as 2026-11-22T05:08:00Z",
		"records?position=-1":    "no position",
		"sources?position=x":     "no position",
		"records?device=[":       "pattern",
	} {
		if code, text := do(t, "GET", base+"/api/v1/queue/"+query, ""); code != 400 || !strings.Contains(text, says) {
			t.Errorf("%s: %d %s", query, code, text)
		}
	}
}
