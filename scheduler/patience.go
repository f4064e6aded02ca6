package scheduler

import "time"

// patience is how long a device is given to answer: what its answers have
// taken, smoothed, and four times their spread, as a TCP sender times its
// segments (RFC 6298, section 2). It lies between low and high; a device that
// was never measured gets all of it.
type patience struct {
	mean, spread time.Duration // 0: never measured
}

// heard learns from an answer.
func (p *patience) heard(took time.Duration) {
	if p.mean == 0 {
		p.mean, p.spread = took, took/2
		return
	}
	p.spread += ((took - p.mean).Abs() - p.spread) / 4
	p.mean = max(p.mean+(took-p.mean)/8, 1)
}

// measured is what the device needs; 0 when that is unknown.
func (p *patience) measured() time.Duration { return p.mean + 4*p.spread }

// within is what the device needs, between low and high.
func (p *patience) within(low, high time.Duration) time.Duration {
	if p.mean == 0 {
		return high
	}
	return min(max(p.measured(), low), high)
}

// hearOutAgain is how long after it was heard out for the nth time a silent
// device is heard out again. Each time disturbs the neighbours in a period or two;
// with eight dead of 32 on a line that is less than one in a hundred of all
// periods.
func hearOutAgain(n int) time.Duration {
	if n == 1 {
		return 10 * time.Minute
	}
	return time.Hour
}

// hearsOut tells whether the next probe of a device waits for longer than the
// device needed when it was heard: the first one does, and others ever less often.
// So one that is slow, or has become slow, is found.
func (l *Lane) hearsOut(d *device, now time.Time) bool {
	again := hearOutAgain(d.hearOuts)
	if l.leisure(d) {
		again = min(20*time.Second<<min(2*(d.hearOuts-1), 16), time.Hour)
	}
	return d.silent() && (d.hearOuts == 0 || now.Sub(d.heardOut) >= again)
}

// leisure tells whether d may be heard out for longer than others are: it has not
// answered since the start, so that nobody knows how slow it is, and the line is
// idle most of the time.
func (l *Lane) leisure(d *device) bool {
	return d.patience.mean == 0 && d.hearOuts > 0 && l.use() < 0.5
}

// use is how much of the time the line was in use lately, 0 to 1.
func (l *Lane) use() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meter.share()
}

// atLeisure is how long that is: what the shortest period of the neighbours
// leaves free, so that none of them misses one. Only where that is too little to
// tell whether the device is there, less than half of what it is configured to
// need, it has all of Timeout, and its neighbours miss a period. bear is what
// bearable says.
func (l *Lane) atLeisure(bear time.Duration) time.Duration {
	free := time.Duration(float64(2*bear) * (1 - l.use()))
	if free < l.cfg.Timeout/2 {
		return l.cfg.Timeout
	}
	return max(free-l.cfg.TimeoutMin, bear) // another one may not answer, either
}

// timeout is how long the next transaction of r may wait.
//
// While a line carries one transaction at a time, what is spent on one that is
// not answered is taken from the neighbours. They can bear half of their
// shortest period without missing it, while the line is not overloaded, and an
// eighth of that, with the request's own time, is less than a tenth of any
// period. So a device that answers has its own time, and one that does not is
// heard out only as far as that.
func (l *Lane) timeout(r *round, now time.Time) time.Duration {
	d := r.device
	bear := l.bearable(d)
	switch {
	case r.job != nil && (d.ignored == 0 || bear == 0):
		return l.cfg.Timeout // a device may take longer to write than to read
	case r.job != nil: // and it may not care to answer
		return min(max(bear, d.patience.measured()), l.cfg.Timeout)
	case d.suspect() && bear > 0:
		return min(l.probeTime(r, now, bear), l.cfg.Timeout)
	case d.silent():
		return l.cfg.Timeout // nobody waits
	}
	own := d.patience.within(l.least(now, bear), l.cfg.Timeout)
	patient := min(own<<min(r.tries, 16), l.cfg.Timeout) // an answer that was missed may be on its way
	if bear > 0 {
		patient = min(patient, bear/8)
	}
	return max(own, patient)
}

