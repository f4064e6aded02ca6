package probe_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/probe"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/internal/sim/wire"
	"github.com/mcp-edge/edge-agent/transport"
)

// site is a simulated line that is set in one way. At any other setting nobody
// understands anybody: there the program is on a line of its own.
type site struct {
	set    probe.Setting
	slaves []*modbusslave.Slave
	others []babbler // on the lines at other settings

	opened []probe.Setting
	asked  []string // "9600 8E1: 5"
	found  []int
	left   []time.Duration
	on     func(p probe.Progress) // when somebody is about to be asked
}

// babbler answers each request with noise, at one setting.
type babbler struct {
	at   probe.Setting
	says []byte
}

func (s *site) Asking(p probe.Progress) {
	s.asked = append(s.asked, fmt.Sprintf("%v: %d", p.Setting, p.Unit))
	s.left = append(s.left, p.Left)
	if s.on != nil {
		s.on(p)
	}
}

func (s *site) Found(_ probe.Setting, u probe.Unit) { s.found = append(s.found, u.Number) }

// scan scans the site in simulated time.
func (s *site) scan(t *testing.T, plan probe.Plan) (result probe.Result, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		lines := make(map[probe.Setting]transport.Dialer)
		var running sync.WaitGroup
		for _, setting := range plan.Settings {
			l := wire.New(wire.Config{Baud: setting.Baud})
			if setting == s.set {
				for _, slave := range s.slaves {
					slave.Attach(l)
				}
			}
			for _, b := range s.others {
				if b.at == setting {
					(&noise{says: b.says}).attach(l)
				}
			}
			lines[setting] = l.Dialer("probe")
			running.Go(func() { _ = l.Run(ctx) })
		}
		began := time.Now()
		var err error
		result, err = probe.Scan(ctx, plan, func(at probe.Setting) (probe.Line, error) {
			s.opened = append(s.opened, at)
			return modbus.NewLink(lines[at], modbus.LinkConfig{Framing: modbus.FramingRTU}, slog.New(slog.DiscardHandler))
		}, s)
		if err != nil {
			t.Error(err)
		}
		took = time.Since(began)
		cancel()
		running.Wait()
	})
	return result, took
}

// noise is a station that says something whenever the line is quiet again.
type noise struct {
	says  []byte
	tap   *wire.Tap
	heard bool
}

func (n *noise) attach(l *wire.Line) { n.tap = l.Attach("noise", n) }

func (n *noise) Hear([]byte) { n.heard = true }

func (n *noise) Quiet(at time.Time) {
	if n.heard {
		n.tap.SayAt(at.Add(time.Millisecond), n.says, nil)
	}
	n.heard = false
}

// slave has 7 in its first holding register.
func slave(unit int) *modbusslave.Slave {
	s := modbusslave.New(modbusslave.Config{Unit: unit, Delay: 20 * time.Millisecond})
	s.Set(modbus.Holding, 0, 7)
	return s
}

func setting(t *testing.T, baud int, format string) probe.Setting {
	t.Helper()
	f, err := probe.ParseFormat(format)
	if err != nil {
		t.Fatal(err)
	}
	return probe.Setting{Baud: baud, Format: f}
}

func quickPlan() probe.Plan {
	return probe.Plan{
		Settings: probe.Settings(probe.Setting{}, probe.Bauds(), probe.Formats()),
		Units:    probe.Units(1, 247), First: append(probe.Units(1, 10), 247), Timeout: 150 * time.Millisecond,
	}
}

func numbers(v *probe.Visit) (list []int) {
	if v != nil {
		for _, u := range v.Units {
			list = append(list, u.Number)
		}
	}
	return list
}

func TestALineIsFoundAndThenEveryUnitOnIt(t *testing.T) {
	empty := modbusslave.New(modbusslave.Config{Unit: 200}) // refuses everything
	s := &site{set: setting(t, 19200, "8E1"), slaves: []*modbusslave.Slave{slave(3), slave(77), empty}}
	result, took := s.scan(t, quickPlan())
	best := result.Best()
	if best == nil || best.Setting != s.set || !slices.Equal(numbers(best), []int{3, 77, 200}) {
		t.Fatalf("found %v", best)
	}
	if !slices.Equal(s.found, []int{3, 77, 200}) || len(result.Notes()) != 0 {
		t.Errorf("told %v, notes %q", s.found, result.Notes())
	}
	if want := []probe.Setting{setting(t, 9600, "8E1"), setting(t, 9600, "8N1"), s.set}; !slices.Equal(s.opened, want) {
		t.Errorf("opened %v", s.opened)
	}
	if len(s.asked) != 2*11+247 {
		t.Errorf("%d requests", len(s.asked))
	}
	if took > time.Minute {
		t.Errorf("took %v", took)
	}
	for table, want := range map[modbus.Table]string{
		modbus.Holding: "7", modbus.Input: "exception 2 (illegal data address)",
	} {
		if got := best.Units[0].Tables[table].String(); got != want {
			t.Errorf("%v: %s", table, got)
		}
	}
}

