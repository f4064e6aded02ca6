package modbus_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/serial"
	"github.com/mcp-edge/edge-agent/transport/tcp"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// peer starts a program that ends with its standard input, and returns what it
// prints, line by line.
func peer(t *testing.T, name string, args ...string) *bufio.Scanner {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe() // which ends with the program
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		t.Fatalf("%s is needed for this test (./scripts/test installs it): %v", name, err)
	}
	t.Cleanup(func() {
		stdin.Close()
		out.Close() // so that it does not block on what nobody reads
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return bufio.NewScanner(out)
}

// await reads lines until one matches, and returns its first group.
func await(t *testing.T, lines *bufio.Scanner, pattern string) string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	var seen []string
	for lines.Scan() {
		if m := want.FindStringSubmatch(lines.Text()); m != nil {
			return m[1]
		}
		seen = append(seen, lines.Text())
	}
	t.Fatalf("nothing like %s in:\n%s", pattern, strings.Join(seen, "\n"))
	return ""
}

// opened is a link to a pymodbus slave, unit 5.
func opened(t *testing.T, dialer transport.Dialer, framing string) *modbus.Link {
	t.Helper()
	link, err := modbus.NewLink(dialer, modbus.LinkConfig{Framing: framing, LateReplyGuard: time.Second}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	return link
}

// pymodbus returns links to pymodbus over each transport.
func pymodbus(t *testing.T) map[string]*modbus.Link {
	t.Helper()
	port := await(t, peer(t, "/usr/bin/python3", "testdata/slave.py", "tcp"), `^(\d+)$`)
	datagrams := await(t, peer(t, "/usr/bin/python3", "testdata/slave.py", "udp"), `^(\d+)$`)
	pair := peer(t, "socat", "-d", "-d", "pty,raw,echo=0", "pty,raw,echo=0")
	ours, theirs := await(t, pair, `PTY is (\S+)`), await(t, pair, `PTY is (\S+)`)
	await(t, peer(t, "/usr/bin/python3", "testdata/slave.py", "rtu", theirs), `^(ready)$`)
	line := serial.NewDialer(ours, serial.Config{Baud: 19200, DataBits: 8, Parity: "none", StopBits: 1})
	return map[string]*modbus.Link{
		"RTU":        opened(t, line, modbus.FramingRTU),
		"Modbus TCP": opened(t, tcp.NewDialer("127.0.0.1:"+port, nil), modbus.FramingTCP),
		"UDP":        opened(t, udp.NewDialer("127.0.0.1:"+datagrams, udp.Config{}), modbus.FramingTCP),
	}
}

func TestPymodbusAnswersSeveralTransactionsAtATime(t *testing.T) {
	port := await(t, peer(t, "/usr/bin/python3", "testdata/slave.py", "tcp"), `^(\d+)$`)
	link := opening(t, tcp.NewDialer("127.0.0.1:"+port, nil), 4)
	want := []uint16{7, 8, 9}
	var asking sync.WaitGroup
	for i := range 12 {
		asking.Go(func() {
			r, err := modbus.Read(modbus.Holding, 2000+i%3, 1)
			if err != nil {
				t.Error(err)
				return
			}
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				data, err := link.Do(ctx, 5, r)
				cancel()
				if err != nil || binary.BigEndian.Uint16(data) != want[i%3] {
					t.Errorf("%v: % X, %v", r, data, err)
				}
			}
		})
	}
	asking.Wait()
	if c := link.Counters(); c.Replies != 240 || c.WrongTransaction != 0 {
		t.Errorf("%+v", c)
	}
}

// numbers are what slave.py's registers hold, from an address on.
func numbers(base int, order string) (points []modbus.PointConfig, want []string) {
	for _, v := range []struct {
		at   int
		kind string
		want string
	}{
		{2, "int32", "-1234567890"},
		{4, "uint32", "4023456789"},
		{6, "int64", "-1234567890123456789"},
		{10, "uint64", "17234567890123456789"},
		{14, "float32", "21.1"},
		{16, "float64", "-2.718281828459045"},
		{20, "float32", record.BadNotFinite},
	} {
		p := at(fmt.Sprintf("holding:%d %s", base+v.at, v.kind))
		p.Order = order
		points, want = append(points, p), append(want, v.want)
	}
	return points, want
}

func singles(table string, base int) (points []modbus.PointConfig, want []string) {
	text := at(fmt.Sprintf("%s:%d string", table, base+22))
	text.Length = 10
	bits := at(fmt.Sprintf("%s:%d bits", table, base+27))
	bits.Bit, bits.Width = 4, 6
	scaled := at(fmt.Sprintf("%s:%d int16", table, base+28))
	scaled.Scale, scaled.Offset = 0.1, -1
	points = []modbus.PointConfig{
		at(fmt.Sprintf("%s:%d int16", table, base)), at(fmt.Sprintf("%s:%d uint16", table, base+1)), text, bits, scaled,
	}
	return points, []string{"-12345", "54321", "pymodbus", "53", "20.5"}
}

func text(p record.Point) string {
	if p.Bad != "" {
		return p.Bad
	}
	if v, ok := p.Value.Int(); ok {
		return fmt.Sprint(v)
	}
	if v, ok := p.Value.Uint(); ok {
		return fmt.Sprint(v)
	}
	if v, ok := p.Value.Bool(); ok {
		return fmt.Sprint(v)
	}
	if v, ok := p.Value.Text(); ok {
		return v
	}
	v, _ := p.Value.Float()
	if p.Value.Kind() == record.KindFloat32 {
		return fmt.Sprint(float32(v))
	}
	return fmt.Sprint(v)
}

