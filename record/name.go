package record

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest name of an agent, device, stream or point, in bytes.
const MaxName = 64

// CheckName tells whether s may name an agent, device, stream or point: 1 to
// MaxName bytes of UTF-8, no control character, none of / + # (they mean
// something in an MQTT topic), and no leading _ or $ (kept for the agent and
// for brokers). The error says what is wrong, without the name itself.
func CheckName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("is empty")
	case len(s) > MaxName:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(s), MaxName)
	case s[0] == '_' || s[0] == '$':
		return fmt.Errorf("starts with %q, which is kept for the agent's own names", s[0])
	case !utf8.ValidString(s):
		return fmt.Errorf("is not UTF-8")
	}
	for _, r := range s {
		switch {
		case r == '/' || r == '+' || r == '#':
			return fmt.Errorf("contains %q, which has a meaning in MQTT topics", r)
		case unicode.IsControl(r):
			return fmt.Errorf("contains the control character %U", r)
		}
	}
	return nil
}
