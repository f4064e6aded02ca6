package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakeAgent struct {
	mu     sync.Mutex
	state  admin.State
	level  string
	forgot string
	queue  admin.Queue
	replay admin.ReplayRequest
}

var _ admin.Agent = (*fakeAgent)(nil)

func (a *fakeAgent) State() admin.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

func (a *fakeAgent) Devices() []admin.Device {
	return []admin.Device{{ID: "boiler-1", State: "ok", LastSeq: 42}}
}

func (a *fakeAgent) Peers() []admin.Peer {
	return []admin.Peer{{Listener: "plant", Sender: "press-7", State: "CLOSED", Reason: "heartbeat missed"}}
}

func (a *fakeAgent) SetLogLevel(level string) error {
	if level != "debug" {
		return errors.New("no such level")
	}
	a.level = level
	return nil
}

func (a *fakeAgent) ForgetCursor(name string) error {
	if name != "old/cloud" {
		return admin.ErrNotFound
	}
	a.forgot = name
	return nil
}

func (a *fakeAgent) Queue() admin.Queue { return a.queue }

func (a *fakeAgent) Replays() admin.Replays { return fakeReplays{a} }

type fakeReplays struct{ *fakeAgent }

func (a fakeReplays) Start(r admin.ReplayRequest) error {
	switch {
	case r.Upstream != "cloud":
		return admin.ErrNotFound
	case a.replay.Upstream != "":
		return errors.New("a replay is under way")
	}
	a.replay = r
	return nil
}

func (a fakeReplays) Stop(upstream string) error {
	if upstream != "cloud" {
		return admin.ErrNotFound
	}
	a.replay = admin.ReplayRequest{}
	return nil
}

const token = "0123456789abcdef"

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func serve(t *testing.T, agent admin.Agent) (base string) {
	t.Helper()
	return serveRoom(t, agent, newRoom())
}

func serveRoom(t *testing.T, agent admin.Agent, room admin.Commands) (base string) {
	t.Helper()
	return serveServer(t, admin.New(admin.Config{Listen: "127.0.0.1:0"}, agent, room, token, discard()))
}

func serveServer(t *testing.T, s *admin.Server) (base string) {
	t.Helper()
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Address()
}

