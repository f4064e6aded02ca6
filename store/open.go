package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// FileName is the queue's file in its directory.
const FileName = "queue.db"

// freshSuffix is for a file that is being written and will be renamed. One that is
// found at start holds nothing that the queue lacks.
const freshSuffix = ".new"

const (
	// lockTimeout is how long Open waits for another process to let go of the file,
	// as one does that is about to end.
	lockTimeout = 2 * time.Second

	minMaxSize    = 256 << 10
	minMaxRecords = 64
	// maxMaxSize32: a 32-bit process maps the file into 1 or 2 GiB of addresses.
	maxMaxSize32 = 384 << 20
)

// Reasons why OpenIntact fails. The file is left as it is.
var (
	ErrLocked  = errors.New("another process has the queue open")
	ErrDamaged = errors.New("the queue file is damaged")
	ErrForeign = errors.New("the file is not a queue of this program")
	ErrNewer   = errors.New("the queue file was written by a newer version of this program")
)

// Open opens the queue in dir, and makes both if they do not exist. It starts
// nothing; Run commits what is appended. The caller closes the store.
//
// A file that it can't use stops nothing. What is readable of a damaged queue is
// taken over into a fresh file, and the damaged one is moved aside, with a [Report]
// beside it; a file of another program or of a newer version is moved aside as it
// is. [Aside] lists them, Stats and the log tell of them, and a new epoch begins.
//
// It fails with ErrLocked after two seconds if another process has the queue, and
// with the disk's error where that can't be read or written: then nothing is moved.
func Open(dir string, cfg Config, log *slog.Logger) (*Store, error) {
	return open(dir, cfg, log, true)
}

// OpenIntact is Open for tools: it fails with ErrDamaged, ErrForeign or ErrNewer for
// a file that it can't use. The error says what to do, and nothing in the file is
// changed.
func OpenIntact(dir string, cfg Config, log *slog.Logger) (*Store, error) {
	return open(dir, cfg, log, false)
}

func open(dir string, cfg Config, log *slog.Logger, repair bool) (_ *Store, err error) {
	cfg.WhenFull = cmp.Or(cfg.WhenFull, Block)
	if err := checkConfig(cfg); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{
		path: filepath.Join(dir, FileName), cfg: cfg, log: log,
		disk:     disk{commit: (*bolt.Tx).Commit, sync: syncDir},
		maxGroup: min(max(cfg.MaxSize/8, 32<<10), 1<<20), maxCount: math.MaxUint32,
		kick: make(chan struct{}, 1), ran: make(chan struct{}), room: make(chan struct{}),
		nothing: &Commit{done: make(chan struct{})},
		ids:     newIdentities(), channels: newChannels(), cursors: make(map[string]*Cursor),
		pending: newGroup(spare{}), compact: compaction{settle: compactSettle},
	}
	s.nothing.finish(nil)
	s.stats.wear.note(time.Now(), 0)
	s.ages.clock = cfg.Clock
	if cfg.Clock == nil {
		s.ages.clock = runClock{time.Now()}
	}
	if cfg.MaxRecords > 0 {
		s.maxCount = max(cfg.MaxRecords/8, 1)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if s.dir, err = lockDir(dir, syscall.LOCK_EX, lockTimeout); err != nil {
		return nil, fmt.Errorf("store: %s: %w", s.path, explain(err))
	}
	defer func() {
		if err != nil {
			s.dir.Close()
		}
	}()
	if err := s.openFile(repair); err != nil {
		return nil, fmt.Errorf("store: %s: %w", s.path, explain(err))
	}
	return s, nil
}

func checkConfig(cfg Config) error {
	switch {
	case cfg.MaxSize < minMaxSize:
		return fmt.Errorf("max_size is %d bytes, it must be at least %d", cfg.MaxSize, minMaxSize)
	case math.MaxInt == math.MaxInt32 && cfg.MaxSize > maxMaxSize32:
		return fmt.Errorf("max_size is %d bytes, on a 32-bit machine it can be %d at most", cfg.MaxSize, maxMaxSize32)
	case cfg.WhenFull != Block && cfg.WhenFull != DropOldest:
		return fmt.Errorf("when_full is %q, it must be %s or %s", cfg.WhenFull, Block, DropOldest)
	case cfg.MaxRecords < 0, cfg.MaxRecords > 0 && cfg.MaxRecords < minMaxRecords:
		return fmt.Errorf("max_records is %d, it must be 0 or at least %d", cfg.MaxRecords, minMaxRecords)
	case cfg.CommitDelay < 0, cfg.Keep < 0:
		return errors.New("commit_delay or keep is negative")
	}
	return nil
}

// explain adds what to do.
func explain(err error) error {
	var do string
	switch {
	case errors.Is(err, ErrLocked):
		do = "stop it, or give this one a data_dir of its own"
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrForeign):
		do = "nothing was changed: move the file to a safe place to start with an empty queue, and keep it, as records may be saved from it"
	case errors.Is(err, ErrNewer):
		do = "nothing was changed: install that version again, or move the file away to start with an empty queue"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, do)
}

