package mcp_test

import (
	"context"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// The steps of a script are bytes: what the peer says, what time does and what
// our side does. A step's upper half says how, where there is more than one way.
const (
	stepHello = iota
	stepWelcome
	stepPublish
	stepAck
	stepRequest
	stepResponse
	stepHeartbeat
	stepClose
	stepBad
	stepBytes
	stepWait
	stepWePublish
	stepWeRequest
	stepWeClose
	stepCommit
	stepHangUp
	steps
)

const maxBuffered = 64 << 10

// FuzzSessionStates plays a script of frames, good and bad, in any order, to a
// session of either role. It must never panic or hang, what it says must be in
// order, and it must end with its peer.
func FuzzSessionStates(f *testing.F) {
	f.Add(byte(0), []byte{stepHello, stepPublish, stepPublish | 16, stepCommit, stepHeartbeat, stepRequest, stepClose})
	f.Add(byte(1), []byte{stepWelcome, stepWePublish, stepAck, stepAck | 16, stepWeRequest, stepResponse, stepWait, stepWeClose})
	f.Add(byte(0), []byte{stepPublish, stepHello})
	f.Add(byte(2), []byte{stepPublish, stepHello, stepHello | 16, stepPublish})
	f.Add(byte(3), []byte{stepPublish, stepWait | 32, stepPublish, stepWelcome, stepWePublish, stepAck})
	f.Add(byte(0), []byte{stepHello, stepBytes | 32, stepWait, stepWait, stepWait})
	f.Add(byte(0), []byte{stepHello, stepRequest | 32, stepRequest | 32, stepWait | 48, stepWait | 48, stepWait | 48, stepWait | 48})
	f.Add(byte(1), []byte{stepWelcome | 16, stepBad, stepBad | 16, stepHangUp, stepWePublish})
	f.Add(byte(4), []byte{stepHello, stepPublish, stepPublish, stepPublish, stepCommit | 16, stepCommit})
	f.Fuzz(func(t *testing.T, kind byte, script []byte) {
		if len(script) > 200 {
			return
		}
		bubble(t, func(t *testing.T) { play(t, kind, script) })
	})
}

// player is the peer, and the test's hand on our side.
type player struct {
	t        *testing.T
	far      transport.Conn
	session  *mcp.Session
	outbox   *mcp.Outbox
	handler  *receiver
	id       uint64 // of requests and records
	commits  int    // ended
	asking   context.Context
	lastSeen mcp.State
}

func play(t *testing.T, kind byte, script []byte) {
	near, far := transporttest.Pipe(mcp.NewStreamFramer(0, 0), mcp.NewStreamFramer(0, 0))
	h := newReceiver()
	h.manual = kind&4 != 0
	p := &player{t: t, far: far, handler: h, outbox: outbox(t, mcp.OutboxConfig{MaxRecords: 64})}
	cfg := mcp.Config{
		Role: mcp.Role(1 - kind&1), Name: "gw-01", Epoch: 9, WindowRecords: 4, MaxBuffered: maxBuffered,
		Outboxes: []*mcp.Outbox{p.outbox}, Answers: mcp.NewAnswers(),
	}
	if kind&2 != 0 {
		cfg.Anonymous = "press-7"
	}
	p.session = mcp.NewSession(near, cfg, h)
	running, stop := context.WithCancel(context.Background())
	asking, forget := context.WithCancel(context.Background())
	p.asking = asking
	go p.session.Run(running)
	go p.listen(cfg.Role)
	for _, step := range script {
		p.play(step)
		synctest.Wait()
		p.look()
	}
	forget()
	if kind&8 != 0 {
		stop()
	}
	far.Close()
	select {
	case <-p.session.Done():
	case <-time.After(time.Minute):
		state, err := p.session.State()
		t.Errorf("a minute after its peer has gone the session is %v: %v", state, err)
	}
	stop()
	<-p.session.Done()
	p.look()
}

// look wants states to go forward only, and memory to be bounded.
func (p *player) look() {
	state, _ := p.session.State()
	if state < p.lastSeen {
		p.t.Errorf("%v after %v", state, p.lastSeen)
	}
	p.lastSeen = state
	if n := runtime.NumGoroutine(); n > 500 {
		p.t.Errorf("%d goroutines", n)
	}
	if n := p.session.Buffered(); n > maxBuffered {
		p.t.Errorf("%d bytes wait to be written", n)
	}
}

// listen wants what the session says to be whole frames in an order that the
// protocol knows: the handshake first, the end last.
func (p *player) listen(role mcp.Role) {
	first, ended := true, false
	for {
		msg, err := p.far.Read()
		if err != nil {
			return
		}
		f, err := mcp.ParseFrame(msg)
		if err != nil {
			p.t.Errorf("the session says % x: %v", msg, err)
			return
		}
		ends := f.Command == mcp.CommandClose || f.Command == mcp.CommandError
		greets := role == mcp.Client && f.Command == mcp.CommandHello || role == mcp.Server && f.Command == mcp.CommandWelcome
		anonymous := p.session.Peer().Anonymous
		if first && !ends && !greets && !anonymous {
			p.t.Errorf("a session begins with %v", f.Command)
		}
		if ended {
			p.t.Errorf("%v after the end", f.Command)
		}
		first, ended = false, ended || ends
	}
}

func (p *player) say(c mcp.Command, payload []byte) { p.write(mustFrame(p.t, 2, c, payload)) }

// write gives up after a moment: a session that has ended reads nothing more.
func (p *player) write(b []byte) {
	_ = p.far.SetWriteDeadline(time.Now().Add(time.Millisecond))
	_ = p.far.Write(b)
}

func (p *player) play(step byte) {
	how := uint64(step >> 4)
	switch step % steps {
	case stepHello:
		hello := mcp.Hello{Sender: "press-7", Epoch: record.Epoch(1 + how&1), Channels: []string{"main"}, WindowRecords: 10, WindowBytes: 1 << 10}
		p.say(mcp.CommandHello, hello.Append(nil))
	case stepWelcome:
		welcome := mcp.Welcome{Hello: mcp.Hello{Sender: "press-7", Epoch: record.Epoch(1 + how&1), WindowRecords: int(how), WindowBytes: 1 << 10}}
		if how&2 != 0 {
			welcome.Channels, welcome.Positions = []string{"main"}, []mcp.Position{{Channel: "main", Number: how & 4}}
		}
		p.say(mcp.CommandWelcome, welcome.Append(nil))
	case stepPublish:
		p.id++
		p.say(mcp.CommandPublish, publishing(p.id-1+how&2-how&1, int(p.id)))
	case stepAck:
		position := mcp.Position{Channel: "main", Number: how >> 1}
		if how&1 != 0 {
			position.ResendFrom = how
		}
		p.say(mcp.CommandAck, mcp.AppendAck(nil, []mcp.Position{position}))
	case stepRequest:
		p.id++
		q := mcp.Request{ID: p.id, Method: [...]string{"echo", "nonsense", "wait", mcp.MethodTokenExpires}[how&3], Payload: make([]byte, 1<<(how&12))}
		p.say(mcp.CommandRequest, q.Append(nil))
	case stepResponse:
		a := mcp.Response{ID: max(p.id-how, 1), Code: mcp.Code(how & 1)}
		p.say(mcp.CommandResponse, a.Append(nil))
	case stepHeartbeat:
		p.say(mcp.CommandHeartbeat+mcp.Command(how&1), nil)
	case stepClose:
		p.say(mcp.CommandClose+mcp.Command(how&1), nil)
	case stepBad:
		bad := mustFrame(p.t, uint8(1+how&1), mcp.Command(how), []byte{0xFF})
		bad[len(bad)-1] ^= byte(how >> 2)
		p.write(bad)
	case stepBytes:
		p.write([]byte("MC\x02\x05\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00")[:how+1])
	case stepWait:
		<-time.After(time.Duration(math.Pow(4, float64(how&3))) * time.Second)
	default:
		p.playOurs(step%steps, how)
	}
}

// playOurs is what our side does.
func (p *player) playOurs(step byte, how uint64) {
	switch step {
	case stepWePublish:
		ctx, cancel := context.WithTimeout(p.asking, time.Second)
		defer cancel()
		_ = p.outbox.Publish(ctx, rec(int(how)))
	case stepWeRequest:
		p.id++
		q := mcp.Request{ID: p.id, Method: "read", Payload: make([]byte, how)}
		go func() {
			ctx, cancel := context.WithTimeout(p.asking, time.Minute)
			defer cancel()
			_, _ = p.session.Request(ctx, q)
		}()
	case stepWeClose:
		p.session.Close(&mcp.Error{Code: mcp.CodeReplaced})
	case stepCommit:
		p.handler.mu.Lock()
		defer p.handler.mu.Unlock()
		if p.handler.manual && p.commits < len(p.handler.commits) {
			if how&1 != 0 {
				p.handler.commits[p.commits].err = context.DeadlineExceeded
			}
			close(p.handler.commits[p.commits].done)
			p.commits++
		}
	case stepHangUp:
		_ = p.far.Close()
	}
}
