package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

// server is the other end of a link, in memory.
type server struct {
	conn     transport.Conn
	faults   transporttest.Faults // of the link's end
	requests chan []byte
	reading  sync.WaitGroup
}

// Dial implements transport.Dialer.
func (s *server) Dial(_ context.Context, f transport.Framer) (transport.Conn, error) {
	near, far := transporttest.Pipe(f, new(mbap))
	s.conn, s.requests = far, make(chan []byte, 100)
	s.reading.Go(func() {
		for {
			msg, err := far.Read()
			if err != nil {
				return
			}
			s.requests <- bytes.Clone(msg)
		}
	})
	return transporttest.NewFaulty(near, s.faults), nil
}

func (s *server) Endpoint() string { return "memory" }

// say sends a frame.
func (s *server) say(number uint16, unit byte, pdu []byte) {
	_ = s.conn.Write(AppendMBAP(nil, number, unit, pdu))
}

// pipelined plays with a link to a server that takes several transactions at a
// time.
func pipelined(t testing.TB, faults transporttest.Faults, transactions int, play func(l *Link, s *server)) {
	t.Helper()
	s := &server{faults: faults}
	link, err := NewLink(s, LinkConfig{Framing: FramingTCP, Transactions: transactions}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	play(link, s)
	_ = link.Close()
	_ = s.conn.Close()
	s.reading.Wait()
}

// outcome is what became of a transaction.
type outcome struct {
	data []byte
	turn scheduler.Turn
	err  error
}

// begin asks for n registers at addresses of their own, each with a transaction.
func begin(ctx context.Context, l *Link, n int) (outcomes []outcome, done *sync.WaitGroup) {
	outcomes, done = make([]outcome, n), new(sync.WaitGroup)
	for i := range outcomes {
		done.Go(func() {
			o := &outcomes[i]
			o.turn.Timeout = time.Second
			o.data, o.err = l.transact(ctx, &o.turn, station{unit: byte(1 + i%3)}, must(Read(Holding, i, 1)))
		})
	}
	return outcomes, done
}

// fates are what the server makes of a request.
var fates = []string{"good", "twice", "refused", "silent", "foreign", "other length", "other number"}

// answer is what the server does with a request, by its fate. It returns how
// many frames it has sent that are no use.
func (s *server) answer(asked []byte, fate string) (junk uint64) {
	number, unit, address := binary.BigEndian.Uint16(asked), asked[6], asked[9]
	good, other := []byte{3, 2, 0xAB, address}, []byte{3, 2, 0xFF, 0xFF}
	switch fate {
	case "good":
		s.say(number, unit, good)
		return 0
	case "refused":
		s.say(number, unit, []byte{0x83, 4})
		return 0
	case "silent":
		return 0
	case "twice":
		s.say(number, unit, good)
		s.say(number, unit, other)
		return 1
	case "foreign":
		s.say(number, unit+1, other)
	case "other length":
		s.say(number, unit, []byte{3, 4, 0xFF, 0xFF, 0xFF, 0xFF})
	case "other number":
		s.say(number+1000, unit, other)
	}
	s.say(number, unit, good)
	return 1
}

func TestEachTransactionGetsItsOwnReplyWhateverTheOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		atATime := rapid.IntRange(2, 5).Draw(rt, "at a time")
		fateOf := rapid.SliceOfN(rapid.SampledFrom(fates), 1, 12).Draw(rt, "fates")
		order := rapid.SliceOfN(rapid.IntRange(0, 4), len(fateOf), len(fateOf)).Draw(rt, "order")
		var problems []string
		synctest.Test(t, func(t *testing.T) {
			pipelined(t, transporttest.Faults{}, atATime, func(l *Link, s *server) {
				problems = shuffled(l, s, fateOf, order)
			})
		})
		if len(problems) > 0 {
			rt.Fatal(strings.Join(problems, "\n"))
		}
	})
}

