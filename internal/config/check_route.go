package config

import (
	"slices"

	"github.com/mcp-edge/edge-agent/internal/pattern"
)

func (c *checker) checkRoutes() {
	c.targets()
	c.patterns()
	for j := range c.file.Routes {
		for i := range j {
			c.overlap(i, j)
		}
	}
	c.untaken()
}

// targets checks that each route leads somewhere, and each upstream is used.
func (c *checker) targets() {
	used := make(map[string]bool)
	for i := range c.file.Routes {
		r, at := &c.file.Routes[i], element("route", i)+".to"
		if len(r.To) == 0 && c.ok(at) {
			c.report(at, "leads nowhere; write the names of upstreams")
		}
		for k, to := range r.To {
			if slices.Contains(r.To[:k], to) {
				c.report(element(at, k), "is there twice; remove one")
				continue
			}
			c.refer(element(at, k), to, "upstream", c.upstreams)
			used[to] = true
		}
	}
	for i, name := range c.upstreams.list {
		if !used[name] && name != "" {
			c.warnf(element("upstream", i), "gets nothing: no route leads to it")
		}
	}
}

// patterns checks that those of each route can be read, and can fit something.
func (c *checker) patterns() {
	for i := range c.file.Routes {
		match := &c.file.Routes[i].Match
		at := element("route", i) + ".match"
		c.readable(at+".stream", match.Stream)
		c.readable(at+".device", match.Device)
		if c.strangers() {
			continue
		}
		for k, glob := range match.Device {
			path := c.patternPath(at+".device", k)
			switch {
			case !c.ok(path) || slices.ContainsFunc(c.devices.list, pattern.List{glob}.Match):
			case pattern.IsGlob(glob):
				c.warnf(path, "fits no device")
			default:
				c.refer(path, glob, "device", c.devices)
			}
		}
	}
}

// patternPath is where pattern k stands: in a list, or alone.
func (c *checker) patternPath(list string, k int) string {
	if path := element(list, k); c.has(path) {
		return path
	}
	return list
}

func (c *checker) readable(list string, globs pattern.List) {
	for k, glob := range globs {
		if err := pattern.Check(glob); err != nil {
			c.report(c.patternPath(list, k), err.Error())
		}
	}
}

// strangers tells whether devices may turn up that the file does not name: MCP
// peers say themselves who they are.
func (c *checker) strangers() bool {
	return len(c.file.Listens) > 0 || slices.ContainsFunc(c.file.Links, func(l Link) bool { return l.Driver == "mcp" })
}

// overlap refuses that routes i and j take one device's records to one
// upstream: they would arrive twice, and out of order.
func (c *checker) overlap(i, j int) {
	a, b := &c.file.Routes[i], &c.file.Routes[j]
	if !c.clean(element("route", i)+".match") || !c.clean(element("route", j)+".match") || !a.Match.Stream.Overlaps(b.Match.Stream) {
		return
	}
	both := func(d Device) bool { return a.Match.Device.Match(d.ID) && b.Match.Device.Match(d.ID) }
	who := "any device that fits both"
	if k := slices.IndexFunc(c.file.Devices, both); k >= 0 {
		who = "the device " + quote(c.file.Devices[k].ID)
	} else if !c.strangers() || !a.Match.Device.Overlaps(b.Match.Device) {
		return
	}
	for k, to := range b.To {
		if slices.Contains(a.To, to) && c.ok(element(element("route", j)+".to", k)) {
			c.reportf(element(element("route", j)+".to", k), "gets %s from the route of %s already; make the matches differ", who, c.line(element("route", i)))
		}
	}
}

// untaken warns of devices whose records no route takes.
func (c *checker) untaken() {
	if len(c.file.Routes) == 0 {
		if len(c.file.Devices) > 0 && c.ok("route") {
			c.warnf("", "has no [[route]]: what the devices say is counted and dropped")
		}
		return
	}
	for i := range c.file.Devices {
		id := c.file.Devices[i].ID
		taken := slices.ContainsFunc(c.file.Routes, func(r Route) bool { return r.Match.Device.Match(id) })
		if id != "" && !taken {
			c.warnf(element("device", i), "is taken by no route: what it says is counted and dropped")
		}
	}
}
