package agent

import (
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/driver/text"
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
		"publishes": s.Publishes, "records": s.Records, "repeats": s.Repeats, "holes": s.Holes,
		"bad_frames": s.BadFrames + s.Resync.BadFrames, "skipped_bytes": s.Resync.SkippedBytes, "ignored_frames": s.Resync.Ignored,
	}
}

func textEvents(c text.Counters) map[string]uint64 {
	return map[string]uint64{"lines": c.Lines, "not_understood": c.NotUnderstood, "too_long": c.TooLong}
}
