package store

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/mcp-edge/edge-agent/record"
)

// Bounds of what the store remembers of senders. A sender that restarts brings a
// new epoch each time, so the oldest one goes when there are too many: what it
// sends again on a channel of that epoch is then stored twice.
const (
	MaxEpochs            = 16      // for each sender
	MaxChannelsOfASender = 1 << 12 // over all of its epochs
	MaxChannels          = 1 << 16 // over all senders; at the limit, some sender's old epoch goes
)

var (
	// ErrTooManyChannels is returned for a channel beyond MaxChannels or
	// MaxChannelsOfASender.
	ErrTooManyChannels = errors.New("the queue remembers too many channels")

	// ErrChannelGone is returned for a channel whose epoch has been forgotten: its
	// sender has started MaxEpochs times since.
	ErrChannelGone = errors.New("the channel's epoch is too old to be remembered")

	// ErrHole is what every HoleError is.
	ErrHole = errors.New("records are missing before this batch")
)

// HoleError says that a batch starts behind numbers that have not arrived. None
// of it was stored; the sender must go back to Last+1.
type HoleError struct {
	Last uint64 // number appended last to the channel
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("%v: the channel's last number is %d", ErrHole, e.Last)
}

// Is tells that a HoleError is ErrHole.
func (e *HoleError) Is(target error) bool { return target == ErrHole }

// ChannelKey names one ordered flow from a sender.
type ChannelKey struct {
	// Sender is bound to what the sender proved to be. One that has proven nothing
	// must not share its name with one that has: see MaxSender.
	Sender  string
	Epoch   record.Epoch
	Channel string // at most record.MaxName bytes, may be empty
}

// MaxSender bounds a ChannelKey's Sender, in bytes: a name, and where it comes
// from.
const MaxSender = 2*record.MaxName + 1

// Channel keeps the last number of one flow. Callers keep it for as long as the
// flow lives, and may then Release it.
type Channel struct {
	key  ChannelKey
	safe atomic.Uint64

	// Guarded by Store.mu.
	users  int     // who have got it from Store.Channel and not Released it
	id     uint32  // in the file; 0 until its first record
	last   uint64  // number appended last
	commit *Commit // of the group that last is in
	group  *group  // where mark is
	mark   int
	gone   bool
}

// Safe is the last number that is on disk: what an acknowledgement may say. It
// may be called at any time.
func (c *Channel) Safe() uint64 { return c.safe.Load() }

// Key of the channel.
func (c *Channel) Key() ChannelKey { return c.key }

// sender is what the store remembers of one.
type sender struct {
	epochs   []senderEpoch // in the order of their first channel
	channels int
}

// senderEpoch has the channels of one epoch of a sender.
type senderEpoch struct {
	record.Epoch
	channels []*Channel
}

func (s *sender) find(epoch record.Epoch) int {
	return slices.IndexFunc(s.epochs, func(e senderEpoch) bool { return e.Epoch == epoch })
}

// inUse says whether somebody publishes on a channel of the epoch now.
func (e *senderEpoch) inUse() bool {
	return slices.ContainsFunc(e.channels, func(c *Channel) bool { return c.users > 0 })
}

// channels are all those remembered. Guarded by Store.mu.
type channels struct {
	byKey   map[ChannelKey]*Channel
	senders map[string]*sender
	lastID  uint32
	evicted []uint32 // to be taken out of the file
}

func newChannels() channels {
	return channels{byKey: make(map[ChannelKey]*Channel), senders: make(map[string]*sender)}
}

// Channel looks a channel up, or starts one at number 0. It fails with
// ErrTooManyChannels, and for names that are too long.
func (s *Store) Channel(key ChannelKey) (*Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.channels.byKey[key]
	if !ok {
		var err error
		if c, err = s.channels.add(key); err != nil {
			return nil, fmt.Errorf("store: channel %q of %q: %w", key.Channel, key.Sender, err)
		}
	}
	c.users++
	return c, nil
}

