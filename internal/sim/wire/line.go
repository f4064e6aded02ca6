// Package wire simulates a serial line that several stations share, such as an
// RS-485 bus, so that what is tested or shown on it meets a line's conditions:
// each character takes its time, only one may speak, and when two do, nobody
// understands either.
//
// A Line is a model and needs no device; it runs under testing/synctest, and so
// does a Dialer's transport.Conn on it. A Port is a pseudo-terminal, for a
// program that opens a serial port.
package wire

import (
	"context"
	"sync"
	"time"
)

// Config describes a line.
type Config struct {
	// Baud is the line's speed in bits a second; 9600 when 0.
	Baud int
	// CharBits is how many of them a character takes: start, data, parity and
	// stop; 11 when 0, as Modbus RTU has it.
	CharBits int
	// Piece is how long a character may be held back until others follow, as
	// adapters do; 1 ms when 0. What begins a talk and what ends it is heard at once.
	Piece time.Duration
	// OnTalk, when set, is told whatever was said, when its last character has
	// left. The line's goroutine calls it, so it must not block.
	OnTalk func(Talk)
}

// Station is somebody on a line. The line's goroutine calls it, in the order of
// what happens on the line, so it must not block.
type Station interface {
	// Hear gets what another station says, in pieces, as it arrives. b is valid
	// during the call.
	Hear(b []byte)

	// Quiet says that at this moment of the line nobody had spoken for the
	// silence that ends a Modbus RTU frame (see Line.Silence).
	Quiet(at time.Time)
}

// Talk is what one station said at a stretch.
type Talk struct {
	Who          string
	Bytes        []byte
	Began, Ended time.Time
	Garbled      bool // another spoke at the same time
}

// Line is a line in simulated time: it may run late on a busy machine, but what
// happens on it keeps its order and its distances.
type Line struct {
	cfg      Config
	charTime time.Duration
	wake     chan struct{}

	mu         sync.Mutex
	taps       []*Tap
	ports      []*Port
	dialers    []*Dialer
	talks      []*talk   // to come or under way
	quietAt    time.Time // when to call Quiet, zero when that was done
	collisions uint64
}

// talk is a Talk to come or under way.
type talk struct {
	Talk
	tap   *Tap
	begun bool
	said  int // bytes that the others have heard
	done  func(Talk)
}

// New makes a line with nobody on it; Run gives it life.
func New(cfg Config) *Line {
	if cfg.Baud <= 0 {
		cfg.Baud = 9600
	}
	if cfg.CharBits <= 0 {
		cfg.CharBits = 11
	}
	if cfg.Piece <= 0 {
		cfg.Piece = time.Millisecond
	}
	return &Line{
		cfg: cfg, wake: make(chan struct{}, 1),
		charTime: time.Duration(cfg.CharBits) * time.Second / time.Duration(cfg.Baud),
	}
}

// CharTime is how long a character takes.
func (l *Line) CharTime() time.Duration { return l.charTime }

// Silence is what ends a Modbus RTU frame: 3.5 characters, and 1.75 ms above
// 19,200 baud (Modbus over Serial Line V1.02, section 2.5.1.1).
func (l *Line) Silence() time.Duration {
	if l.cfg.Baud > 19200 {
		return 1750 * time.Microsecond
	}
	return l.charTime * 7 / 2
}

// Collisions is how often a station began to speak while another did.
func (l *Line) Collisions() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.collisions
}

// Tap is a station's place on a line.
type Tap struct {
	line    *Line
	name    string
	station Station
}

// Attach puts a station on the line.
func (l *Line) Attach(name string, s Station) *Tap {
	t := &Tap{line: l, name: name, station: s}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taps = append(l.taps, t)
	return t
}

// Say speaks now, or directly behind what the station is still saying.
func (t *Tap) Say(b []byte) {
	l := t.line
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, under := range l.talks {
		if under.tap == t && under.done == nil && under.Ended.After(now) {
			under.Bytes = append(under.Bytes, b...)
			under.Ended = under.Ended.Add(l.lasts(len(b)))
			return
		}
	}
	l.add(t, now, b, nil)
}

// SayAt speaks at a given time; a time that has passed means as if it had been
// said then. done, when not nil, is told when the last character has left.
func (t *Tap) SayAt(at time.Time, b []byte, done func(Talk)) {
	t.line.mu.Lock()
	defer t.line.mu.Unlock()
	t.line.add(t, at, b, done)
}

