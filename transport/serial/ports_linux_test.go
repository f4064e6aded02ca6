package serial

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestPortsWithHardwareAreListedWithTheirIdentities(t *testing.T) {
	m := newMachine(t)
	_, one := pair(t)
	_, two := pair(t)
	_, three := pair(t)
	m.uart("ttyAMA0", one, "32")
	m.uart("ttyS0", two, "0") // no hardware
	m.mkdir(filepath.Join(m.sys, "class/tty/tty1"))
	m.plug("ttyUSB10", three, ftdi("A2"))
	m.plug("ttyUSB2", "", ftdi("A1"))

	ports, err := m.ports()
	if err != nil {
		t.Fatal(err)
	}
	m.findUsers(ports)
	id1, id2 := ftdi("A1"), ftdi("A2")
	want := []Port{
		{Path: filepath.Join(m.dev, "ttyAMA0"), Driver: "uart-pl011", State: Free},
		{Path: filepath.Join(m.dev, "ttyUSB2"), Driver: "ftdi_sio", USB: &id1, State: NoFile},
		{
			Path: filepath.Join(m.dev, "ttyUSB10"), Driver: "ftdi_sio", USB: &id2, State: Free,
			ByID: filepath.Join(m.dev, "serial/by-id", byIDName(id2)),
		},
	}
	if !reflect.DeepEqual(ports, want) {
		t.Errorf("got  %+v\nwant %+v", ports, want)
	}
}

func TestWhoHasAPortIsSaid(t *testing.T) {
	m := newMachine(t)
	_, path := pair(t)
	m.plug("ttyUSB0", path, ftdi("A1"))
	conn := dial(t, m.dialer(USB{VID: "0403", PID: "6001"}), framer())
	state := func() (PortState, string) {
		ports, err := m.ports()
		if err != nil {
			t.Fatal(err)
		}
		m.findUsers(ports)
		return ports[0].State, ports[0].User
	}
	if state, user := state(); state != InUse || !strings.Contains(user, "serial.test") {
		t.Errorf("open: %q, %q", state, user)
	}
	conn.Close()
	if state, user := state(); state != Free || user != "" {
		t.Errorf("closed: %q, %q", state, user)
	}
}

func TestALockIsSeenWhereTheProgramIsHidden(t *testing.T) {
	m := newMachine(t)
	_, path := pair(t)
	m.uart("ttyAMA0", path, "32")
	m.proc = t.TempDir()
	m.write(m.proc, "locks", strings.Join([]string{
		"1: POSIX  ADVISORY  WRITE 7 00:01:1 0 EOF",
		"2: -> FLOCK  ADVISORY  WRITE 8 " + inode(path) + " 0 EOF",
		"3: FLOCK  ADVISORY  WRITE 812 " + inode(path) + " 0 EOF",
		"4: FLOCK", "", "x",
	}, "\n"))
	ports, err := m.ports()
	if err != nil {
		t.Fatal(err)
	}
	m.findUsers(ports)
	if ports[0].State != InUse || ports[0].User != "" {
		t.Errorf("%+v", ports[0])
	}
	m.write(filepath.Join(m.proc, "812"), "comm", "minicom")
	if m.findUsers(ports); ports[0].User != "minicom (812)" {
		t.Errorf("%+v", ports[0])
	}
}

func TestAMachineWithoutSysfsSaysSo(t *testing.T) {
	if _, err := (roots{sys: t.TempDir()}).ports(); err == nil {
		t.Error("no error")
	}
}

func TestWhatAnAdapterSaysOfItselfIsMadeHarmless(t *testing.T) {
	m := newMachine(t)
	m.write(m.sys, "product", "\x1b[2JFT232R\xff"+strings.Repeat("x", 10000))
	got := attribute(m.sys, "product")
	if !strings.HasPrefix(got, "[2JFT232R?x") || len(got) > longestAttribute {
		t.Errorf("%q, %d bytes", got[:20], len(got))
	}
}

// TestThePortsOfThisMachine can hold little about a machine that it does not know.
func TestThePortsOfThisMachine(t *testing.T) {
	ports, err := Ports()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if !strings.HasPrefix(p.Path, "/dev/") || p.State == "" {
			t.Errorf("%+v", p)
		}
	}
}
