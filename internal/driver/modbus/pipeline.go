package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// pipeline is an open line of Modbus TCP with several transactions at a time. A
// goroutine reads, and hands each reply to whoever asked with its number. It
// ends with the line.
type pipeline struct {
	link   *Link
	conn   transport.Conn
	stream bool        // nothing but the framing tells where a message ends
	free   chan *asker // those that may ask now
	pen    chan struct{}

	// Of whoever has taken the pen.
	watch watch
	adu   []byte

	mu      sync.Mutex
	number  uint16
	waiting map[uint16]*asker // no more than there are askers
	rests   map[byte]rest     // of the units with a gap
	strays  map[byte]int      // frames from a unit that nobody waited for, since it was asked last
	err     error             // why the line is over

	over    chan struct{} // closed then
	reading sync.WaitGroup
}

var _ line = (*pipeline)(nil)

// asker is one transaction. Its reader writes it until answered.
type asker struct {
	unit     byte
	request  Request
	timer    *time.Timer
	answered chan struct{} // holds one
	data     []byte
	err      error // an Exception
	came     time.Time
	foreign  int // frames with its number that are not its reply; see pipeline.mu
}

// maxStrays bounds what a peer that sends without end may add up between two
// requests.
const maxStrays = 1 << 20

// rest is when a unit with a gap may be asked.
type rest struct {
	asked bool      // at this moment
	since time.Time // when it was asked last, or had answered
}

func newPipeline(link *Link, conn transport.Conn) *pipeline {
	p := &pipeline{
		link: link, conn: conn, stream: conn.Info().MaxMessage == 0,
		free: make(chan *asker, link.cfg.Transactions), pen: make(chan struct{}, 1),
		waiting: make(map[uint16]*asker), rests: make(map[byte]rest), strays: make(map[byte]int),
		over: make(chan struct{}),
	}
	p.watch.interrupt = func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) }
	for range cap(p.free) {
		p.free <- &asker{answered: make(chan struct{}, 1)}
	}
	p.pen <- struct{}{}
	p.reading.Go(p.read)
	return p
}

func (p *pipeline) lost() <-chan struct{} { return p.over }

// close ends the reader. Nobody asks any more.
func (p *pipeline) close() error {
	p.watch.leave()
	err := p.conn.Close()
	p.reading.Wait()
	return err
}

