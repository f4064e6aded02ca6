package modbus_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// named is at with a name, and writable.
func named(name, what string) modbus.PointConfig {
	p := at(what)
	p.Name, p.Access = name, "rw"
	return p
}

func readOnly(name, what string) modbus.PointConfig {
	p := named(name, what)
	p.Access = "r"
	return p
}

// boiler is unit 1, with points in two polls.
func boiler(t testing.TB, link *modbus.Link) *modbus.Device {
	t.Helper()
	setpoint := named("setpoint", "holding:1 int16")
	setpoint.Scale, setpoint.Limits = 0.1, []float64{0, 90}
	mode := named("mode", "holding:2 bits")
	mode.Bit, mode.Width = 4, 4
	label := named("label", "holding:6 string")
	label.Length = 5
	d, err := link.Device(modbus.DeviceSpec{ID: "boiler", Device: device(1), Polls: []modbus.PollPoints{
		{Poll: "fast", Points: []modbus.PointConfig{
			readOnly("flow", "holding:0 uint16"), setpoint, mode, named("energy", "holding:3 uint32"), named("temp", "holding:5 uint16"), label,
		}},
		{Poll: "slow", Points: []modbus.PointConfig{
			readOnly("temp", "holding:9 uint16"), named("pump", "coil:0"), readOnly("sensor", "input:0 uint16"), readOnly("door", "discrete:0"),
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// do does what the lane does with a command whose tries don't time out.
func (p *plant) do(c *modbus.Command) error { return doing(p.Context(), c) }

func doing(ctx context.Context, c *modbus.Command) error {
	c.Begin(time.Now())
	var err error
	for more := true; more && err == nil; {
		more, err = c.Step(ctx, &scheduler.Turn{Timeout: 300 * time.Millisecond})
		if early := new(scheduler.NotYet); errors.As(err, &early) {
			<-time.After(time.Until(early.Until))
			more, err = true, nil
		}
	}
	c.End(err)
	return err
}

func boilerSlave(s *modbusslave.Slave) {
	s.Set(modbus.Coil, 0, 0)
	s.Set(modbus.Discrete, 0, 1)
	s.Set(modbus.Input, 0, 21)
}

func TestAPointIsWrittenAndReadBack(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		boilerSlave(slaves[1])
		slaves[1].Set(modbus.Holding, 2, 0xABCD)
		boiler := boiler(p, p.link)
		for _, c := range []struct {
			point    string
			value    record.Value
			table    modbus.Table
			address  int
			holds    []uint16
			readBack record.Value
		}{
			{"setpoint", record.Float64(21.57), modbus.Holding, 1, []uint16{216}, record.Float64(21.6)},
			{"mode", record.Int(7), modbus.Holding, 2, []uint16{0xAB7D}, record.Uint(7)},
			{"energy", record.Uint(0x12345678), modbus.Holding, 3, []uint16{0x1234, 0x5678}, record.Uint(0x12345678)},
			{"fast/temp", record.Int(77), modbus.Holding, 5, []uint16{77}, record.Uint(77)},
			{"label", record.String("abc"), modbus.Holding, 6, []uint16{0x6162, 0x6300, 0}, record.String("abc")},
			{"pump", record.Bool(true), modbus.Coil, 0, []uint16{1}, record.Bool(true)},
		} {
			for _, readBack := range []bool{false, true} {
				command, err := boiler.Write(c.point, c.value, modbus.WriteOptions{ReadBack: readBack})
				if err != nil {
					p.Errorf("%s: %v", c.point, err)
					continue
				}
				before := p.link.Counters().Requests
				if err := p.do(command); err != nil {
					p.Errorf("%s: %v", c.point, err)
				}
				for i, want := range c.holds {
					if got := slaves[1].Get(c.table, c.address+i); got != want {
						p.Errorf("%s: %v:%d is %X, not %X", c.point, c.table, c.address+i, got, want)
					}
				}
				var want []record.Point
				requests := uint64(1)
				if readBack {
					want, requests = []record.Point{{Name: c.point, Value: c.readBack}}, 2
				}
				if answer := command.Answer(); !slices.Equal(answer.Points, want) || answer.Device != "boiler" || p.link.Counters().Requests-before != requests {
					p.Errorf("%s: %+v, %d requests", c.point, answer, p.link.Counters().Requests-before)
				}
			}
		}
	})
}

func TestACommandThatCanNotBeIsRefusedInWords(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, _ map[int]*modbusslave.Slave) {
		boiler := boiler(p, p.link)
		write := func(point string, v record.Value, o modbus.WriteOptions) func() (*modbus.Command, error) {
			return func() (*modbus.Command, error) { return boiler.Write(point, v, o) }
		}
		for says, make := range map[string]func() (*modbus.Command, error){
			`boiler has no point "setpiont"; of its 10 points, these come closest: setpoint, `: write("setpiont", record.Int(1), modbus.WriteOptions{}),
			`boiler has no point "SETPOINT"; of its 10 points, these come closest: setpoint, `: write("SETPOINT", record.Int(1), modbus.WriteOptions{}),
			"boiler has a point temp in each of the polls fast, slow: write fast/temp":         write("temp", record.Int(1), modbus.WriteOptions{}),
			`flow is read-only: give it access = "rw"`:                                         write("flow", record.Int(1), modbus.WriteOptions{}),
			"sensor can't be written: it is in the table input":                                write("sensor", record.Int(1), modbus.WriteOptions{}),
			"setpoint takes 0 to 90 (its limits), not 90.1":                                    write("setpoint", record.Float64(90.1), modbus.WriteOptions{}),
			"pump takes true or false":                                                         write("pump", record.Int(1), modbus.WriteOptions{}),
			`boiler has no point "nothing"`:                                                    func() (*modbus.Command, error) { return boiler.Read([]string{"flow", "nothing"}) },
		} {
			if command, err := make(); err == nil || command != nil || !strings.Contains(err.Error(), says) {
				p.Errorf("%v does not say %q", err, says)
			}
		}
		if n := p.link.Counters().Requests; n != 0 {
			p.Errorf("%d requests", n)
		}
	})
	link, err := modbus.NewLink(tcp.NewDialer("127.0.0.1:1", nil), modbus.LinkConfig{Framing: modbus.FramingTCP}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := boiler(t, link).Broadcast("pump", record.Bool(true), nil); err == nil || !strings.Contains(err.Error(), "RTU lines only") {
		t.Errorf("a broadcast on TCP: %v", err)
	}
	if _, err := link.Device(modbus.DeviceSpec{ID: "d", Device: device(1), Polls: []modbus.PollPoints{{Poll: "p", Points: ats("coil:0 int16")}}}); err == nil {
		t.Error("a device with a wrong point was made")
	}
}

func TestWhatTheDeviceMadeOfAWriteIsSaid(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		boilerSlave(slaves[1])
		boiler := boiler(p, p.link)
		for says, c := range map[string]struct {
			point  string
			faults []modbusslave.Fault
			is     error
		}{
			"boiler refuses to write fast/temp": {"fast/temp", []modbusslave.Fault{modbusslave.Refuse(3)}, modbus.IllegalValue},
			"can't change single bits":          {"mode", []modbusslave.Fault{modbusslave.Refuse(1)}, modbus.IllegalFunction},
			"is still at it":                    {"energy", []modbusslave.Fault{modbusslave.Refuse(5)}, scheduler.ErrUnknown},
			"gateway target device failed":      {"setpoint", []modbusslave.Fault{modbusslave.Refuse(11)}, os.ErrDeadlineExceeded},
			"fast/temp was written, as the device has confirmed, but not read back": {"fast/temp", []modbusslave.Fault{nil, modbusslave.Dead}, os.ErrDeadlineExceeded},
			"energy was written as 5, as the device has confirmed, and read back as 7": {"energy", []modbusslave.Fault{nil, func(r *modbusslave.Reply) {
				r.PDU[5] = 7
			}}, nil},
		} {
			<-time.After(time.Second) // nothing is late any more
			slaves[1].Next(c.faults...)
			command, err := boiler.Write(c.point, record.Int(5), modbus.WriteOptions{ReadBack: true})
			if err != nil {
				p.Fatal(err)
			}
			if err := p.do(command); err == nil || !strings.Contains(err.Error(), says) || c.is != nil && !errors.Is(err, c.is) {
				p.Errorf("%v does not say %q", err, says)
			}
		}
	})
}

func TestOnlyTheWriteOfACommandCountsAsSent(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		command, err := boiler(p, p.link).Write("fast/temp", record.Int(5), modbus.WriteOptions{ReadBack: true})
		if err != nil {
			p.Fatal(err)
		}
		step := func() (scheduler.Turn, error) {
			turn := scheduler.Turn{Timeout: 300 * time.Millisecond}
			_, err := command.Step(p.Context(), &turn)
			return turn, err
		}
		command.Begin(time.Now())
		slaves[1].Next(modbusslave.Dead)
		sent := time.Now()
		if turn, err := step(); !turn.Sent || !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Errorf("a write without an echo: %+v, %v", turn, err)
		}
		// Its echo may still come, and would confirm what was not done.
		turn, err := step()
		early, ok := errors.AsType[*scheduler.NotYet](err)
		if !ok || turn.Sent || early.Until.Sub(sent) < time.Second {
			p.Fatalf("again at once: %+v, %v", turn, err)
		}
		<-time.After(time.Until(early.Until))
		if turn, err := step(); !turn.Sent || err != nil || turn.Took == 0 {
			p.Errorf("again: %+v, %v", turn, err)
		}
		slaves[1].Next(modbusslave.Dead)
		if turn, err := step(); turn.Sent || !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Errorf("a read-back without an answer: %+v, %v", turn, err)
		}
	})
}

