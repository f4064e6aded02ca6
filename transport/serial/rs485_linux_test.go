package serial

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/mcp-edge/edge-agent/transport"
)

func usual() RS485 { return RS485{RTSOnSend: true} }

// words are the kernel's struct as eight numbers, in the order of linux/serial.h.
func (k rs485) words() [8]uint32 { return *(*[8]uint32)(unsafe.Pointer(&k)) }

func TestRS485IsSaidInTheKernelsNumbers(t *testing.T) {
	for _, c := range []struct {
		config RS485
		want   [8]uint32
	}{
		{usual(), [8]uint32{0x03}},
		{RS485{RTSAfterSend: true}, [8]uint32{0x05}},
		{RS485{RTSOnSend: true, DelayBefore: time.Millisecond, DelayAfter: 100 * time.Millisecond}, [8]uint32{0x03, 1, 100}},
		{RS485{RTSOnSend: true, RXDuringTX: true, Terminate: true}, [8]uint32{0x33}},
	} {
		if got := c.config.kernel().words(); got != c.want {
			t.Errorf("%+v: %#x, want %#x", c.config, got, c.want)
		}
	}
}

func TestWhatADriverIgnoresIsSaid(t *testing.T) {
	want := RS485{RTSOnSend: true, DelayBefore: 2 * time.Millisecond}.kernel()
	for _, c := range []struct {
		got  rs485
		says string // empty: nothing
	}{
		{want, ""},
		{rs485{flags: want.flags | 1<<6, delayBefore: 2}, ""}, // a flag that we did not ask about
		{rs485{}, "cannot switch direction itself"},
		{rs485{flags: rs485Enabled | rs485RTSAfterSend, delayBefore: 2}, "rts_on_send = false, rts_after_send = true"},
		{rs485{flags: want.flags | rs485RXDuringTX, delayBefore: 2}, "rx_during_tx = true"},
		{rs485{flags: want.flags, delayAfter: 7}, `delay_before = "0ms", delay_after = "7ms"`},
	} {
		err := want.compare(c.got)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.got, err, c.says)
		}
	}
}

func TestAPortThatCannotSwitchDirectionIsPermanent(t *testing.T) {
	_, path := pair(t)
	config, r := settings(), usual()
	config.RS485 = &r
	_, err := NewDialer(path, config).Dial(t.Context(), framer())
	if !errors.Is(err, transport.ErrPermanent) || !strings.Contains(err.Error(), "cannot switch direction itself") {
		t.Fatal(err)
	}
	dial(t, NewDialer(path, settings()), framer()) // it is free again
}

func TestRS485ThatNoDriverCanDoIsRefused(t *testing.T) {
	for want, r := range map[string]RS485{
		"":               {RTSOnSend: true, DelayBefore: time.Millisecond},
		"rts_after_send": {},
		"delay_before":   {RTSOnSend: true, DelayBefore: time.Microsecond},
		"delay_after":    {RTSOnSend: true, DelayAfter: 101 * time.Millisecond},
		"echo":           {RTSOnSend: true, RXDuringTX: true},
	} {
		config := settings()
		config.RS485 = &r
		var keys []string
		report := func(key, _ string) { keys = append(keys, key) }
		config.Validate(report)
		r.Validate(report)
		if strings.Join(keys, " ") != want {
			t.Errorf("%+v: %v, want %q", r, keys, want)
		}
	}
}
