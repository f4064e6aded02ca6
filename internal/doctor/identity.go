package doctor

import (
	"slices"

	"github.com/mcp-edge/edge-agent/record"
)

// identity is what makes a record the same record.
type identity struct {
	of   flow
	seq  uint64
	part uint32
	gap  record.Gap // of an announcement, which has no number
}

// flow has numbers of its own.
type flow struct {
	agent  string
	epoch  record.Epoch
	device string
}

func identityOf(agent string, epoch record.Epoch, device string, seq uint64, part uint32, gap *record.Gap) identity {
	id := identity{of: flow{agent, epoch, device}, seq: seq, part: part}
	if gap != nil {
		id.gap, id.seq, id.part = *gap, 0, 0
		id.gap.First, id.gap.Last = gap.First.UTC(), gap.Last.UTC()
	}
	return id
}

// maxRuns bounds what is remembered: some 50 MB.
const maxRuns = 1 << 20

// identities is a set of them. The zero value is empty. Numbers come in long runs, of
// which the ends are remembered; the rest one by one.
type identities struct {
	runs   map[flow][]run
	others map[identity]struct{} // parts of a record, gaps
	size   int
}

// run of numbers, both ends included.
type run struct{ from, to uint64 }

// add does nothing at the bound: what it has forgotten to add is not found.
func (s *identities) add(id identity) {
	if id.gap != (record.Gap{}) || id.part != 0 {
		if s.others == nil {
			s.others = make(map[identity]struct{})
		}
		if len(s.others) < maxRuns {
			s.others[id] = struct{}{}
		}
		return
	}
	if s.runs == nil {
		s.runs = make(map[flow][]run)
	}
	list := s.runs[id.of]
	i, found := find(list, id.seq)
	joinsBefore := i > 0 && list[i-1].to+1 == id.seq
	joinsBehind := i < len(list) && id.seq+1 == list[i].from
	switch {
	case found:
		return
	case joinsBefore && joinsBehind:
		list[i-1].to = list[i].to
		list = slices.Delete(list, i, i+1)
		s.size--
	case joinsBefore:
		list[i-1].to = id.seq
	case joinsBehind:
		list[i].from = id.seq
	case s.size < maxRuns:
		list = slices.Insert(list, i, run{id.seq, id.seq})
		s.size++
	}
	s.runs[id.of] = list
}

func (s *identities) has(id identity) bool {
	if id.gap != (record.Gap{}) || id.part != 0 {
		_, found := s.others[id]
		return found
	}
	_, found := find(s.runs[id.of], id.seq)
	return found
}

// find returns the run that has n, or the first one behind it.
func find(list []run, n uint64) (int, bool) {
	i, _ := slices.BinarySearchFunc(list, n, func(r run, n uint64) int {
		if r.to < n {
			return -1
		}
		return 1
	})
	return i, i < len(list) && list[i].from <= n
}
