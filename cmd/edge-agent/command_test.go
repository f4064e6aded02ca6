package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/record"
)

const testToken = "0123456789abcdef"

// plant is a room whose devices do what their points and methods are called.
type plant struct {
	mu      sync.Mutex
	list    []command.Command
	waiting chan struct{} // gets a value when somebody waits for what never ends
}

var _ admin.Commands = (*plant)(nil)

func (p *plant) Submit(_ context.Context, r command.Request) (command.Command, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Device == "boiler-9" {
		return command.Command{}, fmt.Errorf("command for %q: %w", r.Device, command.ErrNoDevice)
	}
	if r.Point == "crowded" {
		return command.Command{}, fmt.Errorf("command for %q: %w: 64 wait for this device, which is the limit (max_waiting of [commands])", r.Device, command.ErrFull)
	}
	for _, c := range p.list {
		if r.Key != "" && c.Key == r.Key {
			c.Known = true
			return c, nil
		}
	}
	start := time.Date(2026, 11, 22, 5, 8, 0, 0, time.UTC)
	c := command.Command{ID: fmt.Sprintf("c-%d", len(p.list)+1), Request: r, State: command.Queued, Submitted: start, Deadline: start.Add(30 * time.Second)}
	p.end(&c)
	if c.State.Final() {
		c.Ended = start.Add(43 * time.Millisecond)
	}
	p.list = append(p.list, c)
	if c.State == command.Refused {
		return c, fmt.Errorf("%w: %s", command.ErrRefused, c.Reason)
	}
	// It ends while the caller waits.
	queued := c
	queued.State, queued.Answer, queued.Reason, queued.Ended = command.Queued, nil, "", time.Time{}
	return queued, nil
}

func (p *plant) end(c *command.Command) {
	c.State = command.Succeeded
	switch c.Point + c.Method {
	case "read_only":
		c.State, c.Reason = command.Refused, `the point is read-only; give it access = "rw" in the configuration`
	case "broken":
		c.State, c.Reason = command.Failed, "the device answered: slave device failure (4)"
	case "far":
		c.State, c.Reason = command.Expired, "link is down: connection refused"
	case "silent":
		c.State, c.Reason = command.Unknown, "outcome unknown: modbus: asking unit 1: no answer within 1s"
	case "slow":
		c.State = command.Sending
	case "hostile":
		c.State, c.Reason = command.Failed, "no\x1b[2J way"
	case "bulky":
		c.Reason = "its answer of 70000 bytes was not kept, as it is larger than max_payload"
	case "status":
		c.Answer = &command.Answer{Payload: []byte(`{"parts": 1204}`), ContentType: "application/json"}
	case "echo":
		c.Answer = &command.Answer{Payload: c.Payload, ContentType: c.ContentType}
	case "setpoint":
		if c.ReadBack {
			c.Answer = &command.Answer{Values: map[string]command.Value{c.Point: *c.Value}}
		}
	case "":
		if r := c.Request; len(r.Points) == 1 && r.Points[0] == "bulky" {
			c.Reason = "its answer of 70000 bytes was not kept, as the mailbox has no room for it"
			return
		}
		c.Answer = &command.Answer{
			Values: map[string]command.Value{"supply_temp": {Value: record.Float32(21.1)}, "mode": {Value: record.String("auto")}, "pump": {Value: record.Bool(true)}},
			Bad:    map[string]string{"flow": "illegal data address (2)"},
		}
	}
}

func (p *plant) Get(id string) (command.Command, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.list {
		if c.ID == id {
			return c, nil
		}
	}
	return command.Command{}, command.ErrNotFound
}

func (p *plant) Wait(ctx context.Context, id string) (command.Command, error) {
	if c, err := p.Get(id); err != nil || c.State.Final() {
		return c, err
	}
	select {
	case p.waiting <- struct{}{}:
	default:
	}
	<-ctx.Done()
	c, _ := p.Get(id)
	return c, ctx.Err()
}

func (*plant) List(command.Filter) []command.Command { return nil }
func (*plant) Stats() command.Stats                  { return command.Stats{} }

