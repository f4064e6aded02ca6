package config

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
)

// checker looks at what one table can't know of another.
type checker struct {
	*reporter
	file *File

	links, devices, listens, upstreams names
	onLink                             map[string][]int // devices by their link's name
}

// names are those of one kind of table, in the order of the file.
type names struct {
	list  []string
	index map[string]int // of the first table with that name
}

func namesOf[T any](entries []T, name func(*T) string) names {
	n := names{index: make(map[string]int, len(entries))}
	for i := range entries {
		s := name(&entries[i])
		n.list = append(n.list, s)
		if _, taken := n.index[s]; !taken && s != "" {
			n.index[s] = i
		}
	}
	return n
}

func newChecker(r *reporter, f *File) *checker {
	c := &checker{
		reporter:  r,
		file:      f,
		links:     namesOf(f.Links, func(l *Link) string { return l.Name }),
		devices:   namesOf(f.Devices, func(d *Device) string { return d.ID }),
		listens:   namesOf(f.Listens, func(l *Listen) string { return l.Name }),
		upstreams: namesOf(f.Upstreams, func(u *Upstream) string { return u.Name }),
		onLink:    make(map[string][]int),
	}
	for i := range f.Devices {
		if link := f.Devices[i].Link; link != "" {
			c.onLink[link] = append(c.onLink[link], i)
		}
	}
	return c
}

func (c *checker) all() {
	c.agent()
	c.unique()
	taken := make(ports)
	c.checkListens(taken)
	c.checkLinks(taken)
	c.checkDevices()
	c.checkUpstreams()
	c.checkRoutes()
}

func (c *checker) agent() {
	if dir := c.file.Agent.DataDir; c.ok("agent.data_dir") && !filepath.IsAbs(dir) {
		c.report("agent.data_dir", "must start with /: a relative one would depend on where the agent was started")
	}
}

// unique holds that each name is there once.
func (c *checker) unique() {
	c.once("link", "name", c.links)
	c.once("device", "id", c.devices)
	c.once("listen", "name", c.listens)
	c.once("route", "name", namesOf(c.file.Routes, func(r *Route) string { return r.Name }))
	c.once("upstream", "name", c.upstreams)
	for i := range c.file.Devices {
		c.once(element("device", i)+".poll", "name", namesOf(c.file.Devices[i].Polls, func(p *Poll) string { return p.Name }))
	}
}

func (c *checker) once(list, key string, n names) {
	for i, name := range n.list {
		if first, ok := n.index[name]; ok && first != i {
			c.reportf(join(element(list, i), key), "is taken by the [[%s]] of %s; choose another",
				plain(list), c.line(join(element(list, first), key)))
		}
	}
}

// line says where path stands, for a message about something else.
func (c *checker) line(path string) string {
	at := c.find(path)
	if at.env != "" {
		return at.env
	}
	line, _ := c.place(at.key)
	return fmt.Sprintf("line %d", line)
}

func (c *checker) checkLinks(taken ports) {
	serials := make(map[string]string)
	for i := range c.file.Links {
		l, at := &c.file.Links[i], element("link", i)
		c.driver(l, at)
		c.whereTo(l, at)
		c.sharing(l, at)
		if !c.ok(at + ".transport") {
			continue // what belongs to it can't be said
		}
		if l.Transport == "serial" {
			c.serial(l, at, serials)
		}
		c.linkTransport(l, at, taken)
		c.linkModbus(l, at)
		c.carries(l, at)
	}
}

// driver finds what the devices of a link speak, all the same.
func (c *checker) driver(l *Link, at string) {
	first, firstText := "", ""
	for _, i := range c.onLink[l.Name] {
		d, device := &c.file.Devices[i], element("device", i)
		switch {
		case d.Driver == "":
		case l.Driver == "":
			l.Driver, first = d.Driver, device
		case l.Driver != d.Driver:
			c.reportf(device+".driver", "shares the link %q with a %s device (%s); give it a link of its own", l.Name, l.Driver, c.line(first))
		}
		if d.Driver == "text" && firstText != "" {
			c.reportf(device+".link", "has a text device already (%s), and nothing tells their lines apart; give it a link of its own", c.line(firstText))
		} else if d.Driver == "text" {
			firstText = device
		}
	}
	if len(c.onLink[l.Name]) == 0 && l.Name != "" && !c.dangling() {
		c.reportf(at, "has no device; write link = %q in a [[device]], or remove the link", l.Name)
	}
}

// dangling tells whether a device refers to a link that is not there: it may be
// the one that some link lacks.
func (c *checker) dangling() bool {
	return slices.ContainsFunc(c.file.Devices, func(d Device) bool {
		_, found := c.links.index[d.Link]
		return d.Listen == "" && !found
	})
}

// whereTo holds that a link says what it leads to: an address, or on a serial
// line a USB adapter.
func (c *checker) whereTo(l *Link, at string) {
	address, usb := at+".address", at+".usb"
	switch {
	case l.USB == nil && !c.has(address):
		example := `"10.0.0.5:502"`
		if l.Transport == "serial" {
			example = `"/dev/ttyUSB0"`
		}
		c.say(address, `%s has no address; write address = %s`, c.nameOf(at), example)
	case l.USB == nil:
	case l.Transport != "serial" && c.ok(at+".transport"):
		c.report(usb, `is for transport = "serial"; remove it`)
	case c.has(address):
		c.report(usb, "does not go with address, as either says which device it is; remove one")
	}
}

func (c *checker) serial(l *Link, at string, taken map[string]string) {
	address := at + ".address"
	if l.USB != nil {
		if earlier, shared := taken[l.USB.String()]; shared && c.clean(at+".usb") {
			c.reportf(at+".usb", "is the line of %s too; put all of its devices on one link", c.line(earlier))
		}
		taken[l.USB.String()] = at + ".usb"
	} else if c.ok(address) {
		clean := path.Clean(l.Address)
		switch earlier, shared := taken[clean]; {
		case !path.IsAbs(l.Address):
			c.report(address, "is no device file; write one such as \"/dev/ttyUSB0\"")
		case shared:
			c.reportf(address, "is the line of %s too; put all of its devices on one link", c.line(earlier))
		default:
			taken[clean] = address
		}
	}
	// An RTU frame is made of 8-bit characters (Modbus over Serial Line V1.02,
	// section 2.5.1), and so is an MCP frame.
	if l.Serial.DataBits != 8 && (l.Driver == "modbus" || l.Driver == "mcp") {
		c.reportf(at+".serial.data_bits", "can't carry %s; write data_bits = 8", l.Driver)
	}
}

func (c *checker) linkModbus(l *Link, at string) {
	table := at + ".modbus"
	if c.has(table) && l.Driver != "modbus" && l.Driver != "" {
		c.reportf(table, "is for links with modbus devices, and those of %q speak %s; remove it", l.Name, l.Driver)
		return
	}
	l.Modbus.Validate(l.Transport, c.within(table))
	l.Modbus = l.Modbus.On(l.Transport)
}

// within hands the problems of a package on, with keys below path.
func (c *checker) within(path string) func(key, problem string) {
	return func(key, problem string) { c.say(path+"."+key, "%s: %s", lastKey(key), problem) }
}

// refer reports a name that names nothing.
func (c *checker) refer(path, name, kind string, known names) bool {
	if !c.ok(path) {
		return false
	}
	if _, found := known.index[name]; found {
		return true
	}
	c.reportf(path, "names no [[%s]]; %s", kind, didYouMean(name, known.list, "there is none"))
	return false
}
