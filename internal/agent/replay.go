package agent

import (
	"fmt"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	"github.com/mcp-edge/edge-agent/store"
)

// Replays implements admin.Agent.
func (a *Agent) Replays() admin.Replays { return replays{a} }

type replays struct{ agent *Agent }

// to are the routes that lead to an upstream, or ErrNotFound.
func (a *Agent) to(upstream string) (list []*route, err error) {
	for _, r := range a.routes {
		if r.upstream.name == upstream {
			list = append(list, r)
		}
	}
	if list == nil {
		return nil, admin.ErrNotFound
	}
	return list, nil
}

// Start implements admin.Replays.
func (r replays) Start(request admin.ReplayRequest) error {
	list, err := r.agent.to(request.Upstream)
	if err != nil {
		return err
	}
	for _, to := range list {
		if to.replay.Status().State == "running" {
			return fmt.Errorf("a replay to %s is under way; stop it first, or wait", request.Upstream)
		}
	}
	for _, to := range list {
		err := to.replay.Start(pipeline.Replay{
			Since: request.From, Until: request.To, Rate: request.Rate,
			Match: func(key store.SourceKey) bool { return request.Devices.Match(key.Device) },
		})
		if err != nil { // somebody else was faster
			return err
		}
	}
	return nil
}

// Stop implements admin.Replays.
func (r replays) Stop(upstream string) error {
	list, err := r.agent.to(upstream)
	for _, to := range list {
		to.replay.Stop()
	}
	return err
}
