package serial

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ports lists what sysfs knows, sorted by path; State says no more than whether
// there is a device file.
func (r roots) ports() ([]Port, error) {
	class := filepath.Join(r.sys, "class", "tty")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, fmt.Errorf("serial ports can't be listed: %w", err)
	}
	byID := r.byID()
	var ports []Port
	for _, entry := range entries {
		// What has no device is made of software: consoles, pseudo-terminals.
		device, err := filepath.EvalSymlinks(filepath.Join(class, entry.Name(), "device"))
		if err != nil || noHardware(filepath.Join(class, entry.Name())) {
			continue
		}
		p := Port{
			Path:   filepath.Join(r.dev, entry.Name()),
			Driver: r.driver(device),
			USB:    r.usb(device),
			State:  Free,
		}
		switch file, err := filepath.EvalSymlinks(p.Path); {
		case err == nil:
			p.ByID = byID[file]
		case errors.Is(err, fs.ErrNotExist):
			p.State = NoFile
		}
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b Port) int {
		// ttyUSB2 before ttyUSB10.
		return cmp.Or(cmp.Compare(len(a.Path), len(b.Path)), cmp.Compare(a.Path, b.Path))
	})
	return ports, nil
}

// noHardware tells a ttyS that exists only because the kernel was built for so
// many: its type is PORT_UNKNOWN, 0 (linux/serial_core.h). What has no type is
// no UART of the kernel's, but there.
func noHardware(tty string) bool { return attribute(tty, "type") == "0" }

// byID maps device files to their links in /dev/serial/by-id.
func (r roots) byID() map[string]string {
	links := make(map[string]string)
	dir := filepath.Join(r.dev, "serial", "by-id")
	entries, _ := os.ReadDir(dir) // not there without a USB adapter
	for _, entry := range entries {
		link := filepath.Join(dir, entry.Name())
		if file, err := filepath.EvalSymlinks(link); err == nil {
			links[file] = link
		}
	}
	return links
}

// above yields device and the devices that it hangs on, up to sysfs' root.
func (r roots) above(device string) func(yield func(dir string) bool) {
	sys, err := filepath.EvalSymlinks(r.sys)
	return func(yield func(string) bool) {
		for dir := device; err == nil && strings.HasPrefix(dir, sys+"/"); dir = filepath.Dir(dir) {
			if !yield(dir) {
				return
			}
		}
	}
}

// driver is the first that works device or what it hangs on. Between a UART's
// tty and its device, newer kernels have two of bus serial-base, whose drivers
// say nothing.
func (r roots) driver(device string) string {
	for dir := range r.above(device) {
		link, err := os.Readlink(filepath.Join(dir, "driver"))
		if err != nil {
			continue
		}
		if bus, _ := os.Readlink(filepath.Join(dir, "subsystem")); filepath.Base(bus) != "serial-base" {
			return filepath.Base(link)
		}
	}
	return ""
}

// usb reads who the adapter is that device hangs on; nil if there is none.
func (r roots) usb(device string) *USBIdentity {
	id := new(USBIdentity)
	for dir := range r.above(device) {
		if id.Interface == "" {
			id.Interface = attribute(dir, "bInterfaceNumber")
		}
		if id.VID = attribute(dir, "idVendor"); id.VID == "" {
			continue
		}
		id.PID = attribute(dir, "idProduct")
		id.Serial = attribute(dir, "serial")
		id.Manufacturer = attribute(dir, "manufacturer")
		id.Product = attribute(dir, "product")
		return id
	}
	return nil
}

// longestAttribute bounds what is read of an adapter's own words; a USB string
// has at most 126 characters (USB 2.0, section 9.6.7).
const longestAttribute = 512

// attribute reads a file of sysfs; empty if it is not there. Control characters,
// which only a hostile or broken adapter sends, are left out.
func attribute(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	clean := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, strings.ToValidUTF8(string(text[:min(len(text), longestAttribute)]), "?"))
	return strings.TrimSpace(clean)
}

// find returns the device file of the adapter u.
func (r roots) find(u USB) (path string, err error) {
	ports, err := r.ports()
	if err != nil {
		return "", err
	}
	return u.pick(ports)
}
