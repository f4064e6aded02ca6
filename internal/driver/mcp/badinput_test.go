package mcp_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// hostileLimits are short, so that the tests are.
func hostileLimits() driver.ListenConfig {
	cfg := limits()
	cfg.HelloTimeout, cfg.FrameTimeout, cfg.HeartbeatInterval = 300*time.Millisecond, 300*time.Millisecond, time.Second
	cfg.Window, cfg.WindowBytes, cfg.MaxPayload = 64, 1<<20, 1<<18
	return cfg
}

// publishOf is the payload of a PUBLISH whose records are these bytes.
func publishOf(records ...[]byte) []byte {
	var list []byte
	for _, r := range records {
		list = mcp.AppendRecord(list, r)
	}
	return mcp.AppendPublish(nil, "main", 0, nil, list)
}

// named is a record of the device, and then whatever.
func named(device string, more []byte) []byte {
	r := record.Record{Device: device, Stream: "s"}
	return append(r.Append(nil), more...)
}

// nested is a field of bytes in a field of bytes and so on.
func nested(depth int) []byte {
	var b []byte
	for range depth {
		b = protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), b)
	}
	return b
}

func TestHostilePayloadsAreRefusedAndNobodyElseIsHurt(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: hostileLimits()})
	good := newDevice(t, "good", tcp.NewDialer(s.address, nil), 5000)
	var running sync.WaitGroup
	running.Go(func() { mustRun(t, good.Run) })

	point := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), []byte{0x0A, 1, 'x'})
	group := bytes.Repeat(protowire.AppendTag(nil, 20, protowire.StartGroupType), 50000)
	for name, c := range map[string]struct {
		payload []byte
		code    mcp.Code
	}{
		"nothing at all":               {nil, mcp.CodeBadPayload},
		"deep nesting":                 {publishOf(named("bad", nested(10000))), mcp.CodeBadPayload},
		"groups without an end":        {publishOf(named("bad", group)), mcp.CodeBadPayload},
		"groups around the records":    {append(group, publishOf(named("bad", nil))...), mcp.CodeBadPayload},
		"a length beyond the frame":    {append(publishOf(named("bad", nil)), 0x22, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F), mcp.CodeBadPayload},
		"a length of 2^64-1":           {append(publishOf(named("bad", nil)), 0x22, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01), mcp.CodeBadPayload},
		"a number without an end":      {bytes.Repeat([]byte{0xFF}, 1000), mcp.CodeBadPayload},
		"40,000 points":                {publishOf(named("bad", bytes.Repeat(point, 40000))), mcp.CodeBadPayload},
		"100,000 empty records":        {publishOf(make([][]byte, 100000)...), mcp.CodeBadPayload},
		"65 records in a window of 64": {publishOf(make([][]byte, 65)...), mcp.CodeWindowExceeded},
		"a name with a slash":          {publishOf(named("a/b", nil)), mcp.CodeBadPayload},
		"a name of 10,000 bytes":       {publishOf(named(strings.Repeat("a", 10000), nil)), mcp.CodeBadPayload},
		"a name that is no UTF-8":      {publishOf(named("\xFF\xFE", nil)), mcp.CodeBadPayload},
		"numbers that fall":            {mcp.AppendPublish(nil, "main", 5, []uint64{9, 8}, mcp.AppendRecord(mcp.AppendRecord(nil, named("bad", nil)), named("bad", nil))), mcp.CodeBadPayload},
		"numbers beyond 64 bits":       {mcp.AppendPublish(nil, "main", 1<<64-1, nil, mcp.AppendRecord(nil, named("bad", nil))), mcp.CodeBadPayload},
		"a frame that is too large":    {make([]byte, 1<<18+1), mcp.CodeTooLarge},
	} {
		running.Go(func() {
			p := connect(t, s.address)
			p.hello("bad-" + strings.ReplaceAll(name, "/", "-")[:min(len(name), 40)])
			p.publish(c.payload)
			p.wantError(c.code)
			p.closed()
		})
	}
	running.Wait()
	expectNumbered(t, b.read(t, 5000))
	eventually(t, "the bad ones to be gone", func() bool { return s.Stats().Connections <= 1 })
	if got := s.Stats(); got.Records != 5000 || got.Refusals.WindowExceeded != 1 {
		t.Errorf("%+v", got)
	}
}

func TestARecordThatWouldBeAlteredIsRefusedWithItsName(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: hostileLimits(), Remotes: map[string]string{"127.0.0.9": "press-9"}})
	n := record.Point{Name: "n", Value: record.Int(1)}
	for says, r := range map[string]record.Record{
		"neither points nor a payload":    {},
		"the point n comes twice":         {Points: []record.Point{n, n}},
		"the point m has neither a value": {Points: []record.Point{n, {Name: "m"}}},
		"the point m has a text":          {Points: []record.Point{n, {Name: "m", Value: record.String("\xff")}}},
	} {
		r.Device, r.Stream = "press-9", "s"
		err := say(t, s, "press-9", r)
		if !mcp.IsCode(err, mcp.CodeBadPayload) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "press-9") {
			t.Errorf("%s: %v", says, err)
		}
		anonymous := connect(t, s.address, 9)
		anonymous.publishRecords(0, r)
		anonymous.wantError(mcp.CodeBadPayload)
	}
	eventually(t, "all to be counted", func() bool { return s.Stats().Refusals.BadPayloads == 8 })
	if got := s.Stats(); got.Records > 0 {
		t.Errorf("%+v", got)
	}
}

