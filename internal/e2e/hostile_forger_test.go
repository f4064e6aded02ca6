package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	endian "encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
)

// forger sends datagrams in the name of any address; that takes root.
type forger struct{ socket int }

func newForger() (*forger, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, os.NewSyscallError("raw socket", err)
	}
	return &forger{socket}, nil
}

func (f *forger) close() { _ = unix.Close(f.socket) }

// send makes the headers of IPv4 (RFC 791) and UDP (RFC 768). The kernel fills
// in the former's length and checksum; the latter's may be 0 for none.
func (f *forger) send(from, to netip.AddrPort, payload []byte) error {
	packet := make([]byte, 28, 28+len(payload))
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(packet[12:], from.Addr().AsSlice())
	copy(packet[16:], to.Addr().AsSlice())
	endian.BigEndian.PutUint16(packet[20:], from.Port())
	endian.BigEndian.PutUint16(packet[22:], to.Port())
	endian.BigEndian.PutUint16(packet[24:], uint16(8+len(payload)))
	packet = append(packet, payload...)
	return os.NewSyscallError("sendto", unix.Sendto(f.socket, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}))
}

func forgerFor(t *testing.T) *forger {
	t.Helper()
	f, err := newForger()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// mustSend sends n copies.
func (f *forger) mustSend(t *testing.T, n int, from, to netip.AddrPort, payload []byte) {
	t.Helper()
	for range n {
		if err := f.send(from, to, payload); err != nil {
			t.Fatal(err)
		}
	}
}

// datagram is a cookie and frames.
func datagram(cookie uint64, frames ...[]byte) []byte {
	b := endian.BigEndian.AppendUint64(nil, cookie)
	for _, f := range frames {
		b = append(b, f...)
	}
	return b
}

// forge sends so many datagrams a second in the name of every address that there
// is on this machine.
func forge(ctx context.Context, address string, perSecond int, next func() []byte) {
	f, err := newForger()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.close()
	to := netip.MustParseAddrPort(address)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	fmt.Println(attackBegun)
	began, sent := time.Now(), 0
	for ctx.Err() == nil {
		<-tick.C
		for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
			n := rand.Uint32()
			from := netip.AddrFrom4([4]byte{127, 1 + byte(n>>16)%250, byte(n >> 8), byte(n)})
			if err := f.send(netip.AddrPortFrom(from, uint16(1024+rand.IntN(60_000))), to, next()); err != nil {
				fmt.Println(err)
				return
			}
		}
	}
}

// firstDatagrams catches what each of many dialed connections begins with, and
// gives one after the other.
func firstDatagrams(dialer func(address string) transport.Dialer) (next func() []byte) {
	const different = 64
	var all [][]byte
	for range different {
		all = append(all, firstDatagram(dialer))
	}
	i := 0
	return func() []byte {
		i++
		return all[i%different]
	}
}

func firstDatagram(dialer func(address string) transport.Dialer) []byte {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil
	}
	defer c.Close()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	defer func() { <-done }()
	defer stop()
	go func() {
		defer close(done)
		_, _ = dialer(c.LocalAddr().String()).Dial(ctx, nil)
	}()
	buf := make([]byte, 2048)
	n, _ := c.Read(buf)
	return bytes.Clone(buf[:n])
}

// impostor trusts anybody, and shows a certificate that it has made itself.
func impostor() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return nil
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"good"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil
	}
	return &tls.Config{
		InsecureSkipVerify: true,
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}

// forgedToken is one for the good device, signed with a key of the forger's.
func forgedToken() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return ""
	}
	token, _ := jwt.NewWithClaims(jwt.SigningMethodES256, claims(jwt.MapClaims{"sub": "good"})).SignedString(key)
	return token
}
