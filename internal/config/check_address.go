package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/internal/upstream/mqtt"
	"github.com/mcp-edge/edge-agent/store"
)

// splitAddress reads HOST:PORT; example ends the problem.
func splitAddress(address, example string) (host string, port int, problem string) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, "is not HOST:PORT; write " + quote(example)
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, "has no port from 0 to 65535; write " + quote(example)
	}
	if strings.ContainsAny(host, "/ ") {
		return "", 0, "is not HOST:PORT; write " + quote(example)
	}
	return host, port, ""
}

// dialAddress checks the address of a tcp link.
func (c *checker) dialAddress(l *Link, at string) {
	path := at + ".address"
	if !c.ok(path) {
		return
	}
	example := "10.0.0.5:502"
	if host := strings.Trim(l.Address, "[]"); isHost(host) {
		example = net.JoinHostPort(host, "502") // Modbus TCP's port
	}
	host, port, problem := splitAddress(l.Address, example)
	switch {
	case problem != "":
		c.report(path, problem)
	case host == "" || port == 0:
		c.reportf(path, "does not say whom to call; write %q", example)
	}
}

// isHost tells whether s could be a host on its own.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && !strings.ContainsAny(s, ":/ ")
}

func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost"
}

// ports are those that something listens on, by protocol and number.
type ports map[string][]bound

type bound struct{ host, path string }

// reach is what the agent opens a port for.
type reach struct {
	path     string // of the address
	address  string
	protocol string // "tcp" or "udp"
	closed   bool   // who may come is held otherwise, or the user takes the risk
	advice   string // what to write where it isn't
}

// listenAddress checks what the agent listens on.
func (c *checker) listenAddress(r reach, taken ports) {
	if !c.ok(r.path) {
		return
	}
	host, port, problem := splitAddress(r.address, "127.0.0.1:7700")
	if problem != "" {
		c.report(r.path, problem)
		return
	}
	if !isLoopback(host) && !r.closed {
		c.reportf(r.path, "is open to other machines; %s, or write %q", r.advice, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return
	}
	if port == 0 {
		return // any free one
	}
	key := r.protocol + " " + strconv.Itoa(port)
	for _, other := range taken[key] {
		if other.host == host || isWildcard(other.host) || isWildcard(host) {
			c.reportf(r.path, "is taken by %s; choose another port", c.owner(other.path))
			return
		}
	}
	taken[key] = append(taken[key], bound{host, r.path})
}

// owner says who has an address.
func (c *checker) owner(path string) string {
	switch {
	case strings.HasPrefix(path, "listen["), strings.HasPrefix(path, "link["):
		return "the [[" + plain(parent(path)) + "]] of " + c.line(parent(path))
	case c.has(path):
		return path + " (" + c.line(path) + ")"
	}
	return "the default of " + path
}

// isWildcard: the host that means every address of the machine.
func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func (c *checker) checkUpstreams() {
	files := make(map[string]string)
	for i := range c.file.Upstreams {
		u, at := &c.file.Upstreams[i], element("upstream", i)
		if _, err := store.ParseStart(u.Start); err != nil && c.ok(at+".start") {
			c.report(at+".start", err.Error())
		}
		if u.MaxAge > 0 && u.MaxAge < time.Minute {
			c.report(at+".max_age", `is less than a minute; write "1m" or more, or "0s" for any age`)
		}
		switch u.Kind {
		case "mqtt":
			c.foreign(at, "file", "file")
			c.endpoints(u, at)
		case "file":
			c.foreign(at, "mqtt", "mqtt")
			c.foreign(at, "endpoints", "mqtt")
			if !c.has(at+".file") && c.ok(at+".file") {
				c.say(at+".file", `%s has no file; write file = { path = "/var/lib/edge-agent/readings.jsonl" }`, c.nameOf(at))
			}
			if earlier, taken := files[u.File.Path]; taken && u.File.Path != "" {
				c.reportf(at+".file.path", "is written by the upstream of %s already; choose another", c.line(earlier))
			}
			files[u.File.Path] = at
		}
	}
}

// foreign refuses a key that belongs to another kind.
func (c *checker) foreign(at, key, kind string) {
	if c.has(join(at, key)) {
		c.reportf(join(at, key), "is for kind = %q; remove it", kind)
	}
}

func (c *checker) endpoints(u *Upstream, at string) {
	if len(u.Endpoints) == 0 && c.ok(at+".endpoints") {
		c.say(at+".endpoints", `%s has no endpoints; write endpoints = [{ address = "mqtt://broker.example:1883" }]`, c.nameOf(at))
	}
	for i := range u.Endpoints {
		if i > 0 {
			c.say(element(at+".endpoints", i), "a second endpoint is not there yet; write one")
		}
		address := element(at+".endpoints", i) + ".address"
		if !c.ok(address) {
			continue
		}
		if _, err := mqtt.ParseAddress(u.Endpoints[i].Address); err != nil {
			c.say(address, "address: %v", err)
		}
	}
}
