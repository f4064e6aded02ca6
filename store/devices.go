package store

import (
	"cmp"
	"slices"
	"time"
)

// DeviceStats tells how far one of this agent's own devices is.
type DeviceStats struct {
	Device string
	Last   uint64    // number of its last record in this epoch; not yet on disk, perhaps; 0: none
	Newest time.Time // time of the last record since Open; zero: none came
}

// Devices lists this agent's own devices by name: those that ever had a record.
func (s *Store) Devices() []DeviceStats {
	s.mu.Lock()
	list := make([]DeviceStats, 0, len(s.ids.own))
	for _, d := range s.ids.own {
		key := s.ids.byID[d.id].key
		if key.Epoch != s.about.epoch {
			list = append(list, DeviceStats{Device: key.Device})
			continue
		}
		list = append(list, DeviceStats{Device: key.Device, Last: d.last, Newest: fromNanos(d.newest)})
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b DeviceStats) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(b.Last, a.Last))
	})
	return slices.CompactFunc(list, func(a, b DeviceStats) bool { return a.Device == b.Device })
}
