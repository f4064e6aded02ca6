package mcp

import (
	"context"
	"sync"

	"github.com/mcp-edge/edge-agent/scheduler"
)

// maxJobs is how many jobs may be under way toward one device: as many requests
// as a peer takes at once unless it was told otherwise.
const maxJobs = 8

// desk keeps the jobs toward the devices of a Server while they are under way,
// a goroutine each, and tells them when a device comes. It has nothing of
// devices without jobs.
type desk struct {
	mu      sync.Mutex
	devices map[string]*business
	runs    int // of the Server
	ctx     context.Context
	stop    context.CancelFunc // ends ctx, when Run does
	running sync.WaitGroup
}

// business with one device.
type business struct {
	jobs    int
	entered chan struct{} // closed, and made anew, when the device comes
}

func newDesk() *desk {
	d := &desk{devices: make(map[string]*business)}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// begin runs a job in a goroutine; its context ends with the Server's Run.
func (d *desk) begin(device string, job func(context.Context)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return scheduler.ErrStopped
	}
	b := d.devices[device]
	switch {
	case b == nil:
		b = &business{entered: make(chan struct{})}
		d.devices[device] = b
	case b.jobs >= maxJobs:
		return scheduler.ErrBusy
	}
	b.jobs++
	ctx := d.ctx
	d.running.Go(func() {
		defer d.done(device)
		job(ctx)
	})
	return nil
}

// done forgets a job.
func (d *desk) done(device string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.devices[device]
	if b.jobs--; b.jobs == 0 {
		delete(d.devices, device)
	}
}

// entrance returns a channel that is closed when the device comes. Only its jobs
// may ask.
func (d *desk) entrance(device string) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.devices[device].entered
}

// entered notes that a session's peer has said that it is device.
func (d *desk) entered(device string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.devices[device]; b != nil {
		close(b.entered)
		b.entered = make(chan struct{})
	}
}

// open lets jobs be done again, should the desk have been closed.
func (d *desk) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs++
	if d.ctx.Err() != nil {
		d.ctx, d.stop = context.WithCancel(context.Background())
	}
}

// close ends all jobs when it was called as often as open.
func (d *desk) close() {
	d.mu.Lock()
	d.runs--
	last := d.runs == 0
	if last {
		d.stop()
	}
	d.mu.Unlock()
	if last {
		d.running.Wait()
	}
}
