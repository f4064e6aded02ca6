// Package clock tells the time, whether it can be trusted, and what a time that
// could not be trusted has turned out to be.
package clock

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"sync/atomic"
	"time"

	"github.com/mcp-edge/edge-agent/record"
)

// refresh is how long an answer of the kernel is good for: asking costs a
// system call, and synchronisation does not come and go by the second.
const refresh = time.Second

// Machine is what a Clock reads. It may be used concurrently.
type Machine interface {
	// Wall is the time, as far as the machine knows it.
	Wall() time.Time
	// Up is the time since the machine's start, suspension included. Nobody can
	// set it.
	Up() time.Duration
	// Synchronised tells whether Wall can be trusted.
	Synchronised() bool
	// Boot names the time from one start of the machine to the next.
	Boot() string
}

// Clock is a machine's clock. It may be used concurrently.
type Clock struct {
	machine Machine
	boot    record.Boot
	asked   atomic.Int64 // Unix nanoseconds of the last look
	synced  atomic.Bool
	unsure  atomic.Bool // a time that was not synchronised was told since the last Offsets.look
}

// New returns the clock of this machine.
func New() *Clock { return Of(thisMachine()) }

// Of returns the clock of a machine.
func Of(m Machine) *Clock { return &Clock{machine: m, boot: shorten(m.Boot())} }

// shorten makes a number of a boot's name that is very likely no other's.
func shorten(boot string) record.Boot {
	sum := fnv.New128a()
	_, _ = sum.Write([]byte(boot))
	return record.Boot(max(1, binary.BigEndian.Uint64(sum.Sum(nil))))
}

// Now returns the time and whether the kernel holds its clock for synchronised
// (by NTP, PTP or GPS: adjtimex(2), STA_UNSYNC). If it does not, the time since
// the machine's start stands beside it.
func (c *Clock) Now() record.Stamp {
	now := c.machine.Wall()
	asked := c.asked.Load()
	if age := now.UnixNano() - asked; asked == 0 || age < 0 || age > int64(refresh) {
		c.ask()
		c.asked.Store(now.UnixNano())
	}
	if c.synced.Load() {
		return record.Stamp{Time: now, Clock: record.ClockSynced}
	}
	up := c.machine.Up()
	if !c.unsure.Load() { // after Up: what Offsets measures next is later than it
		c.unsure.Store(true)
	}
	return record.Stamp{Time: now, Clock: record.ClockUnsynced, Boot: c.boot, Up: up}
}

func (c *Clock) ask() (synced bool) {
	synced = c.machine.Synchronised()
	if synced != c.synced.Load() {
		c.synced.Store(synced)
	}
	return synced
}

// Up is the time since the machine's start, suspension included.
func (c *Clock) Up() time.Duration { return c.machine.Up() }

// Boot names the time from one start of the machine to the next.
func (c *Clock) Boot() string { return c.machine.Boot() }

// process stands for a machine that can't tell one boot from the next: each start
// of the agent counts as one. Nothing tells there whether the clock is
// synchronised, and an unsure time must not pass for a sure one.
type process struct {
	name  string
	start time.Time
}

func newProcess() *process {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	return &process{name: hex.EncodeToString(random[:]), start: time.Now()}
}

func (p *process) Wall() time.Time    { return time.Now() }
func (p *process) Up() time.Duration  { return time.Since(p.start) }
func (p *process) Synchronised() bool { return synchronised() }
func (p *process) Boot() string       { return p.name }
