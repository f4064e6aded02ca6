package agent

import (
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	wire "github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/scheduler"
)

func TestTheStateOfADeviceIsWhatWasHeardSinceTheStart(t *testing.T) {
	now := time.Now()
	up, down := scheduler.Status{State: scheduler.Up}, scheduler.Status{State: scheduler.Down, Reason: "no such port"}
	for name, c := range map[string]struct {
		link   scheduler.Status
		polled scheduler.DeviceStatus
		peer   mcp.PeerStatus
		newest time.Time
		want   string
	}{
		"polled, answers":              {up, scheduler.DeviceStatus{Device: "d", LastGood: now}, mcp.PeerStatus{}, now, "ok"},
		"polled, never answered":       {up, scheduler.DeviceStatus{Device: "d"}, mcp.PeerStatus{}, now, "unheard"},
		"polled, silent":               {up, scheduler.DeviceStatus{Device: "d", LastGood: now, Silent: true}, mcp.PeerStatus{}, now, "silent"},
		"polled, link down":            {down, scheduler.DeviceStatus{Device: "d", LastGood: now}, mcp.PeerStatus{}, now, "link-down"},
		"speaks by itself, heard":      {up, scheduler.DeviceStatus{}, mcp.PeerStatus{}, now, "ok"},
		"speaks by itself, not heard":  {up, scheduler.DeviceStatus{}, mcp.PeerStatus{}, time.Time{}, "unheard"},
		"peer, connected and heard":    {scheduler.Status{}, scheduler.DeviceStatus{}, mcp.PeerStatus{Sender: "d", State: wire.Open}, now, "ok"},
		"peer, gone":                   {scheduler.Status{}, scheduler.DeviceStatus{}, mcp.PeerStatus{Sender: "d", State: wire.Closed}, now, "away"},
		"peer, not seen since a while": {scheduler.Status{}, scheduler.DeviceStatus{}, mcp.PeerStatus{}, time.Time{}, "unheard"},
	} {
		if got, _ := deviceState(c.link, c.polled, c.peer, c.newest); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
