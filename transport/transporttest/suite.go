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

	// Silent says that the peer can be gone without the Conn's ever noticing:
	// datagrams that nobody answers for.
	Silent bool

	// Listen returns a Listener, and a Dialer that reaches it; nil where there
	// is no listening. The suite closes the Listener.
	Listen func(t *testing.T, framers func() transport.Framer) (transport.Listener, transport.Dialer)
}

// Far is the other end of a Conn's line, as the bytes on it; one Write or Read
// is a datagram where there are such. Close unblocks its Read and Write. One that also has an Abort() error can die without a goodbye.
type Far interface {
	io.ReadWriteCloser
}

// Run checks an implementation against the contract in transport.go. What is
// checked depends on whether its Conns carry streams or datagrams, which Info
// says; datagrams must not be lost, repeated or reordered on the line under
// test, while few of them are under way.
func Run(t *testing.T, h Harness) {
	kind := onStreams
	if carriesDatagrams(t, h) {
		kind = onDatagrams
	}
	for _, c := range cases() {
		if c.kind&kind == 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			c.test(t, h)
		})
	}
}

// kind says which Conns a case is about.
type kind int

const (
	onStreams kind = 1 << iota
	onDatagrams
	always = onStreams | onDatagrams
)

func carriesDatagrams(t *testing.T, h Harness) bool {
	conn, far := h.Open(t, framers())
	defer far.Close()
	defer conn.Close()
	return conn.Info().MaxMessage > 0
}

type testCase struct {
	name string
	kind kind
	test func(*testing.T, Harness)
}

func cases() []testCase {
	return []testCase{
		{"InfoTellsWhatAndWhere", always, infoTellsWhatAndWhere},
		{"AMessageArrivesWholeHoweverItIsCut", onStreams, aMessageArrivesWholeHoweverItIsCut},
		{"MessagesInOnePieceArriveOneByOne", onStreams, messagesInOnePieceArriveOneByOne},
		{"ADatagramIsAMessage", onDatagrams, aDatagramIsAMessage},
		{"WriteSendsTheBytesAsTheyAre", always, writeSendsTheBytesAsTheyAre},
		{"ALargeMessagePassesBothWays", always, aLargeMessagePassesBothWays},
		{"AMessageBeyondTheLimitIsRefusedAndTheNextIsRead", onStreams, aMessageBeyondTheLimitIsRefusedAndTheNextIsRead},
		{"AMessageWithoutAnEndIsDroppedAtTheLimit", onStreams, aMessageWithoutAnEndIsDroppedAtTheLimit},
		{"WriteRefusesMoreThanMaxMessage", onDatagrams, writeRefusesMoreThanMaxMessage},
		{"ADatagramBeyondTheLimitIsNotReadAndTheNextIs", onDatagrams, aDatagramBeyondTheLimitIsNotReadAndTheNextIs},
		{"NoiseIsReportedAndTheNextMessageIsRead", onStreams, noiseIsReportedAndTheNextMessageIsRead},
		{"SilenceEndsAMessage", onStreams, silenceEndsAMessage},
		{"SilenceIsSeenByReadsThatAreShorter", onStreams, silenceIsSeenByReadsThatAreShorter},
		{"ReadingAndWritingAtTheSameTime", always, readingAndWritingAtTheSameTime},
		{"DiscardDropsWhatHasArrived", onStreams, discardDropsWhatHasArrived},
		{"DiscardDropsTheDatagramsThatHaveArrived", onDatagrams, discardDropsTheDatagramsThatHaveArrived},

		{"AReadDeadlineKeepsWhatHasArrived", onStreams, aReadDeadlineKeepsWhatHasArrived},
		{"AReadDeadlineEndsReadAndTheNextGoesOn", onDatagrams, aReadDeadlineEndsReadAndTheNextGoesOn},
		{"AReadDeadlineReachesABlockedRead", always, aReadDeadlineReachesABlockedRead},
		{"AReadDeadlineCanBeMovedAway", always, aReadDeadlineCanBeMovedAway},
		{"AWriteDeadlineEndsAWriteThatNobodyReads", onStreams, aWriteDeadlineEndsAWriteThatNobodyReads},
		{"AWriteDeadlineReachesABlockedWrite", onStreams, aWriteDeadlineReachesABlockedWrite},
		{"AWriteDeadlineThatHasPassedEndsWrite", onDatagrams, aWriteDeadlineThatHasPassedEndsWrite},

		{"CloseUnblocksRead", always, closeUnblocksRead},
		{"CloseUnblocksWrite", onStreams, closeUnblocksWrite},
		{"CloseEndsWritingThatNobodyReads", onDatagrams, closeEndsWritingThatNobodyReads},
		{"AClosedConnIsClosedForEverything", always, aClosedConnIsClosedForEverything},
		{"ADeadPeerIsLostAndNeverClosed", always, aDeadPeerIsLostAndNeverClosed},
		{"ADeadPeerEndsABlockedRead", always, aDeadPeerEndsABlockedRead},
		{"APeerThatDiesWithoutAGoodbyeIsLost", onStreams, aPeerThatDiesWithoutAGoodbyeIsLost},
		{"WhatADeadPeerHadSaidIsRead", onStreams, whatADeadPeerHadSaidIsRead},
		{"APeerThatIsGoneIsOnlySilent", onDatagrams, aPeerThatIsGoneIsOnlySilent},

		{"DialingWhatIsAbsentIsLost", always, dialingWhatIsAbsentIsLost},
		{"DialEndsWithItsContext", always, dialEndsWithItsContext},
		{"AcceptedAndDialedTalkToEachOther", always, acceptedAndDialedTalkToEachOther},
		{"AcceptEndsWithItsContext", always, acceptEndsWithItsContext},
		{"CloseUnblocksEveryAccept", always, closeUnblocksEveryAccept},
	}
}
