package config

import (
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
)

// What holds for a link that does not say it.
const (
	pollTimeout    = time.Second
	requestTimeout = 5 * time.Second // of MCP (docs/protocol.md)
	requests       = 8               // to an MCP device at a time
)

// sharing fills in how the devices of a link share it, and checks it.
func (c *checker) sharing(l *Link, at string) {
	timeout, transactions := pollTimeout, 1
	if l.Driver == "mcp" {
		timeout, transactions = requestTimeout, requests
	}
	if l.Timeout == 0 {
		l.Timeout = timeout
	}
	if l.Transactions == 0 {
		l.Transactions = transactions
	}
	if c.has(at+".timeout") && c.has(at+".timeout_min") && l.TimeoutMin > l.Timeout {
		c.reportf(at+".timeout_min", "is more than timeout, which is %s; write less", l.Timeout)
	}
	if l.Transactions > 1 && l.Driver == "modbus" && l.Modbus.On(l.Transport).Framing == modbus.FramingRTU {
		c.report(at+".transactions", "is for answers that carry a number; Modbus RTU has none, so one transaction goes at a time: write 1, or leave it out")
	}
	if c.has(at+".transactions") && l.Driver == "text" {
		c.report(at+".transactions", "is for devices that are asked, and a text device speaks by itself; remove it")
	}
}

// carries holds that a serial line can carry what is polled on it: the
// characters of requests and replies, and the silences before them, even if the
// slaves took no time at all to answer.
func (c *checker) carries(l *Link, at string) {
	if l.Transport != "serial" || l.Driver != "modbus" || !c.ok(at+".serial") {
		return
	}
	char := l.Serial.CharTime()
	if char <= 0 {
		return // a baud rate that was reported
	}
	sum, worst, where := 0.0, 0.0, at
	for _, i := range c.onLink[l.Name] {
		d, device := &c.file.Devices[i], element("device", i)
		for j := range d.Polls {
			p, poll := &d.Polls[j], element(device+".poll", j)
			if p.Every <= 0 || len(p.Points) == 0 || !c.ok(poll+".every") || !c.clean(poll+".points") {
				continue
			}
			round, _ := modbus.Load(l.Modbus, d.Modbus, p.Points, char)
			share := float64(round) / float64(p.Every)
			sum += share
			if share > worst {
				worst, where = share, poll+".every"
			}
		}
	}
	need := 100 * sum
	switch {
	case sum > 1 && worst > 1:
		c.reportf(where, "is faster than the line of link %q can carry: its polls need %.0f %% of %d baud, without the time that slaves take to answer; poll less often, or raise baud", l.Name, need, l.Serial.Baud)
	case sum > 1:
		c.reportf(at, "can't carry its polls: together they need %.0f %% of %d baud, without the time that slaves take to answer, and most of all the one of %s; poll less often, or raise baud", need, l.Serial.Baud, c.line(where))
	case sum > 0.9:
		c.warnf(at, "is all but full: its polls need %.0f %% of %d baud, without the time that slaves take to answer", need, l.Serial.Baud)
	}
}
