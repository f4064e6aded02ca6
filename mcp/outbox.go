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
}

// Outbox is the sending end of one channel. It keeps each record until the
// receiver has it safe, across any number of sessions, and sends it again only
// on this channel and under its old number. When it is full, Publish waits.
//
// A first WELCOME says where the numbers begin: at 1 in a fresh epoch, behind
// the last safe one where a device keeps its epoch across restarts.
//
// All methods may be called concurrently. An Outbox belongs to one Session at a
// time.
type Outbox struct {
	cfg OutboxConfig

	mu       sync.Mutex
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

	stats OutboxStats
}

// OutboxStats counts since the Outbox was made.
type OutboxStats struct {
	Published    uint64 // taken by Publish
	Acknowledged uint64 // safe at the receiver
	Resent       uint64 // sent again
	Behind       uint64 // times that a receiver did not know what it had acknowledged
}

// ErrRecordTooLarge is Publish's answer to a record that no PUBLISH can carry.
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
	return &Outbox{cfg: cfg, changed: make(chan struct{})}, nil
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
	if size > o.cfg.MaxBytes {
		return fmt.Errorf("mcp: channel %s: %w: %d bytes, at most %d", o.cfg.Channel, ErrRecordTooLarge, size, o.cfg.MaxBytes)
	}
	for {
		o.mu.Lock()
		if o.count() < o.cfg.MaxRecords && len(o.data)-o.head+size <= o.cfg.MaxBytes {
			break
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("mcp: channel %s: waiting for acknowledgements: %w", o.cfg.Channel, ctx.Err())
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

// Flush waits until every record published so far is acknowledged.
func (o *Outbox) Flush(ctx context.Context) error {
	o.mu.Lock()
	want := o.stats.Published
	for o.stats.Acknowledged < want {
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("mcp: channel %s: waiting for acknowledgements: %w", o.cfg.Channel, ctx.Err())
		}
		o.mu.Lock()
	}
	o.mu.Unlock()
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
}

// renumber starts the numbers anew, for a new epoch.
func (o *Outbox) renumber() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.numbered, o.ever = false, 0
}

// start learns at the beginning of a session what is safe.
func (o *Outbox) start(safe uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.numbered {
		o.numbered, o.base = true, safe
	}
	if safe > o.base+uint64(o.ever) {
		return errEpochSpent
	}
	o.release(safe)
	o.rewindTo(safe)
	o.open = true
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
	if p.ResendFrom != 0 {
		o.rewindTo(p.ResendFrom - 1)
	}
	return nil
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
}

// release forgets the records up to number. The caller holds mu and knows that
// they were sent.
func (o *Outbox) release(number uint64) {
	if number <= o.base {
		return
	}
	n := int(number - o.base)
	size := o.bytes(n)
	o.base = number
	o.ever -= n
	o.sentBytes = max(o.sentBytes-size, 0)
	o.sent = max(o.sent-n, 0)
	o.stats.Acknowledged += uint64(n)
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

// progress says whether something is on its way, and whether the receiver has
// said what is safe.
func (o *Outbox) progress() (sent, open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent > 0, o.open
}

// allowance is what the receiver has room for now.
type allowance struct {
	records, bytes int // left of the window
	payload        int // largest payload
	idle           bool
}

// appendFrame appends one PUBLISH to dst if there is something to send and the
// allowance permits. It says how many records and bytes of the window it took.
func (o *Outbox) appendFrame(dst []byte, version uint8, a allowance) (_ []byte, records, bytes int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open || o.sent == o.count() {
		return dst, 0, 0, nil
	}
	var numbers []uint64
	previous := o.base + uint64(o.sent)
	room := min(a.payload-o.overhead(), a.bytes, max(o.cfg.BatchBytes, int(o.sizes[o.first+o.sent])))
	explicit := o.behind && o.sent == 0
	for _, size := range o.sizes[o.first+o.sent:] {
		if explicit { // a number takes up to ten bytes
			size += 10
		}
		if records == a.records || bytes+int(size) > room {
			break
		}
		records++
		bytes += int(size)
	}
	if records == 0 {
		if a.idle && a.records > 0 { // waiting will not help
			err = fmt.Errorf("%w: record %d of channel %s is larger than the peer takes", errTooLarge, previous+1, o.cfg.Channel)
		}
		return dst, 0, 0, err
	}
	if explicit {
		o.behind = false
		for i := range records {
			numbers = append(numbers, previous+uint64(i)+1)
		}
		previous = o.fits
		bytes -= 10 * records
	}
	from := o.head + o.sentBytes
	start := len(dst)
	dst = beginFrame(dst, version, CommandPublish)
	dst = AppendPublish(dst, o.cfg.Channel, previous, numbers, o.data[from:from+bytes])
	if dst, err = endFrame(dst, start); err != nil {
		return dst, 0, 0, err
	}
	o.sent += records
	o.sentBytes += bytes
	o.ever = max(o.ever, o.sent)
	return dst, records, bytes, nil
}

// overhead is how many bytes of a payload are not records, at most.
func (o *Outbox) overhead() int {
	return 1 + protowire.SizeBytes(len(o.cfg.Channel)) + 1 + protowire.SizeVarint(1<<63) + 1 + protowire.SizeVarint(MaxPayloadV2)
}
