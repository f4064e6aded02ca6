package modbus_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestWhatIsNoReplyIsDiscardedAndTheTimeOutGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		fault   modbusslave.Fault
		counted func(modbus.Counters) uint64
	}{
		"the wrong unit":     {modbusslave.WrongUnit, func(c modbus.Counters) uint64 { return c.WrongUnit }},
		"the wrong function": {modbusslave.WrongFunction, func(c modbus.Counters) uint64 { return c.WrongFunction }},
		"the wrong length":   {modbusslave.WrongLength, func(c modbus.Counters) uint64 { return c.WrongLength }},
		"a bad CRC":          {modbusslave.BadCRC, func(c modbus.Counters) uint64 { return c.BadFrame }},
		"half a reply":       {modbusslave.Short, func(c modbus.Counters) uint64 { return c.Short }},
		"a lost byte":        {modbusslave.Drop(0), func(c modbus.Counters) uint64 { return c.BadFrame }},
		"nothing":            {modbusslave.Dead, func(c modbus.Counters) uint64 { return 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			onALine(t, []int{1, 9}, func(p *plant, slaves map[int]*modbusslave.Slave) {
				slaves[1].Next(c.fault)
				start := time.Now()
				if _, err := p.ask(1, p.read(0, 4)); !errors.Is(err, os.ErrDeadlineExceeded) {
					p.Errorf("%v", err)
				}
				if took := time.Since(start); took != 300*time.Millisecond {
					p.Errorf("gave up after %v", took)
				}
				if counters := p.link.Counters(); c.counted(counters) != 1 || counters.Timeouts != 1 || counters.Replies != 0 {
					p.Errorf("%+v", counters)
				}
				if data, err := p.ask(9, p.read(1, 2)); err != nil || !bytes.Equal(data, []byte{0, 2, 0, 3}) {
					p.Errorf("then unit 9: % X %v", data, err)
				}
				<-time.After(time.Second)
				if data, err := p.ask(1, p.read(0, 4)); err != nil || len(data) != 8 {
					p.Errorf("then unit 1: % X %v", data, err)
				}
			})
		})
	}
}

func TestAGoodReplyBehindNoiseOrAnotherReplyIsTaken(t *testing.T) {
	foreign := modbus.AppendRTU(nil, 7, []byte{3, 2, 0, 1})
	for name, noise := range map[string][]byte{
		"a glitch":             {0xFF},
		"noise like a header":  {1, 3, 200, 0, 0, 0, 0},
		"another unit's reply": foreign,
		"a line full of it":    bytes.Repeat([]byte{0x55, 0x03, 0x10}, 30),
	} {
		t.Run(name, func(t *testing.T) {
			onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
				slaves[1].Next(modbusslave.Babble(noise...))
				if data, err := p.ask(1, p.read(0, 2)); err != nil || !bytes.Equal(data, []byte{0, 1, 0, 2}) {
					p.Errorf("% X %v", data, err)
				}
				if c := p.link.Counters(); c.Replies != 1 || c.WrongUnit+c.BadFrame != 1 {
					p.Errorf("%+v", c)
				}
			})
		})
	}
}

func TestARequestThatALateReplyCouldFitWaitsAndOthersGoOn(t *testing.T) {
	onALine(t, []int{1, 2}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Next(modbusslave.Late(1500 * time.Millisecond))
		if _, err := p.ask(1, p.read(0, 2)); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Fatal(err)
		}
		var notYet *scheduler.NotYet
		if _, err := p.ask(1, p.read(4, 2)); !errors.As(err, &notYet) || notYet.Until != p.talks[0].Ended.Add(time.Second) {
			p.Fatalf("the same length elsewhere: %v", err)
		}
		for name, ask := range map[string]func() ([]byte, error){
			"another unit":   func() ([]byte, error) { return p.ask(2, p.read(0, 2)) },
			"another length": func() ([]byte, error) { return p.ask(1, p.read(0, 3)) },
		} {
			if _, err := ask(); err != nil {
				p.Errorf("%s: %v", name, err)
			}
		}
		<-time.After(time.Until(notYet.Until))
		data, err := p.ask(1, p.read(4, 2))
		if err != nil || !bytes.Equal(data, []byte{0, 5, 0, 6}) {
			p.Errorf("after the guard: % X %v", data, err)
		}
	})
}

func TestALateReplyIsNotTakenForTheReplyOfAnother(t *testing.T) {
	onALine(t, []int{1, 2}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		// Unit 1 answers while unit 2, which takes its time, is waited for.
		slaves[1].Next(modbusslave.Late(400 * time.Millisecond))
		slaves[2].Next(modbusslave.Late(200 * time.Millisecond))
		if _, err := p.ask(1, p.read(0, 2)); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Fatal(err)
		}
		if data, err := p.ask(2, p.read(2, 2)); err != nil || !bytes.Equal(data, []byte{0, 3, 0, 4}) {
			p.Errorf("% X %v", data, err)
		}
		if c := p.link.Counters(); c.WrongUnit != 1 {
			p.Errorf("%+v", c)
		}
	})
}

func TestALateExceptionIsNotTakenForTheReplyToAnotherLength(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		late := func(r *modbusslave.Reply) {
			modbusslave.Refuse(4)(r)
			modbusslave.Late(400 * time.Millisecond)(r)
		}
		slaves[1].Next(late, modbusslave.Late(200*time.Millisecond))
		if _, err := p.ask(1, p.read(0, 2)); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Fatal(err)
		}
		if data, err := p.ask(1, p.read(0, 3)); err != nil || len(data) != 6 {
			p.Errorf("% X %v", data, err)
		}
		if c := p.link.Counters(); c.Late != 1 || c.Exceptions != 0 {
			p.Errorf("%+v", c)
		}
	})
}

