package mcp_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
)

func mustFrame(t testing.TB, version uint8, c mcp.Command, payload []byte) []byte {
	t.Helper()
	b, err := mcp.AppendFrame(nil, version, c, payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheChecksumsAreThoseOfTheirStandards(t *testing.T) {
	// Worked out bit by bit with a program that gives 0xF4 and 0xE3069283, the
	// published check values, for "123456789".
	for _, frame := range [][]byte{
		{0x4D, 0x43, 1, 1, 0, 0, 0, 0, 0x73},
		{0x4D, 0x43, 2, 1, 0, 0, 0, 0, 0x9D, 0x1D, 0x3F, 0x65},
	} {
		f, err := mcp.ParseFrame(frame)
		if err != nil {
			t.Errorf("% X: %v", frame, err)
			continue
		}
		if got := mustFrame(t, f.Version, f.Command, f.Payload); !bytes.Equal(got, frame) {
			t.Errorf("got % X, want % X", got, frame)
		}
	}
}

func TestAFrameReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom([]uint8{1, 2}).Draw(t, "version")
		payload := rapid.SliceOfN(rapid.Byte(), 0, 1024).Draw(t, "payload")
		command := mcp.Command(rapid.Byte().Draw(t, "command"))
		b, err := mcp.AppendFrame([]byte("before"), version, command, payload)
		if err != nil {
			t.Fatal(err)
		}
		f, err := mcp.ParseFrame(b[len("before"):])
		if err != nil || f.Version != version || f.Command != command || !bytes.Equal(f.Payload, payload) {
			t.Fatalf("got %+v, %v", f, err)
		}
	})
}

func TestADamagedFrameIsRefused(t *testing.T) {
	for _, version := range []uint8{1, 2} {
		good := mustFrame(t, version, mcp.CommandPublish, []byte("payload"))
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 0x10
			if _, err := mcp.ParseFrame(bad); err == nil {
				t.Errorf("version %d: byte %d is wrong and nobody minds", version, i)
			}
			if _, err := mcp.ParseFrame(good[:i]); err == nil {
				t.Errorf("version %d: %d of %d bytes are a frame", version, i, len(good))
			}
		}
	}
}

func TestAPayloadBeyondTheVersionsLimitIsNotFramed(t *testing.T) {
	for version, size := range map[uint8]int{1: mcp.MaxPayloadV1 + 1, 2: mcp.MaxPayloadV2 + 1} {
		b, err := mcp.AppendFrame([]byte("x"), version, mcp.CommandPublish, make([]byte, size))
		if !errors.Is(err, transport.ErrTooLarge) || string(b) != "x" {
			t.Errorf("version %d: got %d bytes, %v", version, len(b), err)
		}
	}
	if _, err := mcp.AppendFrame(nil, 3, mcp.CommandHello, nil); !errors.Is(err, mcp.ErrVersion) {
		t.Errorf("version 3: %v", err)
	}
}

func TestAStreamFramerWantsNoMoreBytesThanItNeedsToRefuse(t *testing.T) {
	f := mcp.NewStreamFramer(2048, 0)
	for _, bad := range []struct {
		bytes string
		class error
	}{
		{"G", transport.ErrFrame},
		{"MX", transport.ErrFrame},
		{"MC\x03", mcp.ErrVersion},
		{"MC\x01\x05\x00\x00\x04\x01", transport.ErrTooLarge},
		{"MC\x02\x05\x00\x00\x08\x01", transport.ErrTooLarge},
		{"MC\x02\x05\xff\xff\xff\xff", transport.ErrTooLarge},
	} {
		advance, _, err := f.Split([]byte(bad.bytes), false)
		if !errors.Is(err, bad.class) || advance < 1 {
			t.Errorf("%q: advance %d, %v", bad.bytes, advance, err)
		}
	}
	for _, half := range []string{"", "M", "MC", "MC\x02\x05\x00\x00\x08", "MC\x02\x05\x00\x00\x08\x00abc"} {
		if advance, msg, err := f.Split([]byte(half), false); advance != 0 || msg != nil || err != nil {
			t.Errorf("%q: %d, %q, %v", half, advance, msg, err)
		}
	}
}

