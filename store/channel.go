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
	MaxChannels          = 1 << 14 // over all senders
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
	Sender  string // bound to what the sender proved to be; at most record.MaxName bytes
	Epoch   record.Epoch
	Channel string // at most record.MaxName bytes, may be empty
}

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

// senderEpoch counts the channels of one epoch of a sender.
type senderEpoch struct {
	record.Epoch
	channels int
}

func (s *sender) find(epoch record.Epoch) int {
	return slices.IndexFunc(s.epochs, func(e senderEpoch) bool { return e.Epoch == epoch })
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
	if len(key.Sender) > record.MaxName || len(key.Channel) > record.MaxName {
		return nil, fmt.Errorf("a name has more than %d bytes", record.MaxName)
	}
	from := cs.senders[key.Sender]
	if from == nil {
		if len(cs.byKey) >= MaxChannels {
			return nil, ErrTooManyChannels
		}
		from = new(sender)
		cs.senders[key.Sender] = from
	}
	at := from.find(key.Epoch)
	if at < 0 {
		if len(from.epochs) == MaxEpochs {
			cs.evict(key.Sender, from.epochs[0].Epoch)
			from.epochs = from.epochs[1:]
		}
		at = len(from.epochs)
		from.epochs = append(from.epochs, senderEpoch{Epoch: key.Epoch})
	}
	if from.channels >= MaxChannelsOfASender || len(cs.byKey) >= MaxChannels {
		return nil, ErrTooManyChannels
	}
	c := &Channel{key: key}
	cs.byKey[key] = c
	from.channels++
	from.epochs[at].channels++
	return c, nil
}

// remove forgets a channel that has had no record.
func (cs *channels) remove(c *Channel) {
	delete(cs.byKey, c.key)
	from := cs.senders[c.key.Sender]
	at := from.find(c.key.Epoch)
	if from.epochs[at].channels--; from.epochs[at].channels == 0 {
		from.epochs = slices.Delete(from.epochs, at, at+1)
	}
	if from.channels--; from.channels == 0 {
		delete(cs.senders, c.key.Sender)
	}
}

func (cs *channels) evict(from string, epoch record.Epoch) {
	for key, c := range cs.byKey {
		if key.Sender == from && key.Epoch == epoch {
			delete(cs.byKey, key)
			cs.senders[from].channels--
			c.gone = true
			if c.id != 0 {
				cs.evicted = append(cs.evicted, c.id)
			}
		}
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
