package mcp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func datagram(cookie uint64, frames ...[]byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, cookie), bytes.Join(frames, nil)...)
}

func cookieOf(datagram []byte) uint64 { return binary.BigEndian.Uint64(datagram) }

func helloFrame(t testing.TB, epoch uint64) []byte {
	h := mcp.Hello{Sender: "press-7", Epoch: record.Epoch(epoch), Channels: []string{"main"}, WindowRecords: 100, WindowBytes: 1 << 16}
	return mustFrame(t, 2, mcp.CommandHello, h.Append(nil))
}

// stranger is the bare end of a link of datagrams, with a server at the other.
type stranger struct {
	t       *testing.T
	conn    transport.Conn
	session *mcp.Session
	cookie  uint64
}

// newStranger says HELLO with a cookie of its choice, as if a gate had given it.
func newStranger(t *testing.T, cfg mcp.Config, h mcp.Handler) *stranger {
	a, b := transporttest.Datagrams(transporttest.Weather{})
	cfg.Role, cfg.Name, cfg.Epoch = mcp.Server, "gw-01", 9
	s := &stranger{t: t, conn: b, session: mcp.NewSession(a, cfg, h), cookie: 77}
	ctx, stop := context.WithCancel(context.Background())
	go s.session.Run(ctx)
	t.Cleanup(func() {
		stop()
		<-s.session.Done()
	})
	s.say(datagram(77, helloFrame(t, 1)))
	s.expect(77, mcp.CommandWelcome)
	return s
}

func (s *stranger) say(datagram []byte) {
	s.t.Helper()
	if err := s.conn.Write(datagram); err != nil {
		s.t.Fatal(err)
	}
}

// expect wants a datagram with this cookie that holds these frames.
func (s *stranger) expect(cookie uint64, commands ...mcp.Command) []mcp.Frame {
	s.t.Helper()
	b := s.next()
	frames := framesOf(s.t, b[8:])
	got := make([]mcp.Command, len(frames))
	for i, f := range frames {
		got[i] = f.Command
	}
	if cookieOf(b) != cookie || !slices.Equal(got, commands) {
		s.t.Fatalf("got %v with the cookie %x instead of %v with %x", got, cookieOf(b), commands, cookie)
	}
	return frames
}

func (s *stranger) next() []byte {
	s.t.Helper()
	synctest.Wait()
	_ = s.conn.SetReadDeadline(time.Now().Add(time.Minute))
	b, err := s.conn.Read()
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// silence wants no answer to what was said.
func (s *stranger) silence() {
	s.t.Helper()
	synctest.Wait()
	_ = s.conn.SetReadDeadline(time.Now())
	if b, err := s.conn.Read(); err == nil {
		s.t.Fatalf("answered with % X", b)
	}
}

func framesOf(t testing.TB, b []byte) (frames []mcp.Frame) {
	t.Helper()
	framer := mcp.NewStreamFramer(0, 0)
	for len(b) > 0 {
		n, msg, err := framer.Split(b, false)
		if err != nil || msg == nil {
			t.Fatalf("% X: %v", b, err)
		}
		f, err := mcp.ParseFrame(msg)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
		b = b[n:]
	}
	return frames
}

func TestFramesThatWaitShareADatagramAndNoneIsTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := transporttest.Datagrams(transporttest.Weather{MaxMessage: 500})
		up := outbox(t, mcp.OutboxConfig{BatchBytes: 1}) // a record a frame
		publishAll(t, up, 1, 60)
		s := mcp.NewSession(near, mcp.Config{Name: "press-7", Epoch: 1, Outboxes: []*mcp.Outbox{up}}, mcp.NoHandler{})
		ctx, stop := context.WithCancel(context.Background())
		go s.Run(ctx)
		defer func() { stop(); <-s.Done() }()
		if _, err := far.Read(); err != nil {
			t.Fatal(err)
		}
		w := mcp.Welcome{Hello: mcp.Hello{Sender: "gw-01", Epoch: 2, MaxPayload: 1 << 20, WindowRecords: 60, WindowBytes: 1 << 20}}
		if err := far.Write(datagram(0, mustFrame(t, 2, mcp.CommandWelcome, w.Append(nil)))); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 60; {
			b, err := far.Read()
			if err != nil {
				t.Fatal(err)
			}
			frames := framesOf(t, b[8:])
			if len(frames) < 2 && n+len(frames) < 60 {
				t.Errorf("%d frames in %d bytes", len(frames), len(b))
			}
			n += len(frames)
		}
	})
}

