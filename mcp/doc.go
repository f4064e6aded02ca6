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
//     handshake.go, reader.go: what it hears; pen.go, writer.go: what it says;
//     timer.go: what time demands; caller.go, worker.go: requests.
//   - outbox.go, batch.go: what a sender keeps until it is acknowledged, and how
//     it goes into PUBLISH; sender.go: how much of it, and when.
//   - inbound.go: what a receiver takes, and acknowledges when it is safe.
//   - link.go: what is different where frames get lost. reorder.go: a receiver
//     keeps what comes early; pace.go: a sender's time-out and window;
//     datagram.go, gate.go: frames in datagrams, and whose they are.
//   - streams.go: on QUIC, a stream for each channel.
//   - publisher.go: an outbox and a dialer make a device that loses nothing.
//
// A device maker needs a Publisher, and perhaps a Handler for requests.
package mcp
