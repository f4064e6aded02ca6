package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mcp-edge/edge-agent/scheduler"
	"github.com/mcp-edge/edge-agent/transport"
)

func TestALinkThatIsOpeningSaysSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lane := newLane(t, &fakeLink{}, fixed())
		if s := lane.Status(); s.State != scheduler.Opening || !s.Since.Equal(time.Now()) || s.Reason == "" {
			t.Errorf("%+v", s)
		}
	})
	if text, err := json.Marshal(scheduler.Status{}); err != nil || strings.Contains(string(text), "0001") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestTheReasonOfALostLinkIsWhatHappened(t *testing.T) {
	closed := transport.Lost(errors.New("the other side closed the connection"))
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("modbus: %w, while asking unit 1", fmt.Errorf("tcp 10.0.0.5:502: read: %w", closed)), "the other side closed the connection"},
		{fmt.Errorf("%w: %w", errors.New("outcome unknown"), transport.Handshake(closed)), "the other side closed the connection"},
		{fmt.Errorf("serial: write: %w", transport.ErrLost), "serial: write: connection lost"},
	} {
		synctest.Test(t, func(t *testing.T) {
			dies := &fakeTask{answer: func(time.Duration, int, int) error { return c.err }}
			cfg := fixed()
			cfg.Breaker.Failures = 1 // so that it stays down
			lane := newLane(t, &fakeLink{}, cfg, poll("d", time.Second, dies))
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- lane.Run(ctx) }()
			<-time.After(5 * time.Second)
			if s := lane.Status(); s.State != scheduler.Down || s.Reason != c.want {
				t.Errorf("%+v", s)
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
