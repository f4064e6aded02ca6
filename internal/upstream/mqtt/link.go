package mqtt

import (
	"bytes"
	"io"
	"math"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// maxOut is how many bytes may wait to be written before a Send pauses.
const maxOut = 256 << 10

// link is one connection, from CONNACK to its loss. The session's lock guards it.
type link struct {
	conn      io.WriteCloser
	since     time.Time
	limit     int // messages without PUBACK at most
	maxPacket int // the largest packet that the broker takes, in bytes

	out      *bytes.Buffer // packets on their way to the connection
	inFlight map[uint16]message
	lastID   uint16
	full     bool
	watch    *time.Timer
}

// message is one that waits for its PUBACK.
type message struct {
	delivery *delivery
	index    int // in the delivery's batch
	sent     time.Time
}

// newLink takes the broker's limits from its CONNACK (MQTT 5.0, section 3.2.2.3).
func newLink(conn io.WriteCloser, window int, ca *packets.Connack) *link {
	l := &link{
		conn: conn, since: time.Now(), limit: window, maxPacket: math.MaxInt32,
		out: new(bytes.Buffer), inFlight: make(map[uint16]message),
	}
	if p := ca.Properties; p != nil {
		if p.ReceiveMaximum != nil {
			l.limit = min(l.limit, max(1, int(*p.ReceiveMaximum)))
		}
		if p.MaximumPacketSize != nil {
			l.maxPacket = int(min(*p.MaximumPacketSize, math.MaxInt32))
		}
	}
	return l
}

// room tells whether another message may be sent. Once the window was full it
// stays shut until a quarter of it is free: the sender is woken once for many
// PUBACKs, and writes many messages at once.
func (l *link) room(limit int) bool {
	switch n := len(l.inFlight); {
	case n >= limit:
		l.full = true
	case n <= limit-max(1, limit/4):
		l.full = false
	}
	return !l.full && l.out.Len() < maxOut
}

// nextID gives a packet identifier that no message in flight has; there is one,
// as the window is never larger than the identifiers are many.
func (l *link) nextID() uint16 {
	for {
		l.lastID++
		if _, taken := l.inFlight[l.lastID]; !taken && l.lastID != 0 {
			return l.lastID
		}
	}
}

// publish puts a message at the end of what is to be written. It does nothing
// and returns false when the packet is larger than the broker takes.
func (l *link) publish(topic string, payload []byte, m message) bool {
	id := l.nextID()
	p := packets.Publish{
		Topic: topic, Payload: payload, QoS: 1, PacketID: id,
		Properties: &packets.Properties{ContentType: "application/json"},
	}
	before := l.out.Len()
	_, _ = p.WriteTo(l.out) // a bytes.Buffer takes everything
	if l.out.Len()-before > l.maxPacket {
		l.out.Truncate(before)
		return false
	}
	l.inFlight[id] = m
	return true
}

// oldest is when the message was sent that waits longest; false if none waits.
func (l *link) oldest() (sent time.Time, ok bool) {
	for _, m := range l.inFlight {
		if !ok || m.sent.Before(sent) {
			sent, ok = m.sent, true
		}
	}
	return sent, ok
}