func TestPymodbusIsReadAndWrittenInEveryTypeAndOrder(t *testing.T) {
	for name, link := range pymodbus(t) {
		t.Run(name, func(t *testing.T) {
			points, want := singles("holding", 1000)
			for _, more := range []func() ([]modbus.PointConfig, []string){
				func() ([]modbus.PointConfig, []string) { return numbers(1000, "ABCD") },
				func() ([]modbus.PointConfig, []string) { return numbers(1100, "CDAB") },
				func() ([]modbus.PointConfig, []string) { return numbers(1200, "BADC") },
				func() ([]modbus.PointConfig, []string) { return numbers(1300, "DCBA") },
				func() ([]modbus.PointConfig, []string) { return singles("input", 0) },
				func() ([]modbus.PointConfig, []string) {
					return ats("coil:10", "coil:11", "discrete:65533", "discrete:65535"), []string{"true", "false", "false", "true"}
				},
				func() ([]modbus.PointConfig, []string) {
					return ats("holding:2000 uint16", "holding:2002 uint16", "holding:2003 uint16", "holding:2006 uint16"), []string{"7", "9", "exception-2", "12"}
				},
			} {
				p, w := more()
				points, want = append(points, p...), append(want, w...)
			}
			compare(t, link, points, want)
			writes(t, link)
			commands(t, link)
		})
	}
}

// compare polls twice, so that a split plan is used as well.
func compare(t *testing.T, link *modbus.Link, points []modbus.PointConfig, want []string) {
	t.Helper()
	var s sink
	slave := device(5)
	slave.MaxGap = 10
	poll, err := link.Poll(modbus.PollConfig{ID: "peer", Name: "all", Device: slave, Points: points}, &s, clock)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		poll.Begin(time.Now())
		for more := true; more; {
			more, err = poll.Step(t.Context(), &scheduler.Turn{Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
		}
		poll.End(nil)
	}
	for _, r := range s.records {
		for i, p := range r.Points {
			if text(p) != want[i] {
				t.Errorf("%s %s %s: %s, want %s", points[i].Address, points[i].Type, points[i].Order, text(p), want[i])
			}
		}
	}
	if c := link.Counters(); c.Requests != c.Replies || c.BadFrame != 0 {
		t.Errorf("%+v", c)
	}
}

func writes(t *testing.T, link *modbus.Link) {
	t.Helper()
	ask := func(r modbus.Request, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		data, err := link.Do(ctx, 5, r)
		if err != nil {
			t.Errorf("%v: %v", r, err)
		}
		return data
	}
	ask(modbus.WriteCoil(11, true))
	ask(modbus.WriteCoils(10, []bool{false, true}))
	if got := ask(modbus.Read(modbus.Coil, 10, 3)); string(got) != "\x06" {
		t.Errorf("coils % X", got)
	}
	ask(modbus.WriteRegister(2000, 100))
	ask(modbus.WriteRegisters(2001, []uint16{200, 300}))
	if got := ask(modbus.ReadWriteRegisters(2000, 3, 2002, []uint16{400})); string(got) != "\x00\x64\x00\xC8\x01\x90" {
		t.Errorf("registers % X", got)
	}
	if _, err := func() ([]byte, error) {
		r, _ := modbus.WriteRegister(3000, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return link.Do(ctx, 5, r)
	}(); !errors.Is(err, modbus.IllegalAddress) {
		t.Errorf("writing where nothing is: %v", err)
	}
}

// commands writes every type in every order, and reads it back.
func commands(t *testing.T, link *modbus.Link) {
	t.Helper()
	values := map[string]record.Value{
		"int16": record.Int(-3), "uint16": record.Uint(65000), "int32": record.Int(-70000), "uint32": record.Uint(4e9),
		"int64": record.Int(-5e18), "uint64": record.Uint(1.8e19), "float32": record.Float32(-1.5), "float64": record.Float64(2.25),
		"string": record.String("written"), "bits": record.Uint(5), "bool": record.Bool(true), "": record.Bool(true),
	}
	var points []modbus.PointConfig
	for base, order := range map[int]string{1000: "ABCD", 1100: "CDAB", 1200: "BADC", 1300: "DCBA"} {
		numbers, _ := numbers(base, order)
		points = append(points, numbers[:6]...)
	}
	ones, _ := singles("holding", 1000)
	points = append(points, ones[:4]...)
	points = append(points, at("holding:2000 bool"), at("coil:12"))
	points[len(points)-2].Bit = 9
	for i := range points {
		points[i].Access = "rw"
	}
	d, err := link.Device(modbus.DeviceSpec{ID: "peer", Device: device(5), Polls: []modbus.PollPoints{{Poll: "p", Points: points}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		command, err := d.Write(p.Name, values[p.Type], modbus.WriteOptions{ReadBack: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := doing(t.Context(), command); err != nil {
			t.Errorf("%s %s %s: %v", p.Address, p.Type, p.Order, err)
			continue
		}
		if got := command.Answer().Points[0].Value; got != values[p.Type] {
			t.Errorf("%s %s %s: %+v", p.Address, p.Type, p.Order, got)
		}
	}
	all, err := d.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := doing(t.Context(), all); err != nil {
		t.Error(err)
	}
	for i, got := range all.Answer().Points {
		if got.Value != values[points[i].Type] {
			t.Errorf("in the end %s %s: %+v", points[i].Address, points[i].Type, got)
		}
	}
}
