package mcp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/sim/mcpdevice"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

func TestWhatIsAcknowledgedIsInTheQueueInOrder(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{})
	var devices sync.WaitGroup
	for _, name := range []string{"press-1", "press-2", "press-3"} {
		d := newDevice(t, name, tcp.NewDialer(s.address, nil), 1000)
		devices.Go(func() { mustRun(t, d.Run) })
	}
	devices.Wait()
	expectNumbered(t, b.read(t, 3000))
	if got := s.Stats(); got.Records != 3000 || got.Repeats != 0 || got.Accepted != 3 {
		t.Errorf("%+v", got)
	}
}

// unsteady cuts each connection it makes after some Writes.
type unsteady struct {
	transport.Dialer
	after int
}

type cutConn struct {
	transport.Conn
	left int
}

func (u unsteady) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	c, err := u.Dialer.Dial(ctx, f)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: c, left: u.after}, nil
}

func (c *cutConn) Write(b []byte) error {
	if c.left--; c.left < 0 {
		c.Close()
	}
	return c.Conn.Write(b)
}

func TestABrokenConnectionNeitherLosesNorRepeats(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{})
	d := newDevice(t, "press-1", unsteady{tcp.NewDialer(s.address, nil), 2}, 5000)
	mustRun(t, d.Run)
	expectNumbered(t, b.read(t, 5000))
	if got := s.Stats(); got.Accepted < 3 {
		t.Errorf("the connection was cut %d times", got.Accepted-1)
	}
}

func TestARestartedAgentGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	for start := range 2 {
		s, err := store.Open(dir, store.Config{MaxSize: 64 << 20, WhenFull: store.Block}, discard())
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Channel(store.ChannelKey{Sender: "press-1/", Epoch: 7, Channel: "main"})
		if err != nil || c.Safe() != uint64(10*start) {
			t.Fatalf("start %d: %d is safe, %v", start, c.Safe(), err)
		}
		stopStore := background(t, s.Run)
		srv := startServer(t, s, driver.ServerConfig{})
		publisher, err := mcp.NewPublisher(mcp.PublisherConfig{
			Session: mcp.Config{Name: "press-1", Epoch: 7}, Dialer: tcp.NewDialer(srv.address, nil),
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := background(t, publisher.Run)
		for i := range 10 {
			r := record.Record{Device: "press-1", Stream: "s", Payload: []byte{byte(i)}}
			if err := publisher.Publish(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if err := publisher.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		srv.stop()
		stopStore()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullQueueStopsAcknowledgementsAndResumesByItself(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{MaxSize: 256 << 10})
	s := startServer(t, b.store, driver.ServerConfig{})
	d, err := mcpdevice.New(mcpdevice.Config{
		Publisher: mcp.PublisherConfig{Session: mcp.Config{Name: "press-1"}, Dialer: tcp.NewDialer(s.address, nil)},
		Payload:   1000, Count: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	background(t, d.Run)
	eventually(t, "the queue to be full", func() bool { return b.store.Stats().State == store.StateFull })
	_, before := d.Stats()
	if before >= 1000 {
		t.Fatalf("%d of 1000 are acknowledged though the queue is full", before)
	}
	if peers := s.Peers(); len(peers) != 1 || peers[0].State != mcp.Open {
		t.Errorf("%+v", peers)
	}
	items := b.read(t, 1000)
	for i, x := range items {
		if n, _, _ := strings.Cut(string(x.Payload), " "); n != fmt.Sprint(i+1) || len(x.Payload) != 1000 {
			t.Fatalf("record %d says %.20s…", i+1, x.Payload)
		}
	}
	eventually(t, "everything to be acknowledged", func() bool { _, n := d.Stats(); return n == 1000 })
}

func TestBadPeersHurtNobodyElse(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{})
	good := newDevice(t, "press-1", tcp.NewDialer(s.address, nil), 20000)
	var running sync.WaitGroup
	running.Go(func() { mustRun(t, good.Run) })
	heartbeat, err := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandHeartbeat, nil)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), heartbeat...)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		say  string
		code mcp.Code
	}{
		{"GET / HTTP/1.1\r\n\r\n", mcp.CodeBadFrame},
		{string(flipped), mcp.CodeBadFrame},
		{"MC\x02\x03\xff\xff\xff\xff", mcp.CodeTooLarge},
		{"MC\x09\x03\x00\x00\x00\x00", mcp.CodeUnknownVersion},
		{string(heartbeat), mcp.CodeHelloExpected},
		{strings.Repeat("noise", 1<<18), mcp.CodeBadFrame},
		{"MC\x02\x03", 0}, // half a header, then gone
	} {
		running.Go(func() { misbehave(t, s.address, c.say, c.code) })
	}
	running.Wait()
	expectNumbered(t, b.read(t, 20000))
	if n := s.Stats().BadFrames; n != 5 {
		t.Errorf("%d bad frames", n)
	}
}

// misbehave says something over TCP and wants ERROR with this code, then the end.
func misbehave(t *testing.T, address, say string, code mcp.Code) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if _, err := c.Write([]byte(say)); err != nil && code == 0 {
		t.Error(err)
	}
	if code == 0 {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var answer []byte
	for buf := make([]byte, 512); ; {
		n, err := c.Read(buf)
		answer = append(answer, buf[:n]...)
		if err != nil {
			break
		}
	}
	f, err := mcp.ParseFrame(answer)
	if err != nil || f.Command != mcp.CommandError || mcp.Code(f.Payload[1]) != code {
		t.Errorf("%.20q got % X (%v), want %v", say, answer, err, code)
	}
}

func TestAConnectionTooManyIsToldSo(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	cfg := limits()
	cfg.MaxConnections = 1
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: cfg})
	first := newDevice(t, "press-1", tcp.NewDialer(s.address, nil), 0)
	stop := background(t, first.Run)
	eventually(t, "the first peer", func() bool { return s.Stats().Records > 0 })
	misbehave(t, s.address, "", mcp.CodeBusy)
	if got := s.Stats(); got.Refused != 1 || got.Connections != 1 {
		t.Errorf("%+v", got)
	}
	stop()
}