// Release says, once for each call of Channel, that the caller won't use c any
// more. One that nobody uses and that has never had a record is then forgotten:
// so names that were only said take no room from those that publish.
func (s *Store) Release(c *Channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.users--; c.users == 0 && c.id == 0 && !c.gone {
		s.channels.remove(c)
	}
}

func (cs *channels) add(key ChannelKey) (*Channel, error) {
	if len(key.Sender) > MaxSender || len(key.Channel) > record.MaxName {
		return nil, errors.New("a name is too long")
	}
	from := cs.senders[key.Sender]
	if from != nil && from.channels >= MaxChannelsOfASender || len(cs.byKey) >= MaxChannels && !cs.makeRoom(from) {
		return nil, ErrTooManyChannels
	}
	if from == nil {
		from = new(sender)
		cs.senders[key.Sender] = from
	}
	at := from.find(key.Epoch)
	if at < 0 {
		if len(from.epochs) == MaxEpochs {
			cs.evict(from, 0)
		}
		at = len(from.epochs)
		from.epochs = append(from.epochs, senderEpoch{Epoch: key.Epoch})
	}
	c := &Channel{key: key}
	cs.byKey[key] = c
	from.channels++
	from.epochs[at].channels = append(from.epochs[at].channels, c)
	return c, nil
}

// makeRoom forgets an epoch that is not its sender's last and that nobody uses:
// of this sender if it has one, else of some other. A sender that draws a new
// epoch at each start never comes back to it.
func (cs *channels) makeRoom(first *sender) bool {
	if first != nil && cs.evictOld(first) {
		return true
	}
	for _, s := range cs.senders {
		if cs.evictOld(s) {
			return true
		}
	}
	return false
}

func (cs *channels) evictOld(s *sender) bool {
	for i := range len(s.epochs) - 1 {
		if !s.epochs[i].inUse() {
			cs.evict(s, i)
			return true
		}
	}
	return false
}

// evict forgets an epoch, and what is said on its channels from now on is
// refused.
func (cs *channels) evict(s *sender, at int) {
	for _, c := range s.epochs[at].channels {
		delete(cs.byKey, c.key)
		c.gone = true
		if c.id != 0 {
			cs.evicted = append(cs.evicted, c.id)
		}
	}
	s.channels -= len(s.epochs[at].channels)
	s.epochs = slices.Delete(s.epochs, at, at+1)
}

// remove forgets a channel that has had no record.
func (cs *channels) remove(c *Channel) {
	delete(cs.byKey, c.key)
	from := cs.senders[c.key.Sender]
	at := from.find(c.key.Epoch)
	of := &from.epochs[at]
	of.channels = slices.DeleteFunc(of.channels, func(other *Channel) bool { return other == c })
	if len(of.channels) == 0 {
		from.epochs = slices.Delete(from.epochs, at, at+1)
	}
	if from.channels--; from.channels == 0 {
		delete(cs.senders, c.key.Sender)
	}
}

func (cs *channels) number(c *Channel) {
	cs.lastID++
	c.id = cs.lastID
}

// fit returns those entries of b that are new. It fails with a HoleError when
// b starts behind what the channel has.
func (c *Channel) fit(b *Batch) ([]Entry, error) {
	switch {
	case c == nil:
		return b.Entries, nil
	case c.gone:
		return nil, ErrChannelGone
	case b.Previous > c.last:
		return nil, &HoleError{Last: c.last}
	}
	for i := range b.Entries {
		if b.Entries[i].Number > c.last {
			return b.Entries[i:], nil
		}
	}
	return nil, nil
}

func encodeChannel(key ChannelKey) []byte {
	return encodeNames(uint64(key.Epoch), key.Sender, key.Channel)
}

func decodeChannel(b []byte) (key ChannelKey, ok bool) {
	epoch, ok := decodeNames(b, &key.Sender, &key.Channel)
	key.Epoch = record.Epoch(epoch)
	return key, ok
}
