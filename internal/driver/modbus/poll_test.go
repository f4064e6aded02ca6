package modbus_test

import (
	"context"
	"errors"
	"fmt"
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
)

// at is a point with the configuration's defaults: "holding:0 float32".
func at(what string) modbus.PointConfig {
	address, kind, _ := strings.Cut(what, " ")
	return modbus.PointConfig{
		Name: strings.ReplaceAll(address, ":", "-"), Address: address, Type: kind,
		Order: "ABCD", Scale: 1, Width: 1, Access: "r",
	}
}

func ats(whats ...string) (points []modbus.PointConfig) {
	for _, what := range whats {
		points = append(points, at(what))
	}
	return points
}

func device(unit int) modbus.DeviceConfig {
	return modbus.DeviceConfig{Unit: unit, MaxRegisters: 125, MaxBits: 2000}
}

func (p *plant) poll(unit int, s modbus.Sink, points ...modbus.PointConfig) *modbus.Poll {
	poll, err := p.link.Poll(modbus.PollConfig{ID: fmt.Sprint("d", unit), Name: "temps", Device: device(unit), Points: points}, s, clock)
	if err != nil {
		p.Fatal(err)
	}
	return poll
}

// round does what the lane does with a poll, without retries.
func (p *plant) round(poll *modbus.Poll) {
	poll.Begin(time.Now())
	var err error
	for more := true; more && err == nil; {
		more, err = poll.Step(p.Context(), &scheduler.Turn{Timeout: 300 * time.Millisecond})
		if early, ok := errors.AsType[*scheduler.NotYet](err); ok {
			<-time.After(time.Until(early.Until))
			more, err = true, nil
		}
	}
	if work := poll.End(err); work != nil {
		work(p.Context())
	}
}

// last shows the points of the record that came last.
func (s *sink) last() string {
	r := s.records[len(s.records)-1]
	var list []string
	for _, p := range r.Points {
		if n, ok := p.Value.Uint(); ok {
			list = append(list, fmt.Sprint(n))
		} else {
			list = append(list, p.Bad)
		}
	}
	return fmt.Sprintf("%v %s", []string{"good", "partial", "bad"}[r.Quality], strings.Join(list, " "))
}

func TestARoundIsOneRecordWithAllPointsInTheirOrder(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Set(modbus.Input, 100, 0x41A8, 0xCCCD)
		slaves[1].Set(modbus.Coil, 5, 1)
		var s sink
		temperature := at("input:100 float32")
		temperature.Unit = "°C"
		poll := p.poll(1, &s, at("holding:1 uint16"), temperature, at("coil:5"), at("holding:0 int16"))
		p.round(poll)
		if len(s.records) != 1 {
			p.Fatalf("%d records", len(s.records))
		}
		r := s.records[0]
		want := []record.Point{
			{Name: "holding-1", Value: record.Uint(2)},
			{Name: "input-100", Value: record.Float32(21.1), Unit: "°C"},
			{Name: "coil-5", Value: record.Bool(true)},
			{Name: "holding-0", Value: record.Int(1)},
		}
		if !slices.Equal(r.Points, want) || r.Device != "d1" || r.Stream != "temps" || r.Quality != record.Good || r.Clock != record.ClockSynced {
			p.Errorf("%+v", r)
		}
		if p.link.Counters().Requests != 3 {
			p.Errorf("%d requests for three tables", p.link.Counters().Requests)
		}
		synctest.Wait()
		if reply := p.talks[len(p.talks)-1]; r.Time != reply.Ended {
			p.Errorf("time %v, the last answer came at %v", r.Time, reply.Ended)
		}
	})
}

