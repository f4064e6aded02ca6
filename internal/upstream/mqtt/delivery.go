package mqtt

import (
	"context"
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/mcp-edge/edge-agent/internal/upstream"
	"github.com/mcp-edge/edge-agent/record"
)

// delivery is one Send under way. The session's lock guards it.
type delivery struct {
	session *session
	topic   topic
	batch   []record.Record
	payload []byte // scratch

	link  *link  // the connection it is being sent on
	next  int    // the record to look at next
	acked []bool // by record
	left  int    // records without PUBACK
	open  int    // of these, in flight on link

	held  bool // the broker takes no more for now: wait until it has answered the rest
	retry backoff

	refused     bool
	refusedItem int
	refusal     string
}

// run sends the batch in its order and returns when every record has its PUBACK.
//
// On a new connection what is not acknowledged goes again, in order, so first
// appearances stay in order for each device. A broker that exceeds a quota in
// the midst of the window and takes later messages breaks the order itself.
func (d *delivery) run(ctx context.Context) error {
	s := d.session
	defer context.AfterFunc(ctx, s.wake)()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if s.holding == d {
			s.holding, s.heldFor = nil, ""
		}
	}()
	for d.left > 0 {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.closed:
			return errClosed
		case d.refused:
			return d.refusedError()
		case s.link != nil && s.link != d.link:
			d.link, d.next, d.open, d.held = s.link, 0, 0, false
		case d.held && d.open == 0:
			d.pause(ctx)
		case s.link != nil && !d.held && d.next < len(d.batch) && s.link.room(s.limit()):
			d.send()
		default:
			s.changed.Wait()
		}
	}
	return nil
}

// send puts the next record without PUBACK on the link.
func (d *delivery) send() {
	i := d.next
	d.next++
	if d.acked[i] {
		return
	}
	r, l := &d.batch[i], d.link
	d.payload = r.AppendJSON(d.payload[:0])
	idle := l.out.Len() == 0
	if !l.publish(d.topic.of(r), d.payload, message{delivery: d, index: i, sent: time.Now()}) {
		d.refuse(i, fmt.Sprintf("the message is larger than the broker takes (%d bytes): raise its limit", l.maxPacket))
		return
	}
	d.open++
	if idle {
		d.session.changed.Broadcast() // wakes write, which comes once the lock is free
	}
}

// answered takes the PUBACK of record i.
func (d *delivery) answered(i int, ack *packets.Puback) {
	d.open--
	switch {
	case ack.ReasonCode < 0x80:
		if !d.acked[i] {
			d.acked[i] = true
			d.left--
		}
		d.retry.reset()
		if d.session.holding == d {
			d.session.holding, d.session.heldFor = nil, ""
		}
	case passing(ack.ReasonCode):
		d.held = true
		d.session.holding = d
		d.session.heldFor = "the broker does not take topic " + d.topic.of(&d.batch[i]) + " now: " + ackText(ack)
	default:
		d.refuse(i, ackText(ack))
	}
}

func ackText(ack *packets.Puback) string {
	text := ""
	if ack.Properties != nil {
		text = ack.Properties.ReasonString
	}
	return reasonText(ack.ReasonCode, text)
}

// wants tells whether run has something to do that does not depend on room.
func (d *delivery) wants() bool { return d.left == 0 || d.refused || d.held && d.open == 0 }

func (d *delivery) refuse(i int, why string) {
	if !d.refused {
		d.refused, d.refusedItem, d.refusal = true, i, why
	}
}

func (d *delivery) refusedError() error {
	r := &d.batch[d.refusedItem]
	return fmt.Errorf("mqtt %s: record %d of device %s, topic %s: %s: %w",
		d.session.endpoint, r.Seq, r.Device, d.topic.of(r), d.refusal, upstream.ErrRefused)
}

// pause gives a broker that takes no more some time, then begins again with what
// it did not take.
func (d *delivery) pause(ctx context.Context) {
	s := d.session
	wait := d.retry.next()
	s.log.Warn("sending again later", "endpoint", s.endpoint, "wait", wait, "reason", s.heldFor)
	s.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	s.mu.Lock()
	d.held, d.next = false, 0
}
