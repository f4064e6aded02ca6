package agent

import (
	"github.com/mcp-edge/edge-agent/internal/admin"
	"github.com/mcp-edge/edge-agent/internal/dialin"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/driver/text"
	"github.com/mcp-edge/edge-agent/transport/serial"
)

// What each driver counts, under the names that status and metrics show.

func modbusEvents(c modbus.Counters) map[string]uint64 {
	return map[string]uint64{
		"requests": c.Requests, "replies": c.Replies, "exceptions": c.Exceptions, "timeouts": c.Timeouts,
		"wrong_unit": c.WrongUnit, "wrong_function": c.WrongFunction, "wrong_length": c.WrongLength,
		"wrong_echo": c.WrongEcho, "wrong_transaction": c.WrongTransaction,
		"bad_frame": c.BadFrame, "short": c.Short, "late": c.Late,
	}
}

func mcpEvents(s mcp.LinkStats) map[string]uint64 {
	return map[string]uint64{
		"publishes": s.Publishes, "records": s.Records, "repeats": s.Repeats, "set_backs": s.SetBacks, "holes": s.Holes,
		"bad_frames": s.BadFrames + s.Resync.BadFrames, "skipped_bytes": s.Resync.SkippedBytes, "ignored_frames": s.Resync.Ignored,
		"lost": s.Lost, "foreign_datagrams": s.Foreign, "hello_timeouts": s.HelloTimeouts, "frame_timeouts": s.FrameTimeouts,
		"heartbeats_missed": s.HeartbeatsMissed, "window_exceeded": s.WindowExceeded,
	}
}

func textEvents(c text.Counters) map[string]uint64 {
	return map[string]uint64{"lines": c.Lines, "not_understood": c.NotUnderstood, "too_long": c.TooLong}
}

// What a transport counts.

func serialEvents(c serial.Counters) map[string]uint64 {
	return map[string]uint64{
		"line_parity": c.Parity, "line_framing": c.Framing, "line_overrun": c.Overrun, "line_break": c.Break,
		"line_buffer_overrun": c.BufferOverrun, "line_echo": c.Echo,
	}
}

func dialinEvents(s dialin.Stats) map[string]uint64 {
	return map[string]uint64{"calls": s.Calls, "calls_refused": s.Foreign + s.Busy, "calls_replaced": s.Replaced}
}

// sessionOf is what an operator sees of the session with an MCP device.
func sessionOf(s mcp.LinkStats) *admin.Session {
	return &admin.Session{State: s.State.String(), Reason: s.Reason, Since: s.Since, Peer: s.Sender, Remote: s.Remote, Identity: s.Identity, Reconnects: s.Reconnects}
}
