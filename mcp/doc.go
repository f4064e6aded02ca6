// Package mcp is the Message Communication Protocol: how devices hand records
// to an agent, and agents to the next one, over any transport of this project.
// (It has nothing to do with the Model Context Protocol.) docs/protocol.md is
// the specification; this package is one implementation of it.
//
// From the wire up:
//
//   - frame.go: a frame is a header, a payload and a checksum.
//   - framer.go, resync.go: where frames begin and end in a stream of bytes.
//   - mcp.proto, hello.go, publish.go, call.go, code.go: what the payloads say.
//   - session.go: the conversation of two peers over one transport.Conn.
//   - outbox.go: what a sender keeps until it is acknowledged.
//   - publisher.go: an outbox and a dialer make a device that loses nothing.
//
// A device maker needs a Publisher, and perhaps a Handler for requests.
package mcp
