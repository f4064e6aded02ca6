package mqtt

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// Config is the mqtt table of an [[upstream]].
type Config struct {
	// Topic of a record; {agent}, {device} and {stream} are replaced.
	Topic string `toml:"topic" default:"edge/{agent}/{device}/{stream}"`
	// QoS is 1: a record is delivered when the broker has said PUBACK.
	QoS int `toml:"qos" default:"1" oneof:"1"`
	// ClientID at the broker; edge-agent-AGENT-UPSTREAM unless set. No two
	// clients of a broker may share one: they would cut each other off.
	ClientID string `toml:"client_id"`
	// Username at the broker.
	Username string `toml:"username"`
	// Password at the broker: "file:/path" or "env:NAME".
	Password string `toml:"password" secret:"true"`
	// Window is how many messages wait for their PUBACK at most; the broker's
	// own Receive Maximum may lower it.
	Window int `toml:"window" default:"256" min:"1" max:"65535"`
	// KeepAlive of the connection.
	KeepAlive time.Duration `toml:"keep_alive" default:"30s" min:"1s" max:"18h"`
	// ConnectTimeout bounds one attempt to connect.
	ConnectTimeout time.Duration `toml:"connect_timeout" default:"10s" min:"100ms" max:"5m"`
	// AckTimeout is how long a PUBACK may take before the connection counts as
	// lost and what is unacknowledged is sent again.
	AckTimeout time.Duration `toml:"ack_timeout" default:"30s" min:"1s" max:"10m"`
}

// maxString is the longest string that MQTT can carry (MQTT 5.0, section 1.5.4).
const maxString = 65535

// Validate reports what is wrong with c, by the key it is wrong in.
func (c *Config) Validate(report func(key, problem string)) {
	if _, err := parseTopic(c.Topic); err != nil {
		report("topic", err.Error())
	}
	for _, s := range []struct{ key, value string }{{"client_id", c.ClientID}, {"username", c.Username}} {
		if err := checkString(s.value); err != nil {
			report(s.key, err.Error())
		}
	}
}

// checkString holds s against what MQTT 5.0, section 1.5.4, allows in a string.
func checkString(s string) error {
	switch {
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	case strings.ContainsRune(s, 0):
		return errors.New("contains a zero byte")
	case len(s) > maxString:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(s), maxString)
	}
	return nil
}

// ParseAddress reads the address of a broker, mqtt://HOST or mqtt://HOST:PORT,
// and returns it as HOST:PORT; the port is 1883 unless it is named.
func ParseAddress(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("%q is not an address such as mqtt://broker.example:1883", address)
	}
	switch {
	case u.Scheme == "mqtts":
		return "", errors.New("mqtts:// is not there yet: this version has no TLS; use mqtt:// within a network that you trust")
	case u.Scheme != "mqtt" || u.Hostname() == "":
		return "", fmt.Errorf("%q is not an address such as mqtt://broker.example:1883", u.Redacted())
	case u.User != nil:
		return "", errors.New("a user in the address would show up in logs: set username and password in the mqtt table")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q: nothing may follow the port", address)
	}
	port := u.Port()
	if port == "" {
		port = "1883"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
