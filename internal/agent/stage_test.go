package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func TestAPartThatFailsIsRunAgainAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs, steady := 0, 0
		s := start("test", quiet, []part{
			{"flaky", func(ctx context.Context) error {
				if runs++; runs < 4 {
					return errors.New("no luck")
				}
				<-ctx.Done()
				return nil
			}},
			{"steady", func(ctx context.Context) error { steady++; <-ctx.Done(); return nil }},
		})
		synctest.Wait()
		if f := s.failures(); len(f) != 1 || f[0] != "flaky: no luck" {
			t.Errorf("failures %v", f)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if f := s.failures(); len(f) != 0 || runs != 4 || steady != 1 {
			t.Errorf("failures %v, %d runs, %d runs of the other", f, runs, steady)
		}
		s.stop(time.Second)
	})
}

func TestAPartThatHangsDoesNotHoldUpTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := start("test", quiet, []part{{"deaf", func(context.Context) error { <-release; return nil }}})
		begin := time.Now()
		s.stop(3 * time.Second)
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("stopped after %v", took)
		}
		close(release)
	})
}
