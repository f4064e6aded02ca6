package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
)

// mailboxSize is the most that a mailbox holds, in bytes of keys and values; with
// a small queue it is a quarter of max_size. Commands are a few hundred bytes.
const mailboxSize = 16 << 20

// maxKey is the longest key of a mailbox, in bytes.
const maxKey = 255

// sumSize is the checksum before each value in the file.
const sumSize = 4

// ErrMailboxFull is returned for a value that has no room in the mailbox.
var ErrMailboxFull = errors.New("the mailbox is full")

// Mailbox holds small values by key, in the store's file and its commits. It has
// room of its own: a queue that is full of records takes nothing from it. All its
// methods may be called concurrently.
type Mailbox struct{ store *Store }

// mail is what memory knows of the mailbox. Guarded by Store.mu.
type mail struct {
	sizes map[string]int // of key and value, as of the last Put
	bytes int64          // of all sizes
}

// Mailbox of the store. There is one.
func (s *Store) Mailbox() *Mailbox { return &Mailbox{store: s} }

// Size is how many bytes of keys and values the mailbox holds at most.
func (m *Mailbox) Size() int64 { return min(mailboxSize, m.store.cfg.MaxSize/4) }

// Put stores a copy of value under key, at once: it is on disk when the Commit is
// done. It never waits. Of several values that one commit meets, the last one
// counts. It fails with ErrMailboxFull, with ErrTooLarge for a key of more than
// 255 bytes or a value of more than a quarter of Size, or with ErrClosed; then
// the value before stays.
func (m *Mailbox) Put(key string, value []byte) (*Commit, error) { return m.put(key, value, true) }

// PutLater is Put without hurry: the value rides with the next commit, or is on
// disk after commit_delay.
func (m *Mailbox) PutLater(key string, value []byte) (*Commit, error) {
	return m.put(key, value, false)
}

func (m *Mailbox) put(key string, value []byte, urgent bool) (*Commit, error) {
	s, size := m.store, len(key)+len(value)
	if key == "" || len(key) > maxKey || int64(size) > m.Size()/4 {
		return nil, fmt.Errorf("store: mailbox: key of %d bytes, value of %d: %w", len(key), len(value), ErrTooLarge)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, fmt.Errorf("store: %w", ErrClosed)
	}
	grown := s.mail.bytes + int64(size-s.mail.sizes[key])
	if grown > m.Size() && size > s.mail.sizes[key] {
		return nil, fmt.Errorf("store: %w: %d of its %d bytes are in use", ErrMailboxFull, s.mail.bytes, m.Size())
	}
	s.mail.bytes, s.mail.sizes[key] = grown, size
	sealed := binary.LittleEndian.AppendUint32(make([]byte, 0, sumSize+len(value)), sumMail(key, value))
	return s.post(key, append(sealed, value...), urgent), nil
}

// Delete takes a key out, with the next commit or after commit_delay. One that is
// not there is no error.
func (m *Mailbox) Delete(key string) (*Commit, error) {
	s := m.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, fmt.Errorf("store: %w", ErrClosed)
	}
	size, known := s.mail.sizes[key]
	if !known {
		return s.nothing, nil
	}
	s.mail.bytes -= int64(size)
	delete(s.mail.sizes, key)
	return s.post(key, nil, false), nil
}

// post puts a change into the pending group; a value of nil takes the key out.
func (s *Store) post(key string, sealed []byte, urgent bool) *Commit {
	g := s.pending
	idle := !g.begun() || urgent && !g.urgent
	g.begin()
	if g.mail == nil {
		g.mail = make(map[string][]byte)
	}
	g.mail[key] = sealed
	g.urgent = g.urgent || urgent
	if idle {
		s.wake()
	}
	return g.side()
}

// Letter is what All finds under a key.
type Letter struct {
	Key   string
	Value []byte // nil when Damaged
	// Damaged says that the value can't be read any more. It stays in the file
	// until the key is put or deleted.
	Damaged bool
}

// Get reads what is on disk now under a key; false if nothing is.
func (m *Mailbox) Get(key string) (l Letter, found bool, err error) {
	s := m.store
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	err = s.view(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte(mailboxBucket)); b != nil {
			if v := b.Get([]byte(key)); v != nil {
				l, found = letter([]byte(key), v), true
			}
		}
		return nil
	})
	if err != nil {
		return Letter{}, false, fmt.Errorf("store: reading the mailbox in %s: %w", s.path, err)
	}
	return l, found, nil
}

// letter copies what stands under a key.
func letter(k, v []byte) Letter {
	l := Letter{Key: string(k), Damaged: true}
	if len(v) >= sumSize && binary.LittleEndian.Uint32(v) == sumMail(l.Key, v[sumSize:]) {
		l.Damaged = false
		l.Value = append([]byte{}, v[sumSize:]...)
	}
	return l
}

// All reads what is on disk now, by key.
func (m *Mailbox) All() (list []Letter, err error) {
	s := m.store
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(mailboxBucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			list = append(list, letter(k, v))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("store: reading the mailbox in %s: %w", s.path, err)
	}
	return list, nil
}

// sumMail covers the key: a value is not to be taken for another's.
func sumMail(key string, value []byte) uint32 {
	return checksum(append(append(make([]byte, 0, len(key)+len(value)), key...), value...))
}

// loadMailbox measures what the file holds. The bucket is made by the first Put.
func (s *Store) loadMailbox(tx *bolt.Tx) error {
	s.mail = mail{sizes: make(map[string]int)}
	name := []byte(mailboxBucket)
	b := tx.Bucket(name)
	if b == nil {
		if found, _ := tx.Cursor().Seek(name); string(found) == mailboxBucket {
			return fmt.Errorf("%w: %s is no bucket", ErrDamaged, name)
		}
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		size := len(k) + max(len(v)-sumSize, 0)
		s.mail.sizes[string(k)] = size
		s.mail.bytes += int64(size)
		return nil
	})
}

// putMail carries out what the group changes in the mailbox.
func (p *plan) putMail(tx *bolt.Tx) error {
	if len(p.group.mail) == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists([]byte(mailboxBucket))
	if err != nil {
		return err
	}
	for key, sealed := range p.group.mail {
		if sealed == nil {
			err = b.Delete([]byte(key))
		} else {
			err = b.Put([]byte(key), sealed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