func TestDatagramsOfOthersAndDamagedOnesAreDroppedAndCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, counters := newReceiver(), new(mcp.Counters)
		s := newStranger(t, mcp.Config{Counters: counters}, h)
		good := mustFrame(t, 2, mcp.CommandPublish, publishing(0, 1))
		beat := mustFrame(t, 2, mcp.CommandHeartbeat, nil)
		flipped := bytes.Clone(good)
		flipped[12] ^= 1
		for _, b := range [][]byte{
			{},
			{1, 2, 3},
			datagram(77), datagram(78, good), datagram(0, good),
			datagram(77, good[:len(good)-1]), datagram(77, flipped), datagram(77, []byte("GET / HTTP/1.1")),
			datagram(77, mustVersion(good, 9)),
		} {
			s.say(b)
			s.silence()
		}
		if foreign, bad := counters.Foreign.Load(), counters.BadFrames.Load(); foreign != 2 || bad != 7 {
			t.Errorf("%d foreign, %d bad", foreign, bad)
		}
		s.say(datagram(77, beat, good, []byte("rest")))
		s.expect(77, mcp.CommandAck, mcp.CommandHeartbeatAck)
		if !same(h.payloads(), upTo(1)) {
			t.Errorf("got %v", h.payloads())
		}
	})
}

func mustVersion(frame []byte, version byte) []byte {
	frame = bytes.Clone(frame)
	frame[2] = version
	return frame
}

func TestAHelloInAnothersNameChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		near, far := transporttest.Datagrams(transporttest.Weather{})
		sh := newReceiver()
		client := mcp.NewSession(near, mcp.Config{Name: "press-7", Epoch: 1, Outboxes: []*mcp.Outbox{up}}, mcp.NoHandler{})
		spoofed := &spoofing{Conn: &gated{Conn: far, gate: mcp.NewGate()}, extra: make(chan []byte, 1)}
		server := mcp.NewSession(spoofed, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 2}, sh)
		p := &pair{client: client, server: server}
		ctx, stop := context.WithCancel(context.Background())
		p.stopClient, p.stopServer = stop, stop
		go client.Run(ctx)
		go server.Run(ctx)
		defer p.stop()
		publishAll(t, up, 1, 5)
		p.flush(t, up)
		spoofed.extra <- datagram(0, helloFrame(t, 666))
		publishAll(t, up, 6, 10)
		p.flush(t, up)
		if !same(sh.payloads(), upTo(10)) || len(sh.opened) != 1 {
			t.Errorf("got %v from %d peers", sh.payloads(), len(sh.opened))
		}
	})
}

func TestAForgedChallengeDoesNotEndALiveSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{})
		near, far := transporttest.Datagrams(transporttest.Weather{Delay: 100 * time.Millisecond})
		sh, counters := newReceiver(), new(mcp.Counters)
		spoofed := &spoofing{Conn: near, extra: make(chan []byte, 1)}
		p := &pair{
			client: mcp.NewSession(spoofed, mcp.Config{Name: "press-7", Epoch: 1, Outboxes: []*mcp.Outbox{up}, Counters: counters}, mcp.NoHandler{}),
			server: mcp.NewSession(&gated{Conn: far, gate: mcp.NewGate()}, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 2}, sh),
		}
		ctx, stop := context.WithCancel(context.Background())
		p.stopClient, p.stopServer = stop, stop
		go p.client.Run(ctx)
		go p.server.Run(ctx)
		defer p.stop()
		for i := range 50 {
			publishAll(t, up, i+1, i+1)
			spoofed.extra <- challenge(uint64(666 + i))
			p.flush(t, up)
		}
		<-time.After(10 * time.Second) // silent, and nothing of ours is unacknowledged
		spoofed.extra <- challenge(6666)
		publishAll(t, up, 51, 51)
		p.flush(t, up)
		if state, err := p.client.State(); state != mcp.Open || !same(sh.payloads(), upTo(51)) || counters.Foreign.Load() < 50 {
			t.Errorf("%v, %v; got %v; %d are counted", state, err, sh.payloads(), counters.Foreign.Load())
		}
	})
}

