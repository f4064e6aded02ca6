package mcp

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/record"
)

// Hello says who a peer is and what it takes. HELLO consists of it; WELCOME
// answers with the other side's.
type Hello struct {
	Sender        string       // name of the agent or device, see record.CheckName
	Epoch         record.Epoch // not 0; channel numbers mean something within it only
	Token         string       // who vouches for the sender; empty: nobody
	Software      string       // name and version, for people
	Versions      []uint8      // frame versions spoken
	Heartbeat     time.Duration
	Channels      []string // on which the peer will PUBLISH
	Deduplicates  bool     // does a REQUEST repeated with its id only once
	MaxPayload    int      // largest it takes in version 2, in bytes
	WindowRecords int      // it takes so many records before it acknowledges; 0: none
	WindowBytes   int      // the same in bytes of records as PUBLISH carries them
}

// Welcome answers a Hello. Its Heartbeat is the interval that both keep.
type Welcome struct {
	Hello
	Positions []Position // of the channels that Hello named
}

const (
	helloSender        = 1
	helloEpoch         = 2
	helloToken         = 3
	helloSoftware      = 4
	helloVersions      = 5
	helloHeartbeat     = 6
	helloChannels      = 7
	helloDeduplicates  = 8
	helloMaxPayload    = 9
	helloWindowRecords = 10
	helloWindowBytes   = 11
	welcomePositions   = 16
)

// Append appends the payload of a HELLO to b.
func (h *Hello) Append(b []byte) []byte {
	b = appendText(b, helloSender, h.Sender)
	b = appendFixed64(b, helloEpoch, uint64(h.Epoch))
	b = appendText(b, helloToken, h.Token)
	b = appendText(b, helloSoftware, h.Software)
	if len(h.Versions) > 0 { // below 128, so one byte each
		b = protowire.AppendTag(b, helloVersions, protowire.BytesType)
		b = protowire.AppendBytes(b, h.Versions)
	}
	b = appendVarint(b, helloHeartbeat, uint64(h.Heartbeat.Milliseconds()))
	for _, c := range h.Channels {
		b = appendText(b, helloChannels, c)
	}
	b = appendBool(b, helloDeduplicates, h.Deduplicates)
	b = appendVarint(b, helloMaxPayload, uint64(h.MaxPayload))
	b = appendVarint(b, helloWindowRecords, uint64(h.WindowRecords))
	return appendVarint(b, helloWindowBytes, uint64(h.WindowBytes))
}

// Unmarshal sets h from the payload of a HELLO. Errors are of class ErrPayload.
func (h *Hello) Unmarshal(b []byte) error {
	*h = Hello{}
	if err := eachField(b, h.set); err != nil {
		return err
	}
	return h.check()
}

func (h *Hello) check() error {
	if err := checkName("the sender's name", h.Sender); err != nil {
		return err
	}
	if h.Epoch == 0 {
		return fmt.Errorf("%w: the epoch is 0", ErrPayload)
	}
	if h.MaxPayload == 0 {
		h.MaxPayload = DefaultPayloadSerial
	}
	return nil
}

func (h *Hello) set(f field) (err error) {
	switch {
	case f.isBytes(helloSender):
		h.Sender, err = f.text("the sender's name", record.MaxName)
	case f.isFixed64(helloEpoch):
		h.Epoch = record.Epoch(f.number)
	case f.isBytes(helloToken):
		h.Token, err = f.text("the token", maxToken)
	case f.isBytes(helloSoftware):
		h.Software, err = f.text("the software's name", maxText)
	case f.isBytes(helloVersions), f.isVarint(helloVersions):
		err = f.eachVarint(h.addVersion)
	case f.isVarint(helloHeartbeat):
		h.Heartbeat = time.Duration(f.uint32()) * time.Millisecond
	case f.isBytes(helloChannels):
		h.Channels, err = addChannel(h.Channels, f)
	case f.isVarint(helloDeduplicates):
		h.Deduplicates = f.number != 0
	case f.isVarint(helloMaxPayload):
		h.MaxPayload = clamp(f.uint32())
	case f.isVarint(helloWindowRecords):
		h.WindowRecords = clamp(f.uint32())
	case f.isVarint(helloWindowBytes):
		h.WindowBytes = clamp(f.uint32())
	}
	return err
}

// clamp keeps what a peer announces within an int of 32 bits.
func clamp(v uint32) int { return int(min(v, 1<<30)) }

func (h *Hello) addVersion(v uint64) error {
	if v == 0 || v > 127 || len(h.Versions) == maxVersions {
		return fmt.Errorf("%w: versions are up to %d numbers from 1 to 127", ErrPayload, maxVersions)
	}
	h.Versions = append(h.Versions, uint8(v))
	return nil
}

func addChannel(channels []string, f field) ([]string, error) {
	if len(channels) == MaxChannels {
		return nil, fmt.Errorf("%w: more than %d channels", ErrPayload, MaxChannels)
	}
	name, err := f.text("a channel's name", record.MaxName)
	if err != nil {
		return nil, err
	}
	return append(channels, name), checkName("a channel's name", name)
}

// Append appends the payload of a WELCOME to b.
func (w *Welcome) Append(b []byte) []byte {
	return appendPositions(w.Hello.Append(b), welcomePositions, w.Positions)
}

// Unmarshal sets w from the payload of a WELCOME. Errors are of class ErrPayload.
func (w *Welcome) Unmarshal(b []byte) error {
	*w = Welcome{}
	err := eachField(b, func(f field) (err error) {
		if f.isBytes(welcomePositions) {
			w.Positions, err = addPosition(w.Positions, f.bytes)
			return err
		}
		return w.set(f)
	})
	if err != nil {
		return err
	}
	return w.check()
}