// shuffled asks for one register for each fate, has the server answer in the
// given order, and says what went wrong.
func shuffled(l *Link, s *server, fateOf []string, order []int) (problems []string) {
	outcomes, done := begin(context.Background(), l, len(fateOf))
	var pending [][]byte
	var late []uint16 // numbers that time out
	var junk uint64
	for len(order) > 0 {
		for synctest.Wait(); len(s.requests) > 0; {
			pending = append(pending, <-s.requests)
		}
		if len(pending) == 0 { // what is on its way is never answered
			<-time.After(time.Second)
			continue
		}
		i := order[0] % len(pending)
		asked := pending[i]
		order, pending = order[1:], slices.Delete(pending, i, i+1)
		fate := fateOf[asked[9]]
		junk += s.answer(asked, fate)
		if fate == "silent" {
			late = append(late, binary.BigEndian.Uint16(asked))
		}
	}
	done.Wait()
	for _, number := range late {
		s.say(number, 1, []byte{3, 2, 0xFF, 0xFF})
	}
	synctest.Wait()

	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for address, o := range outcomes {
		_, refused := errors.AsType[Exception](o.err)
		timedOut := errors.Is(o.err, os.ErrDeadlineExceeded)
		fate := fateOf[address]
		switch {
		case o.turn.Garbled != 0, slices.Contains([]string{"foreign", "other length"}, fate) && o.turn.Foreign == 0:
			wrong("%s: %+v", fate, o.turn)
		case !o.turn.Sent, refused != (fate == "refused"), timedOut != (fate == "silent"), (o.turn.Took > 0) == timedOut:
			wrong("%s: %v, %+v", fate, o.err, o.turn)
		case o.err == nil && !bytes.Equal(o.data, []byte{0xAB, byte(address)}):
			wrong("%d got % X", address, o.data)
		}
	}
	c := l.Counters()
	if c.WrongUnit+c.WrongLength+c.WrongTransaction != junk+uint64(len(late)) || c.Timeouts != uint64(len(late)) || c.Requests != uint64(len(fateOf)) {
		wrong("%d of no use, %d silent, %d asked: %+v", junk, len(late), len(fateOf), c)
	}
	if p := l.line.(*pipeline); len(p.free) != cap(p.free) || len(p.waiting) != 0 {
		wrong("%d of %d are free, %d waited for", len(p.free), cap(p.free), len(p.waiting))
	}
	return problems
}

func TestWhateverEndsALineEndsAllThatIsUnderWay(t *testing.T) {
	lost, cancelled := transport.ErrLost, context.Canceled
	for name, c := range map[string]struct {
		faults transporttest.Faults
		end    func(s *server, cancel context.CancelFunc)
		want   error
	}{
		"the peer closes":    {end: func(s *server, _ context.CancelFunc) { _ = s.conn.Close() }, want: lost},
		"the context":        {end: func(_ *server, cancel context.CancelFunc) { cancel() }, want: cancelled},
		"a broken header":    {end: func(s *server, _ context.CancelFunc) { _ = s.conn.Write(bytes.Repeat([]byte{0xFF}, 20)) }, want: lost},
		"nothing is written": {faults: transporttest.Faults{Write: transporttest.Nth(1, transporttest.Fate{Delay: time.Hour})}, want: lost},
		"the context while nothing is written": {
			faults: transporttest.Faults{Write: transporttest.Nth(0, transporttest.Fate{Delay: time.Hour})},
			end:    func(_ *server, cancel context.CancelFunc) { cancel() }, want: cancelled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pipelined(t, c.faults, 4, func(l *Link, s *server) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					start := time.Now()
					outcomes, done := begin(ctx, l, 6)
					synctest.Wait()
					if c.end != nil {
						c.end(s, cancel)
					}
					done.Wait()
					for i, o := range outcomes {
						if silent := errors.Is(o.err, os.ErrDeadlineExceeded) && c.end == nil; !errors.Is(o.err, c.want) && !silent {
							t.Errorf("%d: %v", i, o.err)
						}
					}
					if took := time.Since(start); took > 2*time.Second || c.end != nil && took > 0 {
						t.Errorf("it took %v", took)
					}
					select {
					case <-l.Lost():
					default:
						if errors.Is(c.want, lost) {
							t.Error("the link does not know")
						}
					}
				})
			})
		})
	}
}

func TestADeviceBehindOthersGetsItsGapToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipelined(t, transporttest.Faults{}, 2, func(l *Link, s *server) {
			slow := station{unit: 1, gap: 50 * time.Millisecond}
			ask := func(at station) error {
				var turn scheduler.Turn
				turn.Timeout = time.Second
				var answering sync.WaitGroup
				answering.Go(func() {
					select {
					case asked := <-s.requests:
						s.say(binary.BigEndian.Uint16(asked), asked[6], []byte{3, 2, 0, 1})
					case <-time.After(time.Millisecond):
					}
				})
				defer answering.Wait()
				_, err := l.transact(t.Context(), &turn, at, must(Read(Holding, 0, 1)))
				return err
			}
			start := time.Now()
			if err := ask(slow); err != nil {
				t.Fatal(err)
			}
			early, ok := errors.AsType[*scheduler.NotYet](ask(slow))
			if !ok || !early.Until.Equal(start.Add(slow.gap)) {
				t.Fatalf("asked again: %v", early)
			}
			if err := ask(station{unit: 2}); err != nil {
				t.Errorf("another: %v", err)
			}
			<-time.After(slow.gap)
			if err := ask(slow); err != nil {
				t.Errorf("after its gap: %v", err)
			}
		})
	})
}

