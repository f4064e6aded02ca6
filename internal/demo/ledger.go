package demo

import (
	"fmt"
	"sync"
)

// ledger counts what the simulated devices sent against what the broker's
// subscriber received. Each device numbers what it sends: 1, 2, 3 …
type ledger struct {
	mu      sync.Mutex
	devices map[string]*account
}

// account is one device's page. Numbers in produced and delivered are sets, as
// bits, so that a long demo stays small.
type account struct {
	produced  bitset
	perhaps   bitset // came so late that they may or may not count
	delivered bitset
	highest   uint64 // of the first appearances
	repeated  uint64
	disorder  uint64
}

func newLedger() *ledger { return &ledger{devices: make(map[string]*account)} }

func (l *ledger) account(device string) *account {
	a := l.devices[device]
	if a == nil {
		a = new(account)
		l.devices[device] = a
	}
	return a
}

// sent notes that a device has sent number n.
func (l *ledger) sent(device string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.account(device).produced.add(n)
}

// perhapsSent notes that a device has answered with number n at about its
// time-out: it counts if it was received.
func (l *ledger) perhapsSent(device string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.account(device).perhaps.add(n)
}

// counts returns what one device has sent, and what of it was received.
func (l *ledger) counts(device string) (sent, received uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account(device)
	return a.produced.count, a.delivered.count
}

// received notes that the subscriber got number n of a device. It may come
// before sent of the same number: the answer is on its way while the device
// still writes its page.
func (l *ledger) received(device string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account(device)
	switch {
	case !a.delivered.add(n):
		a.repeated++
	case n < a.highest:
		a.disorder++
	default:
		a.highest = n
	}
}

// Report is the demo's result.
type Report struct {
	Produced  uint64 `json:"produced"`
	Delivered uint64 `json:"delivered"`
	Lost      uint64 `json:"lost"`
	Repeated  uint64 `json:"repeated"`
	Disorder  uint64 `json:"disorder"`
}

// String is the line that the demo ends with.
func (r Report) String() string {
	return fmt.Sprintf("produced %d delivered %d lost %d repeated %d disorder %d",
		r.Produced, r.Delivered, r.Lost, r.Repeated, r.Disorder)
}

// OK is false on loss or disorder. Repeats are allowed over MQTT: it delivers
// at least once.
func (r Report) OK() bool { return r.Lost == 0 && r.Disorder == 0 }

// report sums up. A number that was received and never sent is disorder too:
// somebody made it up.
func (l *ledger) report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	var r Report
	for _, a := range l.devices {
		both := a.produced.common(&a.delivered)
		late := a.perhaps.common(&a.delivered)
		r.Produced += a.produced.count + late
		r.Delivered += both + late
		r.Lost += a.produced.count - both
		r.Repeated += a.repeated
		r.Disorder += a.disorder + (a.delivered.count - both - late)
	}
	return r
}

// missing names some of what was lost, for whoever has to find out why.
func (l *ledger) missing(limit int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for device, a := range l.devices {
		for n := uint64(1); n < uint64(len(a.produced.words))*64 && len(list) < limit; n++ {
			if a.produced.has(n) && !a.delivered.has(n) {
				list = append(list, fmt.Sprintf("%s/%d", device, n))
			}
		}
	}
	return list
}