func TestFramesCostNoAllocations(t *testing.T) {
	payload := make([]byte, 256)
	buf := make([]byte, 0, 512)
	for _, version := range []uint8{1, 2} {
		n := testing.AllocsPerRun(100, func() {
			b, err := mcp.AppendFrame(buf, version, mcp.CommandPublish, payload)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := mcp.ParseFrame(b); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("version %d: %v allocations", version, n)
		}
	}
}

func BenchmarkFrameEncode256(b *testing.B) {
	payload := make([]byte, 256)
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	b.SetBytes(256)
	for b.Loop() {
		buf, _ = mcp.AppendFrame(buf[:0], mcp.Version2, mcp.CommandPublish, payload)
	}
}

func BenchmarkFrameDecode256(b *testing.B) {
	frame := mustFrame(b, mcp.Version2, mcp.CommandPublish, make([]byte, 256))
	b.ReportAllocs()
	b.SetBytes(256)
	for b.Loop() {
		if _, err := mcp.ParseFrame(frame); err != nil {
			b.Fatal(err)
		}
	}
}

// feed gives a stream to a framer in pieces, as a serial line does, and returns
// copies of the messages. At the end, and only there, the line falls silent.
func feed(f transport.Framer, stream []byte, piece func() int) [][]byte {
	var msgs [][]byte
	var buf []byte
	split := func(idle bool) {
		for {
			advance, msg, err := f.Split(buf, idle)
			if err != nil {
				panic(err)
			}
			buf = buf[advance:]
			if msg != nil {
				msgs = append(msgs, bytes.Clone(msg))
			}
			if advance == 0 || msg == nil {
				return
			}
		}
	}
	for len(stream) > 0 {
		n := min(piece(), len(stream), max(f.Max()-len(buf), 1))
		buf = append(buf, stream[:n]...)
		stream = stream[n:]
		split(false)
	}
	split(true)
	return msgs
}

func TestSerialFindsEachGoodFrameInNoiseWithoutAMagic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want [][]byte
		for range rapid.IntRange(1, 5).Draw(t, "frames") {
			noise := rapid.SliceOf(rapid.Byte().Filter(func(b byte) bool { return b != 'M' })).Draw(t, "noise")
			version := rapid.SampledFrom([]uint8{1, 2}).Draw(t, "version")
			frame, err := mcp.AppendFrame(nil, version, mcp.CommandRequest, rapid.SliceOf(rapid.Byte()).Draw(t, "payload"))
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, frame)
			stream = append(append(stream, noise...), frame...)
		}
		size := rapid.IntRange(1, 40)
		got := feed(mcp.NewSerialFramer(0, 0), stream, func() int { return size.Draw(t, "piece") })
		if len(got) != len(want) {
			t.Fatalf("got %d frames of %d", len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d: got % X, want % X", i, got[i], want[i])
			}
		}
	})
}

