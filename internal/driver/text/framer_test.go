package text

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/transport"
)

// lines feeds a stream to a framer in pieces, as a Conn does, and returns the
// lines; "!" stands for a line that was too long. At "|" in a piece the line
// falls silent.
func lines(t fataler, f *framer, pieces ...string) (got []string) {
	var buf []byte
	split := func(idle bool) {
		for len(buf) > 0 {
			n, msg, err := f.Split(buf, idle)
			switch {
			case err != nil && (n < 1 || !errors.Is(err, transport.ErrTooLarge)):
				t.Fatalf("error %v with advance %d", err, n)
			case err != nil:
				got = append(got, "!")
			case msg != nil:
				got = append(got, string(msg))
			}
			if buf = buf[n:]; n == 0 {
				break
			}
		}
		if len(buf) >= f.Max() {
			t.Fatalf("%d bytes are left in the buffer, and Max is %d", len(buf), f.Max())
		}
	}
	for _, piece := range pieces {
		for _, part := range strings.SplitAfter(piece, "|") {
			silent := strings.HasSuffix(part, "|")
			buf = append(buf, strings.TrimSuffix(part, "|")...)
			split(false)
			if silent && f.Idle() > 0 {
				split(true)
			}
		}
	}
	return got
}

type fataler interface{ Fatalf(string, ...any) }

func TestALineEndsAtItsDelimiter(t *testing.T) {
	for name, c := range map[string]struct {
		delimiter string
		in, want  []string
	}{
		"LF and CR LF":         {"\n", []string{"a\nb\r\n\nc"}, []string{"a", "b", ""}},
		"a delimiter in parts": {"\r\n", []string{"a\r", "\nb\nc\r\n"}, []string{"a", "b\nc"}},
		"any bytes":            {"\x03", []string{"\x02W 1\x03\x02W", " 2\x03"}, []string{"\x02W 1", "\x02W 2"}},
		"as long as may be":    {"\n", []string{"12345678", "\r", "\n12345678\n"}, []string{"12345678", "12345678"}},
		"too long":             {"\n", []string{"123456789\nok\n"}, []string{"!", "ok"}},
		"too long, in parts":   {"\r\n", []string{"123456789", "123456789", "123456789\r", "\nok\r\n"}, []string{"!", "ok"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lines(t, newFramer(&Config{Delimiter: c.delimiter, MaxLine: 8}), c.in...); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestALineEndsWithASilence(t *testing.T) {
	for name, c := range map[string]struct{ in, want []string }{
		"two lines":          {[]string{"ab", "c|d|"}, []string{"abc", "d"}},
		"its end is not it":  {[]string{"12345678\r\n|"}, []string{"12345678"}},
		"too long":           {[]string{"123456789|ok|"}, []string{"!", "ok"}},
		"too long, in parts": {[]string{"123456789", "123456789", "1", "2", "|ok|"}, []string{"!", "ok"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lines(t, newFramer(&Config{Idle: time.Millisecond, MaxLine: 8}), c.in...); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLinesComeOutAsTheyWentInHoweverTheyArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		delimiter := rapid.SampledFrom([]string{"\n", "\r\n", ";;;"}).Draw(t, "delimiter")
		texts := rapid.SliceOf(rapid.StringMatching(`[a-z]{0,12}`)).Draw(t, "lines")
		want := make([]string, len(texts))
		stream := ""
		for i, s := range texts {
			if stream += s + delimiter; len(s) > 8 {
				s = "!"
			}
			want[i] = s
		}
		var pieces []string
		for stream != "" {
			n := rapid.IntRange(1, len(stream)).Draw(t, "piece")
			pieces, stream = append(pieces, stream[:n]), stream[n:]
		}
		got := lines(t, newFramer(&Config{Delimiter: delimiter, MaxLine: 8}), pieces...)
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}
