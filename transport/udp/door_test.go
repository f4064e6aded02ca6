package udp

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

func strangerNo(n int) (key candidateKey) {
	binary.BigEndian.PutUint64(key.random[:], uint64(n))
	return key
}

func TestInAFloodOfForgedHellosAClientThatRepeatsItsOwnIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor()
		letIn := 0
		flood := func(from, n int) {
			for i := range n {
				if d.letIn(strangerNo(from + i)) {
					letIn++
				}
			}
		}
		flood(1, 50_000)
		if d.letIn(strangerNo(0)) {
			t.Error("a first hello was let in during the flood")
		}
		<-time.After(time.Second)
		flood(100_000, 20_000)
		if !d.letIn(strangerNo(0)) {
			t.Error("its repetition was not let in")
		}
		if most := 2*unprovenMost + 2*helloRate; letIn > most {
			t.Errorf("%d forged hellos were let in", letIn)
		}
		if known := len(d.known[0]) + len(d.known[1]); known > 2*knocksMost {
			t.Errorf("%d are remembered", known)
		}
	})
}

func TestWithoutAFloodEverybodyIsLetInAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor()
		for i := range 1000 {
			if !d.letIn(strangerNo(i)) {
				t.Fatalf("number %d was not let in", i)
			}
			<-time.After(time.Second / helloRate)
		}
	})
}
