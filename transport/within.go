package transport

import "fmt"

// Within returns conn with f at work inside each of its datagrams, for a
// protocol that knows streams only: lines of text, Modbus frames. A datagram may
// hold several messages; none goes on in the next one, so Split is always told
// that the line is idle, and what it leaves unconsumed at a datagram's end is
// dropped with ErrFrame.
//
// On a stream, where MaxMessage is 0, it returns conn itself: there the
// transport has f already.
func Within(conn Conn, f Framer) Conn {
	if conn.Info().MaxMessage == 0 {
		return conn
	}
	return &within{Conn: conn, framer: f}
}

type within struct {
	Conn
	framer Framer
	rest   []byte // of the datagram that was read last
}

// Read implements Conn.
func (w *within) Read() ([]byte, error) {
	for {
		if len(w.rest) == 0 {
			var err error
			if w.rest, err = w.Conn.Read(); err != nil {
				return nil, err
			}
		}
		advance, msg, err := w.framer.Split(w.rest, true)
		advance = min(max(advance, 0), len(w.rest))
		if advance == 0 {
			left := len(w.rest)
			w.rest = nil
			if left == 0 {
				continue
			}
			if err == nil {
				err = fmt.Errorf("%w: a datagram ends inside a message, after %d bytes of it", ErrFrame, left)
			}
			return nil, err
		}
		w.rest = w.rest[advance:]
		if msg != nil || err != nil {
			return msg, err
		}
	}
}

// Discard implements Conn.
func (w *within) Discard() error {
	w.rest = nil
	return w.Conn.Discard()
}