func TestNothingIsFoundOnALineWithoutSlavesAndEverySettingWasTried(t *testing.T) {
	s := &site{set: setting(t, 9600, "8N1")}
	result, took := s.scan(t, quickPlan())
	if result.Best() != nil || len(s.opened) != 32 || len(s.asked) != 32*11 {
		t.Errorf("found %v; opened %d settings, asked %d times", result.Best(), len(s.opened), len(s.asked))
	}
	// The estimate falls from the truth to nothing.
	if off := s.left[0] - took; off.Abs() > took/10 {
		t.Errorf("%v was expected, and %v it took", s.left[0], took)
	}
	for i := 1; i < len(s.left); i++ {
		if s.left[i] >= s.left[i-1] {
			t.Fatalf("the estimate rises: %v", s.left[i-1:i+1])
		}
	}
}

func TestTheExhaustiveScanGoesOnAfterAFind(t *testing.T) {
	s := &site{set: setting(t, 9600, "8E1"), slaves: []*modbusslave.Slave{slave(20)}}
	plan := probe.Plan{
		Settings: probe.Settings(probe.Setting{}, []int{9600, 19200}, probe.Formats()[:2]),
		Units:    probe.Units(18, 22), Timeout: 100 * time.Millisecond, All: true,
	}
	result, _ := s.scan(t, plan)
	if !slices.Equal(numbers(result.Best()), []int{20}) || len(s.opened) != 4 || len(s.asked) != 20 {
		t.Errorf("found %v; opened %v, asked %v", numbers(result.Best()), s.opened, s.asked)
	}
}

func TestWhatCannotBeReadIsSomethingThatSpeaksAtAnotherSetting(t *testing.T) {
	s := &site{
		set: setting(t, 19200, "8N1"), slaves: []*modbusslave.Slave{slave(2)},
		others: []babbler{{at: setting(t, 9600, "8N1"), says: []byte{2, 3, 2, 0xAA, 0x55, 0xAA, 0x55}}},
	}
	result, _ := s.scan(t, quickPlan())
	if !slices.Equal(numbers(result.Best()), []int{2}) {
		t.Errorf("found %v", result.Best())
	}
	if notes := strings.Join(result.Notes(), "\n"); !strings.Contains(notes, "At 9600 8N1 something speaks, but not at this setting") || strings.Contains(notes, "8E1") {
		t.Errorf("notes: %s", notes)
	}
}

func TestTwoSlavesWithOneNumberAreTold(t *testing.T) {
	s := &site{set: setting(t, 9600, "8E1"), slaves: []*modbusslave.Slave{slave(1), slave(5), slave(5)}}
	result, _ := s.scan(t, probe.Plan{Settings: []probe.Setting{s.set}, Units: probe.Units(1, 6), Timeout: 100 * time.Millisecond})
	if !slices.Equal(numbers(result.Best()), []int{1}) {
		t.Errorf("found %v", result.Best())
	}
	if notes := strings.Join(result.Notes(), "\n"); !strings.Contains(notes, "when asking unit 5: two devices with one number") {
		t.Errorf("notes: %s", notes)
	}
}

func TestASlaveThatAnswersTooLateIsToldAsAForeignFrame(t *testing.T) {
	late := modbusslave.New(modbusslave.Config{Unit: 2, Delay: 300 * time.Millisecond})
	s := &site{set: setting(t, 9600, "8E1"), slaves: []*modbusslave.Slave{slave(1), late}}
	result, _ := s.scan(t, probe.Plan{Settings: []probe.Setting{s.set}, Units: probe.Units(1, 9), Timeout: 100 * time.Millisecond})
	if !slices.Equal(numbers(result.Best()), []int{1}) {
		t.Errorf("found %v", result.Best())
	}
	if notes := strings.Join(result.Notes(), "\n"); !strings.Contains(notes, "1 good frames came that answered nothing asked") {
		t.Errorf("notes: %s", notes)
	}
}

