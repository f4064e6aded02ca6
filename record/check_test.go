package record_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/record"
)

// readings are n points with different names.
func readings(n int) (points []record.Point) {
	for i := range n {
		points = append(points, record.Point{Name: fmt.Sprint("p", i), Value: record.Int(int64(i))})
	}
	return points
}

// twice has the first of n points again at their end.
func twice(n int) []record.Point { return append(readings(n), readings(1)...) }

func TestARecordThatWouldHaveToBeAlteredIsRefused(t *testing.T) {
	one := record.Int(1)
	var c record.Checker
	for name, refusal := range map[string]struct {
		record record.Record
		says   string
	}{
		"nothing":                         {record.Record{}, "neither points nor a payload"},
		"a gap with points":               {record.Record{Points: readings(1), Gap: &record.Gap{Count: 1}}, "announces a gap"},
		"a name twice":                    {record.Record{Points: twice(1)}, "the point p0 comes twice"},
		"one of many names twice":         {record.Record{Points: twice(1000)}, "the point p0 comes twice"},
		"no value":                        {record.Record{Points: []record.Point{{Name: "n"}}}, "the point n has neither a value"},
		"text that is no UTF-8":           {record.Record{Points: []record.Point{{Name: "n", Value: record.String("\xff")}}}, "the point n has a text"},
		"a unit that is no UTF-8":         {record.Record{Points: []record.Point{{Name: "n", Value: one, Unit: "\xff"}}}, "the point n has a unit"},
		"a reason that is not":            {record.Record{Points: []record.Point{{Name: "n", Bad: "\xff"}}}, "the point n has a reason"},
		"a content type that is no UTF-8": {record.Record{Payload: []byte("x"), ContentType: "\xff"}, "content type"},
		"a gap's reason that is not":      {record.Record{Gap: &record.Gap{Count: 1, Reason: "\xff"}}, "reason of the gap"},
		"again after one of many":         {record.Record{Points: twice(fewPoints)}, "the point p0 comes twice"},
		"again after one too many":        {record.Record{Points: twice(fewPoints + 1)}, "the point p0 comes twice"},
	} {
		refusal.record.Device = "press-7"
		err := c.Check(&refusal.record)
		if err == nil || !strings.Contains(err.Error(), refusal.says) || !strings.Contains(err.Error(), "press-7") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fewPoints is about where the way of comparing names changes.
const fewPoints = 15

func TestARecordThatMeansOneThingIsTaken(t *testing.T) {
	var c record.Checker
	for name, r := range map[string]record.Record{
		"a point":          {Points: readings(1)},
		"points, payload":  {Points: readings(1), Payload: []byte("x"), ContentType: "image/png"},
		"few points":       {Points: readings(fewPoints + 1)},
		"many points":      {Points: readings(1000)},
		"an empty text":    {Points: []record.Point{{Name: "n", Value: record.String("")}}},
		"a missing value":  {Points: []record.Point{{Name: "n", Bad: record.BadTimeout}}},
		"bytes":            {Payload: []byte{0xff}},
		"an empty payload": {ContentType: "text/plain"},
		"a gap":            {Gap: &record.Gap{Count: 1, Reason: record.GapOverload}},
	} {
		for range 2 { // what is remembered of the first must not matter
			if err := c.Check(&r); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1, fewPoints, 100, record.MaxPoints} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := record.Record{Device: "press-7", Stream: "s", Points: readings(n)}
			var c record.Checker
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Check(&r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
