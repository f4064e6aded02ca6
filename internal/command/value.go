package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/mcp-edge/edge-agent/record"
)

// Value is a record.Value that is plain JSON: true, 21.5, "text". Whole numbers
// stay exact to 64 bits.
type Value struct{ record.Value }

var errNoJSON = errors.New("a number that is not finite, and no value at all, can't be written as JSON")

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.Kind() == record.KindNone || !v.Finite() {
		return nil, errNoJSON
	}
	return v.AppendJSON(nil), nil
}

// UnmarshalJSON implements json.Unmarshaler. A number without point and exponent
// becomes an Int, or an Uint if only that holds it; any other a Float64.
func (v *Value) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return errors.New("a value is missing")
	}
	switch b[0] {
	case 'n':
		return errors.New("null is no value; write true, 21.5 or \"text\"")
	case '[':
		return errors.New("a list is no value; write one true, 21.5 or \"text\"")
	case '{':
		return errors.New("an object is no value; write true, 21.5 or \"text\"")
	case 't', 'f':
		var truth bool
		err := json.Unmarshal(b, &truth)
		v.Value = record.Bool(truth)
		return err
	case '"':
		var text string
		err := json.Unmarshal(b, &text)
		v.Value = record.String(text)
		return err
	}
	return v.number(b)
}

func (v *Value) number(b []byte) error {
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	if whole := !bytes.ContainsAny(b, ".eE"); whole {
		if i, err := strconv.ParseInt(n.String(), 10, 64); err == nil {
			v.Value = record.Int(i)
			return nil
		}
		u, err := strconv.ParseUint(n.String(), 10, 64)
		if err != nil {
			return fmt.Errorf("%.40s is too large: whole numbers go from %d to %d; for a floating point number write a decimal point", n, int64(math.MinInt64), uint64(math.MaxUint64))
		}
		v.Value = record.Uint(u)
		return nil
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil {
		return fmt.Errorf("%.40s is too large for a floating point number", n)
	}
	v.Value = record.Float64(f)
	return nil
}