func TestAServerThatHasRestartedIsNoticedByItsChallenge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := transporttest.Datagrams(transporttest.Weather{})
		up := outbox(t, mcp.OutboxConfig{})
		s := mcp.NewSession(near, mcp.Config{Name: "press-7", Epoch: 1, Outboxes: []*mcp.Outbox{up}}, mcp.NoHandler{})
		ended := make(chan error, 1)
		go func() { ended <- s.Run(context.Background()) }()
		if _, err := far.Read(); err != nil {
			t.Fatal(err)
		}
		w := mcp.Welcome{Hello: mcp.Hello{Sender: "gw-01", Epoch: 2, WindowRecords: 60, WindowBytes: 1 << 20}}
		if err := far.Write(datagram(0, mustFrame(t, 2, mcp.CommandWelcome, w.Append(nil)))); err != nil {
			t.Fatal(err)
		}
		<-s.Opened()
		publishAll(t, up, 1, 1)
		defer far.Close()
		restarted, start := mcp.NewGate(), time.Now()
		go func() {
			for {
				b, err := far.Read()
				if err != nil {
					return
				}
				reply, _ := restarted.Check(home, b)
				_ = far.Write(reply)
			}
		}()
		err := <-ended
		if took := time.Since(start); !errors.Is(err, transport.ErrLost) || !strings.Contains(err.Error(), "restarted") || took < time.Second || took > 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// spoofing is a Conn on which somebody else's datagrams come, too.
type spoofing struct {
	transport.Conn
	extra chan []byte
}

func (s *spoofing) Read() ([]byte, error) {
	select {
	case b := <-s.extra:
		return b, nil
	default:
		return s.Conn.Read()
	}
}

func TestAChallengeIsFollowedAtOnceAndNotForEver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := transporttest.Datagrams(transporttest.Weather{})
		s := mcp.NewSession(near, mcp.Config{Name: "press-7", Epoch: 1}, mcp.NoHandler{})
		ctx, stop := context.WithCancel(context.Background())
		go s.Run(ctx)
		defer func() { stop(); <-s.Done() }()
		hellos := 0
		_ = far.SetReadDeadline(time.Now().Add(900 * time.Millisecond)) // it is repeated each second anyway
		for cookie := uint64(1); ; cookie++ {
			b, err := far.Read()
			if err != nil {
				break
			}
			if cookieOf(b) != cookie-1 {
				t.Errorf("HELLO %d has the cookie %d", cookie, cookieOf(b))
			}
			hellos++
			if err := far.Write(challenge(cookie)); err != nil {
				t.Fatal(err)
			}
		}
		if hellos < 2 || hellos > 5 {
			t.Errorf("%d HELLOs", hellos)
		}
	})
}

func challenge(cookie uint64) []byte {
	b, _ := mcp.AppendError(datagram(cookie), 2, &mcp.Error{Code: mcp.CodeHelloExpected})
	return b
}

