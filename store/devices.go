package store

import (
	"cmp"
	"slices"
	"time"
)

// DeviceStats tells how far one of this agent's own devices is.
type DeviceStats struct {
	Device string
	Last   uint64    // number of its last record; not yet on disk, perhaps
	Newest time.Time // time of the last record since Open; zero: none came
}

// Devices lists this agent's own devices by name: those that ever had a record.
func (s *Store) Devices() []DeviceStats {
	s.mu.Lock()
	list := make([]DeviceStats, 0, len(s.ids.own))
	for _, d := range s.ids.own {
		list = append(list, DeviceStats{Device: s.ids.byID[d.id].key.Device, Last: d.last, Newest: fromNanos(d.newest)})
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b DeviceStats) int { return cmp.Compare(a.Device, b.Device) })
	return list
}
