package mqtt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/internal/upstream/mqtt"
	"github.com/mcp-edge/edge-agent/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitUntil polls a condition; what the test waits for is in its name.
func waitUntil(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// broker is a Mosquitto on a port of its own.
type broker struct {
	t       testing.TB
	address string // HOST:PORT
	config  string
	process *exec.Cmd
	log     bytes.Buffer // readable once the process has ended
}

func newBroker(t testing.TB, config ...string) *broker {
	t.Helper()
	folder := t.TempDir()
	b := &broker{t: t, address: freeAddress(t), config: filepath.Join(folder, "mosquitto.conf")}
	_, port, _ := net.SplitHostPort(b.address)
	lines := append([]string{
		"listener " + port + " 127.0.0.1", "set_tcp_nodelay true", "log_type error",
		"max_queued_messages 0", "max_inflight_messages 1000",
		"persistence true", "autosave_interval 0", "persistence_location " + folder + "/", "user root",
	}, config...)
	if !strings.Contains(strings.Join(config, "\n"), "allow_anonymous") {
		lines = append(lines, "allow_anonymous true")
	}
	if err := os.WriteFile(b.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("Mosquitto said:\n%s", b.log.String())
		}
	})
	return b
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (b *broker) start() *broker {
	b.t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	b.process = exec.Command(path, "-c", b.config)
	b.process.Stdout, b.process.Stderr = &b.log, &b.log
	if err := b.process.Start(); err != nil {
		b.t.Fatalf("the tests need Mosquitto (Debian: mosquitto): %v", err)
	}
	waitUntil(b.t, "the broker listens", func() bool {
		c, err := net.Dial("tcp", b.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return b
}

// stop ends the broker as a service manager does.
func (b *broker) stop() {
	if b.process != nil {
		_ = b.process.Process.Signal(syscall.SIGCONT)
		_ = b.process.Process.Signal(syscall.SIGTERM)
		_ = b.process.Wait()
		b.process = nil
	}
}

func (b *broker) signal(s os.Signal) {
	b.t.Helper()
	if err := b.process.Process.Signal(s); err != nil {
		b.t.Fatal(err)
	}
}

// arrival is a message as the subscriber got it.
type arrival struct {
	topic, contentType string
	payload            string
	Device             string
	Seq                int
}

// subscriber collects what a broker hands out.
type subscriber struct {
	mu       sync.Mutex
	arrivals []arrival
}

// subscribe returns when the broker has taken the subscription, which outlives
// the broker's restart.
func subscribe(t testing.TB, address string) *subscriber {
	t.Helper()
	s := &subscriber{}
	ready := make(chan struct{})
	var once sync.Once
	ctx, cancel := context.WithCancel(context.Background())
	manager, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: address}}, KeepAlive: 60,
		SessionExpiryInterval: 3600,
		ReconnectBackoff:      func(int) time.Duration { return 10 * time.Millisecond },
		OnConnectionUp: func(m *autopaho.ConnectionManager, _ *paho.Connack) {
			go func() {
				_, err := m.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "#", QoS: 1}}})
				if err == nil {
					once.Do(func() { close(ready) })
				}
			}()
		},
		ClientConfig: paho.ClientConfig{
			ClientID:          "subscriber",
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){s.take},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); <-manager.Done() })
	<-ready
	return s
}

func (s *subscriber) take(p paho.PublishReceived) (bool, error) {
	a := arrival{topic: p.Packet.Topic, payload: string(p.Packet.Payload)}
	if p.Packet.Properties != nil {
		a.contentType = p.Packet.Properties.ContentType
	}
	if err := json.Unmarshal(p.Packet.Payload, &a); err != nil {
		a.Device = "not JSON: " + a.payload
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrivals = append(s.arrivals, a)
	return true, nil
}

func (s *subscriber) all() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.arrivals...)
}

func (s *subscriber) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.arrivals)
}

// tally is how many distinct records of each device came, how often one came
// again, and how often a first appearance was out of order.
func (s *subscriber) tally() (distinct map[string]int, repeated, disorder int) {
	type key struct {
		device string
		seq    int
	}
	seen := map[key]bool{}
	last := map[string]int{}
	distinct = map[string]int{}
	for _, a := range s.all() {
		k := key{a.Device, a.Seq}
		if seen[k] {
			repeated++
			continue
		}
		seen[k] = true
		distinct[a.Device]++
		if a.Seq < last[a.Device] {
			disorder++
		}
		last[a.Device] = a.Seq
	}
	return distinct, repeated, disorder
}

// wantComplete waits until n records of each device are there, and checks that
// they came in order.
func (s *subscriber) wantComplete(t testing.TB, n int, devices ...string) {
	t.Helper()
	counted := 0
	waitUntil(t, fmt.Sprintf("%d records of each of %v have arrived", n, devices), func() bool {
		if counted == s.count() {
			return false // counting them all takes a while
		}
		counted = s.count()
		distinct, _, _ := s.tally()
		for _, d := range devices {
			if distinct[d] < n {
				return false
			}
		}
		return true
	})
	distinct, repeated, disorder := s.tally()
	t.Logf("arrived %v, repeated %d", distinct, repeated)
	if disorder != 0 {
		t.Errorf("%d first appearances out of order", disorder)
	}
}

// proxy stands between the agent and a broker and can cut the line.
type proxy struct {
	address string
	mu      sync.Mutex
	open    map[net.Conn]bool
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String(), open: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			p.mu.Lock()
			p.open[near], p.open[far] = true, true
			p.mu.Unlock()
			all.Go(func() { pass(near, far) })
			all.Go(func() { pass(far, near) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); p.cut(); all.Wait() })
	return p
}

func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

// cut ends all connections at once, in the midst of whatever they carry.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
		delete(p.open, c)
	}
}

// config is the default one, with less patience.
func config() mqtt.Config {
	return mqtt.Config{
		Topic: "edge/{agent}/{device}/{stream}", QoS: 1, Window: 256,
		KeepAlive: 30 * time.Second, ConnectTimeout: 2 * time.Second, AckTimeout: 30 * time.Second,
	}
}

// run starts an upstream to the broker at address until the test ends.
func run(t testing.TB, address string, cfg mqtt.Config) *mqtt.Upstream {
	t.Helper()
	u, err := mqtt.New("gw", "cloud", "mqtt://"+address, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run did not end within 5s of its context")
		}
	})
	return u
}

func records(device string, from, to int) []record.Record {
	batch := make([]record.Record, 0, to-from+1)
	for n := from; n <= to; n++ {
		batch = append(batch, record.Record{
			Agent: "gw", Epoch: 1, Device: device, Stream: "s", Seq: uint64(n), Time: time.Unix(1, 0),
			Points: []record.Point{{Name: "n", Value: record.Int(int64(n))}},
		})
	}
	return batch
}

// send delivers the records of a device in batches, as a pump does.
func send(t testing.TB, u *mqtt.Upstream, device string, from, to, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	for ; from <= to; from += size {
		if err := u.Send(ctx, records(device, from, min(to, from+size-1))); err != nil {
			t.Errorf("device %s: %v", device, err)
			return
		}
	}
}
