package admin

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/store"
)

// metrics turns a State into samples at each scrape, so that nothing is counted
// twice and a metric can't say other than the status.
type metrics struct {
	agent    Agent
	commands Commands
}

var _ prometheus.Collector = (*metrics)(nil)

// Describe sends nothing: which samples there are depends on the configuration.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	st := m.agent.State()
	s := sampler{out}
	s.gauge("edge_agent_info", "Always 1; the labels tell which agent this is.", 1, "agent", st.Agent, "version", st.Version, "epoch", st.Epoch)
	s.gauge("edge_agent_stuck", "Parts that have stopped making progress.", float64(len(st.Stuck)))
	s.gauge("edge_agent_ready", "1 while records can be taken.", truth(len(st.Stuck)+len(st.NotReady) == 0))
	s.store(st.Store)
	if st.Memory != nil {
		s.memory(st.Memory)
	}
	s.scheduler(st.Scheduler)
	for _, l := range st.Links {
		s.link(l)
	}
	for _, l := range st.Listeners {
		s.listener(l)
	}
	for _, c := range st.Certificates {
		s.gauge("edge_agent_certificate_expiry_timestamp_seconds", "When a certificate that the agent shows will end, as Unix time.", float64(c.Expires.Unix()), "of", c.Of)
		s.gauge("edge_agent_certificate_renewal_failed", "1 while changed certificate files are no good, and those before are in use.", truth(c.Problem != ""), "of", c.Of)
	}
	for _, r := range st.Routes {
		s.route(r)
	}
	s.gauge("edge_agent_quarantine_entries", "Records in quarantine.", float64(st.Quarantine.Entries))
	s.gauge("edge_agent_quarantine_bytes", "Bytes of its file.", float64(st.Quarantine.Bytes))
	s.gauge("edge_agent_quarantine_max_bytes", "The most that it may have.", float64(st.Quarantine.MaxBytes))
	s.gauge("edge_agent_quarantine_retrying", "Records of the quarantine that are being sent again.", float64(st.Retry.Waiting))
	for _, u := range st.Upstreams {
		s.gauge("edge_agent_upstream_connected", "1 while the destination can take records.", truth(u.Connected), "upstream", u.Name, "kind", u.Kind)
	}
	for _, d := range m.agent.Devices() {
		s.device(d)
	}
	s.commands(m.commands.Stats())
}

func (s sampler) store(st store.Stats) {
	for _, state := range []store.State{store.StateOK, store.StateFull, store.StateFailing} {
		s.gauge("edge_agent_store_state", "1 for the state that the queue is in.", truth(st.State == state), "state", string(state))
	}
	s.gauge("edge_agent_store_bytes", "Bytes of records in the queue.", float64(st.Bytes))
	s.gauge("edge_agent_store_max_bytes", "The most that it may hold.", float64(st.MaxBytes))
	s.gauge("edge_agent_store_file_bytes", "Bytes of disk that the queue's file takes.", float64(st.FileBytes))
	s.gauge("edge_agent_store_records", "Records in the queue.", float64(st.Records))
	s.gauge("edge_agent_store_max_records", "The most that it may hold; 0: no limit but that of bytes.", float64(st.MaxRecords))
	s.gauge("edge_agent_store_kept_records", "Records in the queue that are delivered, and give way to others.", float64(st.Kept))
	s.gauge("edge_agent_store_kept_bytes", "Bytes of them.", float64(st.KeptBytes))
	s.gauge("edge_agent_store_last_commit_seconds", "How long the last group commit took.", st.LastCommit.Seconds())
	s.counter("edge_agent_store_appended_total", "Records stored.", st.Appended)
	s.counter("edge_agent_store_repeats_total", "Records that came again and were dropped.", st.Repeats)
	s.counter("edge_agent_store_unwanted_total", "Records that no route takes, freed.", st.Unwanted)
	s.counter("edge_agent_store_damaged_total", "Records that failed their checksum.", st.Damaged)
	s.counter("edge_agent_store_commits_total", "Group commits.", st.Commits)
	s.counter("edge_agent_store_failures_total", "Group commits that had to be tried again.", st.Failures)
	s.counter("edge_agent_store_rescues_total", "Times the file was written anew after a failed sync.", st.Rescues)
	s.counter("edge_agent_store_written_bytes_total", "Bytes written to disk by the queue, by pages.", st.Written)
	s.gauge("edge_agent_store_written_bytes_per_day", "What would be written in a day at the rate of the last three hours, or since the start: the wear of the flash.", float64(st.WrittenPerDay))
	if !st.Epoch.Since.IsZero() {
		s.gauge("edge_agent_store_epoch_start_timestamp_seconds", "When the epoch of this queue began, as Unix time.", float64(st.Epoch.Since.Unix()))
	}
	aside := int64(0)
	for _, f := range st.Aside {
		aside += f.Bytes
	}
	s.gauge("edge_agent_store_aside_files", "Files that stood in the queue's place, could not be used, and were moved aside.", float64(len(st.Aside)))
	s.gauge("edge_agent_store_aside_bytes", "Bytes of them.", float64(aside))
	s.gauge("edge_agent_store_notices", "What was found at the last start that somebody should look after: see the status.", float64(len(st.Notices)))
	s.gauge("edge_agent_store_disk_free_bytes", "Bytes that the queue's disk has free.", float64(st.DiskFree))
	s.gauge("edge_agent_store_disk_min_free_bytes", "Below this the queue's file does not grow.", float64(st.MinFree))
	s.gauge("edge_agent_store_disk_low", "1 while the queue's file does not grow, for the disk is nearly full.", truth(st.DiskLow))
	s.compaction(st.Compaction)
	for _, c := range st.Cursors {
		s.cursor(c)
	}
}

