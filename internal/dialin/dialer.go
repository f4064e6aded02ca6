// Package dialin turns dialing round, for devices that can't be reached: behind
// a router that translates addresses, or on a mobile network. Such a device
// connects to us, and is polled from then on as if we had dialed it.
package dialin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// Listen opens what the device connects to. framers makes the Framer of each
// Conn; the Listener calls it in Accept, last for the Conn that it returns.
type Listen func(ctx context.Context, framers func() transport.Framer) (transport.Listener, error)

// Config of a Dialer.
type Config struct {
	Listen   Listen
	Endpoint string     // for logs and errors: "tcp 0.0.0.0:5502"
	Remote   netip.Addr // only this address may call; the zero Addr: everybody may
	Log      *slog.Logger
}

const (
	// maxHandshakes is how many callers may be proving who they are.
	maxHandshakes = 16
	// handshakeTime is how long one may take over it.
	handshakeTime = 10 * time.Second
)

// Dialer waits for the device to call where others dial. One device has one
// line, so there is one Conn at a time, and the newest wins: a device that has
// rebooted calls again while its old connection still looks alive. Therefore
// Remote, or a client certificate that Listen's transport demands, should say
// who may call: a caller takes the line over after its handshake.
//
// The first Dial opens the Listener. From then on a goroutine takes calls, and
// keeps at most one for the next Dial, until Close.
type Dialer struct {
	cfg        Config
	handshakes chan struct{} // a slot for each caller that is proving who it is
	patience   time.Duration // handshakeTime

	opening sync.Mutex // held by the one Dial that opens the Listener

	mu       sync.Mutex
	listener transport.Listener
	waiting  *call         // nobody has dialed for it yet
	current  *call         // that the last Dial has returned, until it is closed
	arrived  chan struct{} // closed, and made anew, when a call comes or the listener fails
	failure  error         // why the listener takes no more calls
	closed   bool
	stop     context.CancelFunc
	running  sync.WaitGroup
	stats    Stats

	strangers, crowds, unproven complaint
}

var _ transport.Dialer = (*Dialer)(nil)

// Stats of a Dialer; the numbers only rise.
type Stats struct {
	Calls    uint64 // of the device
	Foreign  uint64 // callers hung up on: from another address, without a good certificate, or replayed
	Busy     uint64 // callers hung up on because too many were proving who they are
	Replaced uint64 // connections closed because the device called again
}

// New makes a Dialer; it opens nothing.
func New(cfg Config) *Dialer {
	d := &Dialer{
		cfg: cfg, handshakes: make(chan struct{}, maxHandshakes), patience: handshakeTime,
		arrived: make(chan struct{}),
	}
	for _, c := range []*complaint{&d.strangers, &d.crowds, &d.unproven} {
		c.sometimes.Interval = complaintEvery
	}
	return d
}

// Endpoint implements transport.Dialer.
func (d *Dialer) Endpoint() string { return d.cfg.Endpoint }

// Stats may be called at any time.
func (d *Dialer) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Dial implements transport.Dialer: it waits until the device has called. It
// fails with net.ErrClosed after Close.
func (d *Dialer) Dial(ctx context.Context, f transport.Framer) (transport.Conn, error) {
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	for {
		c, arrived, err := d.take(f)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", d.cfg.Endpoint, err)
		case c != nil:
			return c, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, waits{d.cfg.Endpoint, ctx.Err()}
		}
	}
}

// waits is the end of a Dial before the device has called, which is no fault of
// ours: who reads it looks at the device.
type waits struct {
	endpoint string
	cause    error
}

func (w waits) Error() string { return "waits for the device to call on " + w.endpoint }
func (w waits) Unwrap() error { return w.cause }

// open opens the listener unless it is open.
func (d *Dialer) open(ctx context.Context) error {
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	ready := d.listener != nil || d.closed
	d.mu.Unlock()
	if ready {
		return nil
	}
	made := &framers{last: new(framer)}
	l, err := d.cfg.Listen(ctx, made.make)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = l.Close()
		return nil
	}
	run, stop := context.WithCancel(context.Background())
	d.listener, d.failure, d.stop = l, nil, stop
	d.running.Go(func() {
		defer stop()
		d.answer(run, l, made)
	})
	return nil
}

// take gives out the call that waits, if there is one.
func (d *Dialer) take(f transport.Framer) (*call, <-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, nil, net.ErrClosed
	case d.failure != nil:
		return nil, nil, d.failure
	case d.waiting == nil:
		return nil, d.arrived, nil
	}
	c := d.waiting
	d.waiting = nil
	c.framer.Framer = f
	d.current = c
	return c, nil, nil
}

