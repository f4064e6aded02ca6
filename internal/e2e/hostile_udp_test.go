package e2e

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/sim/mcpdevice"
	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

func TestAGoodDeviceOnUDPDoesNotFeelAttacks(t *testing.T) {
	a, address := besieged(t, "udp", impatient)
	dialer := udp.NewDialer(address, udp.Config{})
	good := newGoodDevice(t, mcp.Config{Name: "good"}, dialer)
	newcomer := func() time.Duration {
		took, err := join(t, dialer, mcp.Config{Name: "newcomer"})
		if err != nil {
			t.Errorf("a new device: %v", err)
		}
		return took
	}
	good.feelsNothing(t, a, address, newcomer,
		ordeal{attack: "forged HELLOs", counts: []rise{{refusedFor("address_challenged"), 10_000}}},
		ordeal{attack: "forged noise", counts: []rise{{refusedFor("address_unproven"), 10_000}}},
	)
}

func TestAForgedAddressGetsNoMoreThanWasSentInItsNameAndNoSession(t *testing.T) {
	t.Parallel()
	a, address, _ := plant(t, "udp", "")
	device := newGoodDevice(t, mcp.Config{Name: "good"}, udp.NewDialer(address, udp.Config{}))
	forger := forgerFor(t)
	victim, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { victim.Close() })
	hello := helloFrame("forged", "")
	oldHello, err := mcp.AppendFrame(nil, mcp.Version1, mcp.CommandHello, hello[8:len(hello)-4])
	if err != nil {
		t.Fatal(err)
	}
	const challenged, unproven = "address_challenged", "address_unproven"
	for _, c := range []struct {
		what    string
		payload []byte
		reason  string
	}{
		{"HELLO", datagram(0, hello), challenged},
		{"HELLO with a guessed cookie", datagram(rand.Uint64(), hello), challenged},
		{"HELLO in version 1", datagram(0, oldHello), challenged},
		{"a long HELLO", datagram(0, helloFrame("forged", string(make([]byte, 1000)))), challenged},
		{"HELLO without what it needs", datagram(0, frame(mcp.CommandHello, nil)), unproven},
		{"HELLO and PUBLISH", datagram(0, hello, publishFrame("forged")), challenged},
		{"PUBLISH", datagram(rand.Uint64(), publishFrame("forged")), challenged},
		{"HEARTBEAT", datagram(0, frame(mcp.CommandHeartbeat, nil)), unproven},
		{"REQUEST", datagram(0, frame(mcp.CommandRequest, []byte{8, 1})), challenged},
		{"ERROR", datagram(0, frame(mcp.CommandError, []byte{8, 9})), unproven},
		{"a cookie alone", datagram(0), unproven},
		{"nothing", nil, unproven},
		{"noise", noise(1200), unproven},
	} {
		const copies = 20
		counted := a.risen(rise{refusedFor(c.reason), copies})
		forger.mustSend(t, copies, victim.LocalAddr().(*net.UDPAddr).AddrPort(), netip.MustParseAddrPort(address), c.payload)
		eventually(t, patience, c.what+" to be counted as "+c.reason, counted)
		device.publish(t) // which is read behind them, so the answers have been sent
		sent, got := copies*len(c.payload), received(t, victim)
		if got > sent || c.reason == unproven && got > 0 {
			t.Errorf("%s: %d bytes went to an address that had sent none, for %d sent in its name", c.what, got, sent)
		}
	}
	device.isWell(t)
	if peers := a.peers(); len(peers) != 1 || a.metric("edge_agent_listener_connections") != 1 {
		t.Errorf("the peers are %v", peers)
	}
}

// received is how many bytes wait in the socket.
func received(t *testing.T, c *net.UDPConn) (n int) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for {
		if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		size, err := c.Read(buf)
		if err != nil {
			return n
		}
		n += size
	}
}

