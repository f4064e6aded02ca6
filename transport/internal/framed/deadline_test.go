package framed

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestADeadlineMovesUnderItsWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadline
		waiting := d.Passed()
		began := time.Now()
		d.Set(began.Add(time.Second))
		d.Set(began.Add(time.Hour))
		d.Set(began.Add(time.Minute))
		<-waiting
		if after := time.Since(began); after != time.Minute {
			t.Errorf("passed after %v", after)
		}
	})
}

func TestADeadlineThatPassedCanBeSetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadline
		d.Set(time.Now().Add(-time.Second))
		<-d.Passed()
		d.Set(time.Time{})
		select {
		case <-d.Passed():
			t.Error("none has passed")
		case <-time.After(time.Hour):
		}
	})
}
