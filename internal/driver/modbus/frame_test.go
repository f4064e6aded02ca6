package modbus

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
)

// feed does with a framer what a connection does: pieces arrive one by one, and
// an empty piece is a silence. It returns the messages and counts the errors.
func feed(t testing.TB, f transport.Framer, pieces ...[]byte) (messages [][]byte, bad int) {
	t.Helper()
	var buf []byte
	for _, piece := range pieces {
		idle := len(piece) == 0
		for first := true; first || len(piece) > 0; first = false {
			n := min(len(piece), f.Max()-len(buf))
			buf, piece = append(buf, piece[:n]...), piece[n:]
			for len(buf) > 0 {
				advance, msg, err := f.Split(buf, idle)
				switch {
				case advance < 0 || advance > len(buf):
					t.Fatalf("advance %d of %d", advance, len(buf))
				case err != nil && (advance == 0 || !errors.Is(err, transport.ErrFrame)):
					t.Fatalf("advance %d with %v", advance, err)
				case msg != nil && (err != nil || len(msg) > advance):
					t.Fatalf("message of %d bytes, advance %d, %v", len(msg), advance, err)
				case msg == nil && advance == 0 && len(buf) >= f.Max():
					t.Fatal("asks for more than its maximum")
				}
				if err != nil {
					bad++
				}
				if msg != nil {
					messages = append(messages, bytes.Clone(msg))
				}
				buf = buf[advance:]
				if advance == 0 {
					break
				}
			}
		}
	}
	return messages, bad
}

// asked is an RTU framer that waits for the reply to r.
func asked(unit byte, r Request) *rtu {
	f := &rtu{charTime: time.Millisecond}
	f.request(unit, r)
	return f
}

var (
	silence   []byte
	someRead  = must(Read(Holding, 0, 3))
	someReply = AppendRTU(nil, 17, []byte{3, 6, 2, 0x2B, 0, 0, 0, 0x64})
	otherUnit = AppendRTU(nil, 18, []byte{3, 4, 0, 1, 0, 2})
)

func TestTheCRCIsThatOfTheStandard(t *testing.T) {
	if crc := CRC([]byte("123456789")); crc != 0x4B37 {
		t.Errorf("check value %04X", crc)
	}
	if adu := AppendRTU(nil, 1, []byte{4, 2, 0xFF, 0xFF}); !bytes.Equal(adu, unhex(t, "01 04 02 FFFF B880")) {
		t.Errorf("% X", adu)
	}
}

func TestALengthAndACRCEndAnRTUReplyAndNotASilence(t *testing.T) {
	for name, pieces := range map[string][][]byte{
		"at once":                  {someReply},
		"with a pause in it":       {someReply[:4], silence, someReply[4:]},
		"a pause after the unit":   {someReply[:1], silence, someReply[1:]},
		"many pauses":              {someReply[:2], silence, someReply[2:3], silence, silence, someReply[3:9], silence, someReply[9:]},
		"noise before it":          {{0xFF}, someReply},
		"noise like a header":      {{0, 3, 200, 1, 1}, someReply, silence},
		"noise, and a pause in it": {{0}, someReply[:5], silence, someReply[5:]},
	} {
		messages, _ := feed(t, asked(17, someRead), pieces...)
		if len(messages) != 1 || !bytes.Equal(messages[0], someReply) {
			t.Errorf("%s: % X", name, messages)
		}
	}
}

func TestAnotherUnitsFrameIsAFrame(t *testing.T) {
	messages, bad := feed(t, asked(17, someRead), otherUnit, someReply)
	if len(messages) != 2 || !bytes.Equal(messages[0], otherUnit) || !bytes.Equal(messages[1], someReply) || bad != 0 {
		t.Errorf("% X, %d bad", messages, bad)
	}
}

func TestABadCRCIsReportedOnceAndTheNextFrameIsRead(t *testing.T) {
	broken := bytes.Clone(someReply)
	broken[4] ^= 1
	messages, bad := feed(t, asked(17, someRead), broken, silence, someReply)
	if len(messages) != 1 || bad != 1 {
		t.Errorf("% X, %d bad", messages, bad)
	}
	messages, _ = feed(t, asked(17, someRead), broken, someReply, silence)
	if len(messages) != 1 {
		t.Errorf("without a silence between: % X", messages)
	}
}

func TestHalfAReplyIsKeptUntilTheTimeOut(t *testing.T) {
	f := asked(17, someRead)
	messages, bad := feed(t, f, someReply[:6], silence)
	if len(messages) != 0 || bad != 0 || !f.unfinished() {
		t.Errorf("% X, %d bad, unfinished %v", messages, bad, f.unfinished())
	}
}