func TestARecordThatNoDatagramCarriesIsRefusedWhereItIsPublished(t *testing.T) {
	for _, size := range []int{200, 512, 1200, 1472} {
		for _, bestEffort := range []bool{false, true} {
			bubble(t, func(t *testing.T) {
				largest := mcp.MaxDatagramRecord(size, "main")
				up := outbox(t, mcp.OutboxConfig{MaxRecord: largest, BestEffort: bestEffort})
				err := up.PublishRaw(t.Context(), make([]byte, largest+1))
				if !errors.Is(err, mcp.ErrRecordTooLarge) || !strings.Contains(err.Error(), "bytes") {
					t.Errorf("got %v", err)
				}
				r := rec(1)
				empty := len(r.Append(nil)) - 1
				r.Payload = make([]byte, largest-empty-2)
				if raw := r.Append(nil); len(raw) > largest || len(raw) < largest-3 {
					t.Fatalf("%d bytes of %d", len(raw), largest)
				}
				h := newReceiver()
				p := overDatagrams(transporttest.Weather{MaxMessage: size}, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{}, mcp.NoHandler{}, h)
				defer p.stop()
				if err := up.Publish(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				p.flush(t, up)
				synctest.Wait()
				if len(h.payloads()) != 1 {
					t.Errorf("%d of 1 came over datagrams of %d", len(h.payloads()), size)
				}
			})
		}
	}
}

func TestTheGateLetsInOnlyWhoComesBackWithItsCookie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := mcp.NewGate()
		hello := helloFrame(t, 1)
		reply, admit := g.Check(home, datagram(0, hello))
		if admit || len(reply) > 8+len(hello) || cookieOf(reply) == 0 {
			t.Fatalf("%x, %v", reply, admit)
		}
		cookie := cookieOf(reply)
		if !bytes.Equal(reply, challenge(cookie)) {
			t.Errorf("challenged with %x", reply)
		}
		other := netip.MustParseAddrPort("192.0.2.7:4712")
		for name, c := range map[string]struct {
			from     netip.AddrPort
			datagram []byte
			admit    bool
			answered bool
		}{
			"the cookie":              {home, datagram(cookie, hello), true, false},
			"the same in IPv6":        {netip.MustParseAddrPort("[::ffff:192.0.2.7]:4711"), datagram(cookie, hello), true, false},
			"another port":            {other, datagram(cookie, hello), false, true},
			"another cookie":          {home, datagram(cookie+1, hello), false, true},
			"something else":          {home, datagram(cookie, mustFrame(t, 2, mcp.CommandPublish, publishing(0, 1))), false, true},
			"more than a HELLO":       {home, datagram(cookie, hello, hello), false, true},
			"what is too short":       {home, datagram(cookie, mustFrame(t, 2, mcp.CommandHeartbeat, nil)), false, false},
			"a challenge":             {home, challenge(cookie), false, false},
			"a farewell":              {home, datagram(cookie, mustFrame(t, 2, mcp.CommandClose, make([]byte, 99))), false, false},
			"noise":                   {home, datagram(cookie, make([]byte, 99)), false, false},
			"a HELLO that is damaged": {home, datagram(cookie, hello[:len(hello)-1]), false, false},
			"a HELLO of nobody":       {home, datagram(cookie, mustFrame(t, 2, mcp.CommandHello, nil)), false, false},
			"nothing":                 {home, nil, false, false},
			"half a cookie":           {home, []byte{0, 0, 0}, false, false},
		} {
			reply, admit := g.Check(c.from, c.datagram)
			if admit != c.admit || (reply != nil) != c.answered {
				t.Errorf("%s: %x, %v", name, reply, admit)
			}
		}
		if got := g.Stats(); got != (mcp.GateStats{Challenges: 5, Refusals: 8}) {
			t.Errorf("%+v", got)
		}
		if _, admit := mcp.NewGate().Check(home, datagram(cookie, hello)); admit {
			t.Error("another gate takes the cookie")
		}
	})
}

func TestACookieLivesForOneMinuteAndNotForThree(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := mcp.NewGate()
		hello := helloFrame(t, 1)
		for _, c := range []struct {
			first, then time.Duration
			admit       bool
		}{
			{0, 59 * time.Second, true},
			{50 * time.Second, 59 * time.Second, true},
			{0, 3 * time.Minute, false},
			{0, time.Hour, false},
		} {
			<-time.After(c.first)
			reply, _ := g.Check(home, datagram(0, hello))
			<-time.After(c.then)
			if _, admit := g.Check(home, datagram(cookieOf(reply), hello)); admit != c.admit {
				t.Errorf("after %v: %v", c.then, admit)
			}
		}
	})
}

func TestBestEffortRecordsAreSentOnceAndCountedWhenLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := anyWeather(rt)
		w.Corrupt, w.Cut = 0, nil
		n := rapid.IntRange(1, 300).Draw(rt, "records")
		bubble(t, func(t *testing.T) {
			up := outbox(t, mcp.OutboxConfig{Channel: "fast", BestEffort: true, BatchBytes: 1})
			h, counters := newReceiver(), new(mcp.Counters)
			p := overDatagrams(w, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{Counters: counters}, mcp.NoHandler{}, h)
			defer p.stop()
			for i := range n {
				publishAll(t, up, i+1, i+1)
				if i%10 == 0 {
					p.flush(t, up)
				}
			}
			p.flush(t, up)
			<-time.After(time.Second)
			if got := up.Stats(); got.Sent != uint64(n) || got.Acknowledged != 0 || got.Resent != 0 {
				t.Errorf("%+v", got)
			}
			taken, lost := counters.Records.Load(), counters.Lost.Load()
			if int(taken) != len(h.payloads()) || h.safe["fast"] != taken+lost || h.safe["fast"] > uint64(n) {
				t.Errorf("%d taken and %d lost of %d", taken, lost, h.safe["fast"])
			}
			if w.Loss == 0 && w.Jitter == 0 && int(taken) != n {
				t.Errorf("of %d records %d came in fine weather", n, taken)
			}
		})
	})
}