func TestARefusedReadIsHalvedUntilTheBadPointStandsAlone(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Refuse(modbus.Holding, 5, modbus.IllegalAddress)
		var points []modbus.PointConfig
		for i := range 8 {
			points = append(points, at(fmt.Sprintf("holding:%d uint16", i)))
		}
		var s sink
		poll := p.poll(1, &s, points...)
		requests := func() uint64 {
			before := p.link.Counters().Requests
			p.round(poll)
			return p.link.Counters().Requests - before
		}
		const want = "partial 1 2 3 4 5 exception-2 7 8"
		if n := requests(); n != 7 || s.last() != want {
			p.Errorf("first round: %d requests, %s", n, s.last())
		}
		if n := requests(); n != 4 || s.last() != want {
			p.Errorf("the split is not remembered: %d requests, %s", n, s.last())
		}
		slaves[1].Refuse(modbus.Holding, 5, 0)
		if n := requests(); n != 4 || s.last() != "good 1 2 3 4 5 6 7 8" {
			p.Errorf("once the point is back: %d requests, %s", n, s.last())
		}
		<-time.After(10 * time.Minute)
		if n := requests(); n != 1 || s.last() != "good 1 2 3 4 5 6 7 8" {
			p.Errorf("not merged again: %d requests, %s", n, s.last())
		}

		slaves[1].Refuse(modbus.Holding, 0, modbus.DeviceFailure)
		requests()
		if err := errors.Join(p.link.Close(), p.link.Open(p.Context())); err != nil {
			p.Fatal(err)
		}
		slaves[1].Refuse(modbus.Holding, 0, 0)
		if n := requests(); n != 1 {
			p.Errorf("on a line opened anew: %d requests", n)
		}
	})
}

func TestAnUnwantedRegisterBetweenPointsCostsNoPoint(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Refuse(modbus.Holding, 2, modbus.IllegalAddress)
		var s sink
		slave := device(1)
		slave.MaxGap = 3
		poll, err := p.link.Poll(modbus.PollConfig{ID: "d", Name: "p", Device: slave, Points: ats("holding:0 uint16", "holding:4 uint16")}, &s, clock)
		if err != nil {
			p.Fatal(err)
		}
		p.round(poll)
		p.round(poll)
		if s.last() != "good 1 5" || p.link.Counters().Requests != 5 {
			p.Errorf("%s with %d requests", s.last(), p.link.Counters().Requests)
		}
	})
}

func TestAnExceptionThatConcernsTheDeviceSplitsNothing(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		var s sink
		poll := p.poll(1, &s, ats("holding:0 uint16", "holding:1 uint16")...)
		for _, code := range []modbus.Exception{modbus.IllegalFunction, modbus.DeviceBusy, modbus.GatewayNoAnswer} {
			before := p.link.Counters().Requests
			slaves[1].Next(modbusslave.Refuse(byte(code)))
			p.round(poll)
			if want := fmt.Sprintf("bad %s %[1]s", code.Reason()); s.last() != want || p.link.Counters().Requests != before+1 {
				p.Errorf("%v: %s, %d requests", code, s.last(), p.link.Counters().Requests-before)
			}
		}
	})
}

func TestASilentDeviceBehindAGatewayCountsAsSilent(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Always(modbusslave.Refuse(byte(modbus.GatewayNoAnswer)))
		var s sink
		lane := p.lane(p.poll(1, &s, at("holding:0 uint16")))
		p.run(lane, 30*time.Second)
		if st := lane.Status(); !st.Devices[0].Silent || s.last() != "bad exception-11" {
			p.Errorf("%+v, %s", st, s.last())
		}
	})
}

// lane polls each of polls every second, with a time-out of 300 ms.
func (p *plant) lane(polls ...*modbus.Poll) *scheduler.Lane {
	var list []scheduler.Poll
	for i, poll := range polls {
		list = append(list, scheduler.Poll{
			Device: fmt.Sprint("d", i), Name: "temps", Every: time.Second, Task: poll,
		})
	}
	lane, err := scheduler.NewLane("line", p.link, list, scheduler.Config{Timeout: 300 * time.Millisecond, RetryCount: 3}, scheduler.NewShared(scheduler.SharedConfig{}), quiet)
	if err != nil {
		p.Fatal(err)
	}
	return lane
}

