package serial

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

const patience = 10 * time.Second

// lost waits until the line says that it has gone.
func lost(t *testing.T, conn transport.Conn) {
	t.Helper()
	select {
	case <-conn.Info().Lost:
	case <-time.After(patience):
		t.Fatal("the line does not notice that it has gone")
	}
}

// reads expects that what is written at the far end arrives.
func reads(t *testing.T, conn transport.Conn, far *os.File) {
	t.Helper()
	if _, err := far.Write(transporttest.Frame([]byte("here"))); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(); err != nil {
		t.Fatal(err)
	}
}

func TestAnAdapterIsFollowedByItsUSBIdentityUnderAnotherName(t *testing.T) {
	m := newMachine(t)
	other, otherPath := pair(t)
	defer other.Close()
	m.plug("ttyUSB7", otherPath, USBIdentity{VID: "10c4", PID: "ea60", Serial: "0001", Interface: "00"})
	d := m.dialer(USB{VID: "0403", PID: "6001", Serial: "A50285BI"})

	_, err := d.Dial(t.Context(), framer())
	if !errors.Is(err, transport.ErrLost) || errors.Is(err, transport.ErrPermanent) {
		t.Errorf("without the adapter: %v", err)
	}
	for _, said := range []string{"0403:6001 serial A50285BI", "ttyUSB7 (10c4:ea60 serial 0001 interface 00)"} {
		if !strings.Contains(err.Error(), said) {
			t.Errorf("%v\ndoes not say %q", err, said)
		}
	}

	for _, name := range []string{"ttyUSB0", "ttyUSB1", "ttyUSB0"} {
		far, path := pair(t)
		m.plug(name, path, ftdi("A50285BI"))
		conn := dial(t, d, framer())
		if want := filepath.Join(m.dev, name); conn.Info().Remote != want {
			t.Errorf("opened %s, want %s", conn.Info().Remote, want)
		}
		reads(t, conn, far)
		far.Close()
		m.unplug(name, ftdi("A50285BI"))
		lost(t, conn)
		if _, err := conn.Read(); !errors.Is(err, transport.ErrLost) || !strings.Contains(err.Error(), "unplugged") {
			t.Errorf("Read after unplugging: %v", err)
		}
		if _, err := d.Dial(t.Context(), framer()); !errors.Is(err, transport.ErrLost) {
			t.Errorf("Dial after unplugging: %v", err)
		}
		conn.Close()
	}
}

func TestAnAdapterIsFollowedByIDUnderAnotherName(t *testing.T) {
	m := newMachine(t)
	d := NewDialer(filepath.Join(m.dev, "serial/by-id", byIDName(ftdi("A1"))), settings())
	for _, name := range []string{"ttyUSB0", "ttyUSB1"} {
		far, path := pair(t)
		m.plug(name, path, ftdi("A1"))
		conn := dial(t, d, framer())
		reads(t, conn, far)
		far.Close()
		m.unplug(name, ftdi("A1"))
		lost(t, conn)
		conn.Close()
	}
}

func TestAnIdentityThatFitsSeveralPortsIsPermanentAndNamesThem(t *testing.T) {
	m := newMachine(t)
	_, one := pair(t)
	_, two := pair(t)
	m.plug("ttyUSB0", one, ftdi("A1"))
	m.plug("ttyUSB1", two, ftdi("A2"))
	_, err := m.dialer(USB{VID: "0403", PID: "6001"}).Dial(t.Context(), framer())
	if !errors.Is(err, transport.ErrPermanent) {
		t.Fatal(err)
	}
	for _, said := range []string{"ttyUSB0 (0403:6001 serial A1", "ttyUSB1 (0403:6001 serial A2", "serial or interface", "by-id"} {
		if !strings.Contains(err.Error(), said) {
			t.Errorf("%v\ndoes not say %q", err, said)
		}
	}
}

func TestAPortOfAnAdapterWithSeveralIsChosenByItsInterface(t *testing.T) {
	m := newMachine(t)
	_, one := pair(t)
	_, two := pair(t)
	first, second := ftdi("A1"), ftdi("A1")
	second.Interface = "0A"
	m.plug("ttyUSB0", one, first)
	m.plug("ttyUSB1", two, second)
	conn := dial(t, m.dialer(USB{VID: "0403", PID: "6001", Interface: "0a"}), framer())
	if filepath.Base(conn.Info().Remote) != "ttyUSB1" {
		t.Errorf("opened %s", conn.Info().Remote)
	}
}