func (s sampler) compaction(c store.CompactionStats) {
	s.gauge("edge_agent_store_free_bytes", "Bytes inside the queue's file that wait for records.", float64(c.Free))
	s.gauge("edge_agent_store_compacting", "1 while the file is giving space back.", truth(c.Running))
	s.counter("edge_agent_store_compactions_total", "Times the file has given space back.", c.Count)
	s.counter("edge_agent_store_compactions_failed_total", "Times it could not; it is tried again.", c.Failed)
	s.counter("edge_agent_store_given_back_bytes_total", "Bytes given back to the disk.", uint64(max(c.GivenBack, 0)))
	s.gauge("edge_agent_store_compaction_seconds", "How long the last one took.", c.Took.Seconds())
	s.gauge("edge_agent_store_compaction_stall_seconds", "The longest commit while it ran.", c.Stall.Seconds())
}

func (s sampler) cursor(c store.CursorStats) {
	s.gauge("edge_agent_cursor_records", "Records not yet delivered.", float64(c.Lag), "cursor", c.Name)
	s.gauge("edge_agent_cursor_bytes", "Bytes of them.", float64(c.LagBytes), "cursor", c.Name)
	s.gauge("edge_agent_cursor_oldest_seconds", "Age of the oldest record not yet delivered.", age(c.Oldest), "cursor", c.Name)
	s.gauge("edge_agent_cursor_held", "1 for a cursor that no route of the configuration uses any more.", truth(c.Held), "cursor", c.Name)
	for _, d := range c.Dropped {
		s.counter("edge_agent_cursor_dropped_total", "Records let go, by reason: drop-oldest or age.", d.Records, "cursor", c.Name, "upstream", upstreamOf(c.Name), "agent", d.Agent, "device", d.Device, "reason", d.Reason)
	}
}

// memory is the queue of what is in memory only.
func (s sampler) memory(st *store.RingStats) {
	s.gauge("edge_agent_memory_bytes", "Bytes of records in the queue in memory.", float64(st.Bytes))
	s.gauge("edge_agent_memory_max_bytes", "The most that it may hold.", float64(st.MaxBytes))
	s.gauge("edge_agent_memory_records", "Records in it.", float64(st.Records))
	s.counter("edge_agent_memory_appended_total", "Records taken into it.", st.Appended)
	s.counter("edge_agent_memory_repeats_total", "Records that came again and were dropped.", st.Repeats)
	s.counter("edge_agent_memory_unwanted_total", "Records that no route takes.", st.Unwanted)
	for _, c := range st.Cursors {
		s.gauge("edge_agent_memory_cursor_records", "Records in memory not yet delivered.", float64(c.Lag), "cursor", c.Name, "upstream", upstreamOf(c.Name))
		for _, d := range c.Dropped {
			s.counter("edge_agent_memory_dropped_total", "Records that gave way because the queue in memory was full.", d.Records, "cursor", c.Name, "upstream", upstreamOf(c.Name), "agent", d.Agent, "device", d.Device)
		}
	}
}

// upstreamOf is the second part of "route/upstream".
func upstreamOf(cursor string) string { return cursor[strings.LastIndexByte(cursor, '/')+1:] }

