package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// What a cursor does when the store is full; also the values of Config.WhenFull.
const (
	Block      = "block"
	DropOldest = "drop-oldest"
)

var (
	// ErrCursorInUse is returned for a second cursor of one name.
	ErrCursorInUse = errors.New("a cursor of this name is open")

	// ErrNoCursor is returned for a name that the file does not know.
	ErrNoCursor = errors.New("there is no such cursor")
)

// CursorConfig describes a reader of the log.
type CursorConfig struct {
	Name     string // "route/upstream"; its place is kept in the file under this name
	WhenFull string // Block or DropOldest; empty: as the store's Config says

	// MaxAge is how long a record may have been in the queue before this cursor lets
	// go of it, as with DropOldest but for this reason; 0: for ever. It is measured by
	// the store's Clock, in time that has certainly passed, and only while the cursor
	// is open. What is handed out is not let go. A record's own time has no part in it.
	MaxAge time.Duration

	Start Start // where it begins if the file has no place for it yet; unused otherwise

	// Match tells which records it takes; nil: all. It is called once for each
	// source, under the store's lock: it must be quick, must not call the store, and
	// must give the same answer each time. Gaps of what it takes are taken, too.
	Match func(SourceKey) bool
}

// Item is a record on its way out.
type Item struct {
	Position uint64 // in the log; rises
	Source   *Source
	Seq      uint64
	Part     uint32
	Time     time.Time   // UTC; zero if it was appended without
	Body     []byte      // valid until the cursor's next Read; not to be changed
	Gap      *record.Gap // set: announces missing records of Source's device, and Body is nil
}

// Cursor is one reader's place in the log. One goroutine calls Read and Rewind;
// Ack may be called from any.
type Cursor struct {
	store   *Store
	name    string
	drops   bool // DropOldest
	maxAge  time.Duration
	match   func(SourceKey) bool
	news    chan struct{} // holds one token when there may be something to read
	reading sync.Mutex    // held by Read and Rewind
	scan    scan          // owned by the holder of reading

	// Guarded by Store.mu.
	held     bool   // in the file, not opened: it holds its records
	takes    []bool // by source id, what match said
	hash     uint64 // of takes
	acked    uint64 // every record up to here is delivered or not wanted
	read     uint64 // handed out up to here
	scanning bool
	fence    uint64 // reading stops before this while records from here on are being dropped; 0: no fence
	flight   flight // handed out, not acknowledged
	unread   load   // taken, not handed out
	missing  []missing
	changed  bool   // missing is not in the file as it is here
	saved    []byte // form in the file
	dropped  map[droppedKey]droppedCount
}

// load is an amount of records.
type load struct{ records, bytes uint64 }

func (l *load) add(records, bytes uint64) {
	l.records += records
	l.bytes += bytes
}

// sub stops at zero: damaged records may make the count inexact.
func (l *load) sub(records, bytes uint64) {
	l.records -= min(l.records, records)
	l.bytes -= min(l.bytes, bytes)
}

// flight is the queue of items handed out and not acknowledged.
type flight struct {
	items []flying
	load  load // without gaps that are in no record's place
}

type flying struct {
	position uint64
	size     uint32 // in the log; 0: a gap of missing records
}

func (f *flight) add(position uint64, size uint32) {
	f.items = append(f.items, flying{position, size})
	if size > 0 {
		f.load.add(1, uint64(size))
	}
}

// land takes out everything up to position.
func (f *flight) land(position uint64) {
	n := 0
	for ; n < len(f.items) && f.items[n].position <= position; n++ {
		if size := f.items[n].size; size > 0 {
			f.load.sub(1, uint64(size))
		}
	}
	if n == len(f.items) {
		f.items = f.items[:0]
		return
	}
	f.items = f.items[n:]
}

// Cursor opens the cursor of that name, or makes one, which starts where Start says.
// Open all cursors before the first Append: records that no cursor takes are freed.
// It fails with ErrCursorInUse.
func (s *Store) Cursor(cfg CursorConfig) (*Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.openCursor(cfg)
	if err != nil {
		return nil, fmt.Errorf("store: cursor %q: %w", cfg.Name, err)
	}
	return c, nil
}

