// Package probe finds out who is on a Modbus line, and how the line is set.
//
// It asks each unit in question for one holding register, at one setting of the
// line after the other, and takes any well-formed reply for presence, a refusal
// too. It only ever reads, so it changes nothing in any device.
//
// Which settings and units are tried, and in which order, stands in a Plan; what
// came of it in a Result, which prints itself as a configuration to paste.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

// Line is what is asked on; a modbus.Link is one. A scan uses one at a time,
// from its own goroutine, and closes each.
type Line interface {
	Open(ctx context.Context) error
	Close() error
	Do(ctx context.Context, unit int, r modbus.Request) ([]byte, error)
	Counters() modbus.Counters
}

var _ Line = (*modbus.Link)(nil)

// Plan is what a scan tries.
type Plan struct {
	// Settings of the line in the order in which they are tried; a network has
	// one, the zero Setting.
	Settings []Setting
	// Units are who may be there.
	Units []int
	// First, when not empty, are who is asked at a setting at first; the rest of
	// Units follow where somebody has answered.
	First []int
	// Timeout is how long a unit may take to answer, > 0; the time that request
	// and reply take on the wire comes on top.
	Timeout time.Duration
	// All has the other settings tried too after one where somebody answered.
	All bool
}

// Progress is where a scan is.
type Progress struct {
	Setting Setting
	Unit    int           // about to be asked
	Place   int           // of Unit among those asked in this stretch, from 0
	Of      int           // how many they are
	Left    time.Duration // until the scan's end, if nobody more answers
}

// Watcher is told how a scan goes on. It is called from the scan's goroutine.
type Watcher interface {
	Asking(p Progress)
	Found(s Setting, u Unit)
}

// Scan carries out a plan. open makes the line at a setting, closed. When ctx
// ends, what was found until then is the result, with Stopped set. The error is
// that of opening the line, when it could be opened at no setting.
func Scan(ctx context.Context, plan Plan, open func(Setting) (Line, error), watch Watcher) (Result, error) {
	s := &scan{plan: plan, open: open, watch: watch, first: plan.First}
	if len(s.first) == 0 {
		s.first = plan.Units
	}
	for _, unit := range plan.Units {
		if !slices.Contains(s.first, unit) {
			s.rest = append(s.rest, unit)
		}
	}
	for i, setting := range plan.Settings {
		s.later = 0
		for _, other := range plan.Settings[i+1:] {
			s.later += time.Duration(len(s.first)) * s.cost(other)
		}
		v := s.visit(ctx, setting)
		s.result.Visits = append(s.result.Visits, v)
		if s.result.Stopped = ctx.Err() != nil; s.result.Stopped || len(v.Units) > 0 && !plan.All {
			break
		}
	}
	return s.result, s.result.opening()
}

// scan is a Scan under way.
type scan struct {
	plan        Plan
	open        func(Setting) (Line, error)
	watch       Watcher
	first, rest []int
	later       time.Duration // what the settings to come cost
	result      Result
}

// cost is how long a unit takes at a setting that is not there.
func (s *scan) cost(at Setting) time.Duration { return s.plan.Timeout + at.wireTime() }

// visit tries one setting.
func (s *scan) visit(ctx context.Context, at Setting) Visit {
	v := Visit{Setting: at}
	line, err := s.open(at)
	if err == nil {
		err = line.Open(ctx)
	}
	if err != nil {
		v.Err = err
		return v
	}
	defer func() { v.Err = errors.Join(v.Err, line.Close()) }()
	v.Err = s.ask(ctx, line, &v, s.first)
	if v.Err == nil && len(v.Units) > 0 {
		v.Err = s.ask(ctx, line, &v, s.rest)
	}
	c := line.Counters()
	v.Foreign = c.WrongUnit + c.WrongFunction + c.WrongLength + c.WrongTransaction + c.Late
	slices.SortFunc(v.Units, func(a, b Unit) int { return a.Number - b.Number })
	return v
}

