package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// view is what the screen shows at one moment.
type view struct {
	elapsed, length time.Duration
	cut             bool // the broker is cut off
	stage           string
	queue           uint64 // records waiting in the agent's queue
	connected       bool
	report          Report
	lines           []deviceLine
}

// deviceLine is one simulated device.
type deviceLine struct {
	name     string // as configured
	what     string // "Modbus RTU, unit 1 on rs485-1"
	state    string // as the agent sees it
	sent     uint64
	received uint64
}

// screen shows views: repainted in place on a terminal, one plain line each
// otherwise.
type screen struct {
	out      io.Writer
	terminal bool
	painted  int // lines on the terminal now
}

func newScreen(out io.Writer) *screen {
	file, ok := out.(*os.File)
	return &screen{out: out, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

func (s *screen) show(v view) {
	if !s.terminal {
		fmt.Fprintf(s.out, "%3.0fs  %-9s sent %6d  received %6d  waiting in the queue %6d\n",
			v.elapsed.Seconds(), v.upstream(), v.report.Produced, v.report.Delivered, v.queue)
		return
	}
	lines := v.paint()
	var b strings.Builder
	if s.painted > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.painted) // back to the first line
	}
	for _, line := range lines {
		b.WriteString("\x1b[2K" + line + "\n")
	}
	s.painted = len(lines)
	fmt.Fprint(s.out, b.String())
}

func (v view) upstream() string {
	switch {
	case v.cut:
		return "CUT"
	case v.connected:
		return "connected"
	}
	return "away"
}

// paint draws the whole screen, 78 columns wide.
func (v view) paint() []string {
	const bold, dim, red, green, yellow, off = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
	cable, color := "────────▶", green
	switch {
	case v.cut:
		cable, color = "──  ✂  ──", red
	case !v.connected:
		cable, color = "── ··· ──", yellow
	}
	lines := []string{
		bold + "edge-agent demo" + off + fmt.Sprintf("%50s", v.stage) + dim + fmt.Sprintf("%6.0fs of %.0fs", v.elapsed.Seconds(), v.length.Seconds()) + off,
		"",
		dim + fmt.Sprintf("  %-13s %-31s %-9s %8s %10s", "device", "what it is", "state", "sent", "received") + off,
	}
	for _, d := range v.lines {
		state := green + pad(d.state, 9) + off
		if d.state != "ok" {
			state = yellow + pad(d.state, 9) + off
		}
		lines = append(lines, fmt.Sprintf("  %s %s %s %8d %10d", pad(d.name, 13), pad(d.what, 31), state, d.sent, d.received))
	}
	return append(
		lines, "",
		fmt.Sprintf("  devices ──▶ queue on disk: %s%6d waiting%s  %s%s%s  MQTT broker (%s)", bold, v.queue, off, color, cable, off, v.upstream()),
		"",
		fmt.Sprintf("  produced %d  delivered %d  repeated %d  disorder %d", v.report.Produced, v.report.Delivered, v.report.Repeated, v.report.Disorder),
	)
}

// pad fills or cuts s to n columns.
func pad(s string, n int) string {
	if width := utf8.RuneCountInString(s); width < n {
		return s + strings.Repeat(" ", n-width)
	}
	return string([]rune(s)[:n])
}
