package mcp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/record"
)

// OutboxConfig bounds an Outbox. Zero values are the defaults.
type OutboxConfig struct {
	Channel    string // default "main"; see record.CheckName
	MaxRecords int    // kept and not yet acknowledged; default 4096
	MaxBytes   int    // the same in bytes; default 4 MiB
	BatchBytes int    // a PUBLISH carries about so many bytes at most; default 16 KiB
	// MaxRecord is the largest record in bytes, as PublishRaw takes it; 0: what
	// MaxBytes allows. Once there was a session, it is at most what the peer and
	// the transport take. Where a message is a datagram, set it from the start:
	// see MaxDatagramRecord.
	MaxRecord int
	// BestEffort records are sent once and then forgotten, whether they arrive or
	// not. When the outbox is full, the oldest make room.
	BestEffort bool
}

// Outbox is the sending end of one channel. It keeps each record until the
// receiver has it safe, across any number of sessions, and sends it again only
// on this channel and under its old number. When it is full, Publish waits. One
// for best effort keeps a record until it is sent, and Publish never waits.
//
// A first WELCOME says where the numbers begin: at 1 in a fresh epoch, behind
// the last safe one where a device keeps its epoch across restarts.
//
// All methods may be called concurrently. An Outbox belongs to one Session at a
// time.
type Outbox struct {
	cfg OutboxConfig

	mu       sync.Mutex
	largest  int           // record that is taken
	changed  chan struct{} // closed and made anew when an acknowledgement comes
	wake     func()        // tells the session that there is something to send; nil between sessions
	data     []byte        // the records kept, as AppendRecord makes them; from head on
	head     int
	sizes    []int32 // of each record kept, from first on
	first    int
	numbered bool   // a receiver has said where the numbers begin
	base     uint64 // the number before that of the first record kept
	ever     int    // how many of the kept have been sent in some session; they have their numbers for good

	open      bool // in this session the position is known
	sent      int  // how many of the kept are on their way in this session
	sentBytes int
	fits      uint64 // PUBLISH may name this as its previous number, though base is higher: the receiver lost records it had acknowledged
	behind    bool   // fits counts
	missing   []span // of what was sent, to be sent again before anything else
	told      uint64 // the highest number that the receiver has acknowledged in this session

	stats OutboxStats
}

// span is the numbers from and to, and those between.
type span struct{ from, to uint64 }

// maxMissing is how many spans an Outbox remembers. The receiver asks again for
// those beyond.
const maxMissing = 64

// OutboxStats counts since the Outbox was made.
type OutboxStats struct {
	Published    uint64 // taken by Publish
	Acknowledged uint64 // safe at the receiver
	Resent       uint64 // sent again
	Behind       uint64 // times that a receiver did not know what it had acknowledged

	// Of a best-effort channel, where nothing is acknowledged:
	Sent    uint64 // once, for better or worse
	Dropped uint64 // never sent: the outbox was full
}

// settled is how many records the Outbox has nothing more to do with.
func (s *OutboxStats) settled() uint64 { return s.Acknowledged + s.Sent + s.Dropped }

// ErrRecordTooLarge is Publish's answer to a record beyond MaxRecord or MaxBytes.
var ErrRecordTooLarge = errors.New("record too large for the outbox")

// errEpochSpent ends a session whose receiver knows more of a channel than was
// ever sent on it.
var errEpochSpent = &Error{Code: CodeEpochSpent, Reason: "numbers beyond what was sent are acknowledged"}

// NewOutbox makes an empty Outbox.
func NewOutbox(cfg OutboxConfig) (*Outbox, error) {
	if cfg.Channel == "" {
		cfg.Channel = "main"
	}
	if err := record.CheckName(cfg.Channel); err != nil {
		return nil, fmt.Errorf("mcp: channel name %w", err)
	}
	cfg.MaxRecords = orDefault(cfg.MaxRecords, 4096)
	cfg.MaxBytes = orDefault(cfg.MaxBytes, 4<<20)
	cfg.BatchBytes = orDefault(cfg.BatchBytes, 16<<10)
	cfg.MaxRecord = min(orDefault(cfg.MaxRecord, cfg.MaxBytes), cfg.MaxBytes-recordOverhead(cfg.MaxBytes))
	return &Outbox{cfg: cfg, largest: cfg.MaxRecord, changed: make(chan struct{})}, nil
}

