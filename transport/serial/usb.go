package serial

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mcp-edge/edge-agent/transport"
)

// USB names an adapter by what it says of itself, whichever socket it is
// plugged into and whichever number the kernel gives it.
// `edge-agent ports` shows what is there.
type USB struct {
	// VID is the vendor, as four hexadecimal digits.
	VID string `toml:"vid" required:"true" example:"\"0403\""`
	// PID is the product, as four hexadecimal digits.
	PID string `toml:"pid" required:"true" example:"\"6001\""`
	// Serial number of the adapter. Any unless given; needed where two of the same
	// kind are plugged in.
	Serial string `toml:"serial"`
	// Interface is the one of an adapter with several ports, as two hexadecimal
	// digits, such as "01". Any unless given.
	Interface string `toml:"interface"`
}

// Validate reports what can't be the identity of an adapter.
func (u USB) Validate(report func(key, problem string)) {
	for _, number := range []struct {
		key, is string
		digits  int
	}{{"vid", u.VID, 4}, {"pid", u.PID, 4}, {"interface", u.Interface, 2}} {
		if number.is == "" && number.key != "vid" && number.key != "pid" {
			continue
		}
		if len(number.is) != number.digits || strings.Trim(strings.ToLower(number.is), "0123456789abcdef") != "" {
			report(number.key, fmt.Sprintf("%q is not %d hexadecimal digits: write it as edge-agent ports does", number.is, number.digits))
		}
	}
}

// String is vid:pid, and what else was given.
func (u USB) String() string {
	var b strings.Builder
	b.WriteString(strings.ToLower(u.VID + ":" + u.PID))
	if u.Serial != "" {
		b.WriteString(" serial " + u.Serial)
	}
	if u.Interface != "" {
		b.WriteString(" interface " + strings.ToLower(u.Interface))
	}
	return b.String()
}

// matches tells whether u may mean the port.
func (u USB) matches(p Port) bool {
	return p.USB != nil &&
		strings.EqualFold(u.VID, p.USB.VID) && strings.EqualFold(u.PID, p.USB.PID) &&
		(u.Serial == "" || u.Serial == p.USB.Serial) &&
		(u.Interface == "" || strings.EqualFold(u.Interface, p.USB.Interface))
}

// pick returns the one of ports that u means. None is of class ErrLost, as it
// may be plugged in; several are of class ErrPermanent.
func (u USB) pick(ports []Port) (path string, err error) {
	var found, others []string
	byID := ""
	for _, p := range ports {
		switch {
		case u.matches(p):
			path = p.Path
			found = append(found, p.describe())
			byID = p.ByID
		case p.USB != nil:
			others = append(others, p.describe())
		}
	}
	switch {
	case len(found) == 1:
		return path, nil
	case len(found) > 1:
		problem := fmt.Sprintf("%d ports are USB %v: %s: add serial or interface", len(found), u, strings.Join(found, ", "))
		if byID != "" {
			problem += ", or write an address such as " + byID
		}
		return "", transport.Permanent(errors.New(problem))
	case len(others) > 0:
		return "", missing(fmt.Sprintf("no port is USB %v: plug it in, or choose of %s", u, strings.Join(others, ", ")))
	}
	return "", missing(fmt.Sprintf("no port is USB %v, and no other USB adapter is here: plug it in", u))
}
