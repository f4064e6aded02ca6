package secure

import (
	"crypto/tls"
	"net"
)

// alertRecord is the length of an alert that is not encrypted: type, version,
// length, level, description (RFC 8446, sections 5.1 and 6).
const alertRecord = 5 + 2

// Tail keeps the last bytes that a handshake has received. The zero value is
// ready.
type Tail [alertRecord]byte

// Add takes what was received.
func (t *Tail) Add(p []byte) {
	p = p[max(0, len(p)-alertRecord):]
	copy(t[:], t[len(p):])
	copy(t[alertRecord-len(p):], p)
}

// Alert is the error of a handshake that ended with an alert in the clear. A
// client may tell so what it thinks of our certificate (RFC 8446, appendix A.1),
// and OpenSSL does; crypto/tls awaits encrypted records by then, and takes it for
// a damaged one. It is nil if those bytes are no alert: encrypted records are
// longer.
func (t *Tail) Alert() error {
	const contentAlert, fatal = 21, 2
	if t[0] != contentAlert || t[1] != 3 || t[3] != 0 || t[4] != 2 || t[5] != fatal {
		return nil
	}
	return &net.OpError{Op: "remote error", Err: tls.AlertError(t[6])}
}