func TestDatagramsInALiveSessionsNameAreDroppedWithoutItsCookie(t *testing.T) {
	t.Parallel()
	a, address, _ := plant(t, "udp", "")
	device := newGoodDevice(t, mcp.Config{Name: "good"}, udp.NewDialer(address, udp.Config{}))
	forger := forgerFor(t)
	agentAt, deviceAt := netip.MustParseAddrPort(address), netip.MustParseAddrPort(a.peers()["good"])
	const copies = 50
	for _, cookie := range []uint64{0, 1, rand.Uint64()} {
		counted := a.risen(rise{refusedFor("datagram_foreign"), 4 * copies})
		for _, f := range [][]byte{
			publishFrame("intruder"),
			frame(mcp.CommandAck, mcp.AppendAck(nil, []mcp.Position{{Channel: "main", Number: 1 << 40}})),
			frame(mcp.CommandClose, nil),
			frame(mcp.CommandError, []byte{8, 13}),
			helloFrame("intruder", ""), // is challenged; the answer goes to the device, which ignores it
		} {
			forger.mustSend(t, copies, deviceAt, agentAt, datagram(cookie, f))
			forger.mustSend(t, copies, agentAt, deviceAt, datagram(cookie, f))
		}
		device.publish(t)
		eventually(t, patience, "them to be counted", counted)
	}
	device.isWell(t)
	if n := a.lastSeq("intruder"); n > 0 {
		t.Errorf("%d records of an intruder are stored", n)
	}
	if n := a.lastSeq("good"); n != uint64(device.said) {
		t.Errorf("%d of %d records are stored", n, device.said)
	}
	if peers := a.peers(); len(peers) != 1 {
		t.Errorf("the peers are %v", peers)
	}
}

// TestReplayedAndReorderedDatagramsStoreNothingTwice has somebody on the way of
// a device's datagrams who changes their order and sends each of them again,
// some in the name of other addresses.
func TestReplayedAndReorderedDatagramsStoreNothingTwice(t *testing.T) {
	t.Parallel()
	const records = 1000
	a, address, out := plant(t, "udp", "")
	counted := a.risen(
		rise{"edge_agent_listener_repeats_total", 10}, rise{"edge_agent_listener_holes_total", 1}, rise{refusedFor("address_challenged"), 10},
	)
	d, err := mcpdevice.New(mcpdevice.Config{
		Publisher: mcp.PublisherConfig{
			Session: mcp.Config{Name: "press-7"},
			Dialer:  udp.NewDialer(replay(t, netip.MustParseAddrPort(address)), udp.Config{}),
		},
		Count: records, Every: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := delivered(t, out, "press-7", records)
	last, repeats := inOrder(t, list)
	if len(list) != records || last["press-7"] != records || repeats > 0 {
		t.Errorf("%d records, the last is %d, and %d are repeated", len(list), last["press-7"], repeats)
	}
	eventually(t, patience, "it to be counted", counted)
	if peers := a.peers(); len(peers) != 1 {
		t.Errorf("the peers are %v", peers)
	}
}

// replay stands between one device and the agent at target.
func replay(t *testing.T, target netip.AddrPort) (address string) {
	t.Helper()
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
	if err != nil {
		t.Fatal(err)
	}
	forger := forgerFor(t)
	var running sync.WaitGroup
	t.Cleanup(func() {
		near.Close()
		far.Close()
		running.Wait()
	})
	device := make(chan netip.AddrPort, 1)
	running.Go(func() {
		var kept [][]byte
		var held []byte // until the next one has overtaken it
		for buf := make([]byte, 2048); ; {
			n, from, err := near.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			now := append([]byte(nil), buf[:n]...)
			kept = append(kept, now)
			if len(kept) == 1 {
				device <- from
			}
			if len(held) == 0 && len(kept)%4 == 0 {
				held = now
				continue
			}
			old := kept[rand.IntN(len(kept))]
			for _, b := range [][]byte{now, held, old, now} {
				if len(b) > 0 {
					_, _ = far.Write(b)
				}
			}
			held = nil
			elsewhere := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 2}), uint16(1024+rand.IntN(60_000)))
			_ = forger.send(elsewhere, target, old)
		}
	})
	running.Go(func() {
		to := <-device
		for buf := make([]byte, 2048); ; {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			for range 2 {
				_, _ = near.WriteToUDPAddrPort(buf[:n], to)
			}
		}
	})
	return near.LocalAddr().String()
}