func TestSerialResynchronises(t *testing.T) {
	good := mustFrame(t, mcp.Version2, mcp.CommandPublish, []byte("the good one"))
	request := mustFrame(t, mcp.Version2, mcp.CommandRequest, []byte("x"))
	flipped := bytes.Clone(good)
	flipped[12] ^= 1
	// A false header that claims 40 bytes, with good frames among them.
	claim := func(inside ...[]byte) []byte {
		b := []byte("MC\x02\x05\x00\x00\x00\x28")
		for _, i := range inside {
			b = append(b, i...)
		}
		return append(b, make([]byte, 64)...)
	}
	for name, c := range map[string]struct {
		stream []byte
		frames int
		stats  mcp.ResyncStats
	}{
		"a wrong magic":              {append([]byte("MXMMC\x03"), good...), 1, mcp.ResyncStats{SkippedBytes: 6}},
		"a bad checksum":             {append(flipped, good...), 1, mcp.ResyncStats{SkippedBytes: uint64(len(good)), BadFrames: 1}},
		"a length over the limit":    {append([]byte("MC\x02\x05\x00\x00\x10\x01"), good...), 1, mcp.ResyncStats{SkippedBytes: 8}},
		"half a frame":               {append(bytes.Clone(good[:15]), good...), 1, mcp.ResyncStats{SkippedBytes: 15, BadFrames: 1}},
		"a frame in a failed frame":  {claim(good), 1, mcp.ResyncStats{SkippedBytes: 8 + 64, BadFrames: 1}},
		"a request in a failed one":  {claim(request), 0, mcp.ResyncStats{SkippedBytes: 8 + 64, BadFrames: 1, Ignored: 1}},
		"a request after a bad one":  {append(bytes.Clone(flipped), request...), 1, mcp.ResyncStats{SkippedBytes: uint64(len(good)), BadFrames: 1}},
		"nothing but half a frame":   {good[:15], 0, mcp.ResyncStats{SkippedBytes: 15, BadFrames: 1}},
		"nothing but half a header":  {good[:5], 0, mcp.ResyncStats{SkippedBytes: 5}},
		"a false magic, then a good": {append([]byte("MC\x02\x05\x00\x00\x01\x00"), good...), 1, mcp.ResyncStats{SkippedBytes: 8, BadFrames: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 7, 4096} {
				f := mcp.NewSerialFramer(0, 0)
				if got := feed(f, c.stream, func() int { return size }); len(got) != c.frames {
					t.Errorf("in pieces of %d: %d frames, want %d", size, len(got), c.frames)
				}
				if got := f.Stats(); got != c.stats {
					t.Errorf("in pieces of %d: %+v, want %+v", size, got, c.stats)
				}
			}
		})
	}
}

func TestAMegabyteOfNoiseIsReadInLinearTime(t *testing.T) {
	random := make([]byte, 1<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	good := mustFrame(t, mcp.Version2, mcp.CommandPublish, []byte("good"))
	for name, noise := range map[string][]byte{
		"random":                    random,
		"a false header in each 8":  bytes.Repeat([]byte("MC\x02\x05\x00\x00\x10\x00"), 1<<17),
		"the same in version 1":     bytes.Repeat([]byte("MC\x01\x05\x00\x00\x04\x00"), 1<<17),
		"nothing but half a magic":  bytes.Repeat([]byte("M"), 1<<20),
		"magics without the header": bytes.Repeat([]byte("MC"), 1<<19),
	} {
		t.Run(name, func(t *testing.T) {
			got := feed(mcp.NewSerialFramer(0, 0), append(bytes.Clone(noise), good...), func() int { return 1 << 12 })
			if len(got) != 1 || !bytes.Equal(got[0], good) {
				t.Errorf("got %d frames", len(got))
			}
		})
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(mustFrame(f, 1, mcp.CommandHello, []byte("x")))
	f.Add(mustFrame(f, 2, mcp.CommandAck, nil))
	f.Add([]byte("MC\x02\x05\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := mcp.ParseFrame(b)
		if err != nil {
			return
		}
		if again := mustFrame(t, frame.Version, frame.Command, frame.Payload); !bytes.Equal(again, b) {
			t.Fatalf("% X became % X", b, again)
		}
	})
}

func FuzzSerialResync(f *testing.F) {
	f.Add([]byte("noise"), uint8(3))
	f.Add([]byte("MC\x02\x05\x00\x00\x00\x04abcd"), uint8(1))
	f.Add(append([]byte("MC\x01\x05\x00\x00\x00\x40"), mustFrame(f, 2, mcp.CommandPublish, []byte("x"))...), uint8(40))
	f.Fuzz(func(t *testing.T, noise []byte, piece uint8) {
		if len(noise) > 1<<14 {
			return
		}
		// Whatever came before: a good frame behind the silence that ends it is read.
		framer := mcp.NewSerialFramer(0, 0)
		feed(framer, noise, func() int { return int(piece) + 1 })
		good := mustFrame(t, mcp.Version2, mcp.CommandRequest, []byte("good"))
		if got := feed(framer, good, func() int { return int(piece) + 1 }); len(got) != 1 || !bytes.Equal(got[0], good) {
			t.Fatalf("after % X the good frame became %q", noise, got)
		}
	})
}
