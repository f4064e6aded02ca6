package mcp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/mcp-edge/edge-agent/transport"
)

const (
	cookieSize = 8
	// datagramOverhead is what of a datagram is not payload, if it holds one frame.
	datagramOverhead = cookieSize + maxOverhead
	// maxChallenges is how often a client takes a new cookie: once for the first,
	// and for servers that restart just then. One that goes on challenging is
	// not followed; the HELLO that is repeated each second is enough.
	maxChallenges = 4
)

// errOrphaned ends the session of a client whose server has forgotten it.
var errOrphaned = transport.Lost(errors.New("the server knows nothing of this session: it has restarted"))

// datagrams is a Conn on which frames are messages, on top of one on which
// datagrams are. A datagram is the session's cookie and then whole frames. What
// is damaged, or has another cookie, is dropped and counted.
//
// A client learns the cookie from the server's challenge, and says HELLO again
// by itself. The server's Gate has proven the first datagram's; see challenge
// for a client that starts anew.
type datagrams struct {
	transport.Conn
	role     Role
	limit    int // of a datagram, bytes
	counters *Counters

	// orphaned says whether a challenge to the open session is believed.
	orphaned func() bool

	// The reader's.
	rest       []byte // frames of the last datagram
	begun      bool   // the server has seen the first datagram
	next       uint64 // the server's challenge to a client that starts anew; 0: none
	welcomed   bool   // the client's cookie is final
	challenges int    // that the client has followed

	mu     sync.Mutex // what follows is the writer's, and the reader's where it answers itself
	cookie uint64
	hello  []byte // said last by the client, until it is welcomed
	out    []byte
}

func newDatagrams(c transport.Conn, role Role, counters *Counters, orphaned func() bool) *datagrams {
	return &datagrams{Conn: c, role: role, limit: c.Info().MaxMessage, counters: counters, orphaned: orphaned}
}

// Read returns the next frame. Its checksum is for ParseFrame.
func (d *datagrams) Read() ([]byte, error) {
	for {
		if frame := d.nextFrame(); frame != nil {
			return frame, nil
		}
		datagram, err := d.Conn.Read()
		switch {
		case err == nil:
			if err := d.take(datagram); err != nil {
				return nil, err
			}
		case errors.Is(err, transport.ErrTooLarge), errors.Is(err, transport.ErrFrame):
			d.counters.BadFrames.Add(1)
		default:
			return nil, err
		}
	}
}

// nextFrame takes a frame off rest; nil if there is none. A false one spoils the
// rest of its datagram.
func (d *datagrams) nextFrame() []byte {
	if len(d.rest) == 0 {
		return nil
	}
	size, err := frameSize(d.rest, MaxPayloadV2)
	if err != nil || size == 0 || size > len(d.rest) {
		d.rest = nil
		d.counters.BadFrames.Add(1)
		return nil
	}
	frame := d.rest[:size:size]
	d.rest = d.rest[size:]
	return frame
}

// take makes the datagram's frames the next ones if it belongs to the session.
// It fails if the server has lost the session.
func (d *datagrams) take(datagram []byte) error {
	if len(datagram) <= cookieSize {
		d.counters.BadFrames.Add(1)
		return nil
	}
	cookie, frames := binary.BigEndian.Uint64(datagram), datagram[cookieSize:]
	ours := d.mine()
	switch {
	case d.role == Server && !d.begun:
		d.begun = true
		d.adopt(cookie)
	case d.role == Server && cookie != ours:
		if !d.restarted(datagram) {
			return nil
		}
	case d.role == Client && isChallenge(frames):
		return d.follow(cookie, ours)
	case cookie != ours:
		d.counters.Foreign.Add(1)
		return nil
	case firstCommand(frames) == CommandWelcome:
		d.welcomed = true
	}
	d.rest = frames
	return nil
}

func (d *datagrams) mine() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cookie
}

func (d *datagrams) adopt(cookie uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cookie = cookie
}