func do(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestHealthMeansProgress(t *testing.T) {
	agent := &fakeAgent{}
	base := serve(t, agent)
	for _, c := range []struct {
		state           admin.State
		healthz, readyz int
		says            string
	}{
		{admin.State{}, 200, 200, "ok"},
		{admin.State{Degraded: []string{"upstream cloud: away"}}, 200, 200, "degraded: upstream cloud: away"},
		{admin.State{NotReady: []string{"store is full"}}, 200, 503, "store is full"},
		{admin.State{Stuck: []string{"link rs485-1 is stuck"}}, 503, 503, "link rs485-1 is stuck"},
	} {
		agent.mu.Lock()
		agent.state = c.state
		agent.mu.Unlock()
		if code, _ := do(t, "GET", base+"/healthz", ""); code != c.healthz {
			t.Errorf("%+v: healthz %d, want %d", c.state, code, c.healthz)
		}
		if code, text := do(t, "GET", base+"/readyz", ""); code != c.readyz || !strings.Contains(text, c.says) {
			t.Errorf("%+v: readyz %d %q, want %d %q", c.state, code, text, c.readyz, c.says)
		}
	}
}

func TestStatusDevicesAndMetricsTellTheSame(t *testing.T) {
	base := serve(t, &fakeAgent{state: admin.State{
		Agent: "gw-01", Store: store.Stats{State: "ok", Records: 7, Cursors: []store.CursorStats{{Name: "all/cloud", Lag: 3, Oldest: time.Now()}}},
		Links: []admin.Link{{Status: scheduler.Status{
			Link: "rs485-1", State: scheduler.Up, Timeouts: 5, Faults: 4, Breaker: scheduler.BreakerOpen, Utilisation: 0.25, Queue: 3,
			Lateness: scheduler.Lateness{P50: 1, P99: 20, Max: 1500},
			Devices:  []scheduler.DeviceStatus{{Device: "boiler-1", Garbled: 8, ResponseMS: 12.5, TimeoutMS: 50}},
		}, Events: map[string]uint64{"late": 2}}},
		Listeners:    []admin.Listener{{Name: "plant", Connections: 2, Refused: map[string]uint64{"rate": 3}}},
		Certificates: []admin.Certificate{{Of: "listener plant", Expires: time.Unix(1900000000, 0)}},
		Routes:       []admin.Route{{Name: "all", Upstream: "cloud"}},
		Upstreams:    []admin.Upstream{{Name: "cloud", Kind: "mqtt", Status: upstream.Status{Connected: true}}},
	}})
	_, text := do(t, "GET", base+"/api/v1/status", "")
	var st admin.State
	if err := json.Unmarshal([]byte(text), &st); err != nil || st.Agent != "gw-01" || st.Store.Records != 7 {
		t.Errorf("%v: %s", err, text)
	}
	if _, text = do(t, "GET", base+"/api/v1/devices", ""); !strings.Contains(text, `"last_seq": 42`) {
		t.Error(text)
	}
	if _, text = do(t, "GET", base+"/api/v1/peers", ""); !strings.Contains(text, `"reason": "heartbeat missed"`) {
		t.Error(text)
	}
	var links []admin.Link
	_, text = do(t, "GET", base+"/api/v1/links", "")
	if err := json.Unmarshal([]byte(text), &links); err != nil || len(links) != 1 || links[0].Queue != 3 || links[0].Events["late"] != 2 || links[0].Devices[0].Garbled != 8 {
		t.Errorf("%v: %s", err, text)
	}
	_, text = do(t, "GET", base+"/metrics", "")
	for _, want := range []string{
		`edge_agent_store_records 7`, `edge_agent_cursor_records{cursor="all/cloud"} 3`, `edge_agent_link_up{link="rs485-1"} 1`,
		`edge_agent_link_timeouts_total{link="rs485-1"} 5`, `edge_agent_link_events_total{event="late",link="rs485-1"} 2`, `edge_agent_listener_connections{listener="plant"} 2`,
		`edge_agent_upstream_connected{kind="mqtt",upstream="cloud"} 1`, `edge_agent_device_records_total{device="boiler-1"} 42`,
		`edge_agent_store_state{state="ok"} 1`, `go_goroutines`, `edge_agent_listener_refused_total{listener="plant",reason="rate"} 3`,
		`edge_agent_link_breaker_state{link="rs485-1",state="open"} 1`, `edge_agent_link_breaker_state{link="rs485-1",state="closed"} 0`,
		`edge_agent_link_faults_total{link="rs485-1"} 4`, `edge_agent_link_utilisation_ratio{link="rs485-1"} 0.25`, `edge_agent_link_queue{link="rs485-1"} 3`,
		`edge_agent_link_lateness_seconds{link="rs485-1",quantile="0.99"} 0.02`, `edge_agent_link_lateness_seconds{link="rs485-1",quantile="1"} 1.5`,
		`edge_agent_device_garbled_total{device="boiler-1"} 8`, `edge_agent_device_response_seconds{device="boiler-1"} 0.0125`,
		`edge_agent_commands_waiting 2`, `edge_agent_commands_kept 9`, `edge_agent_commands_ended_total{state="unknown"} 1`, `edge_agent_commands_ended_total{state="failed"} 0`,
		`edge_agent_certificate_expiry_timestamp_seconds{of="listener plant"} 1.9e+09`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestChangingAnythingTakesTheTokenAndOurOwnSite(t *testing.T) {
	agent := &fakeAgent{}
	base := serve(t, agent)
	auth := []string{"Authorization", "Bearer " + token}
	level, cursor := base+"/api/v1/log/level", base+"/api/v1/queue/cursors/old/cloud"
	for name, c := range map[string]struct {
		method, url, body string
		header            []string
		want              int
	}{
		"no token":            {"PUT", level, `{"level":"debug"}`, nil, 401},
		"wrong token":         {"PUT", level, `{"level":"debug"}`, []string{"Authorization", "Bearer x"}, 401},
		"another site's page": {"PUT", level, `{"level":"debug"}`, append(auth, "Origin", "http://evil.example"), 403},
		"a rebound name":      {"PUT", level, `{"level":"debug"}`, append(auth, "Host", "evil.example:9600"), 403},
		"the token":           {"PUT", level, `{"level":"debug"}`, auth, 200},
		"a wrong level":       {"PUT", level, `{"level":"loud"}`, auth, 400},
		"no JSON":             {"PUT", level, `debug`, auth, 400},
		"forget":              {"DELETE", cursor, "", auth, 204},
		"forget unknown":      {"DELETE", cursor + "x", "", auth, 404},
		"forget, no token":    {"DELETE", cursor, "", nil, 401},
	} {
		if code, text := do(t, c.method, c.url, c.body, c.header...); code != c.want {
			t.Errorf("%s: %d %s, want %d", name, code, text, c.want)
		}
	}
	if agent.level != "debug" || agent.forgot != "old/cloud" {
		t.Errorf("level %q, forgot %q", agent.level, agent.forgot)
	}
}

func TestTheTokenIsMadeOnceForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	first, err := admin.LoadToken(dir)
	if err != nil || len(first) < 20 {
		t.Fatalf("%q %v", first, err)
	}
	if second, err := admin.LoadToken(dir); err != nil || second != first {
		t.Errorf("%q, then %q %v", first, second, err)
	}
	path := filepath.Join(dir, "admin.token")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := admin.LoadToken(dir); err != nil || len(token) < 20 || token == first {
		t.Errorf("an empty file, as a power cut leaves it: %q %v", token, err)
	}
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.LoadToken(dir); err == nil {
		t.Error("a short token was taken")
	}
}

func TestAPortInUseIsSaidAtStart(t *testing.T) {
	base := serve(t, &fakeAgent{})
	s := admin.New(admin.Config{Listen: strings.TrimPrefix(base, "http://")}, &fakeAgent{}, newRoom(), token, discard())
	if err := s.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "[admin] listen") {
		t.Errorf("%v", err)
	}
}