func TestASenderThatConnectsAnewReplacesItsOlderSession(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{})
	ended := make(chan error, 1)
	open := func(epoch record.Epoch) *mcp.Session {
		conn, err := tcp.NewDialer(s.address, nil).Dial(t.Context(), mcp.NewStreamFramer(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		session := mcp.NewSession(conn, mcp.Config{Name: "press-1", Epoch: epoch}, mcp.NoHandler{})
		background(t, func(ctx context.Context) error {
			err := session.Run(ctx)
			if ctx.Err() == nil {
				ended <- err
			}
			return nil
		})
		<-session.Opened()
		return session
	}
	open(1)
	second := open(2)
	if err := <-ended; !mcp.IsCode(err, mcp.CodeReplaced) {
		t.Errorf("the first session ends with %v", err)
	}
	if state, _ := second.State(); state != mcp.Open {
		t.Errorf("the second is %v", state)
	}
	if peers := s.Peers(); len(peers) != 1 || peers[0].State != mcp.Open {
		t.Errorf("%+v", peers)
	}
}

// say publishes records made by hand and returns how the session ended, nil if
// they were acknowledged.
func say(t *testing.T, s *server, sender string, records ...record.Record) error {
	t.Helper()
	return converse(t, s, mcp.Config{Name: sender}, records...)
}

func TestRecordsOfAnAgentBelowKeepTheirIdentity(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{OwnDeviceOnly: true})
	below := record.Record{Agent: "gw-77", Epoch: 5, Device: "boiler-1", Stream: "temps", Seq: 41, Part: 2, Payload: []byte("x")}
	gap := record.Record{
		Agent: "gw-77", Epoch: 5, Device: "boiler-1", Stream: record.GapStream,
		Gap: &record.Gap{From: 42, To: 50, Count: 9, Reason: record.GapDropOldest},
	}
	if err := say(t, s, "gw-77", below, gap); err != nil {
		t.Fatal(err)
	}
	items := b.read(t, 2)
	want := store.SourceKey{Agent: "gw-77", Epoch: 5, Device: "boiler-1", Stream: "temps"}
	if items[0].key != want || items[0].seq != 41 || items[0].Part != 2 {
		t.Errorf("%+v", items[0])
	}
	if g := items[1].Gap; g == nil || g.From != 42 || g.To != 50 || items[1].key.Agent != "gw-77" {
		t.Errorf("%+v", items[1])
	}
}

