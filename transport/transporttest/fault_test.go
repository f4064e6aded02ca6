package transporttest

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// faultyPair is a Faulty Conn and the good Conn at its far end.
func faultyPair(faults Faults) (*Faulty, transport.Conn) {
	a, b := Pipe(framers(), framers())
	return NewFaulty(a, faults), b
}

func TestADroppedMessageNeverArrives(t *testing.T) {
	drop := Nth(1, Fate{Drop: true})
	f, far := faultyPair(Faults{Read: drop, Write: drop})
	defer f.Close()
	defer far.Close()
	for n := range 3 {
		if err := f.Write(numbered(n)); err != nil {
			t.Fatal(err)
		}
		if err := far.Write(numbered(n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []transport.Conn{f, far} {
		expect(t, c, numbered(0))
		expect(t, c, numbered(2))
	}
}

func TestACorruptMessageDiffersByOneBit(t *testing.T) {
	f, far := faultyPair(Faults{Write: Containing([]byte("7"), Fate{Corrupt: true})})
	defer f.Close()
	defer far.Close()
	sent := numbered(7)
	if err := f.Write(sent); err != nil {
		t.Fatal(err)
	}
	got, err := receive(t, far)
	if err != nil {
		t.Fatal(err)
	}
	if string(sent) != string(numbered(7)) {
		t.Error("the sender's own bytes were changed")
	}
	got[len(got)/2] ^= 1
	if string(got) != string(sent) {
		t.Errorf("got %q", got)
	}
}

func TestALateAnswerComesAfterTheDeadlineAndSurvivesDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, far := faultyPair(Faults{Read: Nth(0, Fate{Delay: time.Second})})
		defer f.Close()
		defer far.Close()
		began := time.Now()
		_ = far.Write(numbered(0))
		_ = f.SetReadDeadline(began.Add(300 * time.Millisecond))
		_, err := f.Read()
		expectError(t, err, os.ErrDeadlineExceeded)
		if err := f.Discard(); err != nil {
			t.Fatal(err)
		}
		expect(t, f, numbered(0))
		if after := time.Since(began); after != time.Second {
			t.Errorf("arrived after %v", after)
		}
	})
}

func TestADelayedWriteObeysItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, far := faultyPair(Faults{Write: Nth(0, Fate{Delay: time.Second})})
		defer f.Close()
		defer far.Close()
		_ = f.SetWriteDeadline(time.Now().Add(time.Millisecond))
		expectError(t, f.Write(numbered(0)), os.ErrDeadlineExceeded)
	})
}

func TestACutIsLostAtBothEndsUntilWeClose(t *testing.T) {
	f, far := faultyPair(Faults{Write: Nth(1, Fate{Cut: true})})
	defer far.Close()
	blocked := start(read(f))
	if err := f.Write(numbered(0)); err != nil {
		t.Fatal(err)
	}
	expectLost(t, f.Write(numbered(1)))
	expectLost(t, blocked.result(t))
	expect(t, far, numbered(0))
	_, err := receive(t, far)
	expectLost(t, err)
	f.Close()
	if _, err := f.Read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