func TestAPeerLearnsNothingOfOurSideOfTheConnection(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: hostileLimits()})
	p := connect(t, s.address)
	p.write([]byte("GET / HTTP/1.1"))
	f, err := p.next()
	reason := "it does not start with 4D 43"
	if want := fmt.Sprintf("\x08\x01\x12%c%s", len(reason), reason); err != nil || string(f.Payload) != want {
		t.Errorf("%q, %v", f.Payload, err)
	}
}

func TestPeersThatStallAreDroppedAndNobodyElseIsHurt(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: hostileLimits()})
	good := newDevice(t, "good", tcp.NewDialer(s.address, nil), 0)
	stop := background(t, good.Run)

	var running sync.WaitGroup
	running.Go(func() { connect(t, s.address).wantError(mcp.CodeHelloTimeout) })
	running.Go(func() { // half a HELLO
		p := connect(t, s.address)
		p.write([]byte("MC\x02\x03\x00\x00"))
		p.wantError(mcp.CodeHelloTimeout)
	})
	running.Go(func() { // slow loris
		p := connect(t, s.address)
		p.hello("loris")
		drip := time.NewTicker(50 * time.Millisecond)
		defer drip.Stop()
		for _, c := range frame(t, mcp.CommandPublish, make([]byte, 1000)) {
			<-drip.C
			if _, err := p.conn.Write([]byte{c}); err != nil || s.Stats().Refusals.FrameTimeouts == 1 {
				break
			}
		}
		p.wantError(mcp.CodeBadFrame)
	})
	running.Go(func() { // half open: it never says anything again
		p := connect(t, s.address)
		p.hello("gone")
		p.wantError(mcp.CodeHeartbeatMissed)
	})
	running.Wait()
	eventually(t, "all of them to be gone", func() bool { return s.Stats().Connections == 1 })
	if r := s.Stats().Refusals; r.HelloTimeouts != 2 || r.FrameTimeouts != 1 || r.HeartbeatsMissed != 1 {
		t.Errorf("%+v", r)
	}
	if peers := s.Peers(); len(peers) != 3 {
		t.Errorf("%+v", peers)
	}
	for _, p := range s.Peers() {
		if p.Sender == "good" && (p.State != mcp.Open || p.Reconnects > 0) {
			t.Errorf("%+v", p)
		}
	}
	stop()
}

func TestAPeerThatDoesNotReadItsAnswersIsDropped(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	cfg := hostileLimits()
	cfg.MaxBuffered = 64 << 10
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: cfg})
	good := newDevice(t, "good", tcp.NewDialer(s.address, nil), 0)
	defer background(t, good.Run)()

	p := connect(t, s.address)
	p.hello("deaf")
	eventually(t, "both to be there", func() bool { return s.Stats().Connections == 2 })
	var ask []byte
	for id := range uint64(1000) {
		r := mcp.Request{ID: id + 1, Method: strings.Repeat("m", 64)}
		ask = append(ask, frame(t, mcp.CommandRequest, r.Append(nil))...)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for s.Stats().Connections == 2 {
		_ = p.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := p.conn.Write(ask); err != nil && s.Stats().Connections < 2 {
			break
		}
	}
	runtime.ReadMemStats(&after)
	if after.HeapInuse > before.HeapInuse+64<<20 {
		t.Errorf("%d KiB more memory", (after.HeapInuse-before.HeapInuse)>>10)
	}
	if r := s.Stats().Refusals; r.BufferExceeded+r.HeartbeatsMissed == 0 {
		t.Errorf("%+v", r)
	}
}

func TestRandomBytesNeverGetThrough(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: hostileLimits()})
	good := newDevice(t, "good", tcp.NewDialer(s.address, nil), 5000)
	var running sync.WaitGroup
	running.Go(func() { mustRun(t, good.Run) })
	for seed := range byte(20) {
		running.Go(func() {
			noise := make([]byte, 4096)
			_, _ = rand.NewChaCha8([32]byte{seed}).Read(noise) // never fails
			p := connect(t, s.address)
			if seed%2 == 1 { // behind a good beginning
				p.hello(fmt.Sprint("noise-", seed)) // one of its own: who comes again replaces the one before
			}
			_, _ = p.conn.Write(noise) // it may have been hung up on
			p.closed()
		})
	}
	running.Wait()
	expectNumbered(t, b.read(t, 5000))
	if n := s.Stats().Records; n != 5000 {
		t.Errorf("%d records", n)
	}
}

// FuzzPublish: whatever stands in a PUBLISH, the session ends in order or the
// records are stored, and the next peer is served.
func FuzzPublish(f *testing.F) {
	f.Add(publishOf(named("press-1", nil)))
	f.Add(publishOf(named("press-1", nested(10))))
	f.Add(mcp.AppendPublish(nil, "main", 3, []uint64{5}, mcp.AppendRecord(nil, named("press-1", nil))))
	b := openStore(f, f.TempDir(), store.Config{WhenFull: store.DropOldest})
	s := startServer(f, b.store, driver.ServerConfig{ListenConfig: hostileLimits()})
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 1<<16 {
			return
		}
		p := connect(t, s.address)
		_ = p.conn.(*net.TCPConn).SetLinger(0) // thousands a second must not use up the ports
		p.hello("fuzz")
		p.publish(payload)
		_, _ = p.conn.Write(frame(t, mcp.CommandClose, nil)) // it may have been hung up on
		for {
			f, err := p.next()
			if err != nil {
				t.Fatalf("it ends without a word: %v", err)
			}
			if f.Command == mcp.CommandError || f.Command == mcp.CommandClose {
				return
			}
		}
	})
}
