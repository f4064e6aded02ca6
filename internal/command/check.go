package command

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mcp-edge/edge-agent/record"
)

// Limits of a request.
const (
	maxTimeout = 720 * time.Hour
	maxPoints  = 1000 // of one read
	maxWord    = 255  // bytes of method, content type and by
	maxText    = 4096 // bytes of a value
	maxReason  = 512  // bytes
)

// checkForm tells whether a request can be kept at all.
func (r *Room) checkForm(q *Request) error {
	if q.Key != "" && record.CheckName(q.Key) != nil {
		return fmt.Errorf("the key %.80q can't be: a key has 1 to %d bytes of UTF-8, no / + # and no control character, and does not begin with _ or $", q.Key, record.MaxName)
	}
	for what, word := range map[string]string{"method": q.Method, "content type": q.ContentType, "by": q.By} {
		if len(word) > maxWord || !utf8.ValidString(word) {
			return fmt.Errorf("%s is not UTF-8 or has more than %d bytes", what, maxWord)
		}
	}
	switch {
	case len(q.Kind) > maxWord || !utf8.ValidString(string(q.Kind)):
		return errors.New("there is no such kind")
	case len(q.Payload) > r.cfg.MaxPayload:
		return fmt.Errorf("its payload has %d bytes, at most %d are allowed (max_payload of [commands])", len(q.Payload), r.cfg.MaxPayload)
	case len(q.Points) > maxPoints:
		return fmt.Errorf("it names %d points, at most %d are allowed", len(q.Points), maxPoints)
	case q.Timeout < 0 || time.Duration(q.Timeout) > maxTimeout:
		return fmt.Errorf("its timeout is %s; it must lie between 0s and %s", time.Duration(q.Timeout), maxTimeout)
	}
	if q.Point != "" {
		if err := record.CheckName(q.Point); err != nil {
			return fmt.Errorf("the point's name %w", err)
		}
	}
	for i, point := range q.Points {
		if err := record.CheckName(point); err != nil {
			return fmt.Errorf("the name of point %d %w", i+1, err)
		}
	}
	if q.Value == nil {
		return nil
	}
	switch text, _ := q.Value.Text(); {
	case q.Value.Kind() == record.KindNone || !q.Value.Finite():
		return errors.New("its value is no finite number")
	case len(text) > maxText || !utf8.ValidString(text):
		return fmt.Errorf("its value is not UTF-8 or has more than %d bytes", maxText)
	}
	return nil
}

// checkSense tells whether a request says what its kind needs, and nothing that
// its kind would not heed.
func checkSense(q *Request) error {
	needs := map[Kind]string{Write: "point value", Read: "", Call: "method"}
	heeds := map[Kind]string{Write: "read_back broadcast", Read: "points", Call: "payload content_type"}
	if _, ok := needs[q.Kind]; !ok {
		return fmt.Errorf("there is no kind %q; there are write, read and call", q.Kind)
	}
	for _, part := range []struct {
		name string
		set  bool
	}{
		{"point", q.Point != ""},
		{"value", q.Value != nil},
		{"read_back", q.ReadBack},
		{"broadcast", q.Broadcast},
		{"points", len(q.Points) > 0},
		{"method", q.Method != ""},
		{"payload", len(q.Payload) > 0},
		{"content_type", q.ContentType != ""},
	} {
		switch needed := isOneOf(part.name, needs[q.Kind]); {
		case needed && !part.set:
			return fmt.Errorf("a %s needs a %s", q.Kind, part.name)
		case part.set && !needed && !isOneOf(part.name, heeds[q.Kind]):
			return fmt.Errorf("a %s has no %s", q.Kind, part.name)
		}
	}
	if q.ReadBack && q.Broadcast {
		return errors.New("a broadcast can't be read back: nobody answers it")
	}
	return nil
}

func isOneOf(word, list string) bool {
	for w := range strings.FieldsSeq(list) {
		if w == word {
			return true
		}
	}
	return false
}

// words makes a reason of an error: UTF-8, of bounded length.
func words(err error) string {
	s := strings.ToValidUTF8(err.Error(), "\uFFFD")
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason-len("…")], "") + "…"
}
