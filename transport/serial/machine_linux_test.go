package serial

import (
	"os"
	"path/filepath"
	"testing"
)

// machine is a kernel's view of serial ports: a tree such as /sys, and device
// files that lead to pseudo-terminals. Processes are the real ones.
type machine struct {
	roots
	t *testing.T
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root := t.TempDir()
	m := &machine{roots{sys: filepath.Join(root, "sys"), dev: filepath.Join(root, "dev"), proc: "/proc"}, t}
	m.mkdir(filepath.Join(m.sys, "class/tty"))
	m.mkdir(m.dev)
	return m
}

func (m *machine) mkdir(dir string) {
	m.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// write makes a file of sysfs.
func (m *machine) write(dir, name, text string) {
	m.t.Helper()
	m.mkdir(dir)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) link(target, path string) {
	m.t.Helper()
	m.mkdir(filepath.Dir(path))
	if err := os.Symlink(target, path); err != nil {
		m.t.Fatal(err)
	}
}

// driven gives a device its driver and its bus.
func (m *machine) driven(device, driver, bus string) {
	m.t.Helper()
	m.mkdir(device)
	m.link("/sys/bus/"+bus+"/drivers/"+driver, filepath.Join(device, "driver"))
	m.link("/sys/bus/"+bus, filepath.Join(device, "subsystem"))
}

// tty gives a device its terminal, and that its device file, which leads to
// file; without file there is none.
func (m *machine) tty(name, device, file string) {
	m.t.Helper()
	dir := filepath.Join(device, "tty", name)
	m.mkdir(dir)
	m.link("../..", filepath.Join(dir, "device"))
	m.link(dir, filepath.Join(m.sys, "class/tty", name))
	if file != "" {
		m.link(file, filepath.Join(m.dev, name))
	}
}

// plug plugs an adapter in, as Linux shows one that ftdi_sio works.
func (m *machine) plug(name, file string, id USBIdentity) {
	m.t.Helper()
	adapter := filepath.Join(m.sys, "devices/usb1", "1-"+name)
	for attribute, text := range map[string]string{
		"idVendor": id.VID, "idProduct": id.PID, "serial": id.Serial, "manufacturer": id.Manufacturer, "product": id.Product,
	} {
		if text != "" {
			m.write(adapter, attribute, text)
		}
	}
	m.driven(adapter, "usb", "usb")
	function := filepath.Join(adapter, "1-"+name+":1."+id.Interface)
	m.write(function, "bInterfaceNumber", id.Interface)
	m.driven(function, "ftdi_sio", "usb")
	port := filepath.Join(function, name)
	m.driven(port, "ftdi_sio", "usb-serial")
	m.tty(name, port, file)
	if file != "" {
		m.link(file, filepath.Join(m.dev, "serial/by-id", byIDName(id)))
	}
}

func byIDName(id USBIdentity) string {
	return "usb-" + id.Manufacturer + "_" + id.Product + "_" + id.Serial + "-if" + id.Interface + "-port0"
}

// unplug takes an adapter out.
func (m *machine) unplug(name string, id USBIdentity) {
	m.t.Helper()
	for _, path := range []string{
		filepath.Join(m.sys, "class/tty", name), filepath.Join(m.sys, "devices/usb1", "1-"+name),
		filepath.Join(m.dev, name), filepath.Join(m.dev, "serial/by-id", byIDName(id)),
	} {
		if err := os.RemoveAll(path); err != nil {
			m.t.Fatal(err)
		}
	}
}

// uart adds a UART of the board, as kernels from 6.5 show it; its type is as in
// linux/serial_core.h.
func (m *machine) uart(name, file, kind string) {
	m.t.Helper()
	board := filepath.Join(m.sys, "devices/platform", "uart-"+name)
	m.driven(board, "uart-pl011", "amba")
	controller := filepath.Join(board, name+":0")
	m.driven(controller, "ctrl", "serial-base")
	port := filepath.Join(controller, name+":0.0")
	m.driven(port, "port", "serial-base")
	m.tty(name, port, file)
	m.write(filepath.Join(port, "tty", name), "type", kind)
}

// dialer is NewUSBDialer on this machine.
func (m *machine) dialer(usb USB) *Dialer {
	d := NewUSBDialer(usb, settings())
	d.roots = m.roots
	return d
}

func ftdi(serial string) USBIdentity {
	return USBIdentity{VID: "0403", PID: "6001", Serial: serial, Interface: "00", Manufacturer: "FTDI", Product: "FT232R"}
}