func TestAFrameAfterAMegabyteOfNoiseIsReadInLinearTime(t *testing.T) {
	noise := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(noise)
	took := func(noise []byte) time.Duration {
		start := time.Now()
		messages, _ := feed(t, asked(17, someRead), noise, silence, someReply)
		if len(messages) == 0 || !bytes.Equal(messages[len(messages)-1], someReply) {
			t.Fatalf("not read after %d bytes of noise", len(noise))
		}
		return time.Since(start)
	}
	took(noise[:1<<16])
	small, large := took(noise[:1<<17]), took(noise)
	if large > 8*5*small {
		t.Errorf("%v for an eighth of it, %v for all", small, large)
	}
}

func TestTheSilenceBeforeARequestIsThatOfTheStandard(t *testing.T) {
	for charTime, want := range map[time.Duration]time.Duration{
		11 * time.Second / 9600:   11 * time.Second / 9600 * 7 / 2,
		11 * time.Second / 19200:  11 * time.Second / 19200 * 7 / 2,
		11 * time.Second / 38400:  1750 * time.Microsecond,
		11 * time.Second / 115200: 1750 * time.Microsecond,
		0:                         0,
	} {
		if got := (&rtu{charTime: charTime}).silence(); got != want {
			t.Errorf("%v a character: %v, want %v", charTime, got, want)
		}
	}
}

func TestModbusTCPFramesAreFoundByTheirLength(t *testing.T) {
	f := new(mbap)
	sent := bytes.Clone(f.request(1, someRead))
	if !bytes.Equal(sent, unhex(t, "0001 0000 0006 01 03 0000 0003")) {
		t.Errorf("request % X", sent)
	}
	one := AppendMBAP(nil, 1, 1, []byte{3, 6, 0, 1, 0, 2, 0, 3})
	two := AppendMBAP(nil, 2, 1, []byte{0x83, 2})
	stream := append(bytes.Clone(one), two...)
	messages, bad := feed(t, f, stream[:3], stream[3:20], stream[20:])
	if len(messages) != 2 || !bytes.Equal(messages[0], one) || !bytes.Equal(messages[1], two) || bad != 0 {
		t.Fatalf("% X, %d bad", messages, bad)
	}
	if unit, pdu, err := f.reply(messages[0]); unit != 1 || !bytes.Equal(pdu, one[7:]) || err != nil {
		t.Errorf("%d % X %v", unit, pdu, err)
	}
	if _, _, err := f.reply(messages[1]); !errors.Is(err, wrongTransaction) {
		t.Errorf("%v", err)
	}
}

func TestAHeaderThatIsNotModbusTCPIsABadFrame(t *testing.T) {
	for name, header := range map[string]string{
		"another protocol": "0001 0001 0006 01 03",
		"too short":        "0001 0000 0001 01 03",
		"too long":         "0001 0000 00FF 01 03",
	} {
		if messages, bad := feed(t, new(mbap), unhex(t, header)); len(messages) != 0 || bad != 1 {
			t.Errorf("%s: % X, %d bad", name, messages, bad)
		}
	}
}

// pieces cuts b into pieces whose lengths come from cuts; a cut of 0 is a silence.
func pieces(b, cuts []byte) [][]byte {
	var list [][]byte
	for _, cut := range cuts {
		n := min(int(cut), len(b))
		list = append(list, b[:n])
		b = b[n:]
	}
	return append(list, b)
}

func FuzzRTUFramer(f *testing.F) {
	f.Add(someReply, []byte{4, 0, 1})
	f.Add(otherUnit, []byte{})
	f.Add([]byte{17, 3, 6, 0, 0, 17, 0x83, 2, 17}, []byte{2, 0, 3, 0})
	f.Add(bytes.Repeat([]byte{0, 3, 250}, 100), []byte{100, 0})
	f.Fuzz(func(t *testing.T, noise, cuts []byte) {
		framer := asked(17, someRead)
		messages, _ := feed(t, framer, append(pieces(noise, cuts), silence)...)
		for _, msg := range messages {
			if CRC(msg) != 0 {
				t.Errorf("% X has a bad CRC", msg)
			}
			if _, pdu, err := framer.reply(msg); err != nil || len(pdu) < 2 {
				t.Errorf("% X: %v", msg, err)
			}
		}
		// Whatever came before, after the next request its reply is found.
		framer.request(17, someRead)
		messages, _ = feed(t, framer, someReply)
		if len(messages) != 1 || !bytes.Equal(messages[0], someReply) {
			t.Errorf("then % X", messages)
		}
	})
}

func FuzzMBAPFramer(f *testing.F) {
	f.Add(AppendMBAP(nil, 1, 1, []byte{3, 2, 0, 1}), []byte{3, 0, 4})
	f.Add([]byte{0, 1, 0, 0, 0, 2, 1, 3, 0, 0, 0, 1}, []byte{})
	f.Add([]byte{0, 1, 0, 0, 255, 255, 1}, []byte{1})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		framer := &mbap{transaction: 1}
		messages, _ := feed(t, framer, pieces(stream, cuts)...)
		for _, msg := range messages {
			if _, pdu, err := framer.reply(msg); err == nil && (len(pdu) < 1 || len(pdu) > MaxPDU) {
				t.Errorf("% X has a PDU of %d bytes", msg, len(pdu))
			}
		}
	})
}
