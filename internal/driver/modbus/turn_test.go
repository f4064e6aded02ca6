package modbus_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/internal/sim/modbusslave"
	"github.com/mcp-edge/edge-agent/scheduler"
)

// step does one step of a poll that reads count registers of unit 1 from first on.
func (p *plant) step(first, count int, turn *scheduler.Turn) error {
	p.Helper()
	points := ats("holding:0 uint16")[:0]
	for i := range count {
		points = append(points, at("holding:"+string(rune('0'+first+i))+" uint16"))
	}
	poll := p.poll(1, new(sink), points...)
	poll.Begin(time.Now())
	_, err := poll.Step(p.Context(), turn)
	return err
}

// near tells whether two durations are the same but for rounding.
func near(a, b time.Duration) bool { return (a - b).Abs() < 10*time.Microsecond }

func TestATurnSaysHowLongTheDeviceTook(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		for _, count := range []int{1, 9} {
			turn := scheduler.Turn{Timeout: 300 * time.Millisecond}
			if err := p.step(0, count, &turn); err != nil {
				p.Error(err)
			}
			if want := answerTime + p.line.Silence(); !turn.Sent || !near(turn.Took, want) || turn.Garbled != 0 {
				p.Errorf("%d registers: %+v, it took %v", count, turn, want)
			}
		}
		slaves[1].Next(modbusslave.BadCRC)
		turn := scheduler.Turn{Timeout: 300 * time.Millisecond}
		if err := p.step(0, 1, &turn); !errors.Is(err, os.ErrDeadlineExceeded) || turn.Garbled != 1 || turn.Foreign != 0 || turn.Took != 0 || !turn.Sent {
			p.Errorf("a bad CRC: %+v, %v", turn, err)
		}
		for name, fault := range map[string]modbusslave.Fault{
			"another unit": modbusslave.WrongUnit, "another function": modbusslave.WrongFunction, "another length": modbusslave.WrongLength,
		} {
			<-time.After(time.Second) // nothing is late any more
			slaves[1].Next(fault)
			turn := scheduler.Turn{Timeout: 300 * time.Millisecond}
			if err := p.step(0, 1, &turn); !errors.Is(err, os.ErrDeadlineExceeded) || turn.Garbled != 0 || turn.Foreign != 1 {
				p.Errorf("%s: %+v, %v", name, turn, err)
			}
		}
	})
}

func TestTheTimeOutCountsFromTheRequestsEndUntilTheAnswersBeginning(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		// At 9600 baud the request takes 9 ms, and the answer 28 ms.
		slaves[1].Next(modbusslave.Late(20*time.Millisecond - p.line.Silence() - time.Microsecond))
		if err := p.step(0, 9, &scheduler.Turn{Timeout: 20 * time.Millisecond}); err != nil {
			p.Errorf("an answer that begins just within the time-out: %v", err)
		}
		slaves[1].Next(modbusslave.Dead)
		start := time.Now()
		err := p.step(0, 9, &scheduler.Turn{Timeout: 20 * time.Millisecond})
		want := p.line.Silence() + 8*p.line.CharTime() + 20*time.Millisecond + 23*p.line.CharTime()
		if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || !near(took, want) {
			p.Errorf("%v after %v, not %v", err, took, want)
		}
	})
}

func TestALineThatIsQuietAlreadyIsSpokenOnAtOnce(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, _ map[int]*modbusslave.Slave) {
		for range 2 {
			<-time.After(time.Second)
			start := time.Now()
			if err := p.step(0, 1, &scheduler.Turn{Timeout: 300 * time.Millisecond}); err != nil {
				p.Error(err)
			}
			synctest.Wait()
			if waited := p.talks[len(p.talks)-2].Began.Sub(start); waited > 300*time.Microsecond {
				p.Errorf("waited %v", waited)
			}
		}
	})
}

func TestWhatCameWhileNobodyListenedIsWaitedOut(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, _ map[int]*modbusslave.Slave) {
		<-time.After(time.Second)
		babbler := p.line.Attach("babbler", deaf{})
		babbler.Say([]byte{1, 3, 2, 0, 7})
		<-time.After(5*p.line.CharTime() + time.Millisecond)
		if err := p.step(0, 1, &scheduler.Turn{Timeout: 300 * time.Millisecond}); err != nil {
			p.Error(err)
		}
		synctest.Wait()
		if gap := p.talks[1].Began.Sub(p.talks[0].Ended); gap < p.line.Silence() || gap > p.line.Silence()+time.Millisecond {
			p.Errorf("spoke %v after the last character", gap)
		}
	})
}

func TestASlowDeviceGetsItsGapAndTheOthersDoNot(t *testing.T) {
	onALine(t, []int{1, 2}, func(p *plant, _ map[int]*modbusslave.Slave) {
		const gap = 30 * time.Millisecond
		slow := device(1)
		slow.Gap = gap
		var polls []*modbus.Poll
		for _, d := range []modbus.DeviceConfig{device(2), slow, device(2), slow} {
			poll, err := p.link.Poll(modbus.PollConfig{ID: "d", Name: "p", Device: d, Points: ats("holding:0 uint16")}, new(sink), clock)
			if err != nil {
				p.Fatal(err)
			}
			polls = append(polls, poll)
		}
		for _, poll := range polls {
			p.round(poll)
		}
		synctest.Wait()
		for i, want := range []time.Duration{0, gap, 0, gap} {
			if i == 0 {
				continue
			}
			request, before := p.talks[2*i], p.talks[2*i-1]
			if got := request.Began.Sub(before.Ended) - p.line.Silence(); !near(got, want) {
				p.Errorf("request %d came %v after the silence, not %v", i, got, want)
			}
		}
	})
}

