// Package instrument simulates devices that speak in lines without being asked:
// a scale and a GPS receiver. Each line carries a number of its own, 1, 2, 3 …,
// so that whoever reads at the far end can tell what is missing.
package instrument

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/text"
)

// Speech appends what an instrument says for the n-th time, with the end of its
// line or lines.
type Speech func(b []byte, n uint64) []byte

// Scale says its number and a weight: "W 17 12.3 kg".
func Scale(b []byte, n uint64) []byte {
	return fmt.Appendf(b, "W %d %.1f kg\r\n", n, 12+float64(n%7)/10)
}

// GPS says a fix (GGA), and its number as that of a transducer called n (XDR).
func GPS(b []byte, n uint64) []byte {
	at := time.Unix(int64(n), 0).UTC().Format("150405")
	b = sentence(b, "GPGGA,"+at+".00,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,")
	return sentence(b, fmt.Sprintf("GPXDR,G,%d,,n", n))
}

func sentence(b []byte, body string) []byte {
	return fmt.Appendf(b, "$%s*%02X\r\n", body, text.Checksum([]byte(body)))
}

// Config of an Instrument.
type Config struct {
	Says   Speech
	Every  time.Duration  // between two; 0: as fast as they are taken
	Count  uint64         // how many in all; 0: without end
	OnSent func(n uint64) // when set, is told after each that was written whole
}

// Instrument is one simulated device on one line.
type Instrument struct {
	line io.Writer
	cfg  Config
	sent atomic.Uint64
}

// New makes an instrument on a line, such as a TCP connection or the master of a
// pseudo-terminal. It starts nothing, and leaves the line open at the end.
func New(line io.Writer, cfg Config) *Instrument { return &Instrument{line: line, cfg: cfg} }

// Sent is the number of the last line that was written whole; it may be called
// at any time.
func (i *Instrument) Sent() uint64 { return i.sent.Load() }

// Run speaks until Count is reached or ctx ends, and returns nil then, or until
// the line fails. A write that blocks hears of ctx only where the line has write
// deadlines, as connections and pseudo-terminals have.
func (i *Instrument) Run(ctx context.Context) error {
	if line, ok := i.line.(interface{ SetWriteDeadline(time.Time) error }); ok {
		defer context.AfterFunc(ctx, func() { _ = line.SetWriteDeadline(time.Unix(1, 0)) })()
	}
	var tick <-chan time.Time
	if i.cfg.Every > 0 {
		ticker := time.NewTicker(i.cfg.Every)
		defer ticker.Stop()
		tick = ticker.C
	}
	var line []byte
	for n := uint64(1); (i.cfg.Count == 0 || n <= i.cfg.Count) && ctx.Err() == nil; n++ {
		line = i.cfg.Says(line[:0], n)
		if _, err := i.line.Write(line); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("instrument: line %d: %w", n, err)
		}
		i.sent.Store(n)
		if i.cfg.OnSent != nil {
			i.cfg.OnSent(n)
		}
		if tick == nil {
			continue
		}
		select {
		case <-tick:
		case <-ctx.Done():
		}
	}
	return nil
}