// probeTime is how long a poll of a device may take that may well not answer,
// where its neighbours bear so much and no more.
func (l *Lane) probeTime(r *round, now time.Time, bear time.Duration) time.Duration {
	d := r.device
	short := min(l.cfg.TimeoutMin, bear/8)
	if l.hearsOut(d, now) {
		if l.leisure(d) {
			bear = l.atLeisure(bear)
		}
		d.hearOuts, d.heardOut = d.hearOuts+1, now
		return max(bear, 2*d.patience.measured())
	}
	need := max(d.patience.measured(), l.neighboursNeed(d))
	switch {
	case d.silent(), d.patience.mean > 0:
		return max(need, short)
	case need > 0: // it is asked for the first time
		return min(max(need, l.least(now, bear)), bear)
	}
	return max(bear/2, l.cfg.TimeoutMin) // nobody has answered yet, and several may be dead
}

// least is what every device that is expected to answer is given: TimeoutMin, but
// less where the neighbours have just waited for another one, as several may
// have died at once.
func (l *Lane) least(now time.Time, bear time.Duration) time.Duration {
	if bear > 0 && l.budget.paid(now).After(now) {
		return min(l.cfg.TimeoutMin, bear/8)
	}
	return l.cfg.TimeoutMin
}

// suspect tells whether d may well not answer: it has not the last time, or
// never has.
func (d *device) suspect() bool { return d.silent() || d.lastGood.IsZero() }

// bearable is how long the line may be held for d alone: half the shortest
// period of the other devices that answer, and never less than TimeoutMin. 0 means
// any time: nobody waits.
func (l *Lane) bearable(d *device) time.Duration {
	if l.cfg.Transactions > 1 || len(l.devices) < 2 {
		return 0
	}
	shortest := time.Duration(0)
	for _, r := range l.agenda.rounds {
		if r.device != d && !r.device.silent() && (shortest == 0 || r.every < shortest) {
			shortest = r.every
		}
	}
	if shortest == 0 {
		return 0
	}
	return max(shortest/2, l.cfg.TimeoutMin)
}

// neighboursNeed is what the slowest of the other devices needs to answer.
func (l *Lane) neighboursNeed(d *device) (need time.Duration) {
	for _, other := range l.devices {
		if other != d && !other.silent() {
			need = max(need, other.patience.measured())
		}
	}
	return need
}

// wasted notes a request of r that was not answered, and what that has cost the
// neighbours. Polls and commands have budgets of their own: a device may ignore a
// command and answer its polls, or be away when somebody wants to know whether it
// is back.
func (l *Lane) wasted(r *round, now time.Time, cost time.Duration) {
	if l.bearable(r.device) > 0 {
		r.device.budgetOf(r).spend(now, cost)
		l.budget.spend(now, cost)
	}
}

// affordable is from when on r may take its turn, for what it may cost the
// neighbours. The first request to a device always may, and no device is left
// unasked for longer than twice ProbeMax: a line on which much goes wrong still
// finds out what does not.
func (l *Lane) affordable(r *round, now time.Time) time.Time {
	d := r.device
	if l.cfg.Transactions > 1 || d.asked.IsZero() || r.begun && !r.expires() && r.tries == 0 {
		return now
	}
	atLast := d.asked.Add(2 * l.cfg.ProbeMax)
	switch {
	case d.suspect(), r.tries > 0, r.job != nil && d.ignored > 0: // a command serves as a probe, too
		return earlier(l.affords(r, now), atLast)
	case r.job == nil: // one that often does not answer may live on what the others leave
		return earlier(earlier(d.budget.paid(now), l.linePaid(d, now)), atLast)
	}
	return now
}

// affords is from when on a request of r may go that may well not be answered:
// neither the line nor the device's own share is overdrawn then.
func (l *Lane) affords(r *round, now time.Time) time.Time {
	return later(r.device.budgetOf(r).paid(now), l.linePaid(r.device, now))
}

// linePaid is from when on the line may wait for d without an answer.
func (l *Lane) linePaid(d *device, now time.Time) time.Time {
	if l.bearable(d) == 0 {
		return now
	}
	return l.budget.paid(now)
}
