// Package transport is the contract between what speaks a protocol and what
// carries it. A driver works on a Conn and can't tell a serial line from a TCP
// connection except by what Info says.
//
// The unit is the message. A byte stream (TCP, serial, a QUIC stream) finds the
// boundaries with a Framer, which belongs to the driver; on UDP a message is a
// datagram. The implementations stand in the folders below, know nothing of
// each other, of devices or of retrying, and pass the suite in transporttest.
//
// A context governs dialing and accepting, deadlines govern reads and writes.
package transport

import (
	"context"
	"crypto/tls"
	"time"
)

// Conn is one open line or connection.
//
// One goroutine may read while another writes. Close, SetReadDeadline,
// SetWriteDeadline and Info may be called by anyone at any time; whoever dialed
// or accepted a Conn closes it. Errors are of the classes in errors.go.
type Conn interface {
	// Read returns the next message. The slice is valid until the next Read or
	// Discard. At the read deadline it fails with os.ErrDeadlineExceeded and
	// keeps the bytes of an unfinished message, so that reading again goes on
	// where it stopped. After ErrFrame or ErrTooLarge the Conn lives on and the
	// next Read looks for the next message.
	Read() ([]byte, error)

	// Write sends one message (on a stream also several, back to back). On an
	// accepted Conn nil is no message: it only finishes the handshake. Write
	// returns when the bytes have been handed to the operating system; on a
	// serial line when they have left the UART, so that a time-out started then
	// does not count the sending. After any error it is unknown how much was
	// delivered, and the Conn is of no further use: close it.
	Write(msg []byte) error

	// Discard drops what has arrived and not been read, so that an answer to an
	// earlier request isn't taken for the next one's. It doesn't block. It may
	// not run at the same time as Read.
	Discard() error

	// SetReadDeadline bounds this and later Reads, also one that is blocked
	// now; the zero time means none.
	SetReadDeadline(t time.Time) error

	// SetWriteDeadline is the same for Write.
	SetWriteDeadline(t time.Time) error

	// Info describes the Conn. It does not change while the Conn is open, but for
	// this: an accepted Conn finishes its handshake in the first Read or Write,
	// so what the handshake tells is there once that has returned.
	Info() Info

	// Close ends the Conn and unblocks Read and Write, which then fail with
	// net.ErrClosed. The first call returns the error of closing, if any; later
	// calls do nothing and return nil.
	Close() error
}

// Dialer opens Conns to one address. It may be used concurrently.
type Dialer interface {
	// Dial opens a Conn and returns when it is usable or ctx has ended. f finds
	// the messages; it must be a new one for each Conn. A transport whose
	// messages have boundaries of their own ignores it.
	Dial(ctx context.Context, f Framer) (Conn, error)

	// Endpoint names what is dialed, for logs and errors: "tcp 10.0.0.5:502".
	Endpoint() string
}

// Listener accepts Conns. Accept may be called concurrently.
type Listener interface {
	// Accept waits for the next Conn. Its handshake, if there is one, is made by
	// the first Read or Write under their deadlines, so that one slow peer keeps
	// nobody waiting. Accept fails with net.ErrClosed after Close and with ctx's
	// error when ctx ends; on any other error the Listener still works, and the
	// caller waits a little and calls again.
	Accept(ctx context.Context) (Conn, error)

	// Endpoint names what is listened on, with the port that was really taken.
	Endpoint() string

	// Close stops listening. Conns already accepted stay open.
	Close() error
}

// Framer finds the messages in a stream of bytes. A Conn calls it from within
// Read and Discard only, so it needs no lock against its Conn's reader.
type Framer interface {
	// Split looks at the bytes read and not yet consumed. idle is true when
	// nothing has arrived for Idle(), and buf is then complete for now.
	//
	// It returns how many bytes to consume from the front, and the message, if
	// there is one, which must lie within those bytes. advance may be positive
	// without a message (noise is skipped). (0, nil, nil) asks for more bytes.
	// With an error (of class ErrFrame or ErrTooLarge) advance says how many
	// bytes to drop; it must then be at least 1, so that every call makes
	// progress. A nil msg is no message; an empty, non-nil one is.
	Split(buf []byte, idle bool) (advance int, msg []byte, err error)

	// Idle is the silence after which Split is told that the line is idle; 0
	// means never. It may change from call to call.
	Idle() time.Duration

	// Max is the largest message in bytes, together with what frames it on the
	// wire, and so bounds what a Conn buffers for this Framer. When Split asks
	// for more bytes although the buffer holds Max, Read fails with ErrTooLarge
	// and drops the buffer; so it does with a single message larger than Max.
	Max() int
}

// Info tells a driver what it may rely on.
type Info struct {
	Transport  string // "tcp", "serial", …
	Local      string // our address; empty where there is none
	Remote     string // the peer's address, or the device file
	MaxMessage int    // a message is a datagram, of at most so many bytes; 0: a stream, without a limit of the transport's
	HalfDuplex bool   // only one side may speak at a time
	Reliable   bool   // what was written arrives whole, or the Conn fails
	Ordered    bool   // messages arrive in the order of writing
	// CharTime is the time one character takes on the wire; 0 where there is no
	// such thing. Modbus RTU measures its silences in it.
	CharTime time.Duration
	// Lost is closed when the line has gone, also while nobody reads or writes;
	// nil where only those notice.
	Lost <-chan struct{}

	// Names are those in the certificate that the peer has proven to hold: its
	// DNS and URI names, and its common name. Empty without a certificate.
	Names []string
	// Confirmed is closed once the peer is known to be there now. What it said
	// before may be a replay (0-RTT data, RFC 8446, section 8), and must not have
	// effects that a repetition would have again. nil: it was known from the start.
	Confirmed <-chan struct{}
	// Streams are more streams of the same connection; nil where the Conn is all
	// there is. They end with the Conn.
	Streams Streams
}

// Streams carry messages beside a Conn, each in an order of its own, so that a
// packet that is lost holds up one of them. They may be used concurrently.
type Streams interface {
	// Open opens a stream on which only we write, waiting until ctx ends for the
	// peer to allow one more. Its Read fails.
	Open(ctx context.Context) (Conn, error)

	// Accept waits for a stream that the peer has opened. Its Write fails. The
	// error is that of a Conn's Read, or ctx's.
	Accept(ctx context.Context, f Framer) (Conn, error)

	// Datagrams carries messages that may be lost, repeated and reordered, each
	// at most its MaxMessage long; its Close does nothing to the Conn. It is nil
	// if the peer takes none.
	Datagrams() Conn
}

// TLS returns the configuration for one new connection, so that certificates
// can be renewed while others stay open; it returns the same one until
// something has changed, because session tickets belong to it. A nil TLS means
// a connection without.
//
// It is called for every connection, concurrently, and must not block.
type TLS func() *tls.Config