func TestARecordWithoutATimeGetsOursAndAnotherKeepsWhatItSays(t *testing.T) {
	at := time.Date(2026, 11, 22, 5, 8, 0, 0, time.UTC)
	theirs := record.Stamp{Time: at.AddDate(0, 0, -1), Boot: 7, Up: time.Hour}
	for _, ours := range []record.Stamp{
		{Time: at, Clock: record.ClockSynced},
		{Time: at, Boot: 0x53a1, Up: 5 * time.Minute},
	} {
		b := openStore(t, t.TempDir(), store.Config{})
		s := startServerAt(t, b.store, driver.ServerConfig{}, func() record.Stamp { return ours }, discard(),
			func(s *driver.Server) (transport.Listener, error) {
				return tcp.Listen(t.Context(), "127.0.0.1:0", s.Framer, nil)
			})
		without := record.Record{Device: "press-1", Stream: "s", Payload: []byte("x"), Clock: record.ClockSynced, Boot: 9}
		with := record.Record{Device: "press-1", Stream: "s", Payload: []byte("y")}
		with.At(theirs)
		if err := say(t, s, "press-1", without, with); err != nil {
			t.Fatal(err)
		}
		items := b.read(t, 2)
		for i, want := range []record.Stamp{ours, theirs} {
			r := items[i].Record
			if got := (record.Stamp{Time: r.Time, Clock: r.Clock, Boot: r.Boot, Up: r.Up}); got != want || len(r.Payload) != 1 {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
	}
}

func TestARecordThatMayNotBeSaidEndsTheSession(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	own := startServer(t, b.store, driver.ServerConfig{OwnDeviceOnly: true})
	for name, c := range map[string]struct {
		record record.Record
		code   mcp.Code
	}{
		"another's device":           {record.Record{Device: "press-2", Stream: "s", Payload: []byte("x")}, mcp.CodeNotAllowed},
		"another agent's device":     {record.Record{Device: "press-1", Stream: "s", Agent: "gw-77", Epoch: 1, Seq: 1, Payload: []byte("x")}, mcp.CodeNotAllowed},
		"a record of our own":        {record.Record{Device: "press-1", Stream: "s", Agent: "gw-01", Epoch: 1, Seq: 1, Payload: []byte("x")}, mcp.CodeNotAllowed},
		"an agent without an epoch":  {record.Record{Device: "press-1", Stream: "s", Agent: "press-1", Seq: 1, Payload: []byte("x")}, mcp.CodeBadPayload},
		"an agent without a number":  {record.Record{Device: "press-1", Stream: "s", Agent: "press-1", Epoch: 1, Payload: []byte("x")}, mcp.CodeBadPayload},
		"no device":                  {record.Record{Stream: "s", Payload: []byte("x")}, mcp.CodeBadPayload},
		"a name that is not allowed": {record.Record{Device: "press-1", Stream: "a/b"}, mcp.CodeBadPayload},
		"a gap that is none":         {record.Record{Device: "press-1", Stream: record.GapStream}, mcp.CodeBadPayload},
	} {
		if err := say(t, own, "press-1", c.record); !mcp.IsCode(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	trusting := startServer(t, b.store, driver.ServerConfig{})
	if err := say(t, trusting, "gateway", record.Record{Device: "press-2", Stream: "s", Payload: []byte("x")}); err != nil {
		t.Errorf("a trusted peer may not speak for a device behind it: %v", err)
	}
}

func TestADeviceThatCannotSayHelloIsKnownByItsAddress(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{Remotes: map[string]string{"127.0.0.1": "press-7"}})
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nameless := record.Record{Stream: "s", Payload: []byte("x")}
	payload := mcp.AppendPublish(nil, "main", 0, nil, mcp.AppendRecord(nil, nameless.Append(nil)))
	frame, err := mcp.AppendFrame(nil, mcp.Version1, mcp.CommandPublish, payload)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as after a restart: the same number, a new record
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	for i, x := range b.read(t, 2) {
		if x.key.Device != "press-7" || x.Device != "press-7" || x.seq != uint64(i+1) {
			t.Errorf("%+v", x)
		}
	}
}

func TestStoppingTheServerTellsItsPeers(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	s := startServer(t, b.store, driver.ServerConfig{})
	conn, err := tcp.NewDialer(s.address, nil).Dial(t.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	session := mcp.NewSession(conn, mcp.Config{Name: "press-1", Epoch: 1}, mcp.NoHandler{})
	ended := make(chan error, 1)
	go func() { ended <- session.Run(context.Background()) }()
	<-session.Opened()
	s.stop()
	if err := <-ended; !mcp.IsCode(err, mcp.CodeGoingAway) {
		t.Errorf("the peer learns %v", err)
	}
	if peers := s.Peers(); len(peers) != 1 || peers[0].State != mcp.Closed {
		t.Errorf("%+v", peers)
	}
}

func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	for _, cfg := range []driver.ServerConfig{
		{ListenConfig: limits(), Agent: "a/b", Epoch: 1},
		{ListenConfig: limits(), Agent: "gw-01"},
		{ListenConfig: limits(), Agent: "gw-01", Epoch: 1, Remotes: map[string]string{"pump.local": "pump-1"}},
		{Agent: "gw-01", Epoch: 1},
	} {
		if _, err := driver.NewServer(cfg, nil, now, discard()); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
	if _, err := driver.NewLink(nil, driver.LinkConfig{}, nil, nil, now, discard()); err == nil {
		t.Error("a link without a name for us is taken")
	}
}

// BenchmarkServer64 is the agent's share from the socket to the disk, with the
// load generator in the same process: 64 connections, window 1024, 256 bytes.
func BenchmarkServer64(b *testing.B) {
	const devices = 64
	q := openStore(b, b.TempDir(), store.Config{MaxSize: 8 << 30})
	s := startServer(b, q.store, driver.ServerConfig{})
	var running sync.WaitGroup
	for i := range devices {
		d, err := mcpdevice.New(mcpdevice.Config{
			Publisher: mcp.PublisherConfig{
				Session: mcp.Config{Name: fmt.Sprintf("press-%d", i)}, Dialer: tcp.NewDialer(s.address, nil),
			},
			Payload: 256, Count: uint64(b.N/devices + 1),
		})
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			if err := d.Run(b.Context()); err != nil && !errors.Is(err, context.Canceled) {
				b.Error(err)
			}
		})
	}
	running.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