func (s *Store) openCursor(cfg CursorConfig) (*Cursor, error) {
	if len(cfg.Name) == 0 || len(cfg.Name) > maxCursorName {
		return nil, fmt.Errorf("its name must have 1 to %d bytes", maxCursorName)
	}
	if s.stopped {
		return nil, ErrClosed
	}
	c := s.cursors[cfg.Name]
	known := c != nil
	if !known {
		c = &Cursor{store: s, name: cfg.Name, held: true}
	}
	if !c.held {
		return nil, ErrCursorInUse
	}
	c.match, c.takes, c.hash = cfg.Match, nil, 0
	when := cmp.Or(cfg.WhenFull, s.cfg.WhenFull)
	if when != Block && when != DropOldest {
		return nil, fmt.Errorf("when_full is %q, not %s or %s", when, Block, DropOldest)
	}
	counted := s.learn(c)
	if !known {
		if err := s.begin(c, cfg.Start); err != nil {
			return nil, err
		}
	}
	if err := s.measure(c, counted); err != nil {
		return nil, err
	}
	c.held, c.drops, c.read = false, when == DropOldest, c.acked
	c.news = make(chan struct{}, 1)
	c.dropped = make(map[droppedKey]droppedCount)
	if c.maxAge = cfg.MaxAge; c.maxAge > 0 {
		s.ages.ask(c.maxAge, s.end, s.oldest())
	}
	s.cursors[cfg.Name] = c
	s.active = append(s.active, c)
	c.skipUnwanted(s.end)
	s.noteAck() // so that the file learns of it
	return c, nil
}

const maxCursorName = 255

func (s *Store) matchNew(source *Source) {
	for _, c := range s.active {
		c.matchNext(source)
	}
}

// lag is what the cursor has still to deliver.
func (c *Cursor) lag() load {
	return load{c.unread.records + c.flight.load.records, c.unread.bytes + c.flight.load.bytes}
}

// limit is where records can be read up to.
func (c *Cursor) limit(end uint64) uint64 {
	if c.fence != 0 {
		end = min(end, c.fence-1)
	}
	for i := range c.missing {
		if m := &c.missing[i]; m.to > c.read {
			return min(end, max(m.from, c.read))
		}
	}
	return end
}

// skipUnwanted moves over records that the cursor does not take, when it is known
// without looking that there are no others up to end.
func (c *Cursor) skipUnwanted(end uint64) {
	if c.unread.records > 0 || len(c.missing) > 0 || c.scanning {
		return
	}
	c.read = max(c.read, end)
	c.settle()
}

// settle moves acked up to the first item in flight.
func (c *Cursor) settle() {
	acked := c.read
	if len(c.flight.items) > 0 {
		acked = c.flight.items[0].position - 1
	}
	c.acked = max(c.acked, acked)
	for len(c.missing) > 0 && c.missing[0].to <= c.acked {
		c.missing = c.missing[1:]
		c.changed = true
	}
}

func (c *Cursor) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// Read waits for records behind those read last, and appends at most maxRecords of
// them to dst, and about maxBytes of bodies but at least one. The items are valid
// until the next Read. While more than 64 MiB is handed out and not acknowledged, it
// waits for Ack; a cursor that drops also waits within its reach, because what is handed
// out can't be dropped.
//
// It returns ctx's error, ErrClosed, or an error of the file; after that one,
// reading again goes on at the same place.
func (c *Cursor) Read(ctx context.Context, dst []Item, maxRecords, maxBytes int) ([]Item, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.scan.bodies = c.scan.bodies[:0]
	for {
		if err := ctx.Err(); err != nil {
			return dst, err
		}
		got, err := c.tryRead(dst, max(maxRecords, 1), maxBytes)
		if err != nil {
			return dst, fmt.Errorf("store: cursor %s: %w", c.name, err)
		}
		switch {
		case len(got.items) > len(dst):
			return got.items, nil
		case !got.moved:
			select {
			case <-c.news:
			case <-ctx.Done():
			}
		}
	}
}

// maxFlight is how many bytes are handed out unacknowledged.
const maxFlight = 64 << 20

type readResult struct {
	items []Item
	moved bool // trying again makes sense
}