// startAgent is the admin interface of an agent with a plant; it says where.
func startAgent(dir string, p *plant) (address, tokenFile string, stop func(), err error) {
	s := admin.New(admin.Config{Listen: "127.0.0.1:0"}, struct{ admin.Agent }{}, p, testToken, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err := s.Listen(context.Background()); err != nil {
		return "", "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	tokenFile = filepath.Join(dir, "admin.token")
	err = os.WriteFile(tokenFile, []byte(testToken+"\n"), 0o600)
	return s.Address(), tokenFile, func() { cancel(); <-done }, err
}

func TestEachEndOfACommandIsSaidAndHasItsExitCode(t *testing.T) {
	submitted := time.Now()
	for _, c := range []struct {
		state  command.State
		change func(*command.Command)
		says   string
		input  bool
	}{
		{command.Succeeded, nil, "", false},
		{command.Refused, nil, "boiler-1 setpoint: refused, nothing was sent: WHY", true},
		{command.Failed, nil, "boiler-1 setpoint: failed: WHY", false},
		{command.Expired, nil, "boiler-1 setpoint: expired: WHY. Nothing was sent; a longer --timeout gives it more than 30s, and /api/v1/links shows how its link is", false},
		{command.Unknown, nil, "boiler-1 setpoint: sent, but outcome unknown: WHY. It may have been carried out. Read the point back before you write again: edge-agent read boiler-1 setpoint", false},
		{
			command.Unknown, func(c *command.Command) { c.Kind, c.Method = command.Call, "press" },
			"boiler-1 press: sent, but outcome unknown: WHY. It may have been carried out. Find out before you send it again; --repeat is for what may be done twice", false,
		},
		{command.Unknown, func(c *command.Command) { c.Kind, c.Reason = command.Read, "outcome unknown: WHY" }, "boiler-1: sent, but outcome unknown: WHY. Nothing was changed; read again", false},
		{command.Failed, func(c *command.Command) { c.Kind, c.Points = command.Read, []string{"a", "b"} }, "boiler-1 a b: failed: WHY", false},
		{command.Queued, nil, "boiler-1 setpoint: still queued", false},
		{command.Sending, nil, "boiler-1 setpoint: still sending", false},
	} {
		made := command.Command{
			Request: command.Request{Device: "boiler-1", Kind: command.Write, Point: "setpoint"},
			State:   c.state, Reason: "WHY", Submitted: submitted, Deadline: submitted.Add(30 * time.Second),
		}
		if c.change != nil {
			c.change(&made)
		}
		err := outcome(&made)
		if text := fmt.Sprint(err); err == nil != (c.says == "") || err != nil && text != c.says || errors.Is(err, errInput) != c.input {
			t.Errorf("%s: %v\nwant %s, input %t", c.state, err, c.says, c.input)
		}
	}
}

func TestAnArgumentIsTakenForWhatItLooksLike(t *testing.T) {
	for arg, want := range map[string]record.Value{
		"true": record.Bool(true), "21.5": record.Float64(21.5), "-7": record.Int(-7), "9007199254740993": record.Int(9007199254740993),
		"auto": record.String("auto"), `"12"`: record.String("12"), "012": record.String("012"), "": record.String(""),
		"null": record.String("null"), "[1]": record.String("[1]"), `{"a":1}`: record.String(`{"a":1}`), "TRUE": record.String("TRUE"),
	} {
		if got, err := parseValue(arg); err != nil || got.Value != want {
			t.Errorf("%q: got %+v %v, want %+v", arg, got, err, want)
		}
	}
}

func TestANumberThatNothingHoldsIsNoText(t *testing.T) {
	for _, arg := range []string{"18446744073709551616", "-9223372036854775809", "1e999"} {
		if got, err := parseValue(arg); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s became %+v, %v", arg, got, err)
		}
	}
}

func TestANegativeNumberIsNoFlag(t *testing.T) {
	for args, want := range map[string]string{
		"write d p -5 --read-back": "write d p --read-back -- -5",
		"write d p -1e3":           "write d p -- -1e3",
		"write -- d p -5":          "write -- d p -5",
		"read d -c x":              "read d -c x",
		"call d m -":               "call d m -",
	} {
		if got := strings.Join(numbersLast(strings.Fields(args)), " "); got != want {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
}

func TestAnAgentIsFoundWhereItListens(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:9600": "127.0.0.1:9600", "0.0.0.0:9600": "127.0.0.1:9600", ":9600": "127.0.0.1:9600",
		"[::]:9600": "[::1]:9600", "gw.local:80": "gw.local:80", "127.0.0.1:0": "", "9600": "", "http://127.0.0.1:9600": "",
	} {
		if got, err := dialable(listen); got != want || err == nil != (want != "") {
			t.Errorf("%s: %q %v, want %q", listen, got, err, want)
		}
	}
}

// ask runs the program in this process against what answers at address.
func ask(ctx context.Context, t *testing.T, address string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	tokenFile := filepath.Join(t.TempDir(), "admin.token")
	if err := os.WriteFile(tokenFile, []byte(testToken), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code = run(ctx, append(args, "--admin", address, "--token-file", tokenFile), &out, &errs)
	return code, out.String(), errs.String()
}

func TestWhoeverStopsWaitingIsToldThatTheCommandGoesOn(t *testing.T) {
	p := &plant{waiting: make(chan struct{})}
	address, _, stop, err := startAgent(t.TempDir(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		<-p.waiting
		interrupt()
	}()
	code, stdout, stderr := ask(ctx, t, address, "write", "boiler-1", "slow", "1")
	want := "edge-agent: no longer waiting; command c-1 goes on in the agent. To see what becomes of it: curl http://" + address + "/api/v1/commands/c-1\n"
	if code != exitRun || stdout != "" || stderr != want {
		t.Errorf("exit %d, %q\n%s\nwant %s", code, stdout, stderr, want)
	}
}

func TestAnAgentThatGoesAwayLeavesNoDoubt(t *testing.T) {
	// It hangs up in the middle of the first request, or of the second.
	for _, c := range []struct {
		answers int
		says    string
	}{
		{0, "did not say whether it took the command: no answer (it hung up). To ask for it again without doing it twice, add --key order-12\n"},
		{1, "what became of command c-1 can't be seen now: the agent at "},
	} {
		left := c.answers
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if left == 0 {
				panic(http.ErrAbortHandler)
			}
			left--
			_, _ = io.WriteString(w, `{"id":"c-1","state":"queued"}`)
		}))
		code, _, stderr := ask(t.Context(), t, server.Listener.Addr().String(), "write", "boiler-1", "setpoint", "1", "--key", "order-12")
		if code != exitRun || !strings.Contains(stderr, c.says) {
			t.Errorf("exit %d, %s\nwant %s", code, stderr, c.says)
		}
		server.Close()
	}
}

// The agent's disk may be full, or its line stuck.
func TestAWaitEndsByItself(t *testing.T) {
	made := time.Now()
	asked := command.Command{ID: "c-1", State: command.Sending, Submitted: made, Deadline: made.Add(20*time.Millisecond - graceTime)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	defer server.Close()
	agent := runningAgent{address: server.Listener.Addr().String(), http: server.Client()}
	if _, err := agent.wait(t.Context(), asked); err == nil || !strings.Contains(err.Error(), "command c-1 is still sending") || errors.Is(err, errInput) {
		t.Error(err)
	}
}

func TestWhatWasRoundedIsPrintedAsItWasWritten(t *testing.T) {
	var out strings.Builder
	err := showWritten(&out, &command.Command{
		Request: command.Request{Device: "d", Kind: command.Write, Point: "p", ReadBack: true, Value: &command.Value{Value: record.Float64(21.57)}},
		Answer:  &command.Answer{Values: map[string]command.Value{"p": {Value: record.Float64(21.6)}}},
	})
	if want := "d p = 21.57  succeeded in 1 ms, written as 21.6, which was read back\n"; err != nil || out.String() != want {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestSomethingElseOnThePortIsNoAgent(t *testing.T) {
	for _, answer := range []string{"404 page not found", `{}`, `[]`, ""} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
		code, _, stderr := ask(t.Context(), t, server.Listener.Addr().String(), "read", "boiler-1")
		if code != exitInput || !strings.Contains(stderr, "is no edge-agent that takes commands") {
			t.Errorf("%q: exit %d, %s", answer, code, stderr)
		}
		server.Close()
	}
}

func TestNoAgentIsSaidWithWhatToDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	code, _, stderr := ask(t.Context(), t, address, "read", "boiler-1")
	want := "edge-agent: no agent answers at " + address + ": not reachable (connect: connection refused); start it with edge-agent run, or say where it is with -c FILE or --admin HOST:PORT\n"
	if code != exitRun || stderr != want {
		t.Errorf("exit %d, %s\nwant %s", code, stderr, want)
	}
}