func (s sampler) scheduler(st scheduler.SharedStatus) {
	s.gauge("edge_agent_scheduler_working", "Workers that have something to do.", float64(st.Working))
	s.gauge("edge_agent_scheduler_max_workers", "The most workers that there may be.", float64(st.MaxWorkers))
	s.gauge("edge_agent_scheduler_waiting", "Pieces of work that wait for a worker, one a device at most.", float64(st.Waiting))
	s.gauge("edge_agent_scheduler_opening", "Links in the middle of being opened.", float64(st.Opening))
	s.gauge("edge_agent_scheduler_max_opening", "The most links that may be.", float64(st.MaxOpening))
}

func (s sampler) link(l Link) {
	s.gauge("edge_agent_link_up", "1 while the link is open.", truth(l.State == scheduler.Up), "link", l.Link)
	s.counter("edge_agent_link_opens_total", "Times the link was opened.", l.Opens, "link", l.Link)
	s.counter("edge_agent_link_rounds_total", "Polls done.", l.Rounds, "link", l.Link)
	s.gauge("edge_agent_link_left_out_ratio", "Share of the rounds of devices that answer for which the line had no time, over the last half to whole minute.", l.LeftOut, "link", l.Link)
	s.counter("edge_agent_link_skipped_total", "Polls left out.", l.Skipped, "link", l.Link)
	s.counter("edge_agent_link_transactions_total", "Requests made.", l.Transactions, "link", l.Link)
	s.counter("edge_agent_link_timeouts_total", "Requests not answered in time.", l.Timeouts, "link", l.Link)
	s.counter("edge_agent_link_retries_total", "Requests made again.", l.Retries, "link", l.Link)
	s.counter("edge_agent_link_faults_total", "Times the port could not be opened, or was lost.", l.Faults, "link", l.Link)
	s.counter("edge_agent_link_commands_total", "Commands that have ended.", l.Commands, "link", l.Link)
	for _, state := range []scheduler.BreakerState{scheduler.BreakerClosed, scheduler.BreakerOpen, scheduler.BreakerHalfOpen} {
		s.gauge("edge_agent_link_breaker_state", "1 for the state that the link's circuit breaker is in.", truth(l.Breaker == state), "link", l.Link, "state", string(state))
	}
	s.bus(l.Status)
	if l.Session != nil {
		s.gauge("edge_agent_link_session_open", "1 while there is a session with the MCP device.", truth(l.Session.State == "OPEN"), "link", l.Link)
		s.counter("edge_agent_link_reconnects_total", "Sessions after the first.", l.Session.Reconnects, "link", l.Link)
	}
	for event, n := range l.Events {
		s.counter("edge_agent_link_events_total", "What the link's protocol has met, by kind.", n, "link", l.Link, "event", event)
	}
}

// bus is what the last half to whole minute has shown of a line, and of the
// devices on it.
func (s sampler) bus(l scheduler.Status) {
	s.gauge("edge_agent_link_utilisation_ratio", "How much of the time the line is in use, 0 to 1.", l.Utilisation, "link", l.Link)
	s.gauge("edge_agent_link_queue", "Polls and commands that are due and wait for the line.", float64(l.Queue), "link", l.Link)
	for _, q := range []struct {
		quantile string
		ms       float64
	}{{"0.5", l.Lateness.P50}, {"0.99", l.Lateness.P99}, {"1", l.Lateness.Max}} {
		s.gauge("edge_agent_link_lateness_seconds", "How long after they fell due polls began.", q.ms/1000, "link", l.Link, "quantile", q.quantile)
	}
	for _, d := range l.Devices {
		s.counter("edge_agent_device_garbled_total", "Bad frames that came while the device was asked.", d.Garbled, "device", d.Device)
		s.counter("edge_agent_device_foreign_total", "Good frames that came while the device was asked and were not its answer.", d.Foreign, "device", d.Device)
		s.gauge("edge_agent_device_response_seconds", "How long the device takes to answer, smoothed.", d.ResponseMS/1000, "device", d.Device)
		s.gauge("edge_agent_device_timeout_seconds", "How long the device is given to answer.", d.TimeoutMS/1000, "device", d.Device)
	}
}

