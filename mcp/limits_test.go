package mcp_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// pipeRaw is a peer made by hand at the other end of a memory line, on which
// some bytes find room although nobody reads them.
func pipeRaw(t *testing.T, cfg mcp.Config, h mcp.Handler, frameTimeout time.Duration) (*mcp.Session, transport.Conn) {
	t.Helper()
	near, far := transporttest.Pipe(mcp.NewStreamFramer(0, frameTimeout), mcp.NewStreamFramer(0, 0))
	cfg.Name, cfg.Epoch = "gw-01", 9
	s := mcp.NewSession(near, cfg, h)
	go s.Run(context.Background())
	t.Cleanup(func() {
		far.Close()
		<-s.Done()
	})
	var greeting []byte
	if cfg.Role == mcp.Server {
		hello := mcp.Hello{Sender: "press-7", Epoch: 1, WindowRecords: 1024, WindowBytes: 1 << 20, MaxPayload: 1 << 20}
		greeting = mustFrame(t, 2, mcp.CommandHello, hello.Append(nil))
	} else {
		welcome := mcp.Welcome{Hello: mcp.Hello{Sender: "press-7", Epoch: 1}}
		greeting = mustFrame(t, 2, mcp.CommandWelcome, welcome.Append(nil))
	}
	if err := far.Write(greeting); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(); err != nil { // WELCOME, or HELLO
		t.Fatal(err)
	}
	<-s.Opened()
	return s, far
}

func request(t *testing.T, id uint64, method string, payload []byte) []byte {
	q := mcp.Request{ID: id, Method: method, Payload: payload}
	return mustFrame(t, 2, mcp.CommandRequest, q.Append(nil))
}

func TestMoreRequestsAtOnceThanAllowedAreBusy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		counters := new(mcp.Counters)
		r := newRaw(t, mcp.Config{MaxRequests: 2, Counters: counters}, newReceiver())
		for id := range uint64(3) {
			q := mcp.Request{ID: id + 1, Method: "wait"}
			r.say(mcp.CommandRequest, q.Append(nil))
		}
		var a mcp.Response
		if err := a.Unmarshal(r.expect(mcp.CommandResponse).Payload); err != nil || a.ID != 3 || a.Code != mcp.CodeBusy || a.Reason == "" {
			t.Errorf("got %+v, %v", a, err)
		}
		if n := counters.RequestsRefused.Load(); n != 1 {
			t.Errorf("%d counted", n)
		}
	})
}

func TestASlowHandlerStopsNeitherReadingNorOtherRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRaw(t, mcp.Config{}, newReceiver())
		slow, quick := mcp.Request{ID: 1, Method: "wait"}, mcp.Request{ID: 2, Method: "echo"}
		r.say(mcp.CommandRequest, slow.Append(nil))
		r.say(mcp.CommandPublish, publishing(0, 1))
		r.expectAck(mcp.Position{Channel: "main", Number: 1})
		r.say(mcp.CommandRequest, quick.Append(nil))
		r.expect(mcp.CommandResponse)
	})
}

func TestAPeerThatDoesNotReadItsAnswersIsDisconnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		counters := new(mcp.Counters)
		s, far := pipeRaw(t, mcp.Config{Role: mcp.Server, MaxBuffered: 100 << 10, Counters: counters}, newReceiver(), 0)
		var err error
		for id := uint64(1); err == nil && id < 1000; id++ {
			err = far.Write(request(t, id, "echo", make([]byte, 4000)))
			synctest.Wait()
			select {
			case <-s.Done():
				err = transport.ErrLost
			default:
			}
		}
		<-s.Done()
		if _, reason := s.State(); !mcp.IsCode(reason, mcp.CodeBusy) || counters.BufferExceeded.Load() != 1 {
			t.Errorf("it ended with %v, %d counted", reason, counters.BufferExceeded.Load())
		}
	})
}

func TestARequestEndsWithItsContextThoughThePeerReadsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		counters := new(mcp.Counters)
		s, _ := pipeRaw(t, mcp.Config{MaxBuffered: 200 << 10, Counters: counters}, newReceiver(), 0)
		busy := 0
		for range 1000 {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err := s.Request(ctx, mcp.Request{Method: "read", Payload: make([]byte, 1000)})
			cancel()
			switch {
			case mcp.IsCode(err, mcp.CodeBusy):
				busy++
			case !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 50*time.Millisecond:
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
		}
		if state, _ := s.State(); state != mcp.Open || busy == 0 || counters.BufferExceeded.Load() != uint64(busy) {
			t.Errorf("%v, %d requests found no room, %d counted", state, busy, counters.BufferExceeded.Load())
		}
	})
}

func TestAFrameThatTricklesInWithoutAPauseIsRefusedAtTwiceItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := mcp.NewStreamFramer(0, 10*time.Second)
		frame, err := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandPublish, make([]byte, 100_000))
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for n := 1; err == nil && n < len(frame); n++ {
			<-time.After(time.Millisecond)
			_, _, err = f.Split(frame[:n], false)
		}
		if took := time.Since(begun); !errors.Is(err, mcp.ErrFrameTimeout) || took < 20*time.Second || took > 21*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestAFrameThatArrivedWhileNobodyReadIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := mcp.NewStreamFramer(0, 10*time.Second)
		frame, err := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandPublish, make([]byte, 1000))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{10, 500, len(frame)} { // the queue is full for an hour between two reads
			_, msg, err := f.Split(frame[:n], false)
			if err != nil || (msg != nil) != (n == len(frame)) {
				t.Errorf("%d bytes: %d, %v", n, len(msg), err)
			}
			<-time.After(time.Hour)
		}
	})
}

