package modbusslave_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
)

// startFarm serves until the test ends.
func startFarm(t *testing.T, f *modbusslave.Farm) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving errgroup.Group
	serving.Go(func() error { return f.Serve(ctx, ln.(*net.TCPListener)) })
	t.Cleanup(func() {
		cancel()
		if err := serving.Wait(); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestAFarmAnswersEachRequestHoweverItArrives(t *testing.T) {
	asked := make(chan int, 16)
	address := startFarm(t, &modbusslave.Farm{OnRequest: func(conn int, _ time.Time) { asked <- conn }})
	request := []byte{0, 7, 0, 0, 0, 6, 1, 3, 0, 5, 0, 2}
	answer := []byte{0, 7, 0, 0, 0, 7, 1, 3, 4, 0, 5, 0, 6}
	for number := range 2 {
		conn := dial(t, address)
		for _, pieces := range [][][]byte{{request}, {request[:3], request[3:]}, {bytes.Repeat(request, 3)}} {
			want := 0
			for _, piece := range pieces {
				if _, err := conn.Write(piece); err != nil {
					t.Fatal(err)
				}
				want += len(piece)
			}
			for range want / len(request) {
				got := make([]byte, len(answer))
				if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, answer) {
					t.Fatalf("% x, %v", got, err)
				}
				if n := <-asked; n != number {
					t.Errorf("connection %d is told as %d", number, n)
				}
			}
		}
	}
}

func TestAFarmHangsUpOnWhatItDoesNotKnow(t *testing.T) {
	address := startFarm(t, new(modbusslave.Farm))
	for _, request := range [][]byte{
		{0, 1, 0, 0, 0, 6, 1, 6, 0, 0, 0, 1},   // writes
		{0, 1, 0, 9, 0, 6, 1, 3, 0, 0, 0, 1},   // another protocol
		{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 126}, // too much
	} {
		conn := dial(t, address)
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("% x: %v", request, err)
		}
	}
}