// lockDir keeps other processes out from before the file is looked at: one that is
// being written to looks damaged. how is a lock for one, or one for many.
func lockDir(dir string, how int, patience time.Duration) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, how, patience); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockFile waits for a while for the lock of an open file. Where there are no locks (some
// network file systems can't lock a directory) it succeeds: bbolt locks its file, too.
func lockFile(f *os.File, how int, patience time.Duration) error {
	for end := time.Now().Add(patience); ; {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil
		}
		if time.Now().After(end) {
			return ErrLocked
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (s *Store) openFile(repair bool) error {
	if err := os.Remove(s.path + freshSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.finishSalvage(); err != nil {
		return err
	}
	_, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.create("")
	}
	if err != nil {
		return err
	}
	if err := s.syncNames(); err != nil {
		return err
	}
	if !repair {
		return s.openWhole(false)
	}
	if err := s.openWhatIsThere(); err != nil {
		return err
	}
	return s.trimAside()
}

// openWhole opens a file that is not damaged. repair: a file that lacks its last
// commits is an error, too; otherwise a new epoch begins then.
func (s *Store) openWhole(repair bool) (err error) {
	if err := s.examine(); err != nil {
		return err
	}
	if s.db, err = openBolt(s.path, mapSize(s.cfg.MaxSize)); err != nil {
		return err
	}
	if err = s.load(); err == nil {
		err = s.hearWitness(repair)
	}
	if err != nil {
		_ = errors.Join(s.db.Close(), s.witness.close())
		return err
	}
	s.countPast()
	s.giveBackMemory()
	return nil
}

// manyPages are worth a collection when the file is opened.
const manyPages = 1 << 16

// giveBackMemory returns to the machine what bbolt has needed to find the free pages
// of a large file, some 40 B a page: nothing needs as much later.
func (s *Store) giveBackMemory() {
	if s.size()/s.pageSize() > manyPages {
		debug.FreeOSMemory()
	}
}

// openBolt opens a file that is whole, or makes one. mapped is how much address
// space it takes at first.
func openBolt(path string, mapped int) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o640, &bolt.Options{
		Timeout:         lockTimeout,
		FreelistType:    bolt.FreelistMapType,
		NoFreelistSync:  true, // it would be rewritten with each commit
		InitialMmapSize: mapped,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, ErrLocked
	}
	return db, err
}

// mapSize is how much address space to take. A file that outgrows it is mapped
// anew, for which bbolt's writer waits until no cursor is reading. Besides the
// records there are free pages and bbolt's own.
func mapSize(maxSize int64) int {
	size := maxSize + maxSize/4 + 64<<20
	if math.MaxInt == math.MaxInt32 {
		return int(min(size, 1<<29))
	}
	return int(size)
}

// makeBuckets makes those that every file has.
func makeBuckets(tx *bolt.Tx) error {
	for _, name := range []string{aboutBucket, channelBucket, sourceBucket, checkpointBucket, cursorBucket, gapBucket} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// create makes the file under another name, so that a power cut leaves no half of
// one.
//
// reason is why there is none, if that is known.
func (s *Store) create(reason string) error {
	if err := s.forgetWitness(reason); err != nil {
		return err
	}
	epoch, err := drawEpoch()
	if err != nil {
		return err
	}
	s.about = about{epoch: epoch, since: time.Now(), reason: reason, sums: true}
	db, err := openBolt(s.path+freshSuffix, mapSize(s.cfg.MaxSize))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if err := makeBuckets(tx); err != nil {
			return err
		}
		return errors.Join(
			s.about.put(tx),
			tx.Bucket([]byte(checkpointBucket)).Put([]byte(checkpointKey), s.encodeCheckpoint(0, nil)),
		)
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(s.path+freshSuffix, s.path); err != nil {
		return err
	}
	s.log.Info("new queue", "file", s.path, "epoch", s.about.epoch)
	return nil
}

// syncNames makes the names of the file and of the directories above it durable:
// they may be new, and a power cut that takes one of them takes the queue. That
// the file is there does not say that they are: whoever made it may have been
// killed before, or its sync failed. Directories that this process may not read,
// or whose file system (squashfs) has nothing to sync, are none that it has made.
func (s *Store) syncNames() error {
	dir, err := filepath.Abs(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	if err := s.disk.sync(dir); err != nil {
		return err
	}
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		err := syncDir(up)
		switch {
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EINVAL):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// examine tells whether bbolt can open the file without harm.
func (s *Store) examine() error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	dropCache(f)
	switch err := checkFile(f); {
	case errors.Is(err, errNotBolt):
		return fmt.Errorf("%w: %w", ErrForeign, err)
	case isDiskError(err):
		return fmt.Errorf("the file can't be read, the disk may be failing: %w", err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// load fills memory from the file.
func (s *Store) load() (err error) {
	defer recoverFault(debug.SetPanicOnFault(true), &err)
	return s.view(func(tx *bolt.Tx) error {
		for _, step := range []func(*bolt.Tx) error{s.loadAbout, s.loadNames, s.loadCheckpoint, s.loadSegments, s.loadCursors, s.loadAges, s.loadMailbox} {
			if err := step(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) loadAbout(tx *bolt.Tx) (err error) {
	if s.about, err = readAbout(tx); err != nil {
		return err
	}
	for _, name := range []string{channelBucket, sourceBucket, checkpointBucket, cursorBucket, gapBucket} {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: the bucket %s is missing", ErrDamaged, name)
		}
	}
	c := tx.Cursor()
	for name, _ := c.First(); name != nil; name, _ = c.Next() {
		if isNearly(name) {
			return fmt.Errorf("%w: the name %q in it is damaged", ErrDamaged, name)
		}
	}
	s.txid = uint64(tx.ID())
	return nil
}