func TestAWriteToAllHasNoAnswerAndGivesThemTime(t *testing.T) {
	onALine(t, []int{1, 2}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		command, err := boiler(p, p.link).Broadcast("fast/temp", record.Int(99), nil)
		if err != nil {
			p.Fatal(err)
		}
		command.Begin(time.Now())
		turn := scheduler.Turn{Timeout: 300 * time.Millisecond}
		if more, err := command.Step(p.Context(), &turn); more || err != nil || !turn.Sent || !turn.Unanswered || turn.Took != 0 {
			p.Errorf("%v, %v, %+v", more, err, turn)
		}
		if command.End(nil); len(command.Answer().Points) != 0 {
			p.Errorf("somebody has answered: %+v", command.Answer())
		}
		if _, err := p.ask(2, p.read(5, 1)); err != nil {
			p.Error(err)
		}
		synctest.Wait()
		if gap := p.talks[1].Began.Sub(p.talks[0].Ended); len(p.talks) != 3 || !near(gap, 100*time.Millisecond) {
			p.Errorf("%d talks, the next after %v", len(p.talks), gap)
		}
		for unit, slave := range slaves {
			if got := slave.Get(modbus.Holding, 5); got != 99 {
				p.Errorf("unit %d has %d", unit, got)
			}
		}
		if c := p.link.Counters(); c.Requests != 2 || c.Replies != 1 || c.Timeouts != 0 {
			p.Errorf("%+v", c)
		}
	})
}

