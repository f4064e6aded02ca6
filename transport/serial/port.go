package serial

// Port is a serial port of this machine.
type Port struct {
	// Path of the device file, such as /dev/ttyUSB0.
	Path string `json:"path"`
	// ByID is the path under /dev/serial/by-id, which follows the adapter; empty
	// for what is no USB adapter.
	ByID string `json:"by_id,omitempty"`
	// Driver is the kernel's name of what works the port, such as ftdi_sio.
	Driver string `json:"driver,omitempty"`
	// USB is nil for what is no USB adapter.
	USB *USBIdentity `json:"usb,omitempty"`
	// State is one of the constants below.
	State PortState `json:"state"`
	// User is the program that has it, as far as we may see, such as "minicom (812)".
	User string `json:"user,omitempty"`
}

// USBIdentity is what an adapter says of itself (USB 2.0, section 9.6.1, and
// 9.6.5 for the interface). Serial, Manufacturer and Product may be empty.
type USBIdentity struct {
	VID          string `json:"vid"` // four hexadecimal digits, like PID
	PID          string `json:"pid"`
	Serial       string `json:"serial,omitempty"`
	Interface    string `json:"interface,omitempty"` // two hexadecimal digits
	Manufacturer string `json:"manufacturer,omitempty"`
	Product      string `json:"product,omitempty"`
}

// PortState tells whether a port could be opened now.
type PortState string

// The states of a port.
const (
	Free  PortState = "free"   // as far as we may see
	InUse PortState = "in use" // a program has it open or locked
	// NoFile: the kernel has the port, but there is no device file for it, as in
	// a container that was not given it.
	NoFile PortState = "no device file"
)

// describe names the port in a message.
func (p Port) describe() string {
	if p.USB == nil {
		return p.Path
	}
	id := USB{VID: p.USB.VID, PID: p.USB.PID, Serial: p.USB.Serial, Interface: p.USB.Interface}
	return p.Path + " (" + id.String() + ")"
}

// roots are where the kernel shows what there is; a test has its own.
type roots struct {
	sys, dev, proc string
}

func systemRoots() roots { return roots{sys: "/sys", dev: "/dev", proc: "/proc"} }

// Ports lists the serial ports that have hardware behind them, by path. It
// opens none of them, as opening moves modem lines, which resets some devices:
// all it says comes from sysfs, /dev and /proc. Programs of other users can be
// seen by root only, unless they have locked the port with flock(2) as this
// agent does.
//
// It fails where the kernel tells nothing, as without /sys.
func Ports() ([]Port, error) {
	r := systemRoots()
	ports, err := r.ports()
	if err != nil {
		return nil, err
	}
	r.findUsers(ports)
	return ports, nil
}
