package mqtt

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mcp-edge/edge-agent/record"
)

// topic is a topic template, cut into pieces so that a record's topic is made
// without looking for braces.
type topic []piece

// piece is fixed text, or the name that takes its place.
type piece struct {
	text string
	name func(*record.Record) string
}

var errBraces = errors.New("has a brace that is not part of {agent}, {device} or {stream}")

func parseTopic(template string) (topic, error) {
	if err := checkTopic(template); err != nil {
		return nil, err
	}
	var t topic
	for rest := template; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return nil, errBraces
		}
		t = append(t, piece{text: text})
		if !found {
			break
		}
		name, after, found := strings.Cut(after, "}")
		if !found {
			return nil, errBraces
		}
		p := piece{}
		switch name {
		case "agent":
			p.name = func(r *record.Record) string { return r.Agent }
		case "device":
			p.name = func(r *record.Record) string { return r.Device }
		case "stream":
			p.name = func(r *record.Record) string { return r.Stream }
		default:
			return nil, fmt.Errorf("has {%s}, but only {agent}, {device} and {stream} are known", name)
		}
		t, rest = append(t, p), after
	}
	return t, nil
}

// checkTopic holds the fixed part against MQTT 5.0, section 4.7. The names that
// are put in can't break it: record.CheckName refuses the characters in question.
func checkTopic(template string) error {
	switch {
	case template == "":
		return errors.New("is empty")
	case strings.ContainsAny(template, "+#"):
		return errors.New("contains + or #, which only a subscription may")
	case template[0] == '$':
		return errors.New("starts with $, which is kept for the broker's own topics")
	case len(template)+3*record.MaxName > maxString:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(template), maxString-3*record.MaxName)
	}
	return checkString(template)
}

func (t topic) of(r *record.Record) string {
	var scratch [256]byte
	b := scratch[:0]
	for i := range t {
		if t[i].name != nil {
			b = append(b, t[i].name(r)...)
		} else {
			b = append(b, t[i].text...)
		}
	}
	return string(b)
}
