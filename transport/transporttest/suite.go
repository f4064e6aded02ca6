// Package transporttest is for tests: the one suite that every implementation
// of transport.Conn passes, an in-memory link, and faults to inject.
package transporttest

import (
	"io"
	"testing"

	"go.uber.org/goleak"

	"github.com/mcp-edge/edge-agent/transport"
)

// Harness makes what the suite tests. Each func is called within one test and
// leaves what else is to be cleaned up to t.Cleanup.
type Harness struct {
	// Open returns a new Conn that reads with f, and the far end of its line.
	// The suite closes both.
	Open func(t *testing.T, f transport.Framer) (transport.Conn, Far)

	// Absent returns a Dialer whose peer is not there; nil where there is no
	// dialing.
	Absent func(t *testing.T) transport.Dialer

	// Stuck returns a Dialer whose peer does not answer, so that Dial waits for
	// the end of its context; nil where dialing never waits.
	Stuck func(t *testing.T) transport.Dialer

	// Listen returns a Listener, and a Dialer that reaches it; nil where there
	// is no listening. The suite closes the Listener.
	Listen func(t *testing.T, framers func() transport.Framer) (transport.Listener, transport.Dialer)
}

// Far is the other end of a Conn's line, as the bytes on it. Close unblocks its
// Read and Write. One that also has an Abort() error can die without a goodbye.
type Far interface {
	io.ReadWriteCloser
}

// Run checks an implementation against the contract in transport.go.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"InfoTellsWhatAndWhere", infoTellsWhatAndWhere},
		{"AMessageArrivesWholeHoweverItIsCut", aMessageArrivesWholeHoweverItIsCut},
		{"MessagesInOnePieceArriveOneByOne", messagesInOnePieceArriveOneByOne},
		{"WriteSendsTheBytesAsTheyAre", writeSendsTheBytesAsTheyAre},
		{"ALargeMessagePassesBothWays", aLargeMessagePassesBothWays},
		{"AMessageBeyondTheLimitIsRefusedAndTheNextIsRead", aMessageBeyondTheLimitIsRefusedAndTheNextIsRead},
		{"AMessageWithoutAnEndIsDroppedAtTheLimit", aMessageWithoutAnEndIsDroppedAtTheLimit},
		{"WriteRefusesMoreThanMaxMessage", writeRefusesMoreThanMaxMessage},
		{"NoiseIsReportedAndTheNextMessageIsRead", noiseIsReportedAndTheNextMessageIsRead},
		{"SilenceEndsAMessage", silenceEndsAMessage},
		{"SilenceIsSeenByReadsThatAreShorter", silenceIsSeenByReadsThatAreShorter},
		{"ReadingAndWritingAtTheSameTime", readingAndWritingAtTheSameTime},
		{"DiscardDropsWhatHasArrived", discardDropsWhatHasArrived},

		{"AReadDeadlineKeepsWhatHasArrived", aReadDeadlineKeepsWhatHasArrived},
		{"AReadDeadlineReachesABlockedRead", aReadDeadlineReachesABlockedRead},
		{"AReadDeadlineCanBeMovedAway", aReadDeadlineCanBeMovedAway},
		{"AWriteDeadlineEndsAWriteThatNobodyReads", aWriteDeadlineEndsAWriteThatNobodyReads},
		{"AWriteDeadlineReachesABlockedWrite", aWriteDeadlineReachesABlockedWrite},

		{"CloseUnblocksRead", closeUnblocksRead},
		{"CloseUnblocksWrite", closeUnblocksWrite},
		{"AClosedConnIsClosedForEverything", aClosedConnIsClosedForEverything},
		{"ADeadPeerIsLostAndNeverClosed", aDeadPeerIsLostAndNeverClosed},
		{"ADeadPeerEndsABlockedRead", aDeadPeerEndsABlockedRead},
		{"APeerThatDiesWithoutAGoodbyeIsLost", aPeerThatDiesWithoutAGoodbyeIsLost},
		{"WhatADeadPeerHadSaidIsRead", whatADeadPeerHadSaidIsRead},

		{"DialingWhatIsAbsentIsLost", dialingWhatIsAbsentIsLost},
		{"DialEndsWithItsContext", dialEndsWithItsContext},
		{"AcceptedAndDialedTalkToEachOther", acceptedAndDialedTalkToEachOther},
		{"AcceptEndsWithItsContext", acceptEndsWithItsContext},
		{"CloseUnblocksEveryAccept", closeUnblocksEveryAccept},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			c.test(t, h)
		})
	}
}