func (p *plant) run(lane *scheduler.Lane, d time.Duration) {
	_ = p.link.Close() // the lane opens it
	ctx, cancel := context.WithTimeout(p.Context(), d)
	defer cancel()
	if err := lane.Run(ctx); err != nil {
		p.Error(err)
	}
}

func TestReasonsSayWhyPointsWereNotRead(t *testing.T) {
	onALine(t, nil, func(p *plant, _ map[int]*modbusslave.Slave) {
		for err, want := range map[error]string{
			context.DeadlineExceeded:                        record.BadTimeout,
			scheduler.ErrSilent:                             record.BadTimeout,
			scheduler.ErrLinkDown:                           record.BadLinkDown,
			transport.Lost(nil):                             record.BadLinkDown,
			fmt.Errorf("asking: %w", modbus.IllegalAddress): "exception-2",
		} {
			var s sink
			poll := p.poll(1, &s, ats("holding:0 uint16", "coil:1")...)
			poll.Begin(time.Now())
			poll.End(err)
			if s.last() != "bad "+want+" "+want || s.records[0].Time != time.Now() {
				p.Errorf("%v: %s", err, s.last())
			}
		}
	})
}

func TestWhatWasReadBeforeATimeOutIsDelivered(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Next(nil, modbusslave.Dead)
		var s sink
		p.round(p.poll(1, &s, ats("holding:0 uint16", "holding:5 uint16")...))
		if s.last() != "partial 1 timeout" {
			p.Error(s.last())
		}
	})
}

func TestADeadSlaveCostsItsNeighboursNothingAndEachAnswerBecomesARecord(t *testing.T) {
	onALine(t, []int{1, 2, 3}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[2].Always(modbusslave.Dead)
		slaves[3].Next(nil, modbusslave.BadCRC, nil, nil, modbusslave.WrongUnit, nil, modbusslave.Late(500*time.Millisecond))
		var sinks [3]sink
		var polls []*modbus.Poll
		for i, unit := range []int{1, 2, 3} {
			slaves[unit].Number(modbus.Input, 0)
			polls = append(polls, p.poll(unit, &sinks[i], at("input:0 uint32")))
		}
		p.run(p.lane(polls...), 60*time.Second)

		if n := len(sinks[0].records); n < 60 {
			p.Errorf("unit 1: %d records in a minute", n)
		}
		for i, r := range sinks[0].records {
			if n, _ := r.Points[0].Value.Uint(); n != uint64(i+1) {
				p.Errorf("unit 1: record %d has the number %d", i+1, n)
			}
		}
		if sinks[1].last() != "bad timeout" {
			p.Errorf("unit 2: %s", sinks[1].last())
		}
		if n := len(sinks[2].records); n < 55 {
			p.Errorf("unit 3: %d records in a minute", n)
		}
		bad := 0 // the rounds that a fault befell, where the lane found no time to try again
		for i, r := range sinks[2].records {
			if r.Quality == record.Good {
				continue
			}
			if bad++; r.Points[0].Bad != record.BadTimeout {
				p.Errorf("unit 3: record %d is %+v", i, r)
			}
		}
		if bad > 3 {
			p.Errorf("unit 3: %d rounds without an answer, for three faults", bad)
		}
		if p.line.Collisions() != 0 {
			p.Errorf("%d collisions", p.line.Collisions())
		}
	})
}

func TestAPollThatCanNotBeIsRefusedWithEveryMistake(t *testing.T) {
	onALine(t, nil, func(p *plant, _ map[int]*modbusslave.Slave) {
		_, err := p.link.Poll(modbus.PollConfig{ID: "d", Name: "p", Device: device(248), Points: ats("coil:1 int16", "holding:x uint16")}, nil, clock)
		for _, want := range []string{"poll p of device d", "unit: 248", "points[0].type", "points[1].address"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				p.Errorf("%v does not say %q", err, want)
			}
		}
		if _, err := p.link.Poll(modbus.PollConfig{ID: "d", Name: "p", Device: device(1)}, nil, clock); err == nil {
			p.Error("a poll without points was made")
		}
	})
}