func TestAStrangersFirstFrameIsNoLargerThanAHello(t *testing.T) {
	f := mcp.NewStreamFramer(1<<20, 0).ExpectHello()
	large, _ := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandPublish, make([]byte, 200_000))
	if _, _, err := f.Split(large[:8], false); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("a header that announces 200,000 bytes: %v", err)
	}
	f = mcp.NewStreamFramer(1<<20, 0).ExpectHello()
	hello, _ := mcp.AppendFrame(nil, mcp.Version2, mcp.CommandHello, make([]byte, 100_000))
	for _, frame := range [][]byte{hello, large} {
		if _, msg, err := f.Split(frame, false); err != nil || len(msg) != len(frame) {
			t.Errorf("%d bytes: %v", len(frame), err)
		}
	}
}

func TestAFrameThatTricklesInIsRefusedInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		counters := new(mcp.Counters)
		s, far := pipeRaw(t, mcp.Config{Role: mcp.Server, Counters: counters}, newReceiver(), 10*time.Second)
		begun := time.Now()
		for _, b := range request(t, 1, "echo", nil) {
			if err := far.Write([]byte{b}); err != nil {
				break
			}
			<-time.After(3 * time.Second)
		}
		f, err := mcp.ParseFrame(must(far.Read()))
		if err != nil || f.Command != mcp.CommandError {
			t.Fatalf("got %v, %v", f.Command, err)
		}
		far.Close()
		<-s.Done()
		if _, reason := s.State(); !errors.Is(reason, mcp.ErrFrameTimeout) || counters.FrameTimeouts.Load() != 1 {
			t.Errorf("after %v it ended with %v, %d counted", time.Since(begun), reason, counters.FrameTimeouts.Load())
		}
	})
}

func TestAFrameThatStopsHalfwayIsRefusedInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, far := pipeRaw(t, mcp.Config{Role: mcp.Server}, newReceiver(), 10*time.Second)
		begun := time.Now()
		if err := far.Write(request(t, 1, "echo", nil)[:5]); err != nil {
			t.Fatal(err)
		}
		if f, err := mcp.ParseFrame(must(far.Read())); err != nil || f.Command != mcp.CommandError {
			t.Fatalf("got %v, %v", f.Command, err)
		}
		if d := time.Since(begun); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("after %v", d)
		}
		far.Close()
		<-s.Done()
	})
}

func TestAFrameThatArrivedWhileTheStoreWasFullIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newReceiver()
		h.block = make(chan struct{})
		s, far := pipeRaw(t, mcp.Config{Role: mcp.Server}, h, 10*time.Second)
		first, second := mustFrame(t, 2, mcp.CommandPublish, publishing(0, 1)), mustFrame(t, 2, mcp.CommandPublish, publishing(1, 2))
		if err := far.Write(append(first, second[:20]...)); err != nil {
			t.Fatal(err)
		}
		<-time.After(25 * time.Second) // less than a heartbeat
		if err := far.Write(second[20:]); err != nil {
			t.Fatal(err)
		}
		close(h.block)
		synctest.Wait()
		if state, err := s.State(); state != mcp.Open || !same(h.payloads(), upTo(2)) {
			t.Errorf("%v, %v, got %v", state, err, h.payloads())
		}
	})
}

func must(msg []byte, err error) []byte {
	if err != nil {
		return []byte(err.Error())
	}
	return msg
}

func TestTheEndOfASessionAtALimitIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		counters := new(mcp.Counters)
		newSilent(t, false, mcp.Config{Counters: counters}, newReceiver()).expectEnd(mcp.CodeHelloTimeout)
		newRaw(t, mcp.Config{Counters: counters, WindowRecords: 1}, newReceiver()).overrun()
		idle := newRaw(t, mcp.Config{Counters: counters}, newReceiver())
		for {
			if _, err := idle.conn.Read(); err != nil {
				break
			}
		}
		<-idle.session.Done()
		if h, w, b := counters.HelloTimeouts.Load(), counters.WindowExceeded.Load(), counters.HeartbeatsMissed.Load(); h != 1 || w != 1 || b != 1 {
			t.Errorf("%d hello time-outs, %d windows exceeded, %d heartbeats missed", h, w, b)
		}
	})
}

// overrun sends more than the window of one allows.
func (r *raw) overrun() {
	r.say(mcp.CommandPublish, publishing(0, 1, 2))
	r.expectEnd(mcp.CodeWindowExceeded)
}

// vouched is a Conn that knows only after its first Read who the peer is.
type vouched struct {
	*conn
	read bool
}

func (v *vouched) Read() ([]byte, error) {
	v.read = true
	return v.conn.Read()
}

func (v *vouched) Info() transport.Info {
	info := v.conn.Info()
	if v.read {
		info.Names, info.Confirmed = []string{"press-7.plant"}, make(chan struct{})
	}
	return info
}

func TestThePeerHasTheNamesThatItsCertificateProves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := link(false)
		h := newReceiver()
		s := mcp.NewSession(&vouched{conn: a}, mcp.Config{Role: mcp.Server, Name: "gw-01", Epoch: 9}, h)
		go s.Run(t.Context())
		hello := mcp.Hello{Sender: "press-7", Epoch: 1, Token: "secret"}
		if err := b.Write(mustFrame(t, 2, mcp.CommandHello, hello.Append(nil))); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(); err != nil {
			t.Fatal(err)
		}
		if p := h.opened[0]; len(p.Names) != 1 || p.Names[0] != "press-7.plant" || p.Confirmed == nil || p.Token != "secret" {
			t.Errorf("the handler sees %+v", p)
		}
		if p := s.Peer(); len(p.Names) != 1 || p.Token != "" {
			t.Errorf("the session keeps %+v", p)
		}
		b.Close()
		<-s.Done()
	})
}
