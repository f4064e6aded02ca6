//go:build linux && (amd64 || arm64 || riscv64)

package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mounted(t *testing.T, d *Disk) (dir string, r *Remote) {
	t.Helper()
	dir = t.TempDir()
	unmount, err := d.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	})
	if r, err = Dial(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return dir, r
}

// direct reads a page past the kernel's cache.
func direct(t *testing.T, path string) byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(-1, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func cached(t *testing.T, path string) byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func TestAProgramSeesAFileSystem(t *testing.T) {
	d := New(nil, 1)
	dir, r := mounted(t, d)
	sub := filepath.Join(dir, "sub")
	path, moved := filepath.Join(sub, "f"), filepath.Join(sub, "moved")
	if err := errors.Join(os.Mkdir(sub, 0o700), os.WriteFile(path, []byte("hello"), 0o600), r.Mark("here"), os.Rename(path, moved)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(moved, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(" world"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), unix.Fallocate(int(f.Fd()), 0, 0, 20), f.Truncate(15)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(moved); err != nil || string(b) != "hello world\x00\x00\x00\x00" {
		t.Errorf("%q, %v", b, err)
	}
	entries, err := os.ReadDir(sub)
	if err != nil || len(entries) != 1 || entries[0].Name() != "moved" {
		t.Errorf("%v, %v", entries, err)
	}
	for i, want := range []error{nil, syscall.EWOULDBLOCK} {
		s, err := os.Open(sub)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := syscall.Flock(int(s.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, want) {
			t.Errorf("lock %d: %v", i, err)
		}
		if err := s.Sync(); err != nil {
			t.Error(err)
		}
	}
	marks := 0
	d.Trace().Marks(d.Trace().Len(), func(_ int, text string) {
		if text == "here" {
			marks++
		}
	})
	if marks != 1 {
		t.Errorf("%d marks", marks)
	}
	out := filepath.Join(t.TempDir(), "image")
	trace := d.Trace()
	if err := trace.Cutter().Image(trace.Len(), 1).WriteTo(out, "sub"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(out, "moved")); err != nil || !bytes.HasPrefix(b, []byte("hello world")) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAfterAFailedSyncTheKernelsCacheProvesNothing(t *testing.T) {
	for name, forget := range map[string]bool{"cache stays": false, "cache goes": true} {
		t.Run(name, func(t *testing.T) {
			d := New(nil, 1)
			dir, r := mounted(t, d)
			path := filepath.Join(dir, "f")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for round := byte('a'); ; round++ { // half of all sectors get lost
				if round == 'z' {
					t.Fatal("never was the first sector lost")
				}
				write := func(c byte) {
					if _, err := f.WriteAt(bytes.Repeat([]byte{c}, pageSize), 0); err != nil {
						t.Fatal(err)
					}
				}
				write('.')
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
				if err := r.Inject(Fault{Kinds: Sync, Nth: 1, Count: 1, Err: syscall.EIO, Forget: forget}); err != nil {
					t.Fatal(err)
				}
				write(round)
				if err := f.Sync(); !errors.Is(err, syscall.EIO) {
					t.Fatal(err)
				}
				if fired, err := r.Mend(); err != nil || fired != 1 {
					t.Fatal(fired, err)
				}
				if direct(t, path) == round {
					continue
				}
				want := round
				if forget {
					want = '.'
				}
				if got := cached(t, path); direct(t, path) != '.' || got != want {
					t.Errorf("the cache holds %c, want %c", got, want)
				}
				return
			}
		})
	}
}

func TestAReadFails(t *testing.T) {
	d := New(nil, 1)
	dir, r := mounted(t, d)
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, make([]byte, pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Inject(Fault{Kinds: Read, Nth: 1, Err: syscall.EIO}), r.Forget()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(path); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if fired, err := r.Mend(); err != nil || fired == 0 {
		t.Error(fired, err)
	}
	if b, err := os.ReadFile(path); err != nil || len(b) != pageSize {
		t.Error(err)
	}
}
