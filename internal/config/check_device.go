package config

import (
	"fmt"
	"net/netip"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
)

func (c *checker) checkDevices() {
	remotes := make(map[string]string)
	units := make(map[string]string)
	for i := range c.file.Devices {
		d, at := &c.file.Devices[i], element("device", i)
		switch hasLink, hasListen := c.has(at+".link"), c.has(at+".listen"); {
		case hasLink && hasListen:
			c.report(at+".listen", "does not go with link: a device is reached through one, or comes by the other; remove one")
		case hasLink:
			c.linked(d, at, units)
		case hasListen:
			c.pusher(d, at, remotes)
		default:
			c.say(at, "%s has no link; write link = %s, or listen where it connects by itself", c.nameOf(at), c.someName("link"))
		}
		c.driverTables(d, at)
		c.polls(d, at)
	}
}

// someName proposes a name of the kind, quoted.
func (c *checker) someName(kind string) string {
	if kind == "link" && len(c.file.Links) > 0 && c.file.Links[0].Name != "" {
		return quote(c.file.Links[0].Name)
	}
	return `"…"`
}

// linked checks a device that the agent reaches through a link.
func (c *checker) linked(d *Device, at string, units map[string]string) {
	found := c.refer(at+".link", d.Link, "link", c.links)
	if c.has(at + ".remote") {
		c.report(at+".remote", "is for a device with listen; remove it")
	}
	if d.Driver == "" {
		c.say(at+".driver", `%s has no driver; write driver = "modbus", "text" or "mcp"`, c.nameOf(at))
	}
	if d.Driver != "modbus" || !found {
		return
	}
	link := &c.file.Links[c.links.index[d.Link]]
	d.Modbus.Validate(link.Modbus.Framing, c.within(at+".modbus"))
	unit := fmt.Sprintf("%d on %s", d.Modbus.Unit, d.Link)
	if earlier, taken := units[unit]; taken {
		where := at + ".modbus.unit"
		if !c.has(where) {
			where = at
		}
		c.warnf(where, "answers as unit %d of link %q, like the device of %s", d.Modbus.Unit, d.Link, c.line(earlier))
		return
	}
	units[unit] = at
}

// pusher checks a device that connects to a listener.
func (c *checker) pusher(d *Device, at string, remotes map[string]string) {
	c.refer(at+".listen", d.Listen, "listen", c.listens)
	if d.Driver == "" {
		d.Driver = "mcp"
	}
	if c.has(at + ".rate") {
		c.report(at+".rate", "is for a device on a link; write rate in its [[listen]]")
	}
	if d.Driver != "mcp" {
		c.report(at+".driver", `does not go with listen, where devices speak MCP; write driver = "mcp" or leave it out`)
	}
	if d.Remote == "" || !c.ok(at+".remote") {
		return
	}
	if i, found := c.listens.index[d.Listen]; found {
		switch l := &c.file.Listens[i]; {
		case l.proven():
			c.reportf(at+".remote", "is for a device that can't say HELLO, and [[listen]] %q takes only those that prove who they are; give it a listener of its own", d.Listen)
		case l.Transport != "tcp":
			c.reportf(at+".remote", "is for a device that can't say HELLO, and over %s it must; remove it", l.Transport)
		}
	}
	ip, err := netip.ParseAddr(d.Remote)
	if err != nil {
		c.report(at+".remote", `is no IP address; write one such as "10.0.0.7"`)
		return
	}
	d.Remote = ip.Unmap().String()
	key := d.Listen + " " + d.Remote
	if earlier, taken := remotes[key]; taken {
		c.reportf(at+".remote", "stands for the device of %s already; one of the two must say HELLO", c.line(earlier))
		return
	}
	remotes[key] = at
}

// driverTables holds that a device has the settings it needs, and none of
// another driver.
func (c *checker) driverTables(d *Device, at string) {
	if d.Driver == "text" && !c.has(at+".text") {
		c.say(at+".text", "%s has no text; write text = { rules = [{ name = \"line\", match = '(?P<value>[-\\d.]+)' }] }", c.nameOf(at))
	}
	for _, table := range []string{"modbus", "text"} {
		if c.has(join(at, table)) && d.Driver != table && d.Driver != "" {
			c.reportf(join(at, table), `is for driver = %q, and this device has %q; remove one`, table, d.Driver)
		}
	}
}

func (c *checker) polls(d *Device, at string) {
	if d.Driver == "modbus" && len(d.Polls) == 0 && c.ok(at+".poll") {
		c.warnf(at, "has no [[device.poll]], so nothing is read from it")
	}
	for i := range d.Polls {
		p, poll := &d.Polls[i], element(at+".poll", i)
		switch {
		case d.Listen != "" && d.Link == "":
			c.say(poll, "%s: a device that connects by itself is not polled; remove it", c.nameOf(poll))
		case d.Driver == "text":
			c.say(poll, "%s: a text device speaks by itself; remove it", c.nameOf(poll))
		case d.Driver == "modbus":
			c.modbusPoll(d, p, poll)
		case d.Driver == "mcp":
			if c.has(poll + ".points") {
				c.report(poll+".points", `is for driver = "modbus"; write method = "…"`)
			}
		}
	}
}

func (c *checker) modbusPoll(d *Device, p *Poll, at string) {
	if c.has(at + ".method") {
		c.report(at+".method", `is for driver = "mcp"; write points = […]`)
	}
	if len(p.Points) == 0 {
		c.say(at+".points", "%s has no points; write points = %s", c.nameOf(at), `[{ name = "temp", address = "holding:0", type = "int16" }]`)
		return
	}
	modbus.ValidatePoints(d.Modbus, p.Points, func(i int, key, problem string) {
		c.within(element(at+".points", i))(key, problem)
	})
}
