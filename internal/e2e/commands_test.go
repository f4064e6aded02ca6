package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// writeLog is a Modbus TCP slave that keeps a list of what was written to it by
// function 6, and takes a moment to answer.
type writeLog struct {
	listener net.Listener

	mu      sync.Mutex
	written map[int]int // value → how often
}

func newWriteLog(t *testing.T, address string) *writeLog {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	l := &writeLog{listener: listener, written: make(map[int]int)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn)
		}
	}()
	t.Cleanup(func() { listener.Close() })
	return l
}

func (l *writeLog) serve(conn net.Conn) {
	defer conn.Close()
	for {
		frame := make([]byte, 12) // a read or a write of one register
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		reply := frame
		if function := frame[7]; function == 3 {
			reply = append(frame[:7:7], 3, 2, 0, 7)
			reply[5] = 5
		} else {
			l.mu.Lock()
			l.written[int(frame[10])<<8|int(frame[11])]++
			l.mu.Unlock()
			<-time.NewTimer(time.Duration(rand.IntN(20)) * time.Millisecond).C
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

func (l *writeLog) times(value int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written[value]
}

// commandState is what the admin API says of a command.
type commandState struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Error  string `json:"error"`
}

// order posts a command. An agent that is being killed answers nothing: 0.
func order(a *agent, device, body, query string) (status int, c commandState) {
	token, err := os.ReadFile(filepath.Join(filepath.Dir(a.config), "data", "admin.token"))
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.admin+"/api/v1/devices/"+device+"/commands"+query, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, c
	}
	defer res.Body.Close()
	if json.NewDecoder(res.Body).Decode(&c) != nil {
		return 0, c
	}
	return res.StatusCode, c
}

const commandPlant = `
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[[link]]
name = "plc"
transport = "tcp"
address = %q
breaker = { failures = 0 }
[[device]]
id = "plc-1"
link = "plc"
driver = "modbus"
  [[device.poll]]
  name = "p"
  every = "100ms"
  points = [{ name = "setpoint", address = "holding:0", type = "uint16", access = "rw" }]
[[route]]
name = "all"
to = ["local"]
[[upstream]]
name = "local"
kind = "file"
file = { path = %q }
`

// TestNoCommandIsSentTwiceHoweverOftenTheAgentIsKilled posts writes of ever new
// values while the agent is killed (SIGKILL) again and again at random moments.
// Each that was accepted has one end, and that end is true.
func TestNoCommandIsSentTwiceHoweverOftenTheAgentIsKilled(t *testing.T) {
	t.Parallel()
	slave := newWriteLog(t, "127.0.0.1:0")
	config, admin := configure(t, fmt.Sprintf(commandPlant, slave.listener.Addr().String(), filepath.Join(t.TempDir(), "out.jsonl")))

	accepted := make(map[string]int) // id → value
	value := 1
	for range 15 {
		a := run(t, config, admin)
		end := time.NewTimer(time.Hour)
		for first := true; !a.ended(); value++ {
			status, c := order(a, "plc-1", fmt.Sprintf(`{"kind":"write","point":"setpoint","value":%d,"key":"k%d"}`, value, value), "")
			if status == http.StatusAccepted || status == http.StatusOK {
				accepted[c.ID] = value
				if first {
					first = false
					end = time.AfterFunc(time.Duration(rand.IntN(250))*time.Millisecond, a.kill)
				}
			}
		}
		end.Stop()
	}

	a := run(t, config, admin)
	ends := make(map[string]int)
	for id, value := range accepted {
		var c commandState
		eventually(t, 40*time.Second, "an end of command "+id, func() bool {
			code, body := a.get("/api/v1/commands/" + id)
			if code != http.StatusOK {
				t.Fatalf("command %s, accepted with value %d: %d %s", id, value, code, body)
			}
			return json.Unmarshal(body, &c) == nil && c.State != "queued" && c.State != "sending"
		})
		ends[c.State]++
		sent := slave.times(value)
		switch {
		case sent > 1:
			t.Errorf("command %s was sent %d times, and ended as %s", id, sent, c.State)
		case c.State == "succeeded" && sent != 1, c.State == "expired" && sent != 0, c.State == "refused":
			t.Errorf("command %s ended as %s (%s), and was sent %d times", id, c.State, c.Reason, sent)
		}
	}
	slave.mu.Lock()
	defer slave.mu.Unlock()
	for value, sent := range slave.written {
		if sent > 1 {
			t.Errorf("value %d was written %d times", value, sent)
		}
	}
	t.Logf("%d commands accepted over 15 kills: %v", len(accepted), ends)
	if ends["succeeded"] == 0 || len(accepted) < 15 {
		t.Errorf("too little happened: %d accepted, %v", len(accepted), ends)
	}
	a.stop()
}

func TestACommandWhoseTimeIsOverIsNotSentWhenTheLineIsBack(t *testing.T) {
	t.Parallel()
	address := "127.0.0.1:" + strconv.Itoa(freePort(t))
	config, admin := configure(t, fmt.Sprintf(commandPlant, address, filepath.Join(t.TempDir(), "out.jsonl")))
	a := run(t, config, admin)
	status, late := order(a, "plc-1", `{"kind":"write","point":"setpoint","value":4711,"timeout":"1s"}`, "?wait=20s")
	if status != http.StatusOK || late.State != "expired" {
		t.Errorf("with the line away: %d, %+v", status, late)
	}
	_, early := order(a, "plc-1", `{"kind":"write","point":"setpoint","value":815,"timeout":"10m"}`, "")
	a.kill() // what waits survives
	a = run(t, config, admin)
	slave := newWriteLog(t, address)
	eventually(t, time.Minute, "the command that still has time", func() bool {
		_, body := a.get("/api/v1/commands/" + early.ID)
		var c commandState
		return json.Unmarshal(body, &c) == nil && c.State == "succeeded"
	})
	if slave.times(815) != 1 || slave.times(4711) != 0 {
		t.Errorf("written: %v", slave.written)
	}
	if code := a.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestCommandsRunWhileTheQueueIsFull has no destination, so that the queue fills
// up and polls pause.
func TestCommandsRunWhileTheQueueIsFull(t *testing.T) {
	t.Parallel()
	slave := newWriteLog(t, "127.0.0.1:0")
	text := fmt.Sprintf(commandPlant, slave.listener.Addr().String(), "/nowhere/out.jsonl")
	text = strings.Replace(text, "[[link]]", "[store]\nmax_size = \"1MiB\"\n[[listen]]\nname = \"plant\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:PORT\"\n[[link]]", 1)
	port := freePort(t)
	config, admin := configure(t, strings.Replace(text, "PORT", strconv.Itoa(port), 1))
	a := run(t, config, admin)

	p, err := mcp.NewPublisher(mcp.PublisherConfig{Session: mcp.Config{Name: "press-1"}, Dialer: tcp.NewDialer("127.0.0.1:"+strconv.Itoa(port), nil)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	running.Go(func() {
		for p.Publish(ctx, record.Record{Device: "press-1", Stream: "s", Time: time.Now(), Payload: make([]byte, 10_000)}) == nil {
		}
	})
	eventually(t, time.Minute, "the queue to be full", func() bool {
		code, body := a.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(string(body), "full")
	})
	for value := range 5 {
		status, c := order(a, "plc-1", fmt.Sprintf(`{"kind":"write","point":"setpoint","value":%d,"read_back":false}`, 100+value), "?wait=20s")
		if status != http.StatusOK || c.State != "succeeded" || slave.times(100+value) != 1 {
			t.Errorf("with a full queue: %d, %+v", status, c)
		}
	}
	if code, _ := a.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Error("the queue is not full any more")
	}
	stop()
	running.Wait()
	a.stop()
}