func (s sampler) commands(st command.Stats) {
	s.gauge("edge_agent_commands_waiting", "Commands that have not ended.", float64(st.Waiting))
	s.gauge("edge_agent_commands_kept", "Commands that are remembered, with those that have ended.", float64(st.Kept))
	s.gauge("edge_agent_commands_max_kept", "The most that may be.", float64(st.Max))
	s.gauge("edge_agent_commands_bytes", "Bytes of them.", float64(st.Bytes))
	s.gauge("edge_agent_commands_max_bytes", "The most that there may be.", float64(st.MaxBytes))
	s.gauge("edge_agent_commands_damaged", "Commands that could not be read at start.", float64(st.Damaged))
	for _, state := range []command.State{command.Succeeded, command.Failed, command.Expired, command.Refused, command.Unknown} {
		s.counter("edge_agent_commands_ended_total", "Commands that have ended, by how.", st.Ended[state], "state", string(state))
	}
}

func (s sampler) listener(l Listener) {
	s.gauge("edge_agent_listener_connections", "Connections open.", float64(l.Connections), "listener", l.Name)
	s.gauge("edge_agent_listener_handshakes", "Connections whose peer has not said who it is.", float64(l.Handshakes), "listener", l.Name)
	s.counter("edge_agent_listener_accepted_total", "Connections accepted, with those refused afterwards.", l.Accepted, "listener", l.Name)
	s.counter("edge_agent_listener_reconnects_total", "Connections of peers that had been here.", l.Reconnects, "listener", l.Name)
	s.counter("edge_agent_listener_replaced_total", "Sessions whose sender has connected anew.", l.Replaced, "listener", l.Name)
	s.counter("edge_agent_listener_bad_frames_total", "Frames that were none.", l.BadFrames, "listener", l.Name)
	s.counter("edge_agent_listener_records_total", "Records published.", l.Records, "listener", l.Name)
	s.counter("edge_agent_listener_repeats_total", "Records that came again and were dropped.", l.Repeats, "listener", l.Name)
	s.counter("edge_agent_listener_set_backs_total", "Channels whose sender published again what it had just been told is safe: it was restored from a copy, perhaps.", l.SetBacks, "listener", l.Name)
	s.counter("edge_agent_listener_holes_total", "Publications that came before those they follow.", l.Holes, "listener", l.Name)
	s.counter("edge_agent_listener_lost_total", "Best-effort records that never came.", l.Lost, "listener", l.Name)
	for reason, n := range l.Refused {
		s.counter("edge_agent_listener_refused_total", "What was refused, by the reason.", n, "listener", l.Name, "reason", reason)
	}
}

func (s sampler) route(r Route) {
	if r.Replay != nil {
		s.gauge("edge_agent_replay_running", "1 while records are sent again because somebody asked for it.", truth(r.Replay.State == "running"), "route", r.Name, "upstream", r.Upstream)
		s.gauge("edge_agent_replay_sent", "Records that the last replay has sent.", float64(r.Replay.Sent), "route", r.Name, "upstream", r.Upstream)
	}
	labels := []string{"route", r.Name, "upstream", r.Upstream}
	s.counter("edge_agent_route_sent_total", "Records that the upstream confirmed.", r.Sent, labels...)
	s.counter("edge_agent_route_retries_total", "Batches sent again.", r.Retries, labels...)
	s.counter("edge_agent_route_quarantined_total", "Records set aside.", r.Quarantined, labels...)
	s.counter("edge_agent_route_corrected_total", "Records whose time came from a clock that was not synchronised, and was put right.", r.Corrected, labels...)
	s.gauge("edge_agent_route_sending_seconds", "How long the batch under way is tried; 0 when none is.", age(r.SendingSince), labels...)
}

func (s sampler) device(d Device) {
	s.gauge("edge_agent_device_ok", "1 while the device is heard.", truth(d.State == "ok"), "device", d.ID)
	s.counter("edge_agent_device_records_total", "Records of the device, ever.", d.LastSeq, "device", d.ID)
	s.counter("edge_agent_device_timeouts_total", "Requests that the device did not answer.", d.Timeouts, "device", d.ID)
	s.counter("edge_agent_device_lost_total", "Records lost because the queue had no room.", d.Lost, "device", d.ID)
}

// sampler makes samples on the fly.
type sampler struct{ out chan<- prometheus.Metric }

func (s sampler) gauge(name, help string, v float64, labels ...string) {
	s.send(name, help, prometheus.GaugeValue, v, labels)
}

func (s sampler) counter(name, help string, v uint64, labels ...string) {
	s.send(name, help, prometheus.CounterValue, float64(v), labels)
}

// send takes labels as name, value, name, value.
func (s sampler) send(name, help string, kind prometheus.ValueType, v float64, labels []string) {
	names, values := make([]string, 0, 2), make([]string, 0, 2)
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	metric, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, v, values...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
	}
	s.out <- metric
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func age(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return time.Since(t).Seconds()
}
