package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/pipeline"
	wire "github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

var _ admin.Agent = (*Agent)(nil)

// When a part that has work counts as stuck. Every wait inside is bounded by
// less: a transaction by its time-out, a commit by the disk's patience, a batch
// by its upstream's.
const (
	stuckTransaction = 6 * time.Minute // the longest time-out that a link may have is 5 min
	stuckDelivery    = 2 * time.Minute
)

// State implements admin.Agent.
func (a *Agent) State() admin.State {
	if !a.running.Load() {
		return admin.State{
			Agent: a.cfg.Agent.ID, Version: a.opts.Version,
			Stuck: []string{}, NotReady: []string{"the agent is starting or stopping"}, Degraded: []string{},
		}
	}
	now := time.Now()
	st := admin.State{
		Agent: a.cfg.Agent.ID, Epoch: a.store.Epoch().String(), Version: a.opts.Version, Started: a.started,
		Stuck: []string{}, NotReady: []string{}, Degraded: []string{}, Store: a.store.Stats(), Scheduler: a.shared.Status(),
		Links: []admin.Link{}, Listeners: []admin.Listener{}, Routes: []admin.Route{}, Upstreams: []admin.Upstream{},
	}
	if st.Store.State != store.StateOK {
		st.NotReady = append(st.NotReady, fmt.Sprintf("the queue is %s: %s", st.Store.State, st.Store.Reason))
	}
	st.Degraded = append(st.Degraded, st.Store.Notices...)
	st.Quarantine, st.Retry = a.retrier.Stats(), a.retrier.RetryStatus()
	if n := st.Quarantine.Entries; n > 0 {
		st.Degraded = append(st.Degraded, fmt.Sprintf("%d records are in quarantine: see edge-agent queue quarantine list", n))
	}
	if a.memory != nil {
		memory := a.memory.ring.Stats()
		st.Memory = &memory
	}
	for _, s := range a.stages {
		st.NotReady = append(st.NotReady, s.failures()...)
	}
	for _, l := range a.links {
		a.stateOfLink(&st, l, now)
	}
	for _, l := range a.listeners {
		st.Listeners = append(st.Listeners, l.state())
	}
	a.stateOfCertificates(&st, now)
	for _, u := range a.upstreams {
		s := u.Status()
		st.Upstreams = append(st.Upstreams, admin.Upstream{Name: u.name, Kind: u.kind, Status: s})
		if !s.Connected {
			st.Degraded = append(st.Degraded, fmt.Sprintf("upstream %s is away: %s", u.name, s.Reason))
		}
	}
	for _, r := range a.routes {
		a.stateOfRoute(&st, r, now)
	}
	return st
}

func (a *Agent) stateOfLink(st *admin.State, l *link, now time.Time) {
	s := l.lane.Status()
	shown := admin.Link{Status: s, Events: l.events()}
	if l.session != nil {
		shown.Session = l.session()
	}
	st.Links = append(st.Links, shown)
	if !s.BusySince.IsZero() && now.Sub(s.BusySince) > stuckTransaction {
		st.Stuck = append(st.Stuck, fmt.Sprintf("link %s: a transaction has been under way for %s", l.name, now.Sub(s.BusySince).Round(time.Second)))
	}
	if s.State == scheduler.Down {
		st.Degraded = append(st.Degraded, fmt.Sprintf("link %s is down: %s", l.name, s.Reason))
	}
	if s.State == scheduler.Up && s.LeftOut > 0.05 {
		st.Degraded = append(st.Degraded, fmt.Sprintf("link %s has no time for %.0f %% of its polls: poll less often, or see in /api/v1/links which device takes long", l.name, 100*s.LeftOut))
	}
	if l.mute != nil {
		if since, mute := l.mute(); mute {
			st.Degraded = append(st.Degraded, fmt.Sprintf("device %s has said nothing since %s", a.devicesOn(l.name)[0].ID, since.Format(time.DateTime)))
		}
	}
	for _, d := range s.Devices {
		if d.Silent {
			st.Degraded = append(st.Degraded, fmt.Sprintf("device %s is silent: %s", d.Device, d.Reason))
		}
	}
}

func (a *Agent) stateOfRoute(st *admin.State, r *route, now time.Time) {
	s := r.pump.Status()
	shown := admin.Route{Name: r.name, Upstream: r.upstream.name, Status: s}
	if replay := r.replay.Status(); replay.State != "" {
		shown.Replay = &replay
	}
	if r.memory != nil {
		memory := r.memory.Status()
		shown.Memory = &memory
	}
	st.Routes = append(st.Routes, shown)
	if !s.SendingSince.IsZero() && now.Sub(s.SendingSince) > stuckDelivery && r.upstream.Status().Connected {
		st.Stuck = append(st.Stuck, fmt.Sprintf("route %s: nothing was confirmed for %s although upstream %s is there: %s",
			r.name, now.Sub(s.SendingSince).Round(time.Second), r.upstream.name, cmp.Or(s.Reason, "no answer")))
	}
	if !s.FailingSince.IsZero() && now.Sub(s.FailingSince) > stuckDelivery && s.SendingSince.IsZero() {
		st.Stuck = append(st.Stuck, fmt.Sprintf("route %s: failing for %s: %s", r.name, now.Sub(s.FailingSince).Round(time.Second), s.Reason))
	}
}

