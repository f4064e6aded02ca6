package mqtt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/internal/upstream/mqtt"
)

func TestARecordArrivesAsJSONOnItsTopic(t *testing.T) {
	b := newBroker(t).start()
	s := subscribe(t, b.address)
	u := run(t, b.address, config())
	batch := records("boiler-1", 7, 7)
	if err := u.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	s.wantComplete(t, 1, "boiler-1")
	want := arrival{
		topic: "edge/gw/boiler-1/s", contentType: "application/json",
		payload: string(batch[0].AppendJSON(nil)), Device: "boiler-1", Seq: 7,
	}
	if got := s.all()[0]; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if st := u.Status(); !st.Connected || st.Reason != "" || st.Endpoint != "mqtt://"+b.address {
		t.Errorf("status %+v", st)
	}
}

func TestABrokerStoppedInMidStreamGetsEverythingInOrder(t *testing.T) {
	b := newBroker(t).start()
	s := subscribe(t, b.address)
	u := run(t, b.address, config())
	const n = 6000
	devices := []string{"a", "b", "c"}
	var all sync.WaitGroup
	for _, d := range devices {
		all.Go(func() { send(t, u, d, 1, n, 500) })
	}
	for _, share := range []int{n / 4, n} {
		waitUntil(t, "part of it has arrived", func() bool { return s.count() > share })
		b.stop()
		waitUntil(t, "the status says so", func() bool { return !u.Status().Connected })
		b.start()
	}
	all.Wait()
	s.wantComplete(t, n, devices...)
}

func TestACutLineLosesNothingAndKeepsOrder(t *testing.T) {
	b := newBroker(t).start()
	s := subscribe(t, b.address)
	p := newProxy(t, b.address)
	u := run(t, p.address, config())
	const n = 10_000
	var all sync.WaitGroup
	for _, d := range []string{"a", "b"} {
		all.Go(func() { send(t, u, d, 1, n, 4096) })
	}
	for arrived := 2000; arrived < 2*n-2000; arrived += 3000 {
		waitUntil(t, "more has arrived", func() bool { return s.count() > arrived })
		p.cut()
	}
	all.Wait()
	s.wantComplete(t, n, "a", "b")
}

