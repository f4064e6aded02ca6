package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/mcp-edge/edge-agent/transport/serial"
)

type portsCommand struct {
	JSON bool `help:"One JSON array, for machines."`
}

func (c portsCommand) Run(out io.Writer) error {
	ports, err := serial.Ports()
	if err != nil {
		return err
	}
	if c.JSON {
		if ports == nil {
			ports = []serial.Port{}
		}
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(ports)
	}
	return printPorts(out, ports)
}

const noPorts = `No serial port is here. What to check:
  - a USB adapter: is it plugged in, and does the kernel log (dmesg) name a driver for it?
  - a port of the machine itself: is it switched on in the firmware or the device tree?
  - in a container: was it given the device, as with --device=/dev/ttyUSB0?
`

func printPorts(out io.Writer, ports []serial.Port) error {
	if len(ports) == 0 {
		_, err := io.WriteString(out, noPorts)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PORT\tSTATE\tUSB\tSERIAL\tPRODUCT\tDRIVER\tADDRESS")
	for _, p := range ports {
		state := string(p.State)
		if p.User != "" {
			state += " by " + p.User
		}
		var id serial.USBIdentity
		usb := ""
		if p.USB != nil {
			id = *p.USB
			usb = id.VID + ":" + id.PID
			if id.Interface != "" {
				usb += " if " + id.Interface
			}
		}
		row := []string{p.Path, state, usb, id.Serial, strings.TrimSpace(id.Manufacturer + " " + id.Product), p.Driver, cmp.Or(p.ByID, p.Path)}
		for i := range row {
			row[i] = cmp.Or(row[i], "-")
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}