func (l *Line) add(t *Tap, at time.Time, b []byte, done func(Talk)) {
	if len(b) == 0 {
		return
	}
	l.talks = append(l.talks, &talk{
		Talk: Talk{Who: t.name, Bytes: append([]byte(nil), b...), Began: at, Ended: at.Add(l.lasts(len(b)))},
		tap:  t, done: done,
	})
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Line) lasts(chars int) time.Duration { return time.Duration(chars) * l.charTime }

// Run lets time pass on the line until ctx ends. Then it closes the ports, the
// Conns are lost, and it forgets what was still to be said.
func (l *Line) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	l.mu.Lock()
	for _, p := range l.ports {
		readers.Go(p.read)
	}
	l.mu.Unlock()
	defer readers.Wait()
	defer l.closePorts()
	defer l.unplug()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C:
		}
		if next := l.advance(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

func (l *Line) unplug() {
	l.mu.Lock()
	dialers := l.dialers
	l.mu.Unlock()
	for _, d := range dialers {
		d.Unplug()
	}
}

// advance lets everything happen that has its time by now, and returns when to
// come again; zero when nothing is to come.
func (l *Line) advance(now time.Time) time.Time {
	for {
		l.mu.Lock()
		at, happen := l.nextEvent()
		if happen == nil || at.After(now) {
			tell := l.hear(now)
			next := l.nextLook(now, at)
			l.mu.Unlock()
			tell()
			return next
		}
		tell := l.hear(at)
		after := happen()
		l.mu.Unlock()
		tell()
		after()
	}
}

// nextLook is when the next event is, or the next piece is worth handing out:
// the first character, and then not every single one.
func (l *Line) nextLook(now, event time.Time) time.Time {
	for _, t := range l.talks {
		wait := l.charTime
		if t.said > 0 {
			wait = max(wait, l.cfg.Piece)
		}
		if piece := now.Add(wait); t.begun && piece.Before(event) {
			event = piece
		}
	}
	return event
}

// nextEvent is what happens next on the line: somebody ends, the line has been
// quiet, somebody begins. happen changes the line under its lock and returns
// what to tell the stations without it.
func (l *Line) nextEvent() (at time.Time, happen func() (tell func())) {
	earlier := func(t time.Time) bool { return happen == nil || t.Before(at) }
	for i, t := range l.talks {
		if t.begun && earlier(t.Ended) {
			at, happen = t.Ended, func() func() { return l.end(i) }
		}
	}
	if !l.quietAt.IsZero() && earlier(l.quietAt) {
		at, happen = l.quietAt, l.quiet
	}
	for _, t := range l.talks {
		if !t.begun && earlier(t.Began) {
			at, happen = t.Began, func() func() { l.begin(t); return func() {} }
		}
	}
	return at, happen
}

func (l *Line) begin(t *talk) {
	t.begun = true
	l.quietAt = time.Time{}
	for _, other := range l.talks {
		if other.tap != t.tap && other.begun {
			other.Garbled, t.Garbled = true, true
		}
	}
	if t.Garbled {
		l.collisions++
	}
}

func (l *Line) end(i int) (tell func()) {
	t := l.talks[i]
	l.talks = append(l.talks[:i], l.talks[i+1:]...)
	l.quietAt = t.Ended.Add(l.Silence())
	for _, other := range l.talks {
		if other.begun {
			l.quietAt = time.Time{}
		}
	}
	return func() {
		if t.done != nil {
			t.done(t.Talk)
		}
		if l.cfg.OnTalk != nil {
			l.cfg.OnTalk(t.Talk)
		}
	}
}

func (l *Line) quiet() (tell func()) {
	at, taps := l.quietAt, l.taps
	l.quietAt = time.Time{}
	return func() {
		for _, tap := range taps {
			tap.station.Quiet(at)
		}
	}
}

// hear collects the characters that have left by now and returns how to tell
// them to the others.
func (l *Line) hear(now time.Time) (tell func()) {
	type piece struct {
		from  *Tap
		bytes []byte
	}
	var pieces []piece
	for _, t := range l.talks {
		if !t.begun {
			continue
		}
		left := min(int(now.Sub(t.Began)/l.charTime), len(t.Bytes))
		if left <= t.said {
			continue
		}
		b := append([]byte(nil), t.Bytes[t.said:left]...)
		t.said = left
		if t.Garbled {
			for i := range b {
				b[i] ^= 0x5A
			}
		}
		pieces = append(pieces, piece{t.tap, b})
	}
	taps := l.taps
	return func() {
		for _, p := range pieces {
			for _, tap := range taps {
				if tap != p.from {
					tap.station.Hear(p.bytes)
				}
			}
		}
	}
}
