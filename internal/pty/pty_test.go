package pty

import (
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBytesPassBothWaysUntouched(t *testing.T) {
	master, path, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()

	all := make([]byte, 256) // every byte, so every one that a terminal would act on
	for i := range all {
		all[i] = byte(i)
	}
	for _, way := range []struct {
		name     string
		from, to *os.File
	}{{"master to slave", master, slave}, {"slave to master", slave, master}} {
		if _, err := way.from.Write(all); err != nil {
			t.Fatal(way.name, err)
		}
		got := make([]byte, len(all))
		_ = way.to.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(way.to, got); err != nil {
			t.Fatal(way.name, err)
		}
		if string(got) != string(all) {
			t.Errorf("%s: got % x", way.name, got)
		}
	}
}

func TestEveryPairIsAnother(t *testing.T) {
	a, pathA, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, pathB, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if pathA == pathB {
		t.Errorf("both are %s", pathA)
	}
}

func TestCloseUnblocksARead(t *testing.T) {
	master, _, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := master.Read(make([]byte, 1))
		failed <- err
	}()
	master.Close()
	if err := <-failed; err == nil {
		t.Error("read something from a closed master")
	}
}
