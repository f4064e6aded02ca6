package mcp_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
)

// schema compiles mcp.proto, so that the codecs here are held against what
// every other language generates from it.
func schema(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{".", "../record"}}}
	files, err := compiler.Compile(context.Background(), "mcp.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0]
}

// codec is what all payloads have in common.
type codec interface {
	Append(b []byte) []byte
	Unmarshal(b []byte) error
}

// ack gives an ACK the same form.
type ack struct{ positions []mcp.Position }

func (a *ack) Append(b []byte) []byte { return mcp.AppendAck(b, a.positions) }

func (a *ack) Unmarshal(b []byte) (err error) {
	a.positions, err = mcp.ParseAck(nil, b)
	return err
}

// publish gives a PUBLISH the same form.
type publish struct {
	channel  string
	previous uint64
	numbers  []uint64
	records  [][]byte
}

func (p *publish) Append(b []byte) []byte {
	var records []byte
	for _, r := range p.records {
		records = mcp.AppendRecord(records, r)
	}
	return mcp.AppendPublish(b, p.channel, p.previous, p.numbers, records)
}

func (p *publish) Unmarshal(b []byte) error {
	var parsed mcp.Publish
	if err := parsed.Unmarshal(b); err != nil {
		return err
	}
	*p = publish{channel: string(parsed.Channel), previous: parsed.Previous}
	for n, r := range parsed.Records() {
		p.numbers = append(p.numbers, n)
		p.records = append(p.records, bytes.Clone(r))
	}
	return nil
}