// ask asks units one after the other. It returns early when ctx has ended, or
// with the error of a line that has gone and can't be opened again.
func (s *scan) ask(ctx context.Context, line Line, v *Visit, units []int) error {
	for i := 0; i < len(units) && ctx.Err() == nil; i++ {
		unit := units[i]
		s.watch.Asking(Progress{
			Setting: v.Setting, Unit: unit, Place: i, Of: len(units),
			Left: s.later + time.Duration(len(units)-i)*s.cost(v.Setting),
		})
		before := unreadable(line)
		answer := s.read(ctx, line, v.Setting, unit, modbus.Holding)
		if !answer.Present() && unreadable(line) > before { // a disturbance gets a second try
			answer = s.read(ctx, line, v.Setting, unit, modbus.Holding)
		}
		v.Asked++
		switch {
		case answer.gateway():
			s.result.Gateway = true
		case answer.Present():
			u := s.identify(ctx, line, v.Setting, unit, answer)
			v.Units = append(v.Units, u)
			s.watch.Found(v.Setting, u)
		case unreadable(line) > before:
			v.Garbled = append(v.Garbled, unit)
		}
		if lost(answer.Err) {
			if err := errors.Join(line.Close(), line.Open(ctx)); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
	return nil
}

// identify reads what stands at the beginning of each table.
func (s *scan) identify(ctx context.Context, line Line, at Setting, unit int, holding Answer) Unit {
	u := Unit{Number: unit}
	u.Tables[modbus.Holding] = holding
	for _, table := range []modbus.Table{modbus.Input, modbus.Coil, modbus.Discrete} {
		u.Tables[table] = s.read(ctx, line, at, unit, table)
	}
	return u
}

// read asks for the first value of a table.
func (s *scan) read(ctx context.Context, line Line, at Setting, unit int, table modbus.Table) Answer {
	request, err := modbus.Read(table, 0, 1)
	if err != nil {
		return Answer{Err: err}
	}
	for {
		limited, cancel := context.WithTimeout(ctx, s.cost(at))
		data, err := line.Do(limited, unit, request)
		cancel()
		var notYet *scheduler.NotYet
		if !errors.As(err, &notYet) {
			return answer(data, err)
		}
		select {
		case <-ctx.Done():
			return Answer{Err: ctx.Err()}
		case <-time.After(time.Until(notYet.Until)):
		}
	}
}

// answer takes a reply's values for the one that was asked for.
func answer(data []byte, err error) Answer {
	a := Answer{Err: err}
	for _, b := range data {
		a.Value = a.Value<<8 | uint16(b)
	}
	return a
}

// unreadable is how often something has come that was no whole frame.
func unreadable(line Line) uint64 {
	c := line.Counters()
	return c.BadFrame + c.Short
}

func lost(err error) bool {
	return errors.Is(err, transport.ErrLost) || errors.Is(err, net.ErrClosed)
}

// Unit is a slave that answered.
type Unit struct {
	Number int
	Tables [4]Answer // to reading address 0, by modbus.Table
}

// Answer is what came of reading one value: Value, or why there is none.
type Answer struct {
	Value uint16
	Err   error // a modbus.Exception, os.ErrDeadlineExceeded, or the line's
}

// Present tells whether a slave answered, and be it with a refusal.
func (a Answer) Present() bool {
	var refused modbus.Exception
	return a.Err == nil || errors.As(a.Err, &refused) && !a.gateway()
}

// gateway tells whether a gateway answered for a slave that it can't reach
// (Modbus Application Protocol V1.1b3, section 7, codes 10 and 11).
func (a Answer) gateway() bool {
	return errors.Is(a.Err, modbus.GatewayUnavailable) || errors.Is(a.Err, modbus.GatewayNoAnswer)
}

func (a Answer) String() string {
	var refused modbus.Exception
	switch {
	case a.Err == nil:
		return fmt.Sprint(a.Value)
	case errors.As(a.Err, &refused):
		return refused.Error()
	case errors.Is(a.Err, os.ErrDeadlineExceeded):
		return "no answer"
	}
	return "not asked"
}
