package demo

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheDemoLosesNothingAcrossTheOutage(t *testing.T) {
	var out bytes.Buffer
	report, err := Run(t.Context(), Config{Length: 4 * time.Second, Version: "test", Out: &out, Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !report.OK() || report.Produced < 200 {
		t.Errorf("%v\n%s", report, out.String())
	}
	for _, want := range []string{"connected", "CUT"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the screen never said %q:\n%s", want, out.String())
		}
	}
}

func TestTheScreenIsPaintedInPlace(t *testing.T) {
	v := view{
		elapsed: 3 * time.Second, length: 9 * time.Second, cut: true, stage: "the broker is cut off", queue: 42,
		report: Report{Produced: 100, Delivered: 58, Lost: 42}, lines: []deviceLine{{name: "boiler-3", what: "dead, on the same line", state: "silent"}},
	}
	var out bytes.Buffer
	s := &screen{out: &out, terminal: true}
	s.show(v)
	first := strings.Count(out.String(), "\n")
	s.show(v)
	text := out.String()
	if got := strings.Count(text, "\n"); got != 2*first || !strings.Contains(text, "\x1b[8A") || !strings.Contains(text, "42 waiting") {
		t.Errorf("%d lines, then %d: %q", first, got, text)
	}
}
