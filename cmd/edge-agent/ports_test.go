package main

import (
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/transport/serial"
)

func TestPortsAreATableForPeople(t *testing.T) {
	var out strings.Builder
	err := printPorts(&out, []serial.Port{
		{Path: "/dev/ttyAMA0", Driver: "uart-pl011", State: serial.InUse, User: "minicom (812)"},
		{
			Path: "/dev/ttyUSB0", ByID: "/dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00-port0", Driver: "ftdi_sio", State: serial.Free,
			USB: &serial.USBIdentity{VID: "0403", PID: "6001", Serial: "A50285BI", Interface: "00", Manufacturer: "FTDI", Product: "FT232R USB UART"},
		},
		{Path: "/dev/ttyUSB1", State: serial.NoFile, USB: &serial.USBIdentity{VID: "1a86", PID: "7523"}},
	})
	want := `
PORT          STATE                    USB              SERIAL    PRODUCT               DRIVER      ADDRESS
/dev/ttyAMA0  in use by minicom (812)  -                -         -                     uart-pl011  /dev/ttyAMA0
/dev/ttyUSB0  free                     0403:6001 if 00  A50285BI  FTDI FT232R USB UART  ftdi_sio    /dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00-port0
/dev/ttyUSB1  no device file           1a86:7523        -         -                     -           /dev/ttyUSB1
`
	if got := "\n" + out.String(); err != nil || got != want {
		t.Errorf("%v\ngot %s\nwant %s", err, got, want)
	}
}

func TestWithoutPortsItIsSaidWhatToCheck(t *testing.T) {
	var out strings.Builder
	if err := printPorts(&out, nil); err != nil || !strings.HasPrefix(out.String(), "No serial port is here.") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