func orDefault(v, otherwise int) int {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Publish takes records over and returns; it waits for room until ctx ends, and
// then some of the records may have been taken, the first ones. Stats says how
// many.
func (o *Outbox) Publish(ctx context.Context, records ...record.Record) error {
	var scratch [512]byte
	for i := range records {
		if err := o.PublishRaw(ctx, records[i].Append(scratch[:0])); err != nil {
			return err
		}
	}
	return nil
}

// PublishRaw is Publish for one record that is protobuf already; it is copied.
func (o *Outbox) PublishRaw(ctx context.Context, raw []byte) error {
	size := 1 + protowire.SizeBytes(len(raw))
	o.mu.Lock()
	if largest := o.largest; len(raw) > largest {
		o.mu.Unlock()
		return fmt.Errorf("mcp: channel %s: %w: it has %d bytes, and %d are the most", o.cfg.Channel, ErrRecordTooLarge, len(raw), largest)
	}
	for !o.hasRoom(size) {
		if o.cfg.BestEffort {
			o.remove(1)
			o.stats.Dropped++
			continue
		}
		if err := o.wait(ctx); err != nil {
			o.mu.Unlock()
			return err
		}
	}
	o.data = AppendRecord(o.data, raw)
	o.sizes = append(o.sizes, int32(size))
	o.stats.Published++
	wake := o.wake
	o.mu.Unlock()
	if wake != nil {
		wake()
	}
	return nil
}

// fit learns how large a payload the peer takes, so that a record that it can't
// take is refused where it is published.
func (o *Outbox) fit(payload int) {
	room := payload - o.overhead() - ownNumber
	o.mu.Lock()
	defer o.mu.Unlock()
	o.largest = min(o.cfg.MaxRecord, room-recordOverhead(room))
}

// ownNumber is what a record's number takes where it does not follow from the
// one before.
const ownNumber = 12

// hasRoom says whether a record that takes size bytes may be added. The caller
// holds mu.
func (o *Outbox) hasRoom(size int) bool {
	return o.count() < o.cfg.MaxRecords && len(o.data)-o.head+size <= o.cfg.MaxBytes
}

// wait lets go of mu until something has changed, or fails when ctx ends. The
// caller holds mu, and again afterwards.
func (o *Outbox) wait(ctx context.Context) error {
	changed := o.changed
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("mcp: channel %s: waiting for acknowledgements: %w", o.cfg.Channel, ctx.Err())
	}
}