// answer takes calls until ctx ends or the listener fails for good.
func (d *Dialer) answer(ctx context.Context, l transport.Listener, f *framers) {
	wait := time.Duration(0)
	for {
		conn, err := l.Accept(ctx)
		switch {
		case err == nil:
			wait = 0
			d.receive(ctx, conn, f.last)
		case ctx.Err() != nil:
			return
		case errors.Is(err, net.ErrClosed):
			d.fail(l, err)
			return
		default:
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			d.cfg.Log.Warn("a call could not be taken", "endpoint", d.cfg.Endpoint, "error", err, "again_in", wait)
			pause(ctx, wait)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// receive lets a caller prove who it is, and takes it in.
func (d *Dialer) receive(ctx context.Context, conn transport.Conn, f *framer) {
	if !d.mayCall(conn.Info().Remote) {
		d.complain(&d.strangers, conn, "a caller from another address is hung up on", "expected", d.cfg.Remote)
		d.hangUp(conn, &d.stats.Foreign)
		return
	}
	select {
	case d.handshakes <- struct{}{}:
	default:
		d.complain(&d.crowds, conn, "a caller is hung up on: too many are proving who they are", "most", maxHandshakes)
		d.hangUp(conn, &d.stats.Busy)
		return
	}
	d.running.Go(func() {
		defer func() { <-d.handshakes }()
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		err := shakeHands(ctx, conn, d.patience)
		switch {
		case !stop(): // we are closing
		case err != nil:
			d.complain(&d.unproven, conn, "a caller has not proven who it is and is hung up on", "error", err)
			d.hangUp(conn, &d.stats.Foreign)
		default:
			d.accept(conn, f)
		}
	})
}

// shakeHands finishes the handshake, if the transport has one, and waits until
// the caller is known to be there: a replay of what the device once said must
// not take its line over.
func shakeHands(ctx context.Context, conn transport.Conn, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	until, _ := ctx.Deadline()
	if err := conn.SetWriteDeadline(until); err != nil {
		return err
	}
	if err := conn.Write(nil); err != nil {
		return err
	}
	if confirmed := conn.Info().Confirmed; confirmed != nil {
		select {
		case <-confirmed:
		case <-ctx.Done():
			return errReplay
		}
	}
	return conn.SetWriteDeadline(time.Time{})
}

var errReplay = errors.New("the handshake was begun and not finished: it may be a replay")

func (d *Dialer) hangUp(conn transport.Conn, counter *uint64) {
	d.mu.Lock()
	*counter++
	d.mu.Unlock()
	_ = conn.Close()
}

// accept keeps conn for the next Dial, and ends what it replaces.
func (d *Dialer) accept(conn transport.Conn, f *framer) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		_ = conn.Close()
		return
	}
	d.stats.Calls++
	old := slices.DeleteFunc([]*call{d.waiting, d.current}, func(c *call) bool { return c == nil })
	d.stats.Replaced += uint64(len(old))
	d.waiting, d.current = &call{Conn: conn, dialer: d, framer: f}, nil
	d.announce()
	d.mu.Unlock()
	if len(old) == 0 {
		d.cfg.Log.Info("the device has called", "endpoint", d.cfg.Endpoint, "remote", conn.Info().Remote)
	}
	for _, c := range old {
		d.cfg.Log.Info("the device has called again: its older connection is closed", "endpoint", d.cfg.Endpoint,
			"remote", conn.Info().Remote, "before", c.Info().Remote)
		c.replace()
	}
}

func (d *Dialer) mayCall(remote string) bool {
	if !d.cfg.Remote.IsValid() {
		return true
	}
	at, err := netip.ParseAddrPort(remote)
	return err == nil && at.Addr().Unmap() == d.cfg.Remote.Unmap()
}

// announce wakes those who wait in Dial. The caller holds mu.
func (d *Dialer) announce() {
	close(d.arrived)
	d.arrived = make(chan struct{})
}

// fail notes that the listener is gone; the next Dial but those that wait now
// opens it again.
func (d *Dialer) fail(l transport.Listener, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener == l && !d.closed {
		_ = l.Close()
		d.listener, d.failure = nil, transport.Lost(err)
		d.announce()
	}
}

// release notes that a Conn given out has been closed by its user.
func (d *Dialer) release(c *call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == c {
		d.current = nil
	}
}

// Close stops listening and ends every Dial. The Conn that was given out stays
// open; a call that nobody has dialed for is hung up on. Later calls do nothing.
func (d *Dialer) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.announce()
	waiting, l, stop := d.waiting, d.listener, d.stop
	d.waiting = nil
	d.mu.Unlock()
	if waiting != nil {
		_ = waiting.Conn.Close()
	}
	if l == nil {
		return nil
	}
	stop()
	err := l.Close()
	d.running.Wait()
	return err
}