// transact implements line. It may be called concurrently.
func (p *pipeline) transact(ctx context.Context, t *scheduler.Turn, s station, r Request) ([]byte, error) {
	var a *asker
	select {
	case a = <-p.free:
	case <-p.over:
		return nil, p.why()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { p.free <- a }()
	if until := p.claim(s); !until.IsZero() {
		return nil, &scheduler.NotYet{Until: until}
	}
	defer p.release(t, s, a)
	a.unit, a.request = s.unit, r
	number, sent, err := p.send(ctx, t, a)
	if err == nil {
		err = p.await(ctx, t, a, number)
	}
	if err != nil {
		return nil, err
	}
	t.Took = max(a.came.Sub(sent), time.Microsecond)
	if a.err != nil {
		return nil, a.err
	}
	return append([]byte(nil), a.data...), nil
}

// send waits for its turn to write, gives a a number and sends its request, unless
// that is a command whose time is over by then.
func (p *pipeline) send(ctx context.Context, t *scheduler.Turn, a *asker) (number uint16, sent time.Time, err error) {
	select {
	case <-p.pen:
	case <-p.over:
		return 0, time.Time{}, p.why()
	case <-ctx.Done():
		return 0, time.Time{}, ctx.Err()
	}
	defer func() { p.pen <- struct{}{} }()
	p.watch.follow(ctx)
	if err := p.conn.SetWriteDeadline(time.Now().Add(max(t.Timeout, longestWrite))); err != nil {
		p.end(err)
		return 0, time.Time{}, p.why()
	}
	if ctx.Err() != nil {
		return 0, time.Time{}, ctx.Err()
	}
	if expired(t) {
		return 0, time.Time{}, scheduler.ErrExpired
	}
	number = p.expect(a)
	p.adu = AppendMBAP(p.adu[:0], number, a.unit, a.request.pdu)
	t.Sent = true
	if err := p.conn.Write(p.adu); err != nil {
		p.forget(a, number)
		p.end(unusable(err))
		_ = p.conn.Close() // half a request may have left: nobody may go on behind it
		if ctx.Err() != nil {
			return 0, time.Time{}, ctx.Err()
		}
		return 0, time.Time{}, p.why()
	}
	return number, time.Now(), nil
}

// await returns when a is answered.
func (p *pipeline) await(ctx context.Context, t *scheduler.Turn, a *asker, number uint16) error {
	if a.timer == nil {
		a.timer = time.NewTimer(t.Timeout)
	} else {
		a.timer.Reset(t.Timeout)
	}
	defer a.timer.Stop()
	var err error
	select {
	case <-a.answered:
		return nil
	case <-a.timer.C:
		err = &noAnswer{waited: t.Timeout}
	case <-p.over:
		err = p.why()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if p.forget(a, number) {
		return err
	}
	<-a.answered // at the same moment
	return nil
}

// expect gives a a number that nobody waits for.
func (p *pipeline) expect(a *asker) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.number++; p.waiting[p.number] != nil; p.number++ {
	}
	p.waiting[p.number] = a
	return p.number
}

// forget tells whether a was still waiting.
func (p *pipeline) forget(a *asker, number uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[number] != a {
		return false
	}
	delete(p.waiting, number)
	return true
}

// claim takes a unit with a gap for one transaction, or says when to ask for it
// again.
func (p *pipeline) claim(s station) (until time.Time) {
	if s.gap == 0 {
		return time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now, r := time.Now(), p.rests[s.unit]
	switch {
	case r.asked: // until nobody knows when, and then it rests
		return now.Add(max(s.gap, longHush))
	case now.Before(r.since.Add(s.gap)):
		return r.since.Add(s.gap)
	}
	r.asked = true
	p.rests[s.unit] = r
	return time.Time{}
}

// release ends a's transaction with s, and notes in t what came in vain.
func (p *pipeline) release(t *scheduler.Turn, s station, a *asker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Foreign += a.foreign + p.strays[s.unit]
	a.foreign = 0
	delete(p.strays, s.unit)
	if s.gap == 0 {
		return
	}
	r := p.rests[s.unit]
	if r.asked = false; t.Sent {
		r.since = time.Now()
	}
	p.rests[s.unit] = r
}

// read takes in replies until the line is over.
func (p *pipeline) read() {
	for {
		msg, err := p.conn.Read()
		bad := errors.Is(err, transport.ErrFrame) || errors.Is(err, transport.ErrTooLarge)
		switch {
		case err == nil:
			if why, unit := p.take(msg); why != nil {
				p.link.discarded(*why, unit)
			}
		case bad && !p.stream:
			p.link.discarded(badFrame, everyone)
		case bad:
			p.end(transport.Lost(err)) // the next frame can't be found
			_ = p.conn.Close()
			return
		default:
			p.end(err)
			return
		}
	}
}

// take hands a frame to whoever waits for it, or says why nobody does.
func (p *pipeline) take(msg []byte) (why *discard, unit byte) {
	said := func(d discard) (*discard, byte) { return &d, unit }
	if len(msg) <= mbapHeader {
		return said(wrongLength)
	}
	number, pdu := binary.BigEndian.Uint16(msg), msg[mbapHeader:]
	unit = msg[mbapHeader-1]
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.waiting[number]
	switch {
	case a == nil:
		p.strays[unit] = min(p.strays[unit]+1, maxStrays)
		return said(wrongTransaction)
	case a.unit != unit:
		a.foreign++
		unit = a.unit
		return said(wrongUnit)
	}
	data, err := a.request.Reply(pdu)
	if d, vain := errors.AsType[discard](err); vain {
		a.foreign++
		return said(d)
	}
	delete(p.waiting, number)
	a.data, a.err, a.came = append(a.data[:0], data...), err, time.Now()
	a.answered <- struct{}{}
	return nil, unit
}

// end lets all who wait know why the line is over.
func (p *pipeline) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		close(p.over)
	}
}

func (p *pipeline) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