// Flush waits until every record published so far is acknowledged, or, with best
// effort, sent.
func (o *Outbox) Flush(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for want := o.stats.Published; o.stats.settled() < want; {
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Stats tells how far the channel is.
func (o *Outbox) Stats() OutboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// count is how many records are kept; the caller holds mu.
func (o *Outbox) count() int { return len(o.sizes) - o.first }

// attach gives the Outbox to a session, or takes it away with nil.
func (o *Outbox) attach(wake func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake, o.open = wake, false
	o.sent, o.sentBytes, o.behind = 0, 0, false
	o.missing = o.missing[:0]
}

// renumber starts the numbers anew, for a new epoch.
func (o *Outbox) renumber() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.numbered, o.ever, o.base = false, 0, 0
}

// start learns at the beginning of a session what is safe.
func (o *Outbox) start(safe uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.numbered {
		o.numbered = true
		o.base += safe // not from 0 if best-effort records were dropped already
	}
	if safe > o.base+uint64(o.ever) {
		return errEpochSpent
	}
	o.open, o.told = true, safe
	if !o.cfg.BestEffort {
		o.release(safe)
		o.rewindTo(safe)
	}
	return nil
}

// acknowledge takes a position out of an ACK.
func (o *Outbox) acknowledge(p Position) error {
	o.mu.Lock()
	if !o.open {
		o.mu.Unlock()
		return o.start(p.Number)
	}
	defer o.mu.Unlock()
	if p.Number > o.base+uint64(o.ever) {
		return errEpochSpent
	}
	o.release(p.Number)
	overtaken := p.Number < o.told // an ACK that left before others that were here first
	o.told = max(o.told, p.Number)
	switch {
	case p.ResendFrom == 0 || o.cfg.BestEffort || overtaken:
	case p.ResendTo < p.ResendFrom || p.ResendFrom <= o.base:
		o.rewindTo(p.ResendFrom - 1)
	default:
		o.miss(span{p.ResendFrom, min(p.ResendTo, o.base+uint64(o.sent))})
	}
	return nil
}

// miss notes what the receiver asks for. The caller holds mu.
func (o *Outbox) miss(s span) {
	for _, known := range o.missing {
		if known.from <= s.from && s.to <= known.to {
			return
		}
	}
	if s.from <= s.to && len(o.missing) < maxMissing {
		o.missing = append(o.missing, s)
		o.stats.Resent += s.to - s.from + 1
	}
}

// rewind sends everything unacknowledged again: on a line that loses frames no
// other frame may ever show that the last one was lost.
func (o *Outbox) rewind() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open {
		o.rewindTo(o.base)
	}
}

// rewindTo makes number+1 the next record to send. The caller holds mu.
func (o *Outbox) rewindTo(number uint64) {
	if number < o.base {
		o.behind, o.fits = true, number
		o.stats.Behind++
		number = o.base
	}
	keep := int(min(number-o.base, uint64(o.sent)))
	o.stats.Resent += uint64(max(o.sent-keep, 0))
	o.sentBytes = o.bytes(keep)
	o.sent = keep
	o.trim()
}

// trim takes out of missing what is acknowledged, or will be sent anyway. The
// caller holds mu.
func (o *Outbox) trim() {
	kept := o.missing[:0]
	for _, s := range o.missing {
		s = span{max(s.from, o.base+1), min(s.to, o.base+uint64(o.sent))}
		if s.from <= s.to {
			kept = append(kept, s)
		}
	}
	o.missing = kept
}

// release forgets the records up to number. The caller holds mu and knows that
// they were sent.
func (o *Outbox) release(number uint64) {
	if number <= o.base {
		return
	}
	n := int(number - o.base)
	o.stats.Acknowledged += uint64(n)
	o.remove(n)
	o.trim()
}

// remove forgets the first n records. The caller holds mu.
func (o *Outbox) remove(n int) {
	size := o.bytes(n)
	o.base += uint64(n)
	o.ever = max(o.ever-n, 0)
	o.sentBytes = max(o.sentBytes-size, 0)
	o.sent = max(o.sent-n, 0)
	o.head += size
	o.first += n
	if o.head > len(o.data)/2 { // each byte is moved at most once on average
		o.data = append(o.data[:0], o.data[o.head:]...)
		o.sizes = append(o.sizes[:0], o.sizes[o.first:]...)
		o.head, o.first = 0, 0
	}
	close(o.changed)
	o.changed = make(chan struct{})
}

// bytes is the size of the first n records kept. The caller holds mu.
func (o *Outbox) bytes(n int) int {
	size := 0
	for _, s := range o.sizes[o.first : o.first+n] {
		size += int(s)
	}
	return size
}

// inFlight is what counts against the receiver's window.
func (o *Outbox) inFlight() (records, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent, o.sentBytes
}

// unsettled says whether records wait for an acknowledgement, or to be sent to
// get one.
func (o *Outbox) unsettled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count() > 0 && !o.cfg.BestEffort
}

// progress says whether something is on its way, and whether the receiver has
// said what is safe.
func (o *Outbox) progress() (sent, open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent > 0, o.open
}