// isChallenge says whether frames are those of appendChallenge. Nothing else
// that a server says to a client with a session begins so.
func isChallenge(frames []byte) bool {
	if firstCommand(frames) != CommandError {
		return false
	}
	f, err := ParseFrame(frames)
	return err == nil && parseReason(f.Payload).Code == CodeHelloExpected
}

func firstCommand(frames []byte) Command {
	if len(frames) < headerSize {
		return 0
	}
	return Command(frames[3])
}

// follow takes the server's cookie and says HELLO again. To an open session a
// challenge is only a hint: either somebody else has spoken in our name, and then
// the server goes on answering us, or it has restarted, and then it does not.
func (d *datagrams) follow(cookie, ours uint64) error {
	if d.welcomed && cookie != ours && cookie != 0 && d.orphaned() {
		return errOrphaned
	}
	if d.welcomed || cookie == ours || cookie == 0 || d.challenges == maxChallenges {
		d.counters.Foreign.Add(1)
		return nil
	}
	d.challenges++
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cookie = cookie
	if len(d.hello) > 0 {
		_ = d.send(d.hello) // if it fails, so will the writer's next
	}
	return nil
}

// restarted looks at a datagram with another cookie than the session's. It may
// come from a client that has restarted on the same address: its first HELLO is
// challenged, and the second one reaches the session. The cookie is a new one
// each time, so that what is still on its way from before the restart does not
// count for the client's new numbers.
func (d *datagrams) restarted(datagram []byte) bool {
	cookie, hello, ok := parseLoneHello(datagram)
	switch {
	case ok && d.next != 0 && sameCookie(cookie, d.next):
		d.adopt(cookie)
		d.next = 0
		return true
	case ok: // without a cookie, or with one that was damaged on its way
		if d.next == 0 {
			d.next = newCookie()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		_ = d.Conn.Write(appendChallenge(nil, d.next, hello.Version)) // the client asks again
	default:
		d.counters.Foreign.Add(1)
	}
	return false
}

func newCookie() uint64 {
	var b [cookieSize]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return max(binary.BigEndian.Uint64(b[:]), 1)
}

// Write sends whole frames, back to back, in as few datagrams as hold them.
func (d *datagrams) Write(frames []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.role == Client && firstCommand(frames) == CommandHello {
		d.hello = append(d.hello[:0], frames...)
	}
	return d.send(frames)
}

// send is Write for a caller that holds mu.
func (d *datagrams) send(frames []byte) error {
	for len(frames) > 0 {
		n := d.fitting(frames)
		d.out = binary.BigEndian.AppendUint64(d.out[:0], d.cookie)
		d.out = append(d.out, frames[:n]...)
		if err := d.Conn.Write(d.out); err != nil {
			return err
		}
		frames = frames[n:]
	}
	return nil
}

// fitting is how many bytes of the first frames one datagram holds. No frame is
// larger: peerPayload sees to it.
func (d *datagrams) fitting(frames []byte) int {
	if len(frames) <= d.limit-cookieSize {
		return len(frames)
	}
	n := 0
	for n < len(frames) {
		size, err := frameSize(frames[n:], MaxPayloadV2)
		if err != nil || size == 0 || n > 0 && n+size > d.limit-cookieSize {
			break
		}
		n += size
	}
	if n == 0 {
		return len(frames) // not frames of ours; the Conn says what it thinks of it
	}
	return n
}

// MaxDatagramRecord is the largest record, in bytes as Outbox.PublishRaw takes
// it, that a datagram of so many bytes carries on this channel; 0 if it carries
// none. It is what OutboxConfig.MaxRecord should be over UDP.
func MaxDatagramRecord(datagram int, channel string) int {
	o := Outbox{cfg: OutboxConfig{Channel: channel, BestEffort: true}}
	room := datagram - datagramOverhead - o.overhead()
	return max(room-recordOverhead(room), 0)
}
