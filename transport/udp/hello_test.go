package udp

import (
	"bytes"
	"testing"
)

// firstHello is a ClientHello with a cookie of four bytes and a session ID of two.
func firstHello() []byte {
	body := append([]byte{0xFE, 0xFD}, bytes.Repeat([]byte{7}, helloRandom)...)
	body = append(body, 2, 's', 'i', 4, 'c', 'o', 'o', 'k', 0, 2, 0xC0, 0x2B, 1, 0)
	size := byte(len(body))
	message := append([]byte{typeClientHello, 0, 0, size, 0, 0, 0, 0, 0, 0, 0, size}, body...)
	return append([]byte{contentHandshake, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(message))}, message...)
}

func TestAClientHelloIsReadUpToItsCookie(t *testing.T) {
	h, ok := parseHello(firstHello())
	if !ok || string(h.cookie) != "cook" || h.random[31] != 7 {
		t.Errorf("%+v, %v", h, ok)
	}
}

func TestAHelloInPiecesOrCutShortIsNone(t *testing.T) {
	whole := firstHello()
	for n := range len(whole) - 1 {
		if _, ok := parseHello(whole[:n]); ok {
			t.Errorf("%d bytes of %d are a hello", n, len(whole))
		}
	}
	for at, value := range map[int]byte{
		0:  contentAlert,
		1:  3,                      // TLS, not DTLS
		4:  1,                      // encrypted
		13: typeHelloVerifyRequest, // another message
		16: 200,                    // longer than the record
		21: 1,                      // the second fragment
		24: 10,                     // the first of several
		59: 255,                    // a session ID beyond the end
	} {
		bad := firstHello()
		bad[at] = value
		if _, ok := parseHello(bad); ok {
			t.Errorf("with byte %d as %d it is a hello", at, value)
		}
	}
}

func TestARecordsConnectionIDIsFound(t *testing.T) {
	d := []byte{contentConnectionID, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 'x'}
	if id, ok := connectionID(d); !ok || id != (cid{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("%x, %v", id, ok)
	}
	if _, ok := connectionID(d[:20]); ok {
		t.Error("a header without its end has one")
	}
}

func FuzzWhatAStrangerSends(f *testing.F) {
	f.Add(firstHello(), false)
	f.Add(append(firstHello(), firstHello()...), true)
	f.Add([]byte{contentConnectionID, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3, 2, 40, contentAlert}, false)
	f.Add([]byte{contentChangeCipher, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 1}, true)
	f.Add([]byte{contentHandshake, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 3, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0xFE, 0xFD, 1, 'c'}, false)
	f.Fuzz(func(t *testing.T, d []byte, established bool) {
		if h, ok := parseHello(d); ok && !bytes.Contains(d, h.random[:]) {
			t.Error("the random bytes are none of the datagram's")
		}
		_, isHello := parseHello(d)
		if _, isRequest := parseVerifyRequest(d); isHello && isRequest {
			t.Error("two messages in one place")
		}
		if _, ok := connectionID(d); ok && isHello {
			t.Error("a hello has a connection ID")
		}
		if n, ok := harmless(d, cidSize, established); n < 0 || n > len(d) || ok && n > 0 && d[0] == contentAlert && established {
			t.Errorf("%d bytes unencrypted of %d", n, len(d))
		}
		if mended := mendAlert(d); len(mended) > len(d) {
			t.Errorf("%d bytes become %d", len(d), len(mended))
		}
	})
}