func TestAScanThatIsEndedReturnsWhatWasFoundUntilThen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &site{on: func(p probe.Progress) {
		if p.Unit == 4 {
			cancel()
		}
	}}
	result, err := probe.Scan(ctx, probe.Plan{
		Settings: []probe.Setting{{}}, Units: probe.Units(1, 247), Timeout: time.Second,
	}, func(probe.Setting) (probe.Line, error) { return &fake{answers: everybody}, nil }, s)
	if err != nil || !result.Stopped || !slices.Equal(numbers(result.Best()), []int{1, 2, 3}) {
		t.Errorf("%v; stopped %v, found %v", err, result.Stopped, numbers(result.Best()))
	}
}

// fake is a line without time.
type fake struct {
	opening error
	answers func(unit int) error
	opened  int
}

var errNotThere = errors.New("not there")

func everybody(int) error { return nil }

func (f *fake) Open(context.Context) error { f.opened++; return f.opening }

func (f *fake) Close() error { return nil }

func (f *fake) Counters() modbus.Counters { return modbus.Counters{} }

func (f *fake) Do(ctx context.Context, unit int, _ modbus.Request) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return []byte{0, 1}, f.answers(unit)
}

func TestALineThatCannotBeOpenedAtAllIsAnError(t *testing.T) {
	result, err := probe.Scan(t.Context(), quickPlan(), func(probe.Setting) (probe.Line, error) {
		return &fake{opening: errNotThere}, nil
	}, new(site))
	if !errors.Is(err, errNotThere) || result.Best() != nil {
		t.Errorf("%v, %v", result, err)
	}
}

func TestASettingThatThePortRefusesIsLeftOut(t *testing.T) {
	refused := setting(t, 9600, "8E1")
	plan := quickPlan()
	plan.Units, plan.First = []int{1}, nil
	result, err := probe.Scan(t.Context(), plan, func(at probe.Setting) (probe.Line, error) {
		if at == refused {
			return &fake{opening: errNotThere}, nil
		}
		return &fake{answers: everybody}, nil
	}, new(site))
	if err != nil || result.Best().Setting != setting(t, 9600, "8N1") {
		t.Errorf("%v, %v", result, err)
	}
	if notes := strings.Join(result.Notes(), "\n"); !strings.Contains(notes, "9600 8E1 could not be tried: not there") {
		t.Errorf("notes: %s", notes)
	}
}

func TestALineThatIsLostIsOpenedAgain(t *testing.T) {
	line := &fake{answers: func(unit int) error {
		if unit < 3 {
			return transport.Lost(nil) // hangs up on who it does not know
		}
		return nil
	}}
	result, err := probe.Scan(t.Context(), probe.Plan{
		Settings: []probe.Setting{{}}, Units: probe.Units(1, 3), Timeout: time.Second,
	}, func(probe.Setting) (probe.Line, error) { return line, nil }, new(site))
	if err != nil || line.opened != 3 || !slices.Equal(numbers(result.Best()), []int{3}) {
		t.Errorf("%v; opened %d times, found %v", err, line.opened, numbers(result.Best()))
	}
}

func TestAGatewaysOwnAnswerIsNoDevice(t *testing.T) {
	result, err := probe.Scan(t.Context(), probe.Plan{
		Settings: []probe.Setting{{}}, Units: probe.Units(1, 3), Timeout: time.Second,
	}, func(probe.Setting) (probe.Line, error) {
		return &fake{answers: func(unit int) error {
			return []error{1: modbus.GatewayNoAnswer, 2: modbus.DeviceBusy, 3: modbus.GatewayUnavailable}[unit]
		}}, nil
	}, new(site))
	if err != nil || !result.Gateway || !slices.Equal(numbers(result.Best()), []int{2}) {
		t.Errorf("%v; found %v", err, numbers(result.Best()))
	}
}

func TestAnAnswerThatWasDisturbedIsAskedForAgain(t *testing.T) {
	disturbed := slave(2)
	disturbed.Next(modbusslave.BadCRC)
	s := &site{set: setting(t, 9600, "8E1"), slaves: []*modbusslave.Slave{disturbed}}
	result, _ := s.scan(t, probe.Plan{Settings: []probe.Setting{s.set}, Units: probe.Units(1, 3), Timeout: 100 * time.Millisecond})
	if !slices.Equal(numbers(result.Best()), []int{2}) || len(result.Notes()) != 0 {
		t.Errorf("found %v, %q", result.Best(), result.Notes())
	}
}
