// Package bus tests a shared line as a whole: a scheduler.Lane, the Modbus
// driver, simulated slaves, and the wire between them. Time is simulated, so
// that what is measured is exact and the same on every machine.
package bus

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