// Devices implements admin.Agent: those of the configuration, and those that
// have published without standing in it.
func (a *Agent) Devices() []admin.Device {
	if !a.running.Load() {
		return []admin.Device{}
	}
	stored := make(map[string]store.DeviceStats)
	for _, d := range a.store.Devices() {
		stored[d.Device] = d
	}
	for _, d := range a.memory.devices() {
		stored[d.Device] = d
	}
	polled := make(map[string]scheduler.DeviceStatus)
	links := make(map[string]scheduler.Status)
	mute := make(map[string]time.Time)
	for _, l := range a.links {
		if l.mute != nil {
			if since, is := l.mute(); is {
				mute[a.devicesOn(l.name)[0].ID] = since
			}
		}
		s := l.lane.Status()
		links[l.name] = s
		for _, d := range s.Devices {
			polled[d.Device] = d
		}
	}
	peers := make(map[string]mcp.PeerStatus)
	for _, l := range a.listeners {
		for _, p := range l.server.Peers() {
			peers[p.Sender] = p
		}
	}
	list := make([]admin.Device, 0, len(stored))
	for i := range a.cfg.Devices {
		c := &a.cfg.Devices[i]
		d := admin.Device{ID: c.ID, Driver: c.Driver, Link: c.Link, Listen: c.Listen, LastSeq: stored[c.ID].Last, LastRecord: stored[c.ID].Newest}
		if sink := a.sinks[c.ID]; sink != nil {
			d.Lost = sink.Lost()
		}
		d.Timeouts = polled[c.ID].Timeouts
		d.State, d.Reason = deviceState(links[c.Link], polled[c.ID], peers[c.ID], stored[c.ID].Newest)
		if since, is := mute[c.ID]; is && (d.State == "ok" || d.State == "unheard") {
			d.State, d.Reason = "silent", "it has said nothing since "+since.Format(time.DateTime)
		}
		list = append(list, d)
		delete(stored, c.ID)
	}
	for _, s := range stored {
		d := admin.Device{ID: s.Device, LastSeq: s.Last, LastRecord: s.Newest}
		d.State, d.Reason = deviceState(scheduler.Status{}, scheduler.DeviceStatus{}, peers[s.Device], s.Newest)
		list = append(list, d)
	}
	slices.SortFunc(list, func(x, y admin.Device) int { return cmp.Compare(x.ID, y.ID) })
	return list
}

// Peers implements admin.Agent.
func (a *Agent) Peers() []admin.Peer {
	list := []admin.Peer{}
	if !a.running.Load() {
		return list
	}
	for _, l := range a.listeners {
		for _, p := range l.server.Peers() {
			list = append(list, admin.Peer{
				Listener: l.name, Sender: p.Sender, Transport: p.Transport, Remote: p.Remote, Identity: p.Identity,
				State: p.State.String(), Reason: p.Reason, Since: p.Since, Reconnects: p.Reconnects,
			})
		}
	}
	slices.SortFunc(list, func(x, y admin.Peer) int {
		return cmp.Or(cmp.Compare(x.Listener, y.Listener), cmp.Compare(x.Sender, y.Sender))
	})
	return list
}

// deviceState sums up what is known of a device since the start. newest is the
// time of its last record; for one that is polled it says nothing, as a time-out
// makes a record too.
func deviceState(l scheduler.Status, d scheduler.DeviceStatus, peer mcp.PeerStatus, newest time.Time) (state, reason string) {
	switch {
	case l.State == scheduler.Down:
		return "link-down", l.Reason
	case d.Silent:
		return "silent", d.Reason
	case peer.State == wire.Closed && peer.Sender != "":
		return "away", peer.Reason
	case d.Device != "" && d.LastGood.IsZero(), d.Device == "" && newest.IsZero():
		return "unheard", d.Reason
	}
	return "ok", d.Reason
}

// SetLogLevel implements admin.Agent.
func (a *Agent) SetLogLevel(level string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("no log level %q; there are debug, info, warn and error", level)
	}
	if a.opts.Level == nil {
		return errors.New("the log level is fixed in this process")
	}
	a.opts.Level.Set(l)
	return nil
}

// Queue implements admin.Agent.
func (a *Agent) Queue() admin.Queue { return queue{a.store, a.retrier} }

// queue is what an operator may look into and mend.
type queue struct {
	*store.Store
	retrier *pipeline.Retrier
}

// Quarantine implements admin.Queue.
func (q queue) Quarantine() admin.Quarantine { return q.retrier }

// forgetTime bounds ForgetCursor: the disk may be full.
const forgetTime = 10 * time.Second

// ForgetCursor implements admin.Agent.
func (a *Agent) ForgetCursor(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), forgetTime)
	defer cancel()
	err := a.store.Forget(ctx, name)
	if errors.Is(err, store.ErrNoCursor) {
		return admin.ErrNotFound
	}
	if errors.Is(err, store.ErrCursorInUse) {
		return fmt.Errorf("cursor %s is in use: take its route out of the configuration first", name)
	}
	return err
}
