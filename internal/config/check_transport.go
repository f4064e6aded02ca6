package config

import (
	"net/netip"

	"github.com/mcp-edge/edge-agent/internal/auth"
)

// What a datagram holds beside one payload: the session's cookie, and the header
// and the checksum of a frame (docs/protocol.md); and what DTLS adds.
const (
	datagramOverhead = 8 + 8 + 4
	secureOverhead   = 46
)

// protocol is whose ports a transport takes.
func protocol(transport string) string {
	if transport == "tcp" {
		return "tcp"
	}
	return "udp"
}

// linkTransport checks what a link's transport needs, and what belongs to
// another.
func (c *checker) linkTransport(l *Link, at string, taken ports) {
	c.belongs(at, "serial", l.Transport, "serial")
	c.belongs(at, "udp", l.Transport, "udp")
	if l.Transport == "serial" {
		for _, key := range []string{"tls", "accept"} {
			if c.has(join(at, key)) {
				c.report(join(at, key), "is for networks, and this is a serial line; remove it")
			}
		}
	} else if l.Accept != nil {
		c.accept(l, at, taken)
	} else {
		c.dialAddress(l, at)
		if l.Transport == "quic" && l.TLS == nil && c.ok(at+".tls") {
			c.say(at+".tls", `%s has no tls, and QUIC does not go without; write tls = { ca = "/path/ca.crt" }`, c.nameOf(at))
		}
	}
	for _, key := range []string{"auth", "mcp"} {
		if c.has(join(at, key)) && l.Driver != "mcp" && l.Driver != "" {
			c.reportf(join(at, key), "is for links with mcp devices, and those of %q speak %s; remove it", l.Name, l.Driver)
		}
	}
	if l.Auth != nil && l.TLS == nil && l.Transport != "serial" && c.ok(at+".address") && c.ok(at+".tls") {
		if host, _, problem := splitAddress(l.Address, ""); problem == "" && !isLoopback(host) {
			c.report(at+".auth", `would send the token in clear text, and to anybody; write tls = { ca = "/path/ca.crt" } too`)
		}
	}
	if l.Transport == "udp" && c.has(at+".mcp.max_payload") {
		c.fits(at, at+".mcp.max_payload", l.MCP.MaxPayload, l.UDP.MaxDatagram, l.TLS != nil)
	}
}

// accept checks a link whose device calls us.
func (c *checker) accept(l *Link, at string, taken ports) {
	a, table := l.Accept, at+".accept"
	if l.Driver == "mcp" {
		c.report(table, "is for devices that are polled; an MCP device says HELLO to a [[listen]]: write one, and listen = \"…\" in the device")
	}
	if c.has(at + ".tls") {
		c.report(at+".tls", "is for what we dial; write it inside accept, with cert and key")
	}
	if l.Transport == "quic" && a.TLS == nil && c.ok(table+".tls") {
		c.say(table+".tls", `%s has no tls, and QUIC does not go without; write tls = { cert = "/path/server.crt", key = "/path/server.key" }`, c.nameOf(table))
	}
	if a.Remote != "" && c.ok(table+".remote") {
		ip, err := netip.ParseAddr(a.Remote)
		if err != nil {
			c.report(table+".remote", `is no IP address; write one such as "10.0.0.7"`)
		}
		a.Remote = ip.Unmap().String()
	}
	c.listenAddress(reach{
		path: at + ".address", address: l.Address, protocol: protocol(l.Transport),
		closed: a.Insecure || a.TLS != nil && a.TLS.ClientCA != "",
		advice: "write accept = { tls = { cert, key, client_ca } }, or accept = { insecure = true } where you trust the network",
	}, taken)
}

func (c *checker) checkListens(taken ports) {
	c.listenAddress(reach{
		path: "admin.listen", address: c.file.Admin.Listen, protocol: "tcp",
		closed: c.file.Admin.Insecure || !c.ok("admin.insecure"),
		advice: "write insecure = true beside it where you trust the network",
	}, taken)
	for i := range c.file.Listens {
		l, at := &c.file.Listens[i], element("listen", i)
		c.listenAddress(reach{
			path: at + ".address", address: l.Address, protocol: protocol(l.Transport),
			closed: l.Insecure || !c.ok(at+".insecure") || l.closed() || !c.ok(at+".tls") || !c.ok(at+".auth"),
			advice: l.advice(),
		}, taken)
		c.belongs(at, "udp", l.Transport, "udp")
		if l.Transport == "quic" && l.TLS == nil && c.ok(at+".tls") {
			c.say(at+".tls", `%s has no tls, and QUIC does not go without; write tls = { cert = "/path/server.crt", key = "/path/server.key" }`, c.nameOf(at))
		}
		if l.Auth != nil && l.Auth.JWT == nil && c.ok(at+".auth.jwt") {
			c.say(at+".auth.jwt", "%s has no jwt; write jwt = { algorithms = [\"ES256\"], key_file = \"/path/public.pem\", issuer = \"…\", audience = \"…\" }", c.nameOf(at+".auth"))
		}
		if l.Transport == "udp" && c.has(at+".max_payload") {
			c.fits(at, at+".max_payload", l.MaxPayload, l.UDP.MaxDatagram, l.TLS != nil)
		}
	}
}

// closed tells whether only those may come who have proven who they are, unseen
// by others.
func (l *Listen) closed() bool { return l.TLS != nil && (l.TLS.ClientCA != "" || l.tokens()) }

// tokens tells whether peers need a token.
func (l *Listen) tokens() bool { return l.Auth != nil && l.Auth.JWT != nil }

// proven tells whether peers must prove who they are.
func (l *Listen) proven() bool { return l.tokens() || l.TLS != nil && l.TLS.ClientCA != "" }

// advice says what a listener lacks to be opened to other machines.
func (l *Listen) advice() string {
	const risk = ", insecure = true beside it where you trust the network"
	switch {
	case l.TLS == nil && l.tokens():
		return "tokens in clear text could be taken: write tls = { cert, key }" + risk
	case l.TLS == nil:
		return "write tls = { cert, key, client_ca }" + risk
	}
	return "anybody could send records: write client_ca in tls, or auth" + risk
}

// belongs refuses a table that is another transport's.
func (c *checker) belongs(at, key, transport, wanted string) {
	if c.has(join(at, key)) && transport != wanted {
		c.reportf(join(at, key), "is for transport = %q; remove it", wanted)
	}
}

// fits holds that a frame that may be sent can be.
func (c *checker) fits(at, path string, payload, datagram int, secure bool) {
	most := datagram - datagramOverhead
	if secure {
		most -= secureOverhead
	}
	if payload > most && c.ok(path) && c.ok(at+".udp.max_datagram") {
		c.reportf(path, "does not fit in a datagram: with udp.max_datagram = %d it is at most %d; leave it out to use all there is", datagram, most)
	}
}

// Authentication is what the listener's peers are checked with: tokens as cfg has
// it, certificates, or both; wanted is false where they are not checked at all.
func (l *Listen) Authentication() (cfg auth.ListenConfig, certificates, wanted bool) {
	if l.Auth != nil {
		cfg = *l.Auth
	}
	return cfg, l.TLS != nil && l.TLS.ClientCA != "", l.proven()
}