func TestADeviceThatIsNamedInTwoWaysHasOneUser(t *testing.T) {
	m := newMachine(t)
	_, path := pair(t)
	m.plug("ttyUSB0", path, ftdi("A1"))
	ways := []*Dialer{
		NewDialer(path, settings()),
		NewDialer(filepath.Join(m.dev, "serial/by-id", byIDName(ftdi("A1"))), settings()),
		m.dialer(USB{VID: "0403", PID: "6001"}),
	}
	for _, first := range ways {
		conn := dial(t, first, framer())
		for _, second := range ways {
			_, err := second.Dial(t.Context(), framer())
			if !errors.Is(err, transport.ErrPermanent) || !strings.Contains(err.Error(), "in use by another program or link") {
				t.Errorf("%s beside %s: %v", second.Endpoint(), first.Endpoint(), err)
			}
		}
		conn.Close()
	}
}

func TestNoAdapterHasAnImpossibleIdentity(t *testing.T) {
	for _, usb := range []USB{
		{},
		{VID: "403", PID: "6001"},
		{VID: "0403", PID: "600x"},
		{VID: "0x03", PID: "6001"},
		{VID: "0403", PID: "6001", Interface: "1"},
	} {
		if _, err := NewUSBDialer(usb, settings()).Dial(t.Context(), framer()); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("%+v: %v", usb, err)
		}
	}
}

func TestTrafficAndOurOwnCloseAreNoHangUp(t *testing.T) {
	far, path := pair(t)
	conn := dial(t, NewDialer(path, settings()), framer())
	for range 10 {
		reads(t, conn, far)
		if err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	select {
	case <-conn.Info().Lost:
		t.Error("the line says that it has gone")
	default:
	}
	if _, err := conn.Read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
}

func TestAReadThatWaitsEndsWhenTheDeviceIsUnplugged(t *testing.T) {
	far, path := pair(t)
	conn := dial(t, NewDialer(path, settings()), framer())
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read()
		read <- err
	}()
	far.Close()
	if err := <-read; !errors.Is(err, transport.ErrLost) {
		t.Error(err)
	}
	if err := conn.Write([]byte("x")); !errors.Is(err, transport.ErrLost) {
		t.Errorf("Write: %v", err)
	}
}

// TestSocatsPortIsOpenedAgainWhenItIsBack has socat, a program of its own, as
// the adapter: its link stays at one path and leads to another terminal each time.
func TestSocatsPortIsOpenedAgainWhenItIsBack(t *testing.T) {
	ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
	d, far := NewDialer(ours, settings()), NewDialer(theirs, settings())
	for range 3 {
		ctx, unplug := context.WithCancel(t.Context())
		socat := exec.CommandContext(ctx, "socat", "pty,rawer,link="+ours, "pty,rawer,link="+theirs)
		if err := socat.Start(); err != nil {
			t.Fatalf("socat is needed here: %v", err)
		}
		conn, peer := appears(t, d), appears(t, far)
		if err := peer.Write(transporttest.Frame([]byte("from the device"))); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if msg, err := conn.Read(); string(msg) != string(transporttest.Frame([]byte("from the device"))) {
			t.Fatalf("read %q, %v", msg, err)
		}
		unplug()
		_ = socat.Wait() // it was killed
		lost(t, conn)
		if _, err := conn.Read(); !errors.Is(err, transport.ErrLost) {
			t.Errorf("Read after unplugging: %v", err)
		}
		conn.Close()
		peer.Close()
		_, _ = os.Remove(ours), os.Remove(theirs) // a killed socat leaves them
	}
}

// appears dials until the device is there, as a lane would.
func appears(t *testing.T, d *Dialer) transport.Conn {
	t.Helper()
	for giveUp := time.Now().Add(patience); ; {
		conn, err := d.Dial(t.Context(), framer())
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if !errors.Is(err, transport.ErrLost) || time.Now().After(giveUp) {
			t.Fatal(err)
		}
		<-time.After(time.Millisecond)
	}
}

func TestADeviceFileThatHasJustAppearedMayStillGetItsGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ttyUSB0")
	if justAppeared(file) {
		t.Error("one that is not there has appeared")
	}
	if err := os.WriteFile(file, nil, 0); err != nil {
		t.Fatal(err)
	}
	if !justAppeared(file) || justAppeared("/dev/null") {
		t.Errorf("a new file: %v, /dev/null: %v", justAppeared(file), justAppeared("/dev/null"))
	}
}

func TestAHangUpIsSeenWithoutWaiting(t *testing.T) {
	far, path := pair(t)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	if hungUp(slave.Fd()) {
		t.Error("an open line has hung up")
	}
	far.Close()
	if !hungUp(slave.Fd()) {
		t.Error("a closed one has not")
	}
}
