package record_test

import (
	"context"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/record"
)

// schema compiles record.proto, so that the codec here is held against what
// every other language generates from it.
func schema(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{}}
	files, err := compiler.Compile(context.Background(), "record.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Messages().ByName("Record")
}

func anyRecord() *rapid.Generator[record.Record] {
	name := rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9 .-]{0,20}`)
	return rapid.Custom(func(t *rapid.T) record.Record {
		r := record.Record{
			Agent: name.Draw(t, "agent"), Device: name.Draw(t, "device"), Stream: name.Draw(t, "stream"),
			Epoch:       record.Epoch(rapid.Uint64().Draw(t, "epoch")),
			Seq:         rapid.Uint64().Draw(t, "seq"),
			Part:        rapid.Uint32().Draw(t, "part"),
			Time:        anyTime(t),
			Clock:       record.Clock(rapid.IntRange(0, 2).Draw(t, "clock")),
			Boot:        record.Boot(rapid.Uint64().Draw(t, "boot")),
			Up:          time.Duration(rapid.Int64Min(0).Draw(t, "up")),
			ContentType: rapid.SampledFrom([]string{"", "text/plain"}).Draw(t, "type"),
		}
		if p := rapid.SliceOf(rapid.Byte()).Draw(t, "payload"); len(p) > 0 {
			r.Payload = p
		}
		for range rapid.IntRange(0, 4).Draw(t, "points") {
			r.Points = append(r.Points, anyPoint(name).Draw(t, "point"))
		}
		r.Quality = record.Summarise(r.Points)
		if rapid.Bool().Draw(t, "corrected") {
			r.TimeRecorded = anyTime(t)
		}
		if rapid.Bool().Draw(t, "gap") {
			r.Gap = &record.Gap{
				From: rapid.Uint64().Draw(t, "from"), To: rapid.Uint64().Draw(t, "to"),
				Count: rapid.Uint64().Draw(t, "count"), Reason: record.GapOverload,
				First: anyTime(t), Last: anyTime(t),
			}
		}
		return r
	})
}

// anyTime leaves out the very start of 1970, which protobuf can't tell from none.
func anyTime(t *rapid.T) time.Time {
	return time.Unix(0, rapid.Int64().Filter(func(n int64) bool { return n != 0 }).Draw(t, "time")).UTC()
}

func anyPoint(name *rapid.Generator[string]) *rapid.Generator[record.Point] {
	return rapid.Custom(func(t *rapid.T) record.Point {
		p := record.Point{Name: name.Draw(t, "name"), Unit: rapid.SampledFrom([]string{"", "°C"}).Draw(t, "unit")}
		switch rapid.IntRange(0, 6).Draw(t, "kind") {
		case 0:
			p.Value = record.Float64(rapid.Float64Range(-1e300, 1e300).Draw(t, "v"))
		case 1:
			p.Value = record.Float32(rapid.Float32Range(-1e30, 1e30).Draw(t, "v"))
		case 2:
			p.Value = record.Int(rapid.Int64().Draw(t, "v"))
		case 3:
			p.Value = record.Uint(rapid.Uint64().Draw(t, "v"))
		case 4:
			p.Value = record.Bool(rapid.Bool().Draw(t, "v"))
		case 5:
			p.Value = record.String(rapid.String().Draw(t, "v"))
		case 6:
			p.Bad = record.BadTimeout
		}
		return p
	})
}

func TestARecordReadsBackAsItWasWritten(t *testing.T) {
	var scratch record.Record // reused, as the pipeline does
	rapid.Check(t, func(t *rapid.T) {
		want := anyRecord().Draw(t, "record")
		if err := scratch.Unmarshal(want.Append(nil)); err != nil {
			t.Fatal(err)
		}
		got := scratch
		if len(got.Points) == 0 {
			got.Points = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestTheCodecAgreesWithTheSchema(t *testing.T) {
	desc := schema(t)
	rapid.Check(t, func(t *rapid.T) {
		want := anyRecord().Draw(t, "record")
		m := dynamicpb.NewMessage(desc)
		if err := proto.Unmarshal(want.Append(nil), m); err != nil {
			t.Fatalf("protobuf refuses our bytes: %v", err)
		}
		if len(m.GetUnknown()) > 0 {
			t.Fatalf("fields that the schema does not know: %x", m.GetUnknown())
		}
		theirs, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var got record.Record
		if err := got.Unmarshal(theirs); err != nil {
			t.Fatalf("we refuse protobuf's bytes: %v", err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestAStampBehindARecordTakesThePlaceOfItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stamp := func(name string) record.Stamp {
			return record.Stamp{
				Time: anyTime(t), Clock: record.Clock(rapid.IntRange(0, 2).Draw(t, name)),
				Boot: record.Boot(rapid.Uint64().Draw(t, name)), Up: time.Duration(rapid.Int64Min(0).Draw(t, name)),
			}
		}
		want := anyRecord().Draw(t, "record")
		want.Gap = nil
		want.At(stamp("first"))
		b := want.Append(nil)
		second := stamp("second")
		want.At(second)
		var got record.Record
		if err := got.Unmarshal(second.Append(b)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestAClockThatIsNotKnownIsNotSure(t *testing.T) {
	r := record.Record{Device: "d", Stream: "s", Clock: record.ClockCorrected + 1}
	var got record.Record
	if err := got.Unmarshal(r.Append(nil)); err != nil || got.Clock != record.ClockUnsynced {
		t.Errorf("%v, %v", got.Clock, err)
	}
}

func TestAFloatThatIsNotFiniteBecomesABadPoint(t *testing.T) {
	for _, v := range []record.Value{
		record.Float64(math.NaN()), record.Float64(math.Inf(1)), record.Float32(float32(math.Inf(-1))),
	} {
		r := record.Record{Device: "d", Stream: "s", Points: []record.Point{{Name: "p", Value: v}}}
		var got record.Record
		if err := got.Unmarshal(r.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if p := got.Points[0]; p.Bad != record.BadNotFinite || p.Value.Kind() != record.KindNone || got.Quality != record.Bad {
			t.Errorf("%v became %+v with quality %v", v, p, got.Quality)
		}
	}
}

func TestANameThatMayNotBeIsRefusedFromTheWire(t *testing.T) {
	for name, r := range map[string]record.Record{
		"empty device":   {Stream: "s"},
		"empty stream":   {Device: "d"},
		"slash":          {Device: "a/b", Stream: "s"},
		"own name":       {Device: "_x", Stream: "s"},
		"control":        {Device: "d", Stream: "a\nb"},
		"long":           {Device: strings.Repeat("x", record.MaxName+1), Stream: "s"},
		"point":          {Device: "d", Stream: "s", Points: []record.Point{{Name: "+"}}},
		"agent":          {Device: "d", Stream: "s", Agent: "$SYS"},
		"device not UTF": {Device: "\xff", Stream: "s"},
	} {
		if err := new(record.Record).Unmarshal(r.Append(nil)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestReadingASteadyStreamDoesNotAllocate(t *testing.T) {
	r := record.Record{Device: "press-7", Stream: "raw", Time: time.Unix(1, 2), Payload: make([]byte, 256), ContentType: "application/octet-stream"}
	r.Points = []record.Point{{Name: "n", Value: record.Uint(7), Unit: "pcs"}}
	b := r.Append(nil)
	var got record.Record
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if err := got.Unmarshal(b); err != nil {
			t.Fatal(err)
		}
		buf = got.AppendJSON(buf[:0])
		buf = got.Append(buf[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzUnmarshalNeverFailsOnWhatItTook(f *testing.F) {
	f.Add([]byte{})
	f.Add((&record.Record{Device: "d", Stream: "s", Payload: []byte("x")}).Append(nil))
	f.Add((&record.Record{
		Device: "d", Stream: "s", Agent: "a", Epoch: 3, Seq: 9, Part: 1, Gap: &record.Gap{From: 1, To: 2, Count: 2, Reason: "overload"},
		Points: []record.Point{{Name: "p", Value: record.Int(-1), Unit: "V"}, {Name: "q", Bad: "timeout"}},
	}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second record.Record
		if first.Unmarshal(b) != nil {
			return
		}
		if err := second.Unmarshal(first.Append(nil)); err != nil {
			t.Fatalf("took %x, but not its own writing of it: %v", b, err)
		}
		if a, b := string(first.AppendJSON(nil)), string(second.AppendJSON(nil)); a != b {
			t.Fatalf("%s\n%s", a, b)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	r := record.Record{Device: "press-7", Stream: "raw", Time: time.Unix(1, 2), Payload: make([]byte, 256), ContentType: "application/octet-stream"}
	wire := r.Append(nil)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for buf := make([]byte, 0, 1024); b.Loop(); {
			buf = r.Append(buf[:0])
		}
	})
	b.Run("unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for r := r; b.Loop(); {
			_ = r.Unmarshal(wire)
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for buf := make([]byte, 0, 1024); b.Loop(); {
			buf = r.AppendJSON(buf[:0])
		}
	})
}