func TestABrokerThatIsDownAtStartIsTakenWhenItComes(t *testing.T) {
	b := newBroker(t)
	u := run(t, b.address, config())
	waitUntil(t, "the status says why", func() bool {
		st := u.Status()
		return !st.Connected && strings.Contains(st.Reason, "connection refused")
	})
	sent := make(chan error, 1)
	go func() { sent <- u.Send(t.Context(), records("d", 1, 10)) }()
	b.start()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestABrokerThatHangsIsLeftAndTakenAgain(t *testing.T) {
	b := newBroker(t).start()
	s := subscribe(t, b.address)
	cfg := config()
	cfg.AckTimeout, cfg.ConnectTimeout = time.Second, 300*time.Millisecond
	u := run(t, b.address, cfg)
	send(t, u, "d", 1, 10, 10)
	b.signal(syscall.SIGSTOP)
	sent := make(chan error, 1)
	go func() { sent <- u.Send(t.Context(), records("d", 11, 5000)) }()
	waitUntil(t, "the status tells of the silence", func() bool {
		return strings.Contains(u.Status().Reason, "has not acknowledged a message for 1s")
	})
	waitUntil(t, "the status tells of the connection that got no answer", func() bool {
		return strings.Contains(u.Status().Reason, "did not answer within 300ms")
	})
	b.signal(syscall.SIGCONT)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	s.wantComplete(t, 5000, "d")
}

func TestAHangingBrokerHoldsUpNeitherSendNorTheEnd(t *testing.T) {
	b := newBroker(t).start()
	u := run(t, b.address, config())
	send(t, u, "d", 1, 1, 1)
	b.signal(syscall.SIGSTOP)
	batch := records("d", 1, 200)
	for i := range batch { // more than the sockets' buffers hold
		batch[i].Payload = make([]byte, 100_000)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := u.Send(ctx, batch); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send: %v", err)
	}
	// run's cleanup checks that Run ends.
}

func TestRecordsOfAForbiddenTopicWaitUntilTheAccessRulesAreMended(t *testing.T) {
	acl := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(acl, []byte("topic readwrite edge/gw/good/#\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, "acl_file "+acl).start()
	u := run(t, b.address, config())
	send(t, u, "good", 1, 10, 10)
	sent := make(chan error, 1)
	go func() { sent <- u.Send(t.Context(), append(records("good", 11, 12), records("evil", 1, 1)...)) }()
	waitUntil(t, "the status says why", func() bool {
		st := u.Status()
		return !st.Connected && strings.Contains(st.Reason, "topic edge/gw/evil/s now: not authorised")
	})
	if err := os.WriteFile(acl, []byte("topic readwrite edge/gw/#\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.signal(syscall.SIGHUP) // mosquitto(8): reads the access rules anew
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if st := u.Status(); !st.Connected || st.Reason != "" {
		t.Errorf("status %+v", st)
	}
}

func TestAMessageThatIsTooLargeIsRefusedWithoutSending(t *testing.T) {
	b := newBroker(t, "max_packet_size 2000").start()
	u := run(t, b.address, config())
	send(t, u, "d", 1, 10, 10)
	large := records("d", 11, 11)
	large[0].Payload = make([]byte, 2000)
	err := u.Send(t.Context(), large)
	if !errors.Is(err, upstream.ErrRefused) || !strings.Contains(err.Error(), "larger than the broker takes (2000 bytes)") {
		t.Errorf("got %v", err)
	}
	if !u.Status().Connected {
		t.Error("the connection is gone")
	}
	send(t, u, "d", 12, 20, 10)
}

func TestTheBrokersReceiveMaximumIsKept(t *testing.T) {
	b := newBroker(t, "max_inflight_messages 3").start()
	s := subscribe(t, b.address)
	u := run(t, b.address, config())
	send(t, u, "d", 1, 2000, 1000)
	s.wantComplete(t, 2000, "d")
	if _, repeated, _ := s.tally(); repeated > 0 {
		t.Errorf("%d repeats: the broker closed the connection for too many messages", repeated)
	}
}

func TestAWrongPasswordShowsInTheStatus(t *testing.T) {
	passwords := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(passwords, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, "allow_anonymous false", "password_file "+passwords).start()
	cfg := config()
	cfg.Username, cfg.Password = "gw", "wrong"
	u := run(t, b.address, cfg)
	waitUntil(t, "the status says why", func() bool {
		return strings.Contains(u.Status().Reason, "the broker refused the connection: not authorised")
	})
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for address, want := range map[string]string{
		"mqtts://broker:8883":     "no TLS",
		"broker:1883":             "not an address",
		"tcp://broker":            "not an address",
		"mqtt://":                 "not an address",
		"mqtt://broker:x":         "not an address",
		"mqtt://me:secret@broker": "set username and password",
		"mqtt://broker/topic":     "nothing may follow the port",
	} {
		_, err := mqtt.New("gw", "cloud", address, config(), nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for address, want := range map[string]string{
		"mqtt://broker": "broker:1883", "mqtt://10.0.0.1:1884/": "10.0.0.1:1884", "mqtt://[::1]": "[::1]:1883",
	} {
		if got, err := mqtt.ParseAddress(address); got != want || err != nil {
			t.Errorf("%s: %q, %v", address, got, err)
		}
	}
}

func TestConfigNamesTheKeyThatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*mqtt.Config)
		want   string
	}{
		"the default":      {func(*mqtt.Config) {}, ""},
		"fixed topic":      {func(c *mqtt.Config) { c.Topic = "all" }, ""},
		"no topic":         {func(c *mqtt.Config) { c.Topic = "" }, "topic is empty"},
		"wildcard":         {func(c *mqtt.Config) { c.Topic = "edge/#" }, "topic contains + or #"},
		"broker's own":     {func(c *mqtt.Config) { c.Topic = "$SYS/{device}" }, "topic starts with $"},
		"unknown name":     {func(c *mqtt.Config) { c.Topic = "{site}/{device}" }, "topic has {site}"},
		"open brace":       {func(c *mqtt.Config) { c.Topic = "a/{device" }, "topic has a brace"},
		"lone brace":       {func(c *mqtt.Config) { c.Topic = "a}/{device}" }, "topic has a brace"},
		"zero in a string": {func(c *mqtt.Config) { c.ClientID = "a\x00b" }, "client_id contains a zero byte"},
		"not UTF-8":        {func(c *mqtt.Config) { c.Username = "\xff" }, "username is not UTF-8"},
	} {
		cfg := config()
		c.change(&cfg)
		var got []string
		cfg.Validate(func(key, problem string) { got = append(got, key+" "+problem) })
		if joined := strings.Join(got, "\n"); c.want == "" && joined != "" || !strings.HasPrefix(joined, c.want) || len(got) > 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
}
