package modbus

import (
	"cmp"
	"slices"
)

// read is one request of a poll, and the points that its reply holds, by
// address. A point is always whole in one read.
type read struct {
	request Request
	table   Table
	first   int
	points  []*point
}

// plan merges points into as few reads as the limits of the device allow: those
// that touch, or lie no more than maxGap registers apart.
func plan(points []*point, device DeviceConfig) ([]read, error) {
	sorted := slices.Clone(points)
	slices.SortStableFunc(sorted, func(a, b *point) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.first, b.first))
	})
	var reads []read
	for start := 0; start < len(sorted); {
		end := start + together(sorted[start:], device)
		r, err := newRead(sorted[start:end])
		if err != nil {
			return nil, err
		}
		reads = append(reads, r)
		start = end
	}
	return reads, nil
}

// together is how many points, of those sorted by address, the first read takes.
func together(sorted []*point, device DeviceConfig) int {
	limit, gap := device.MaxRegisters, device.MaxGap
	if sorted[0].table.bits() {
		limit, gap = device.MaxBits, 16*device.MaxGap
	}
	end := sorted[0].first + sorted[0].count
	for i, p := range sorted {
		reach := max(end, p.first+p.count)
		if p.table != sorted[0].table || p.first-end > gap || reach-sorted[0].first > limit {
			return i
		}
		end = reach
	}
	return len(sorted)
}

func newRead(points []*point) (read, error) {
	first, end := points[0].first, 0
	for _, p := range points {
		end = max(end, p.first+p.count)
	}
	request, err := Read(points[0].table, first, end-first)
	return read{request: request, table: points[0].table, first: first, points: points}, err
}

// split halves r, to find out which point of it the device refuses. ok is false
// when there is nothing to halve: one point, or bits of one register.
func (r read) split() (halves []read, ok bool) {
	middle := len(r.points) / 2
	for step := range len(r.points) {
		// The boundary nearest to the middle that lies between two addresses.
		for _, at := range []int{middle - step, middle + step} {
			if at < 1 || at >= len(r.points) || r.points[at-1].first == r.points[at].first {
				continue
			}
			low, err := newRead(r.points[:at])
			high, err2 := newRead(r.points[at:])
			return []read{low, high}, err == nil && err2 == nil
		}
	}
	return nil, false
}
