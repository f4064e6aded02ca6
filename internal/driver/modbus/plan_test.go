package modbus

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func planOf(t testing.TB, device DeviceConfig, addresses ...string) []read {
	t.Helper()
	var points []*point
	for i, address := range addresses {
		kind := "uint16"
		if _, err := fmt.Sscanf(address, "%s %s", &address, &kind); err != nil {
			kind = "uint16"
		}
		table, _, _ := parseAddress(address)
		if table.bits() {
			kind = ""
		}
		points = append(points, parsed(t, PointConfig{Name: fmt.Sprint("p", i), Address: address, Type: kind}))
	}
	reads, err := plan(points, device)
	if err != nil {
		t.Fatal(err)
	}
	return reads
}

func show(reads []read) (list []string) {
	for _, r := range reads {
		list = append(list, r.request.String())
	}
	return list
}

func TestPointsThatTouchAreReadTogetherAndOthersApart(t *testing.T) {
	standard := DeviceConfig{MaxRegisters: 125, MaxBits: 2000}
	gap := DeviceConfig{MaxRegisters: 125, MaxBits: 2000, MaxGap: 2}
	small := DeviceConfig{MaxRegisters: 4, MaxBits: 8}
	for _, c := range []struct {
		name      string
		device    DeviceConfig
		addresses []string
		want      string
	}{
		{"adjacent", standard, []string{"holding:2", "holding:0 float32", "holding:3"}, "[function 3, addresses 0 to 3]"},
		{"a gap", standard, []string{"holding:0", "holding:2"}, "[function 3, address 0 function 3, address 2]"},
		{"a gap that is allowed", gap, []string{"holding:0", "holding:3"}, "[function 3, addresses 0 to 3]"},
		{"a gap that is too wide", gap, []string{"holding:0", "holding:4"}, "[function 3, address 0 function 3, address 4]"},
		{"a gap of bits", gap, []string{"coil:0", "coil:33", "coil:67"}, "[function 1, addresses 0 to 33 function 1, address 67]"},
		{"tables", standard, []string{"input:0", "holding:0", "discrete:0", "coil:0"}, "[function 1, address 0 function 2, address 0 function 4, address 0 function 3, address 0]"},
		{"a value is not torn", small, []string{"holding:0 float32", "holding:2", "holding:3 float32"}, "[function 3, addresses 0 to 2 function 3, addresses 3 to 4]"},
		{"bits of one register", standard, []string{"holding:5 bool", "holding:5 bits"}, "[function 3, address 5]"},
	} {
		if got := fmt.Sprint(show(planOf(t, c.device, c.addresses...))); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestHalvingEndsAtSinglePointsOrAtOneRegister(t *testing.T) {
	reads := planOf(t, DeviceConfig{MaxRegisters: 125}, "holding:0", "holding:1 bool", "holding:1 bits", "holding:1 bool", "holding:2")
	halves, ok := reads[0].split()
	if !ok || fmt.Sprint(show(halves)) != "[function 3, address 0 function 3, addresses 1 to 2]" {
		t.Fatalf("%v %v", show(halves), ok)
	}
	if _, ok := halves[0].split(); ok {
		t.Error("a single point was halved")
	}
	rest, ok := halves[1].split()
	if !ok || len(rest[0].points) != 3 {
		t.Fatalf("%v", show(rest))
	}
	if _, ok := rest[0].split(); ok {
		t.Error("bits of one register were read apart")
	}
}

func TestAnyPlanReadsEachPointOnceWithinTheLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		device := DeviceConfig{
			MaxRegisters: rapid.IntRange(4, 125).Draw(t, "max registers"),
			MaxBits:      rapid.IntRange(1, 2000).Draw(t, "max bits"),
			MaxGap:       rapid.IntRange(0, 124).Draw(t, "max gap"),
		}
		var points []*point
		next := [4]int{}
		for i := range rapid.IntRange(1, 80).Draw(t, "points") {
			table := Table(rapid.IntRange(0, 3).Draw(t, "table"))
			c := configured(PointConfig{Name: fmt.Sprint(i), Type: rapid.SampledFrom([]string{"int16", "float32", "int64", "bool"}).Draw(t, "type")})
			p := c.point(table, next[table]+rapid.SampledFrom([]int{0, 0, 0, 1, 7, 3000}).Draw(t, "gap"))
			if p.first+p.count > maxAddress {
				continue
			}
			next[table] = p.first + p.count
			points = append(points, &p)
		}
		if len(points) == 0 {
			return
		}
		reads, err := plan(rapid.Permutation(points).Draw(t, "order"), device)
		if err != nil {
			t.Fatal(err)
		}
		for len(reads) > 0 {
			holds(t, device, points, reads)
			// The same is true however often the device refuses.
			victim := rapid.IntRange(0, len(reads)-1).Draw(t, "refused")
			halves, ok := reads[victim].split()
			if !ok {
				break
			}
			reads = append(append(append([]read(nil), reads[:victim]...), halves...), reads[victim+1:]...)
		}
	})
}

// holds checks what every plan promises.
func holds(t *rapid.T, device DeviceConfig, points []*point, reads []read) {
	read := make(map[*point]int)
	for _, r := range reads {
		count := int(r.request.pdu[3])<<8 | int(r.request.pdu[4])
		if limit := device.MaxRegisters; !r.table.bits() && count > limit {
			t.Errorf("%v: more than %d", r.request, limit)
		}
		if limit := device.MaxBits; r.table.bits() && count > limit {
			t.Errorf("%v: more than %d", r.request, limit)
		}
		end := r.first
		for _, p := range r.points {
			read[p]++
			if p.table != r.table || p.first < r.first || p.first+p.count > r.first+count {
				t.Errorf("%v does not hold %s:%d+%d", r.request, p.table, p.first, p.count)
			}
			gap := device.MaxGap
			if r.table.bits() {
				gap *= 16
			}
			if p.first-end > gap {
				t.Errorf("%v reads %d unwanted values", r.request, p.first-end)
			}
			end = p.first + p.count
		}
		if end != r.first+count {
			t.Errorf("%v ends beyond its last point", r.request)
		}
	}
	for _, p := range points {
		if read[p] != 1 {
			t.Errorf("%s:%d is read %d times", p.table, p.first, read[p])
		}
	}
}
