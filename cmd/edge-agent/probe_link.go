package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/probe"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// probeLink is what is scanned.
type probeLink struct {
	config.Link
	paste probe.Link
	given bool // it stands in a configuration
}

func (l probeLink) endpoint() string { return l.Transport + " " + cmp.Or(l.Address, l.usb()) }

func (l probeLink) usb() string {
	if l.USB == nil {
		return ""
	}
	return "usb " + l.USB.String()
}

// link finds out what LINK means.
func (c probeCommand) link(errs io.Writer) (probeLink, error) {
	bare, ok := c.bare()
	path := c.Config
	if path == "" && !ok {
		path = defaultConfig
		if _, err := os.Stat(path); err != nil {
			return probeLink{}, inputError{fmt.Errorf("%q is no device file and no HOST:PORT; if it is the name of a [[link]], say in which FILE: -c FILE", c.Link)}
		}
	}
	if path == "" {
		return bare, nil
	}
	file, err := loadConfig(path, errs)
	if err != nil {
		fmt.Fprintln(errs, "probe reads what check takes; a line that is not configured yet is probed by its device file or HOST:PORT, without -c")
		return probeLink{}, err
	}
	if i := slices.IndexFunc(file.Links, func(l config.Link) bool { return l.Name == c.Link || l.Address == c.Link }); i >= 0 {
		return configured(file, file.Links[i])
	}
	if !ok {
		return probeLink{}, inputError{fmt.Errorf("%q is no device file and no HOST:PORT, and %s has no [[link]] of that name", c.Link, path)}
	}
	return bare, nil
}

// bare is LINK as a device file or HOST:PORT.
func (c probeCommand) bare() (l probeLink, ok bool) {
	l.Address, l.paste.Lines = c.Link, []string{`transport = "serial"`, fmt.Sprintf("address = %q", c.Link)}
	if strings.Contains(c.Link, "/") {
		l.Transport, l.Serial.DataBits, l.Modbus.Framing = "serial", 8, modbus.FramingRTU
		l.paste.Name = "rs485-1"
		return l, true
	}
	host, port, err := net.SplitHostPort(c.Link)
	l.Transport, l.Modbus.Framing = "tcp", modbus.FramingTCP
	l.paste.Name, l.paste.Lines[0] = "plc-1", `transport = "tcp"`
	if c.RTU {
		l.Modbus.Framing = modbus.FramingRTU
		l.paste.Lines = append(l.paste.Lines, `modbus = { framing = "rtu" }`)
	}
	return l, err == nil && host != "" && port != ""
}

// configured is a [[link]] of a file.
func configured(file *config.File, l config.Link) (probeLink, error) {
	switch {
	case l.Driver != "" && l.Driver != "modbus":
		return probeLink{}, inputError{fmt.Errorf("the devices of link %q speak %s; probe looks for Modbus", l.Name, l.Driver)}
	case l.Accept != nil:
		return probeLink{}, inputError{fmt.Errorf("on link %q the device calls us; what can be probed is what we call", l.Name)}
	case l.TLS != nil, l.Transport == "quic":
		return probeLink{}, inputError{fmt.Errorf("link %q is encrypted; probe speaks to serial lines, and to TCP and UDP in the clear", l.Name)}
	}
	p := probeLink{Link: l, given: true, paste: probe.Link{
		Name: l.Name, Lines: []string{fmt.Sprintf("transport = %q", l.Transport)}, Known: make(map[int]string),
	}}
	if l.USB != nil {
		p.paste.Lines = append(p.paste.Lines, usbLine(*l.USB))
	} else {
		p.paste.Lines = append(p.paste.Lines, fmt.Sprintf("address = %q", l.Address))
	}
	if l.Transport != "serial" && l.Modbus.Framing == modbus.FramingRTU {
		p.paste.Lines = append(p.paste.Lines, `modbus = { framing = "rtu" }`)
	}
	if l.Serial.Echo {
		p.paste.Serial = append(p.paste.Serial, "echo = true")
	}
	if l.Serial.RS485 != nil {
		p.paste.Serial = append(p.paste.Serial, rs485Line(*l.Serial.RS485))
	}
	for _, d := range file.Devices {
		if d.Link == l.Name && d.Driver == "modbus" {
			p.paste.Known[d.Modbus.Unit] = d.ID
		}
	}
	return p, nil
}

// usbLine is the adapter's identity as it is configured.
func usbLine(u serial.USB) string {
	keys := []string{fmt.Sprintf("vid = %q", u.VID), fmt.Sprintf("pid = %q", u.PID)}
	if u.Serial != "" {
		keys = append(keys, fmt.Sprintf("serial = %q", u.Serial))
	}
	if u.Interface != "" {
		keys = append(keys, fmt.Sprintf("interface = %q", u.Interface))
	}
	return "usb = { " + strings.Join(keys, ", ") + " }"
}

// rs485Line is how the port switches its direction, as it is configured.
func rs485Line(r serial.RS485) string {
	return fmt.Sprintf("rs485 = { rts_on_send = %v, rts_after_send = %v, delay_before = %q, delay_after = %q, rx_during_tx = %v, terminate = %v }",
		r.RTSOnSend, r.RTSAfterSend, r.DelayBefore, r.DelayAfter, r.RXDuringTX, r.Terminate)
}

// open makes the line at a setting.
func (l probeLink) open(s probe.Setting) (probe.Line, error) {
	var dialer transport.Dialer
	switch l.Transport {
	case "serial":
		line := l.Serial
		line.Baud, line.Parity, line.StopBits = s.Baud, s.Format.Parity, float64(s.Format.StopBits)
		dialer = serial.NewDialer(l.Address, line)
		if l.USB != nil {
			dialer = serial.NewUSBDialer(*l.USB, line)
		}
	case "udp":
		dialer = udp.NewDialer(l.Address, l.UDP)
	default:
		dialer = tcp.NewDialer(l.Address, nil)
	}
	// What went wrong is in the result, so nothing is logged.
	return modbus.NewLink(dialer, modbus.LinkConfig{Framing: l.Modbus.Framing}, slog.New(slog.DiscardHandler))
}
