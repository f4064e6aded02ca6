package clock

import "time"

// Step is one round of Run.
func (o *Offsets) Step() time.Duration { return o.step() }

// MinStep is by how much the clock must be set for that to be noticed.
const MinStep = minStep

// MaxBoots is how many boots are remembered.
const MaxBoots = maxBoots
