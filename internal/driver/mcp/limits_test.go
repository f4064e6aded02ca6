package mcp_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	driver "github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

func TestAnAddressHasItsShareOfConnections(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	cfg := limits()
	cfg.MaxConnectionsPerAddress = 2
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: cfg})
	connect(t, s.address).hello("press-1")
	second := connect(t, s.address)
	second.hello("press-2")
	connect(t, s.address).wantError(mcp.CodeBusy)
	connect(t, s.address, 2).hello("press-3")
	second.conn.Close()
	eventually(t, "room for another", func() bool { return s.Stats().Connections == 2 })
	connect(t, s.address).hello("press-4")
	if got := s.Stats(); got.Refusals.PerAddress != 1 || got.Refused != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAnAddressHasItsShareOfHandshakes(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	cfg := limits()
	cfg.MaxHandshakes = 8
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: cfg})
	first, second := connect(t, s.address), connect(t, s.address)
	eventually(t, "both", func() bool { return s.Stats().Handshakes == 2 })
	connect(t, s.address).wantError(mcp.CodeBusy)
	connect(t, s.address, 2).hello("press-3")
	first.hello("press-1")
	connect(t, s.address).hello("press-4")
	second.conn.Close()
	eventually(t, "the handshakes to end", func() bool { return s.Stats().Handshakes == 0 })
	if got := s.Stats(); got.Refusals.Handshakes != 1 || got.Connections != 3 {
		t.Errorf("%+v", got)
	}
}

func TestAllAddressesTogetherHaveSoManyHandshakes(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	cfg := limits()
	cfg.MaxHandshakes = 4
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: cfg})
	for from := range byte(4) {
		connect(t, s.address, from+2)
	}
	eventually(t, "four", func() bool { return s.Stats().Handshakes == 4 })
	connect(t, s.address, 6).wantError(mcp.CodeBusy)
}

func TestADeviceThatIsTooFastIsSlowedAndThenDisconnected(t *testing.T) {
	b := openStore(t, t.TempDir(), store.Config{})
	cfg := limits()
	cfg.Rate, cfg.RateBurst = 100, 10
	s := startServer(t, b.store, driver.ServerConfig{ListenConfig: cfg})
	records := func(device string, n int) (list []record.Record) {
		for range n {
			list = append(list, record.Record{Device: device, Stream: "s", Payload: []byte("x")})
		}
		return list
	}
	fast := connect(t, s.address)
	fast.hello("press-1")
	start := time.Now()
	fast.publishRecords(0, records("press-1", 30)...)
	fast.publishRecords(30, records("press-1", 1)...)
	fast.wantAck(31)
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("31 records are through after %v", took)
	}
	mad := connect(t, s.address)
	mad.hello("press-2")
	mad.publishRecords(0, records("press-2", 1000)...)
	mad.publishRecords(1000, records("press-2", 1)...)
	mad.wantError(mcp.CodeRateExceeded)
	eventually(t, "both to be counted", func() bool {
		got := s.Stats().Refusals
		return got.RateSlowed == 1 && got.RateExceeded == 1
	})
}

// BenchmarkIdlePeers is the memory of a device that has said HELLO, and then
// nothing more; the far ends are bare sockets.
func BenchmarkIdlePeers(b *testing.B) {
	const count = 5000
	q := openStore(b, b.TempDir(), store.Config{})
	cfg := limits()
	cfg.MaxConnections, cfg.MaxConnectionsPerAddress, cfg.MaxHandshakes = 2*count, 2*count, 2*count
	s := startServer(b, q.store, driver.ServerConfig{ListenConfig: cfg})
	list := make([]int, count)
	for b.Loop() {
		heap, stacks := memory()
		for i := range list {
			list[i] = bareSocket(b, s.address, fmt.Sprint("press-", i))
		}
		eventually(b, "all of them", func() bool { s := s.Stats(); return s.Connections == count && s.Handshakes == 0 })
		heapThen, stacksThen := memory()
		b.ReportMetric(float64(heapThen-heap)/count/1024, "KiB-heap/peer")
		b.ReportMetric(float64(stacksThen-stacks)/count/1024, "KiB-stack/peer")
		for _, fd := range list {
			_ = syscall.Close(fd)
		}
	}
}

// bareSocket says HELLO and costs this process nothing but a descriptor.
func bareSocket(b *testing.B, address, sender string) int {
	b.Helper()
	at := netip.MustParseAddrPort(address)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	if err == nil {
		h := mcp.Hello{Sender: sender, Epoch: 1, Channels: []string{"main"}}
		_, err = syscall.Write(fd, frame(b, mcp.CommandHello, h.Append(nil)))
	}
	if err != nil {
		b.Fatal(err)
	}
	return fd
}

func memory() (heap, stacks uint64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse, m.StackInuse
}
