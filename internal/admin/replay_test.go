package admin_test

import (
	"strings"
	"testing"
	"time"
)

func TestAReplayIsAskedForInSoManyWords(t *testing.T) {
	agent := &fakeAgent{}
	base := serve(t, agent) + "/api/v1/queue/replay"
	auth := []string{"Authorization", "Bearer " + token}
	for _, c := range []struct {
		body string
		code int
		says string
	}{
		{`{"upstream":"elsewhere"}`, 404, "elsewhere"},
		{`{}`, 400, "say where to"},
		{`{"upstream":"cloud","form":"2026-11-29T06:00:00Z"}`, 400, "form"},
		{`{"upstream":"cloud","from":"yesterday"}`, 400, "yesterday"},
		{`{"upstream":"cloud","from":"2026-11-29T06:00:00Z","to":"2026-11-29T06:00:00Z"}`, 400, "from is not before to"},
		{`{"upstream":"cloud","devices":["[a"]}`, 400, "[a"},
		{`{"upstream":"cloud","rate":-1}`, 400, "rate"},
		{`{"upstream":"cloud","from":"2026-11-29T06:00:00Z","to":"2026-11-29T07:00:00+00:00","devices":["boiler-*"],"rate":10}`, 202, "boiler-*"},
		{`{"upstream":"cloud"}`, 409, "under way"},
	} {
		if code, text := do(t, "POST", base, c.body, auth...); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s", c.body, code, text)
		}
	}
	want := time.Date(2026, 11, 29, 6, 0, 0, 0, time.UTC)
	if r := agent.replay; !r.From.Equal(want) || !r.To.Equal(want.Add(time.Hour)) || r.Rate != 10 {
		t.Errorf("%+v", r)
	}
	if code, _ := do(t, "POST", base, `{"upstream":"cloud"}`); code != 401 {
		t.Errorf("without the token: %d", code)
	}
	if code, _ := do(t, "DELETE", base+"/cloud", "", auth...); code != 204 || agent.replay.Upstream != "" {
		t.Errorf("stopping: %d", code)
	}
	if code, _ := do(t, "DELETE", base+"/elsewhere", "", auth...); code != 404 {
		t.Errorf("stopping what there is not: %d", code)
	}
}
