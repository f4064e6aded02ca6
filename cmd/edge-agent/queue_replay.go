package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
)

type queueReplayCommand struct {
	queueFlags
	Upstream string   `required:"" placeholder:"NAME" help:"Where to: an upstream of the configuration."`
	From     string   `placeholder:"TIME" help:"Only records from this time on: 2026-11-22T05:08:00Z, 2026-11-22 05:08 in this machine's time zone, or 2h for two hours ago."`
	To       string   `placeholder:"TIME" help:"Only records before this time."`
	Device   []string `placeholder:"GLOB" help:"Only records of these devices: boiler-1, or boiler-*."`
	Rate     int      `placeholder:"1000" help:"At most so many records a second, for each route that leads there."`
	NoWait   bool     `help:"Don't wait for its end."`
	Stop     bool     `help:"End the one that is under way."`
}

// Help is what --help says besides.
func (queueReplayCommand) Help() string {
	return `The running agent sends again what it has delivered and still has: see keep in the table [store]. The
records bear their old numbers and are marked as resent; new ones go out beside them. Ctrl-C ends the waiting only.

Examples:

  edge-agent queue replay --upstream cloud --from 6h --to 4h
  edge-agent queue replay --upstream cloud --stop`
}

func (c queueReplayCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	request, err := c.request(time.Now())
	if err != nil {
		return err
	}
	t, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	if t.api == nil {
		return errors.New("the agent is stopped, and it is the agent that sends: start it, then replay")
	}
	if err := t.authorise(&c.queueFlags); err != nil {
		return err
	}
	if c.Stop {
		return t.api.call(ctx, http.MethodDelete, "/api/v1/queue/replay/"+url.PathEscape(c.Upstream), nil, nil)
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if err := t.api.call(ctx, http.MethodPost, "/api/v1/queue/replay", bytes.NewReader(body), nil); err != nil {
		return err
	}
	if c.NoWait {
		_, err := fmt.Fprintf(out, "it has begun; /api/v1/status shows how far it is\n")
		return err
	}
	return c.await(ctx, out, t, newMeter(errs, "sending again"))
}

func (c queueReplayCommand) request(now time.Time) (r admin.ReplayRequest, err error) {
	r = admin.ReplayRequest{Upstream: c.Upstream, Devices: c.Device, Rate: c.Rate}
	if r.From, err = parseMoment(c.From, now); err != nil {
		return r, inputError{fmt.Errorf("--from: %w", err)}
	}
	if r.To, err = parseMoment(c.To, now); err != nil {
		return r, inputError{fmt.Errorf("--to: %w", err)}
	}
	return r, nil
}

// await waits until no route sends again any more.
func (c queueReplayCommand) await(ctx context.Context, out io.Writer, t *queueTarget, meter *meter) error {
	defer meter.end()
	first := uint64(0)
	for {
		var st admin.State
		if err := t.api.get(ctx, "/api/v1/status", &st); err != nil {
			if ctx.Err() != nil {
				return errors.New("no longer waiting; the agent goes on")
			}
			return err
		}
		running, stopped := false, false
		sent, position, to, reason := uint64(0), uint64(0), uint64(0), ""
		for i := range st.Routes {
			r := st.Routes[i].Replay
			if st.Routes[i].Upstream != c.Upstream || r == nil {
				continue
			}
			running, stopped = running || r.State == "running", stopped || r.State == "stopped"
			sent, position, to = sent+r.Sent, position+r.Position, to+r.To
			if r.Reason != "" {
				reason = r.Reason
			}
		}
		if !running {
			meter.end()
			word := "sent again"
			if stopped {
				word = "sent again before it was stopped"
			}
			_, err := fmt.Fprintf(out, "%s %s\n", counted(sent, "record"), word)
			return err
		}
		if first == 0 {
			first = position
		}
		if reason != "" {
			meter.note(plain(reason))
		}
		meter.show(position-min(first, position), to-min(first, to))
		select {
		case <-ctx.Done():
			return fmt.Errorf("no longer waiting; the agent goes on, with %s sent so far", counted(sent, "record"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