func (c *Cursor) tryRead(dst []Item, maxRecords, maxBytes int) (readResult, error) {
	s := c.store
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return readResult{}, ErrClosed
	}
	if c.flight.load.bytes > maxFlight {
		s.mu.Unlock()
		return readResult{items: dst}, nil
	}
	if items := c.tell(dst, maxRecords); len(items) > len(dst) {
		s.mu.Unlock()
		return readResult{items: items}, nil
	}
	reach := c.reach()
	if c.read >= reach && len(c.flight.items) > 0 {
		s.mu.Unlock()
		return readResult{items: dst}, nil
	}
	c.scan.plan(c, min(c.limit(s.end), max(reach, c.read)), maxRecords, maxBytes)
	if c.scan.pos == c.scan.limit {
		s.mu.Unlock()
		return readResult{items: dst}, nil
	}
	c.scanning = true
	s.mu.Unlock()

	items, err := c.scan.run(s, dst)

	s.mu.Lock()
	defer s.mu.Unlock()
	c.scanning = false
	if err != nil {
		return readResult{}, err
	}
	return readResult{items: c.handOut(items, len(dst)), moved: true}, nil
}

// handOut takes over what the scan found.
func (c *Cursor) handOut(items []Item, from int) []Item {
	sc := &c.scan
	to := sc.pos
	if limit := c.limit(to); limit < to {
		// What has begun to be dropped meanwhile is announced, not delivered.
		to = limit
		sc.damage = damage{}
		sc.lose()
	}
	kept := items[:from]
	for i := range sc.sizes {
		item := &items[from+i]
		if item.Position > to {
			break
		}
		c.unread.sub(1, uint64(sc.sizes[i]))
		if !c.store.plausible(item) {
			sc.damage.unknown++
			continue
		}
		c.flight.add(item.Position, sc.sizes[i])
		kept = append(kept, *item)
	}
	c.read = to
	if c.read == c.store.end {
		c.unread = load{} // damaged records were not subtracted
	}
	c.settle()
	c.countDamage(sc.damage)
	return kept
}

// plausible tells whether what a damaged record seems to be can be: its number was
// given.
func (s *Store) plausible(item *Item) bool {
	if item.Gap == nil || item.Gap.Reason != record.GapDamage || item.Source.key.Agent != "" {
		return true
	}
	return item.Gap.From > 0 && item.Gap.From <= item.Source.device.last
}

func (c *Cursor) countDamage(d damage) {
	if d.records == 0 {
		return
	}
	c.store.stats.damaged += d.records
	c.store.log.Error("records in the queue can't be read and are lost to this cursor: the disk may be failing",
		"cursor", c.name, "records", d.records, "of_unknown_device", d.unknown, "file", c.store.path)
}

// tell appends what is missing at the cursor's place, and moves on behind it.
func (c *Cursor) tell(dst []Item, maxRecords int) []Item {
	if c.fence != 0 {
		return dst
	}
	defer c.settle()
	for i := range c.missing {
		m := &c.missing[i]
		if m.to <= c.read {
			continue
		}
		if m.from > c.read {
			break
		}
		m.told = true
		for j := range m.gaps {
			if m.position(j) <= c.read {
				continue
			}
			if maxRecords--; maxRecords < 0 {
				return dst
			}
			dst = append(dst, c.gapItem(m, j))
		}
		c.read = m.to
	}
	return dst
}

func (c *Cursor) gapItem(m *missing, i int) Item {
	s := c.store
	gap := m.gaps[i].gap
	position := m.position(i)
	c.flight.add(position, 0)
	c.read = position
	return Item{Position: position, Source: s.ids.gapSource(s.ids.byID[m.gaps[i].device]), Time: gap.Last, Gap: &gap}
}

// Ack says that everything read up to position is delivered. The file learns of it
// with the next commit, at most commit_delay (and 100 ms) later; records whose
// Ack was not written are read again after a restart.
func (c *Cursor) Ack(position uint64) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || position <= c.acked {
		return
	}
	c.flight.land(min(position, c.read))
	c.acked = min(position, c.read)
	c.settle()
	s.noteAck()
	if s.wanted.some() {
		s.wake()
	}
	c.wake()
}

// Acked is the position up to which everything is delivered, or not wanted.
func (c *Cursor) Acked() uint64 {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.acked
}

// noteAck makes the writer put the cursors' places into the file before long.
func (s *Store) noteAck() {
	if s.ackedSince.IsZero() {
		s.ackedSince = time.Now()
		s.wake()
	}
}

// Rewind goes back to the last acknowledged position: the next Read begins with
// the first record that is not.
func (c *Cursor) Rewind() {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.unread.add(c.flight.load.records, c.flight.load.bytes)
	c.flight = flight{}
	c.read = c.acked
	c.scan.lose()
	c.wake()
}