func TestAFullBestEffortOutboxLetsTheOldestGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		up := outbox(t, mcp.OutboxConfig{BestEffort: true, MaxRecords: 10})
		publishAll(t, up, 1, 25)
		h, counters := newReceiver(), new(mcp.Counters)
		h.manual = true // and nobody waits for the commit
		p := connect(false, mcp.Config{Outboxes: []*mcp.Outbox{up}}, mcp.Config{Counters: counters}, mcp.NoHandler{}, h)
		defer p.stop()
		if err := up.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := up.Stats(); got.Dropped != 15 || got.Sent != 10 {
			t.Errorf("%+v", got)
		}
		if !same(h.payloads(), upTo(25)[15:]) || counters.Lost.Load() != 15 {
			t.Errorf("got %v, %d lost", h.payloads(), counters.Lost.Load())
		}
	})
}

func FuzzGate(f *testing.F) {
	f.Add(datagram(0, helloFrame(f, 1)))
	f.Add(datagram(1, mustFrame(f, 1, mcp.CommandHeartbeat, nil)))
	f.Add([]byte{})
	g := mcp.NewGate()
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, admit := g.Check(home, b)
		if admit || len(reply) > len(b) || reply != nil && cookieOf(reply) == 0 {
			t.Errorf("%x is answered with %x, %v", b, reply, admit)
		}
	})
}

// FuzzDatagrams has a session read whatever datagrams come from its peer's
// address, one behind the other, each behind its length.
func FuzzDatagrams(f *testing.F) {
	say := func(datagrams ...[]byte) (b []byte) {
		for _, d := range datagrams {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(d))), d...)
		}
		return b
	}
	hello := datagram(7, helloFrame(f, 1))
	publish := func(previous uint64, n ...int) []byte {
		return mustFrame(f, 2, mcp.CommandPublish, publishing(previous, n...))
	}
	f.Add(say(hello, datagram(7, publish(0, 1), publish(1, 2))))
	f.Add(say(hello, datagram(7, publish(3, 4)), datagram(7, publish(0, 1, 2)), datagram(7, publish(2, 3))))
	f.Add(say(hello, datagram(0, helloFrame(f, 2)), datagram(7, publish(9, 10))))
	f.Add(say(hello, datagram(7, mustFrame(f, 2, mcp.CommandPublish, mcp.AppendBestEffort(nil, "main", 7, mcp.AppendRecord(nil, rawRecord(8)))))))
	f.Fuzz(func(t *testing.T, b []byte) {
		bubble(t, func(t *testing.T) {
			near, far := transporttest.Datagrams(transporttest.Weather{})
			s := mcp.NewSession(near, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 9, WindowRecords: 50, WindowBytes: 5000}, rising{t: t, last: new(uint64)})
			ctx, stop := context.WithCancel(context.Background())
			go s.Run(ctx)
			for len(b) >= 2 {
				n := min(int(binary.BigEndian.Uint16(b)), len(b)-2, 1200)
				_ = far.Write(b[2 : 2+n])
				b = b[2+n:]
			}
			<-time.After(10 * time.Second)
			if frames, records, size := s.Early(); frames > 50 || records > 50 || size > 5000 {
				t.Errorf("%d frames with %d records and %d bytes wait for their turn", frames, records, size)
			}
			stop()
			<-s.Done()
		})
	})
}

// rising wants the numbers of a channel to rise, whoever sends them.
type rising struct {
	mcp.NoHandler
	t    *testing.T
	last *uint64
}

func (r rising) Open(context.Context, mcp.Peer) error { *r.last = 0; return nil }

func (r rising) Channel(name string) (uint64, error) { return 0, nil }

func (r rising) Publish(_ context.Context, p *mcp.Publish) (mcp.Commit, error) {
	if string(p.Channel) != "main" {
		return nil, nil
	}
	for n := range p.Records() {
		if n <= *r.last {
			r.t.Errorf("number %d follows %d", n, *r.last)
		}
		*r.last = n
	}
	return nil, nil
}
