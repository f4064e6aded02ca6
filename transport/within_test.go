package transport_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// datagrams is a Conn that has received some.
type datagrams struct {
	transport.Conn
	received []string
}

func (d *datagrams) Info() transport.Info { return transport.Info{MaxMessage: 100} }

func (d *datagrams) Read() ([]byte, error) {
	if len(d.received) == 0 {
		return nil, transport.ErrLost
	}
	next := d.received[0]
	d.received = d.received[1:]
	return []byte(next), nil
}

func (d *datagrams) Discard() error { d.received = nil; return nil }

// semicolons ends messages with one; an exclamation mark is noise.
type semicolons struct{}

func (semicolons) Split(buf []byte, idle bool) (int, []byte, error) {
	if !idle {
		panic("a datagram is complete")
	}
	if len(buf) > 0 && buf[0] == '!' {
		return 1, nil, nil
	}
	end := bytes.IndexByte(buf, ';')
	if end < 0 {
		return 0, nil, nil
	}
	return end + 1, buf[:end], nil
}

func (semicolons) Idle() time.Duration { return 0 }
func (semicolons) Max() int            { return 100 }

func TestADatagramMayHoldSeveralMessagesAndNoneGoesOnInTheNext(t *testing.T) {
	conn := transport.Within(&datagrams{received: []string{"a;b;", "", "c;unfini", "shed;!!d;"}}, semicolons{})
	var got []string
	for {
		msg, err := conn.Read()
		if errors.Is(err, transport.ErrLost) {
			break
		}
		if errors.Is(err, transport.ErrFrame) {
			msg = []byte("?")
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(msg))
	}
	if all := strings.Join(got, " "); all != "a b c ? shed d" {
		t.Errorf("read %s", all)
	}
}

func TestDiscardDropsTheRestOfADatagram(t *testing.T) {
	conn := transport.Within(&datagrams{received: []string{"a;b;", "c;"}}, semicolons{})
	if _, err := conn.Read(); err != nil {
		t.Fatal(err)
	}
	if err := conn.Discard(); err != nil {
		t.Fatal(err)
	}
	if msg, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
		t.Errorf("read %q, %v", msg, err)
	}
}