func TestPointsAreReadNow(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		boilerSlave(slaves[1])
		slaves[1].Refuse(modbus.Holding, 0, modbus.IllegalAddress)
		boiler := boiler(p, p.link)
		for names, want := range map[string]string{
			"":                         "flow=exception-2 setpoint=0.2 mode=0 energy=262149 fast/temp=6 label= slow/temp=10 pump=false sensor=21 door=true",
			"slow/temp pump slow/temp": "slow/temp=10 pump=false",
		} {
			command, err := boiler.Read(strings.Fields(names))
			if err != nil {
				p.Fatal(err)
			}
			if err := p.do(command); err != nil {
				p.Error(err)
			}
			var got []string
			for _, point := range command.Answer().Points {
				got = append(got, point.Name+"="+strings.Trim(text(point), "\a\b\t\x00"))
			}
			if strings.Join(got, " ") != want {
				p.Errorf("%q: %v", names, got)
			}
		}
		command, err := boiler.Read([]string{"flow"})
		if err != nil {
			p.Fatal(err)
		}
		if err := p.do(command); err == nil || !strings.Contains(err.Error(), "nothing could be read from boiler: exception 2 (illegal data address)") {
			p.Errorf("nothing but what is refused: %v", err)
		}
	})
}

func TestACommandOnALineThatIsGoneSaysSo(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, _ map[int]*modbusslave.Slave) {
		command, err := boiler(p, p.link).Write("pump", record.Bool(true), modbus.WriteOptions{})
		if err != nil {
			p.Fatal(err)
		}
		p.dialer.(interface{ Unplug() }).Unplug()
		if err := p.do(command); !errors.Is(err, transport.ErrLost) {
			p.Error(err)
		}
	})
}
