package serial

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mcp-edge/edge-agent/internal/pty"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func settings() Config { return Config{Baud: 115200, DataBits: 8, Parity: "none", StopBits: 1} }

func framer() transport.Framer { return &transporttest.LengthFramer{} }

func TestSerialIsATransport(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T, f transport.Framer) (transport.Conn, transporttest.Far) {
			master, path := pair(t)
			return dial(t, NewDialer(path, settings()), f), master
		},
		Absent: func(t *testing.T) transport.Dialer {
			return NewDialer(filepath.Join(t.TempDir(), "ttyUSB0"), settings())
		},
	})
}

func pair(t *testing.T) (master *os.File, path string) {
	t.Helper()
	master, path, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	return master, path
}

func dial(t *testing.T, d *Dialer, f transport.Framer) transport.Conn {
	t.Helper()
	conn, err := d.Dial(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestADeviceThatAppearsLaterIsOpenedThen(t *testing.T) {
	_, path := pair(t)
	link := filepath.Join(t.TempDir(), "by-id")
	d := NewDialer(link, settings())
	_, err := d.Dial(t.Context(), framer())
	if !errors.Is(err, transport.ErrLost) || errors.Is(err, transport.ErrPermanent) {
		t.Fatalf("without the device: %v", err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	dial(t, d, framer())
}

func TestAPortHasOneUserAtATime(t *testing.T) {
	_, path := pair(t)
	d := NewDialer(path, settings())
	conn := dial(t, d, framer())
	if _, err := d.Dial(t.Context(), framer()); !errors.Is(err, transport.ErrPermanent) {
		t.Fatalf("a second Dial: %v", err)
	}
	conn.Close()
	dial(t, d, framer())
}

func TestWhatIsNoSerialPortIsPermanent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, t.TempDir(), "/dev/null"} {
		if _, err := NewDialer(path, settings()).Dial(t.Context(), framer()); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestErrorsOfOpeningAreTranslated(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error
	}{
		{unix.ENOENT, transport.ErrLost},
		{unix.ENODEV, transport.ErrLost},
		{unix.ENXIO, transport.ErrLost},
		{unix.EIO, transport.ErrLost},
		{unix.EMFILE, transport.ErrLost},
		{unix.EACCES, transport.ErrPermanent},
		{unix.EPERM, transport.ErrPermanent},
		{unix.EBUSY, transport.ErrPermanent},
		{unix.EAGAIN, transport.ErrPermanent},
		{unix.ENOTTY, transport.ErrPermanent},
	} {
		got := openError(&os.PathError{Op: "open", Path: "/dev/ttyS0", Err: c.err})
		if !errors.Is(got, c.want) || errors.Is(got, c.err) {
			t.Errorf("%v becomes %v, want class %v alone", c.err, got, c.want)
		}
	}
}

func TestALineIsSetAsConfigured(t *testing.T) {
	for _, c := range []struct {
		config      Config
		set, notSet uint32
		speed       uint32
	}{
		{Config{Baud: 9600, DataBits: 8, Parity: "none", StopBits: 1}, 0, unix.CSTOPB, 9600},
		{Config{Baud: 19200, DataBits: 8, Parity: "none", StopBits: 2}, unix.CSTOPB, 0, 19200},
		{Config{Baud: 12345, DataBits: 8, Parity: "none", StopBits: 1}, 0, unix.CSTOPB, 12345}, // no Bxxx constant has it
	} {
		master, path := pair(t)
		conn := dial(t, NewDialer(path, c.config), framer())
		raw, err := master.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got *unix.Termios
		if ctlErr := raw.Control(func(fd uintptr) { got, err = unix.IoctlGetTermios(int(fd), unix.TCGETS2) }); ctlErr != nil || err != nil {
			t.Fatal(ctlErr, err)
		}
		if got.Cflag&c.set != c.set || got.Cflag&c.notSet != 0 || got.Ospeed != c.speed {
			t.Errorf("%+v: flags %#o, speed %d", c.config, got.Cflag, got.Ospeed)
		}
		conn.Close()
	}
}

func TestEverySettingHasItsNameInTheLibrary(t *testing.T) {
	for _, parity := range []string{"none", "even", "odd", "mark", "space"} {
		for _, stop := range []float64{1, 1.5, 2} {
			if _, err := (Config{Baud: 9600, DataBits: 5, Parity: parity, StopBits: stop}).mode(); err != nil {
				t.Errorf("%s, %v stop bits: %v", parity, stop, err)
			}
		}
	}
}

func TestAnImpossibleConfigurationIsPermanent(t *testing.T) {
	_, path := pair(t)
	for _, change := range []func(*Config){
		func(c *Config) { *c = Config{} },
		func(c *Config) { c.Baud = 0 },
		func(c *Config) { c.DataBits = 9 },
		func(c *Config) { c.Parity = "some" },
		func(c *Config) { c.StopBits = 3 },
		func(c *Config) { c.StopBits = 1.5 },
		func(c *Config) { c.DataBits, c.StopBits = 5, 2 },
	} {
		config := settings()
		change(&config)
		if _, err := NewDialer(path, config).Dial(t.Context(), framer()); !errors.Is(err, transport.ErrPermanent) {
			t.Errorf("%+v: %v", config, err)
		}
	}
}

func TestACharacterIsItsBits(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   time.Duration
	}{
		{Config{Baud: 9600, DataBits: 8, Parity: "none", StopBits: 1}, 1041666},
		{Config{Baud: 9600, DataBits: 8, Parity: "even", StopBits: 1}, 1145833},
		{Config{Baud: 1000, DataBits: 5, Parity: "none", StopBits: 1.5}, 7500 * time.Microsecond},
	} {
		if got := c.config.CharTime(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.config, got, c.want)
		}
	}
}

func TestInfoTellsWhatASerialLineIs(t *testing.T) {
	_, path := pair(t)
	info := dial(t, NewDialer(path, settings()), framer()).Info()
	want := transport.Info{
		Transport: "serial", Remote: path, HalfDuplex: true, Ordered: true,
		CharTime: settings().CharTime(), Lost: info.Lost,
	}
	if info.Lost == nil {
		t.Error("it does not tell when it has gone")
	}
	if !reflect.DeepEqual(info, want) {
		t.Errorf("got %+v, want %+v", info, want)
	}
}

func TestWhatTheLineSaidBeforeIsDropped(t *testing.T) {
	master, path := pair(t)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	stale := transporttest.Frame([]byte("stale"))
	if _, err := master.Write(stale); err != nil {
		t.Fatal(err)
	}
	for waiting := 0; waiting < len(stale); {
		if waiting, err = unix.IoctlGetInt(int(slave.Fd()), unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
	}
	conn := dial(t, NewDialer(path, settings()), framer())
	if _, err := master.Write(transporttest.Frame([]byte("fresh"))); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if msg, err := conn.Read(); string(msg) != string(transporttest.Frame([]byte("fresh"))) {
		t.Errorf("read %q, %v", msg, err)
	}
}

func TestADescriptorBeyondSelectsReachWorks(t *testing.T) {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 2048, Max: 20000}); err != nil {
		t.Logf("limit of descriptors left as it is: %v", err)
	}
	var held []*os.File
	defer func() {
		for _, f := range held {
			f.Close()
		}
	}()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, f)
		if f.Fd() >= 1024 {
			break
		}
	}
	master, path := pair(t)
	conn := dial(t, NewDialer(path, settings()), framer())
	if _, err := master.Write(transporttest.Frame(nil)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(); err != nil {
		t.Error(err)
	}
}
