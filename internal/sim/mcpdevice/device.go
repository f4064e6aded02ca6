// Package mcpdevice simulates a device that speaks MCP: it publishes records
// that are numbered 1, 2, 3 …, keeps them until they are acknowledged, and
// answers polls and calls. So whoever reads at the far end can tell what is
// missing, and whoever calls how often it was done.
package mcpdevice

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
)

// Config of a Device.
type Config struct {
	// Publisher says how the device reaches its agent; Session.Name is also the
	// name of the device in its records. Its Handler is the Device's own.
	Publisher mcp.PublisherConfig

	Every   time.Duration // between records; 0: as fast as the window allows
	Count   uint64        // how many records in all; 0: without end
	Payload int           // bytes of raw payload, the number and a blank in front, instead of the point n; 0: the point
}

// Names of what a Device says.
const (
	Stream = "state" // of what it publishes
	Point  = "n"     // the record's number, in polls the answer's
	Method = "read"  // of the poll that it answers
	Echo   = "echo"  // of the call that it answers with what it was given
)

// maxDigits of a uint64.
const maxDigits = 20

// Device is one simulated device.
type Device struct {
	cfg       Config
	publisher *mcp.Publisher
	payload   []byte        // the last one published
	answers   atomic.Uint64 // polls answered
	echoes    atomic.Uint64 // calls done
}

// New makes a Device; it starts nothing.
func New(cfg Config) (*Device, error) {
	d := &Device{cfg: cfg}
	if cfg.Payload > 0 {
		d.payload = bytes.Repeat([]byte{'.'}, max(cfg.Payload, maxDigits+1))
	}
	cfg.Publisher.Handler = handler{device: d}
	cfg.Publisher.Session.Answers = mcp.NewAnswers()
	var err error
	d.publisher, err = mcp.NewPublisher(cfg.Publisher)
	return d, err
}

// Run publishes, and connects as often as it takes, until Count records are
// acknowledged or ctx ends. It returns nil in both cases.
func (d *Device) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	session := make(chan error, 1)
	go func() { session <- d.publisher.Run(ctx) }()
	err := d.produce(ctx)
	if err == nil {
		err = d.publisher.Flush(ctx)
	}
	cancel()
	if runErr := <-session; runErr != nil {
		return runErr
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (d *Device) produce(ctx context.Context) error {
	var raw []byte
	for n := uint64(1); d.cfg.Count == 0 || n <= d.cfg.Count; n++ {
		r := d.record(n)
		raw = r.Append(raw[:0])
		if err := d.publisher.PublishRaw(ctx, raw); err != nil {
			return err
		}
		if d.cfg.Every == 0 {
			continue
		}
		timer := time.NewTimer(d.cfg.Every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return nil
}

func (d *Device) record(n uint64) record.Record {
	r := record.Record{Device: d.cfg.Publisher.Session.Name, Stream: Stream, Time: time.Now(), Clock: record.ClockSynced}
	if d.payload != nil {
		d.payload[len(strconv.AppendUint(d.payload[:0], n, 10))] = ' '
		r.Payload = d.payload[:d.cfg.Payload]
		return r
	}
	r.Points = []record.Point{{Name: Point, Value: record.Uint(n)}}
	return r
}

// Stats tells how many records the device has made and how many of them are
// acknowledged. It may be called at any time.
func (d *Device) Stats() (produced, acknowledged uint64) {
	s := d.publisher.Stats()
	return s.Published, s.Acknowledged
}

// Echoes tells how many calls of the method Echo the device has done; one that
// was repeated with its id counts once. It may be called at any time.
func (d *Device) Echoes() uint64 { return d.echoes.Load() }

// handler answers polls with how many there have been.
type handler struct {
	mcp.NoHandler
	device *Device
}

func (h handler) Request(ctx context.Context, q mcp.Request) mcp.Response {
	switch q.Method {
	case Method:
	case Echo:
		h.device.echoes.Add(1)
		return mcp.Response{Payload: q.Payload, ContentType: q.ContentType}
	default:
		return h.NoHandler.Request(ctx, q)
	}
	r := record.Record{Points: []record.Point{{Name: Point, Value: record.Uint(h.device.answers.Add(1))}}}
	return mcp.Response{Payload: r.Append(nil), ContentType: mcp.ContentTypeRecord}
}