func TestALateReplyBetweenTwoRequestsIsDropped(t *testing.T) {
	onALine(t, []int{1, 2}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Next(modbusslave.Late(320 * time.Millisecond))
		if _, err := p.ask(1, p.read(0, 2)); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
		if data, err := p.ask(2, p.read(2, 2)); err != nil || !bytes.Equal(data, []byte{0, 3, 0, 4}) {
			p.Errorf("% X %v", data, err)
		}
		if c := p.link.Counters(); c.Late != 1 || p.line.Collisions() != 0 {
			p.Errorf("%+v, %d collisions", c, p.line.Collisions())
		}
	})
}

func TestARequestWaitsForSilenceOnTheLine(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, _ map[int]*modbusslave.Slave) {
		babbler := p.line.Attach("babbler", deaf{})
		babbler.Say(make([]byte, 20))
		if _, err := p.ask(1, p.read(0, 2)); err != nil {
			p.Error(err)
		}
		if _, err := p.ask(1, p.read(0, 2)); err != nil {
			p.Error(err)
		}
		synctest.Wait()
		for i := 1; i < len(p.talks); i++ {
			if gap := p.talks[i].Began.Sub(p.talks[i-1].Ended); gap < p.line.Silence() {
				p.Errorf("%s began %v after %s, the silence is %v", p.talks[i].Who, gap, p.talks[i-1].Who, p.line.Silence())
			}
		}
		if len(p.talks) != 5 || p.line.Collisions() != 0 {
			p.Errorf("%d talks, %d collisions", len(p.talks), p.line.Collisions())
		}
	})
}

// deaf is a station that only speaks.
type deaf struct{}

func (deaf) Hear([]byte)     {}
func (deaf) Quiet(time.Time) {}

func TestALineThatIsNeverQuietIsSpokenOnInTheEnd(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, _ map[int]*modbusslave.Slave) {
		p.line.Attach("babbler", deaf{}).Say(make([]byte, 1000))
		start := time.Now()
		if _, err := p.ask(1, p.read(0, 2)); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Error(err)
		}
		if p.line.Collisions() != 1 || time.Since(start) != 300*time.Millisecond {
			p.Errorf("%d collisions, %v", p.line.Collisions(), time.Since(start))
		}
	})
}

func TestARequestThatWritesIsSentOnce(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Set(modbus.Coil, 0, 0, 0, 0)
		check := func(r modbus.Request, err error) []byte {
			if err != nil {
				p.Fatal(err)
			}
			data, err := p.ask(1, r)
			if err != nil {
				p.Errorf("%v: %v", r, err)
			}
			return data
		}
		check(modbus.WriteCoil(0, true))
		check(modbus.WriteCoils(1, []bool{true, true}))
		check(modbus.WriteRegister(0, 77))
		check(modbus.WriteRegisters(1, []uint16{88, 99}))
		data := check(modbus.ReadWriteRegisters(2, 2, 3, []uint16{111}))
		if !bytes.Equal(data, []byte{0, 99, 0, 111}) {
			p.Errorf("read % X", data)
		}
		for address, want := range []uint16{77, 88, 99, 111} {
			if got := slaves[1].Get(modbus.Holding, address); got != want {
				p.Errorf("holding:%d is %d", address, got)
			}
		}
		for address := range 3 {
			if slaves[1].Get(modbus.Coil, address) != 1 {
				p.Errorf("coil:%d is off", address)
			}
		}

		before := p.link.Counters().Requests
		slaves[1].Next(modbusslave.Dead)
		r, _ := modbus.WriteRegister(0, 1)
		if _, err := p.ask(1, r); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Errorf("unanswered: %v", err)
		}
		if slaves[1].Get(modbus.Holding, 0) != 1 || p.link.Counters().Requests != before+1 {
			p.Error("it was not sent once")
		}
		slaves[1].Refuse(modbus.Holding, 9, modbus.DeviceBusy)
		r, _ = modbus.WriteRegister(9, 1)
		<-time.After(time.Second)
		if _, err := p.ask(1, r); !errors.Is(err, modbus.DeviceBusy) {
			p.Errorf("refused: %v", err)
		}
	})
}

func TestAFailedWriteTakesTheLineDown(t *testing.T) {
	stuck := func(d transport.Dialer) transport.Dialer {
		return transporttest.FaultyDialer{Dialer: d, Faults: transporttest.Faults{Write: transporttest.Nth(0, transporttest.Fate{Delay: time.Hour})}}
	}
	onALineWith(t, []int{1}, stuck, func(p *plant, _ map[int]*modbusslave.Slave) {
		start := time.Now()
		turn := scheduler.Turn{Timeout: 300 * time.Millisecond}
		_, err := p.poll(1, new(sink), at("holding:0 uint16")).Step(p.Context(), &turn)
		if !errors.Is(err, transport.ErrLost) || errors.Is(err, os.ErrDeadlineExceeded) || !turn.Sent {
			p.Errorf("%v, %+v", err, turn)
		}
		if took := time.Since(start); took > 2*time.Second {
			p.Errorf("it took %v", took)
		}
		if err := p.link.Close(); err != nil {
			p.Error(err)
		}
		if _, err := p.ask(1, p.read(0, 1)); !errors.Is(err, net.ErrClosed) {
			p.Error(err)
		}
	})
}

func TestUnitsThatNobodyHasOnASerialLineAreNotAsked(t *testing.T) {
	onALine(t, nil, func(p *plant, _ map[int]*modbusslave.Slave) {
		for _, unit := range []int{-1, 0, 248, 256} {
			if _, err := p.ask(unit, p.read(0, 1)); err == nil || p.link.Counters().Requests != 0 {
				p.Errorf("unit %d: %v", unit, err)
			}
		}
	})
}
