// Package mcp is the driver for peers that speak MCP: it puts what they publish
// into the queue, and their channel's numbers with it, in one transaction.
//
// A Server takes peers in that connect to a [[listen]], whatever the transport,
// and alone holds its limits: who is taken in (limits.go), who is told why not
// (doorman.go), who a peer is and for which devices it may speak (auth.go), and
// how fast these may be (rate.go). A Link goes out to a device on a [[link]] and
// also asks it: each poll is a REQUEST, whose answer becomes a record. Both hand
// records to a receiver, one for each session.
//
// A Call is one request to a device, made once: a command. Toward devices on a
// Link it steps on the link's lane; a Line brings it to those that connect to a
// Server, as soon as they are there.
package mcp