func TestOnceTheLateReplyHasComeNobodyWaitsForIt(t *testing.T) {
	onALine(t, []int{1, 2}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Next(modbusslave.Late(400 * time.Millisecond))
		if _, err := p.ask(1, p.read(0, 2)); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Fatal(err)
		}
		var notYet *scheduler.NotYet
		if _, err := p.ask(1, p.read(2, 2)); !errors.As(err, &notYet) {
			p.Fatal(err)
		}
		slaves[2].Next(modbusslave.Late(200 * time.Millisecond)) // meanwhile it comes
		if _, err := p.ask(2, p.read(0, 2)); err != nil {
			p.Error(err)
		}
		if _, err := p.ask(1, p.read(2, 2)); err != nil {
			p.Errorf("after it has come: %v", err)
		}
	})
}

func TestAGarbledAnswerIsAskedForAgainAtOnce(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		for name, fault := range map[string]modbusslave.Fault{"a bad CRC": modbusslave.BadCRC, "half of it": modbusslave.Short} {
			slaves[1].Next(fault)
			if err := p.step(0, 2, &scheduler.Turn{Timeout: 100 * time.Millisecond}); !errors.Is(err, os.ErrDeadlineExceeded) {
				p.Fatal(err)
			}
			var notYet *scheduler.NotYet
			if err := p.step(4, 2, &scheduler.Turn{Timeout: 100 * time.Millisecond}); !errors.As(err, &notYet) {
				p.Errorf("%s: the same length elsewhere: %v", name, err)
			}
			turn := scheduler.Turn{Timeout: 100 * time.Millisecond}
			if err := p.step(0, 2, &turn); err != nil || turn.Took != 0 {
				p.Errorf("%s: the same again: %v, %+v", name, err, turn)
			}
			<-time.After(time.Second)
		}
	})
}

func TestAStepEndsWithItsContext(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Always(modbusslave.Dead)
		ctx, cancel := context.WithCancel(p.Context())
		poll := p.poll(1, new(sink), at("holding:0 uint16"))
		start := time.Now()
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := poll.Step(ctx, &scheduler.Turn{Timeout: time.Minute}); !errors.Is(err, context.Canceled) || time.Since(start) != 100*time.Millisecond {
			p.Errorf("%v after %v", err, time.Since(start))
		}
		slaves[1].Always(nil)
		<-time.After(2 * time.Minute)
		if _, err := poll.Step(ctx, &scheduler.Turn{Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
			p.Errorf("afterwards: %v", err)
		}
		if _, err := poll.Step(p.Context(), &scheduler.Turn{Timeout: time.Minute}); err != nil {
			p.Errorf("under another: %v", err)
		}
	})
}

func TestTheEndOfAnEarlierContextInterruptsNobody(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		if _, err := p.ask(1, p.read(0, 2)); err != nil { // its context ends when it returns
			p.Fatal(err)
		}
		slaves[1].Next(modbusslave.Late(100 * time.Millisecond))
		if err := p.step(0, 1, &scheduler.Turn{Timeout: 300 * time.Millisecond}); err != nil {
			p.Error(err)
		}
	})
}

func TestLoadIsTheLineTimeOfARoundWithoutTheAnswerTimes(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, slaves map[int]*modbusslave.Slave) {
		slaves[1].Set(modbus.Coil, 0, make([]uint16, 20)...)
		cfg := device(1)
		cfg.Gap = 7 * time.Millisecond
		points := ats("holding:0 uint16", "holding:1 float32", "holding:8 uint16", "coil:0", "coil:19")
		cfg.MaxGap = 2
		poll, err := p.link.Poll(modbus.PollConfig{ID: "d", Name: "p", Device: cfg, Points: points}, new(sink), clock)
		if err != nil {
			p.Fatal(err)
		}
		p.round(poll)
		start := time.Now()
		p.round(poll)
		round, requests := modbus.Load(modbus.LinkConfig{Framing: modbus.FramingRTU}, cfg, points, p.line.CharTime())
		if took := time.Since(start) - time.Duration(requests)*answerTime; requests != 3 || !near(took, round) {
			p.Errorf("%v for %d requests, on the line %v", round, requests, took)
		}
		if round, requests := modbus.Load(modbus.LinkConfig{Framing: modbus.FramingTCP}, cfg, points, 0); round != 3*cfg.Gap || requests != 3 {
			p.Errorf("on TCP %v, %d", round, requests)
		}
		if round, requests := modbus.Load(modbus.LinkConfig{}, cfg, ats("holding:x int16", "holding:1"), 0); round != 0 || requests != 0 {
			p.Errorf("of what is wrong %v, %d", round, requests)
		}
	})
}

func TestAReadingThatFindsNoRoomIsDeliveredByAWorker(t *testing.T) {
	onALine(t, []int{1}, func(p *plant, _ map[int]*modbusslave.Slave) {
		s := sink{full: true}
		poll := p.poll(1, &s, at("holding:0 uint16"))
		poll.Begin(time.Now())
		if _, err := poll.Step(p.Context(), &scheduler.Turn{Timeout: time.Second}); err != nil {
			p.Fatal(err)
		}
		work := poll.End(nil)
		poll.Begin(time.Now()) // the next round has begun when the worker comes
		if work == nil || len(s.records) != 0 {
			p.Fatal("there is no work")
		}
		work(p.Context())
		if s.last() != "good 1" {
			p.Error(s.last())
		}
	})
}