func TestTheGapOfADeviceHoldsBetweenTransactionsAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipelined(t, transporttest.Faults{}, 4, func(l *Link, s *server) {
			slow := station{unit: 1, gap: 50 * time.Millisecond}
			const n, answerTime = 6, 20 * time.Millisecond
			var asking, answering sync.WaitGroup
			for range n {
				asking.Go(func() {
					for {
						turn := scheduler.Turn{Timeout: time.Second}
						_, err := l.transact(t.Context(), &turn, slow, must(Read(Holding, 0, 1)))
						early, ok := errors.AsType[*scheduler.NotYet](err)
						if !ok {
							if err != nil {
								t.Error(err)
							}
							return
						}
						<-time.After(time.Until(early.Until))
					}
				})
			}
			answering.Go(func() {
				var rested time.Time
				for range n {
					asked := <-s.requests
					if now := time.Now(); now.Before(rested) || len(s.requests) > 0 {
						t.Errorf("asked %v too early, and %d more times", rested.Sub(now), len(s.requests))
					}
					<-time.After(answerTime)
					s.say(binary.BigEndian.Uint16(asked), asked[6], []byte{3, 2, 0, 1})
					rested = time.Now().Add(slow.gap)
				}
			})
			start := time.Now()
			asking.Wait()
			answering.Wait()
			if took := time.Since(start); took > n*(answerTime+2*slow.gap) {
				t.Errorf("%d took %v", n, took)
			}
		})
	})
}

func TestACommandBehindAStalledWriteIsNotSentAfterItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall = 300 * time.Millisecond
		pipelined(t, transporttest.Faults{Write: transporttest.Nth(0, transporttest.Fate{Delay: stall})}, 3, func(l *Link, s *server) {
			_, first := begin(t.Context(), l, 1)
			synctest.Wait() // it has the pen
			write := must(WriteRegister(4, 1))
			late := scheduler.Turn{Timeout: time.Second, Deadline: time.Now().Add(stall)}
			inTime := scheduler.Turn{Timeout: time.Second, Deadline: time.Now().Add(stall + 1)}
			var done sync.WaitGroup
			done.Go(func() {
				if _, err := l.transact(t.Context(), &late, station{unit: 1}, write); !errors.Is(err, scheduler.ErrExpired) || late.Sent {
					t.Errorf("past its deadline: %v, %+v", err, late)
				}
			})
			done.Go(func() {
				if _, err := l.transact(t.Context(), &inTime, station{unit: 2}, write); !errors.Is(err, os.ErrDeadlineExceeded) || !inTime.Sent {
					t.Errorf("just before its deadline: %v, %+v", err, inTime)
				}
			})
			done.Wait()
			first.Wait()
			if n := len(s.requests); n != 2 || l.Counters().Requests != 2 {
				t.Errorf("%d requests have come, %+v", n, l.Counters())
			}
		})
	})
}

func TestACommandOnModbusTCPWaitsNoLongerForTheGapThanToItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipelined(t, transporttest.Faults{}, 1, func(l *Link, s *server) {
			start := time.Now() // when the line was opened: it may have been in use
			turn := scheduler.Turn{Timeout: time.Second, Deadline: start.Add(2 * time.Millisecond)}
			_, err := l.transact(t.Context(), &turn, station{unit: 1, gap: 4 * time.Millisecond}, must(WriteRegister(4, 1)))
			if !errors.Is(err, scheduler.ErrExpired) || turn.Sent || time.Now() != turn.Deadline || len(s.requests) != 0 {
				t.Errorf("%v after %v, %+v", err, time.Since(start), turn)
			}
		})
	})
}

func TestALateReplyCountsForTheDeviceThatItComesFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipelined(t, transporttest.Faults{}, 2, func(l *Link, s *server) {
			ask := func(unit byte) int {
				turn := scheduler.Turn{Timeout: time.Second}
				_, _ = l.transact(t.Context(), &turn, station{unit: unit}, must(Read(Holding, 0, 1)))
				return turn.Foreign
			}
			ask(1)
			s.say(binary.BigEndian.Uint16(<-s.requests), 1, []byte{3, 2, 0, 1})
			synctest.Wait()
			if two, one, again := ask(2), ask(1), ask(1); two != 0 || one != 1 || again != 0 {
				t.Errorf("unit 2 has %d, unit 1 %d and then %d", two, one, again)
			}
		})
	})
}

func TestRTUCarriesOneTransactionAtATime(t *testing.T) {
	if _, err := NewLink(new(server), LinkConfig{Framing: FramingRTU, Transactions: 2}, nil); err == nil {
		t.Error("it was made for two")
	}
}
