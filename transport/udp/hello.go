package udp

import "encoding/binary"

// What the Listener itself has to know of DTLS 1.2: which session a record
// belongs to, and where a ClientHello and a HelloVerifyRequest have their
// cookies (RFC 6347, sections 4.1, 4.2.1 and 4.2.2; RFC 9146, section 4).

const (
	contentChangeCipher = 20
	contentAlert        = 21
	contentHandshake    = 22
	contentConnectionID = 25

	typeClientHello        = 1
	typeHelloVerifyRequest = 3

	recordHeader    = 13 // type, version, epoch, sequence number, length
	handshakeHeader = 12 // type, length, message number, fragment offset and length
	helloRandom     = 32
)

// cidSize is the length of the connection IDs that we give out: with 64 random
// bits nobody guesses one of ours.
const cidSize = 8

type cid [cidSize]byte

// connectionID is that of the first record in a datagram.
func connectionID(d []byte) (id cid, ok bool) {
	if len(d) < recordHeader+cidSize || d[0] != contentConnectionID {
		return id, false
	}
	return cid(d[recordHeader-2 : recordHeader-2+cidSize]), true
}

// hello is a ClientHello: its first part up to the cookie.
type hello struct {
	random [helloRandom]byte
	cookie []byte // empty in a client's first
}

// parseHello reads a ClientHello that comes whole in one unencrypted record. One
// in fragments is refused: to gather them would be to remember a stranger.
func parseHello(d []byte) (hello, bool) {
	body, ok := handshakeMessage(d, typeClientHello)
	if !ok || len(body) < 2+helloRandom {
		return hello{}, false
	}
	_, rest, ok := vector(body[2+helloRandom:]) // the session's ID
	if !ok {
		return hello{}, false
	}
	cookie, _, ok := vector(rest)
	return hello{[helloRandom]byte(body[2:]), cookie}, ok
}

// parseVerifyRequest returns a HelloVerifyRequest's cookie.
func parseVerifyRequest(d []byte) (cookie []byte, ok bool) {
	body, ok := handshakeMessage(d, typeHelloVerifyRequest)
	if !ok || len(body) < 2 {
		return nil, false
	}
	cookie, _, ok = vector(body[2:])
	return cookie, ok
}

// handshakeMessage is the body of the message of this type with which d begins.
func handshakeMessage(d []byte, kind byte) (body []byte, ok bool) {
	if len(d) < recordHeader+handshakeHeader || d[0] != contentHandshake ||
		d[1] != 0xFE || d[3] != 0 || d[4] != 0 { // any DTLS, epoch 0
		return nil, false
	}
	record := d[recordHeader:]
	size := int(binary.BigEndian.Uint16(d[recordHeader-2:]))
	if size < handshakeHeader || size > len(record) || record[0] != kind {
		return nil, false
	}
	length, offset, part := uint24(record[1:]), uint24(record[6:]), uint24(record[9:])
	if offset != 0 || part != length || length > size-handshakeHeader {
		return nil, false
	}
	return record[handshakeHeader : handshakeHeader+length], true
}

func uint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// vector reads a length of one byte and what it counts.
func vector(b []byte) (v, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+int(b[0])], b[1+int(b[0]):], true
}

// harmless tells whether the library may see a datagram. It answers unencrypted
// records that it does not understand with an alert that ends the session, and
// those anybody can send: so they are kept from it. A session that stands needs
// no unencrypted alerts any more either.
//
// unencrypted is how many bytes of handshake there are, which the library may
// have to keep.
func harmless(d []byte, cidSize int, established bool) (unencrypted int, ok bool) {
	for len(d) > 0 {
		header := recordHeader
		if d[0] == contentConnectionID {
			header += cidSize
		}
		if len(d) < header {
			return 0, false
		}
		size := int(binary.BigEndian.Uint16(d[header-2:]))
		if len(d) < header+size {
			return 0, false
		}
		if epoch := binary.BigEndian.Uint16(d[3:]); epoch == 0 {
			switch content := d[header : header+size]; {
			case d[0] == contentHandshake:
				unencrypted += size
			case d[0] == contentChangeCipher && size == 1 && content[0] == 1:
			case d[0] == contentAlert && size == 2 && !established:
			default:
				return 0, false
			}
		}
		d = d[header+size:]
	}
	return unencrypted, true
}

// mendAlert rewrites an alert that the library sends before there is encryption.
// It gives it a connection ID, which only encrypted records may have (RFC 9146,
// section 3), and nobody understands it: the other side would wait on.
func mendAlert(d []byte) []byte {
	const inside = 3 // level, description, content type
	if len(d) < recordHeader+inside || d[0] != contentConnectionID || d[3] != 0 || d[4] != 0 || d[len(d)-1] != contentAlert {
		return d
	}
	alert := append([]byte{contentAlert}, d[1:recordHeader-2]...)
	return append(alert, 0, 2, d[len(d)-3], d[len(d)-2])
}