func anyName() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9 .-]{0,20}`)
}

func anyHello(t *rapid.T) mcp.Hello {
	h := mcp.Hello{
		Sender: anyName().Draw(t, "sender"), Epoch: record.Epoch(rapid.Uint64Min(1).Draw(t, "epoch")),
		Token: rapid.String().Draw(t, "token"), Software: rapid.StringN(0, 20, 200).Draw(t, "software"),
		Heartbeat:     time.Duration(rapid.Uint32().Draw(t, "heartbeat")) * time.Millisecond,
		Deduplicates:  rapid.Bool().Draw(t, "deduplicates"),
		MaxPayload:    rapid.IntRange(1, 1<<30).Draw(t, "payload"),
		WindowRecords: rapid.IntRange(0, 1<<30).Draw(t, "records"), WindowBytes: rapid.IntRange(0, 1<<30).Draw(t, "bytes"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "versions") {
		h.Versions = append(h.Versions, rapid.Uint8Range(1, 127).Draw(t, "version"))
	}
	for range rapid.IntRange(0, 3).Draw(t, "channels") {
		h.Channels = append(h.Channels, anyName().Draw(t, "channel"))
	}
	return h
}

func anyPositions(t *rapid.T) (ps []mcp.Position) {
	for range rapid.IntRange(0, 3).Draw(t, "positions") {
		ps = append(ps, mcp.Position{
			Channel: anyName().Draw(t, "channel"), Number: rapid.Uint64().Draw(t, "number"),
			ResendFrom: rapid.Uint64().Draw(t, "resend"),
			ResendTo:   rapid.Uint64().Draw(t, "resend to"),
		})
	}
	return ps
}

func anyBytes(t *rapid.T, what string) []byte {
	if b := rapid.SliceOf(rapid.Byte()).Draw(t, what); len(b) > 0 {
		return b
	}
	return nil
}

func anyPublish(t *rapid.T) codec {
	p := &publish{channel: anyName().Draw(t, "channel"), previous: rapid.Uint64Max(math.MaxUint64-1000).Draw(t, "previous")}
	number := p.previous
	for range rapid.IntRange(1, 4).Draw(t, "count") {
		number += rapid.Uint64Range(1, 100).Draw(t, "step")
		p.numbers = append(p.numbers, number)
		r := record.Record{Device: anyName().Draw(t, "device"), Stream: "s", Payload: anyBytes(t, "payload")}
		p.records = append(p.records, r.Append(nil))
	}
	return p
}

func TestEachCodecAgreesWithTheSchema(t *testing.T) {
	file := schema(t)
	for message, kind := range map[protoreflect.Name]struct {
		any   func(t *rapid.T) codec
		empty func() codec
	}{
		"Hello": {func(t *rapid.T) codec { h := anyHello(t); return &h }, func() codec { return new(mcp.Hello) }},
		"Welcome": {
			func(t *rapid.T) codec { return &mcp.Welcome{Hello: anyHello(t), Positions: anyPositions(t)} },
			func() codec { return new(mcp.Welcome) },
		},
		"Publish": {anyPublish, func() codec { return new(publish) }},
		"Ack":     {func(t *rapid.T) codec { return &ack{anyPositions(t)} }, func() codec { return new(ack) }},
		"Request": {func(t *rapid.T) codec {
			return &mcp.Request{
				ID: rapid.Uint64Min(1).Draw(t, "id"), Method: anyName().Draw(t, "method"), Device: anyName().Draw(t, "device"),
				Payload: anyBytes(t, "payload"), ContentType: rapid.StringN(0, 20, 100).Draw(t, "type"),
				TimeLeft: time.Duration(rapid.Int64Range(0, math.MaxInt64/1_000_000).Draw(t, "time left")) * time.Millisecond,
			}
		}, func() codec { return new(mcp.Request) }},
		"Response": {func(t *rapid.T) codec {
			return &mcp.Response{
				ID: rapid.Uint64Min(1).Draw(t, "id"), Code: mcp.Code(rapid.Uint32().Draw(t, "code")),
				Reason:  rapid.StringN(0, 20, 100).Draw(t, "reason"),
				Payload: anyBytes(t, "payload"), ContentType: rapid.StringN(0, 20, 100).Draw(t, "type"),
			}
		}, func() codec { return new(mcp.Response) }},
	} {
		desc := file.Messages().ByName(message)
		t.Run(string(message), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				want := kind.any(t)
				m := dynamicpb.NewMessage(desc)
				if err := proto.Unmarshal(want.Append(nil), m); err != nil {
					t.Fatal(err)
				}
				if len(m.GetUnknown()) > 0 {
					t.Fatalf("the schema does not know % X", m.GetUnknown())
				}
				theirs, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				got := kind.empty()
				if err := got.Unmarshal(theirs); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("got  %+v\nwant %+v", got, want)
				}
			})
		})
	}
}

func TestHostilePayloadsAreRefused(t *testing.T) {
	field := func(id protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, id, protowire.BytesType), b)
	}
	epoch := protowire.AppendFixed64(protowire.AppendTag(nil, 2, protowire.Fixed64Type), 1)
	hello := append(field(1, []byte("press-7")), epoch...)
	group := bytes.Repeat(protowire.AppendTag(nil, 99, protowire.StartGroupType), 1000)
	if err := new(mcp.Hello).Unmarshal(hello); err != nil {
		t.Fatalf("a plain HELLO is refused: %v", err)
	}
	for name, c := range map[string]struct {
		into    codec
		payload []byte
	}{
		"no sender":                 {new(mcp.Hello), epoch},
		"no epoch":                  {new(mcp.Hello), field(1, []byte("press-7"))},
		"a name with a slash":       {new(mcp.Hello), append(field(1, []byte("a/b")), epoch...)},
		"a name of the agent's own": {new(mcp.Hello), append(field(1, []byte("_gap")), epoch...)},
		"a name too long":           {new(mcp.Hello), append(field(1, bytes.Repeat([]byte("x"), 65)), epoch...)},
		"a token too long":          {new(mcp.Hello), append(hello, field(3, make([]byte, 1<<15))...)},
		"too many channels":         {new(mcp.Hello), append(hello, bytes.Repeat(field(7, []byte("c")), mcp.MaxChannels+1)...)},
		"too many versions":         {new(mcp.Hello), append(hello, field(5, make([]byte, 100))...)},
		"nested groups":             {new(mcp.Hello), append(hello, group...)},
		"a field number of 0":       {new(mcp.Hello), append(hello, 0)},
		"text that is not UTF-8":    {new(mcp.Hello), append(hello, field(4, []byte{0xFF})...)},
		"too many positions":        {new(ack), bytes.Repeat(field(1, field(1, []byte("c"))), mcp.MaxChannels+1)},
		"a position without a name": {new(ack), field(1, nil)},
		"no records":                {new(publish), field(1, []byte("c"))},
		"more numbers than records": {new(publish), append(field(3, []byte{1, 2}), field(4, nil)...)},
		"numbers that fall":         {new(publish), append(field(3, []byte{2, 1}), append(field(4, nil), field(4, nil)...)...)},
		"a number not above previous": {new(publish), append(
			[]byte{2 << 3, 5}, append(field(3, []byte{5}), field(4, nil)...)...)},
		"numbers beyond 64 bits": {new(publish), append(
			protowire.AppendVarint([]byte{2 << 3}, math.MaxUint64), field(4, nil)...)},
		"a record cut short":        {new(publish), []byte{4<<3 | 2, 100, 1}},
		"a request without an id":   {new(mcp.Request), field(2, []byte("read"))},
		"a request without method":  {new(mcp.Request), []byte{1 << 3, 1}},
		"a response without an id":  {new(mcp.Response), nil},
		"a varint that never ends":  {new(mcp.Response), append([]byte{1 << 3}, bytes.Repeat([]byte{0xFF}, 11)...)},
		"a length beyond the frame": {new(mcp.Request), []byte{4<<3 | 2, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F}},
	} {
		if err := c.into.Unmarshal(c.payload); !errors.Is(err, mcp.ErrPayload) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFieldsOfLaterVersionsAreSkipped(t *testing.T) {
	r := mcp.Request{ID: 7, Method: "read"}
	b := protowire.AppendVarint(protowire.AppendTag(r.Append(nil), 1000, protowire.VarintType), 1)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 1001, protowire.Fixed32Type), 1)
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), "a field of the wrong type")
	var got mcp.Request
	if err := got.Unmarshal(b); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTimeLeftIsInMillisecondsRoundedUpAndBounded(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, 1: time.Millisecond, time.Second: time.Second, time.Second + 1: 1001 * time.Millisecond,
		math.MaxInt64: math.MaxInt64 / 1_000_000 * time.Millisecond,
	} {
		asked, got := mcp.Request{ID: 1, Method: "run", TimeLeft: left}, mcp.Request{}
		if err := got.Unmarshal(asked.Append(nil)); err != nil || got.TimeLeft != want {
			t.Errorf("%s becomes %s, %v", left, got.TimeLeft, err)
		}
	}
	hostile := mcp.Request{ID: 1, Method: "run"}
	b := protowire.AppendVarint(protowire.AppendTag(hostile.Append(nil), 6, protowire.VarintType), math.MaxUint64)
	if err := hostile.Unmarshal(b); err != nil || hostile.TimeLeft < 1e6*time.Second {
		t.Errorf("%s, %v", hostile.TimeLeft, err)
	}
}

// batch is a PUBLISH of n records of 256 bytes each.
func batch(n int) []byte {
	var records []byte
	for range n {
		r := record.Record{Device: "press-7", Stream: "raw", Payload: make([]byte, 256)}
		records = mcp.AppendRecord(records, r.Append(nil))
	}
	return mcp.AppendPublish(nil, "main", 41, nil, records)
}

func TestReadingAPublishCostsNoAllocations(t *testing.T) {
	payload := batch(64)
	var p mcp.Publish
	var total int
	n := testing.AllocsPerRun(100, func() {
		if err := p.Unmarshal(payload); err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Records() {
			total += len(r)
		}
	})
	if n != 0 || total == 0 {
		t.Errorf("%v allocations, %d bytes", n, total)
	}
}

func BenchmarkPublishDecode64x256(b *testing.B) {
	payload := batch(64)
	var p mcp.Publish
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Unmarshal(payload); err != nil {
			b.Fatal(err)
		}
		for _, r := range p.Records() {
			_ = r
		}
	}
}

func FuzzPayloads(f *testing.F) {
	hello := mcp.Hello{Sender: "press-7", Epoch: 1, Channels: []string{"main"}, Versions: []uint8{1, 2}}
	welcome := mcp.Welcome{Hello: hello, Positions: []mcp.Position{{Channel: "main", Number: 3}}}
	request := mcp.Request{ID: 1, Method: "read", Payload: []byte("x"), TimeLeft: time.Second}
	response := mcp.Response{ID: 1, Code: mcp.CodeBusy, Reason: "later"}
	f.Add(hello.Append(nil))
	f.Add(welcome.Append(nil))
	f.Add(batch(2))
	f.Add(mcp.AppendPublish(nil, "main", 1, []uint64{3, 9}, mcp.AppendRecord(mcp.AppendRecord(nil, nil), []byte("x"))))
	f.Add(mcp.AppendAck(nil, []mcp.Position{{Channel: "main", Number: 3, ResendFrom: 4}}))
	f.Add(request.Append(nil))
	f.Add(response.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, empty := range []func() codec{
			func() codec { return new(mcp.Hello) },
			func() codec { return new(mcp.Welcome) },
			func() codec { return new(publish) },
			func() codec { return new(ack) },
			func() codec { return new(mcp.Request) },
			func() codec { return new(mcp.Response) },
		} {
			first, second := empty(), empty()
			if first.Unmarshal(b) != nil {
				continue
			}
			if err := second.Unmarshal(first.Append(nil)); err != nil {
				t.Fatalf("%T: its own form is refused: %v", first, err)
			}
			if !reflect.DeepEqual(first, second) {
				t.Fatalf("%+v became %+v", first, second)
			}
		}
	})
}
