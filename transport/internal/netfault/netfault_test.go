package netfault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/internal/netfault"
)

func TestNoTypeAndNoAddressOfTheLibraryGetsOut(t *testing.T) {
	op := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{Port: 502}, Err: errors.New("odd")}
	for _, c := range []struct {
		err  error
		want string
	}{
		{op, "odd"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "no route to host"},
		{fmt.Errorf("wrapped: %w", syscall.ENETDOWN), "network is down"},
	} {
		got := netfault.Plain(c.err)
		var leaked *net.OpError
		if got.Error() != c.want || errors.As(got, &leaked) {
			t.Errorf("%v becomes %v", c.err, got)
		}
	}
}

func TestWhatOnlyPeopleCanMendIsPermanent(t *testing.T) {
	for _, err := range []error{syscall.EACCES, syscall.EPERM, &net.AddrError{Err: "missing port"}} {
		if got := netfault.Dial(err); !errors.Is(got, transport.ErrPermanent) {
			t.Errorf("dialing: %v becomes %v", err, got)
		}
	}
	if got := netfault.Dial(syscall.EHOSTDOWN); !errors.Is(got, transport.ErrLost) || errors.Is(got, transport.ErrPermanent) {
		t.Errorf("dialing: %v", got)
	}
	for err, permanent := range map[error]bool{syscall.EADDRINUSE: true, syscall.EACCES: true, syscall.EADDRNOTAVAIL: false} {
		if got := netfault.Listen(t.Context(), err); errors.Is(got, transport.ErrPermanent) != permanent {
			t.Errorf("listening: %v becomes %v", err, got)
		}
	}
}

func TestATimeOutAMomentBeforeTheContextsIsTheContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if err := netfault.Ended(ctx, os.ErrDeadlineExceeded, "no answer"); !errors.Is(err, context.DeadlineExceeded) || err.Error() != "no answer" {
			t.Errorf("got %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := netfault.Ended(ctx, os.ErrDeadlineExceeded, "no answer"); err != nil {
			t.Errorf("a minute before the end: %v", err)
		}
	})
}
