// Package mcp is the driver for peers that speak MCP: it puts what they publish
// into the queue, and their channel's numbers with it, in one transaction.
//
// A Server takes peers in that connect to a [[listen]]. A Link goes out to a
// device on a [[link]], a serial line or a TCP address, and also asks it: each
// poll is a REQUEST, whose answer becomes a record. Both hand records to a
// receiver, one for each session.
package mcp
