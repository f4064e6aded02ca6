package modbus

import "context"

// watch interrupts whoever waits on a connection when their context ends. The
// steps of a line share one context, so this costs a registration for each line
// and not for each step. It is for one goroutine at a time.
//
// Whoever sets a deadline that interrupt moves looks at ctx.Err afterwards, so
// that an end in between is not overlooked.
type watch struct {
	interrupt func()

	ctx  context.Context // that is followed; nil for none
	stop func() bool
	done chan struct{} // closed when interrupt has run
}

// follow has interrupt called when ctx ends.
func (w *watch) follow(ctx context.Context) {
	if ctx == w.ctx {
		return
	}
	w.leave()
	done := make(chan struct{})
	w.ctx, w.done = ctx, done
	w.stop = context.AfterFunc(ctx, func() {
		defer close(done)
		w.interrupt()
	})
}

// leave follows nothing any more. interrupt is not running when it returns.
func (w *watch) leave() {
	if w.ctx == nil {
		return
	}
	if !w.stop() {
		<-w.done
	}
	w.ctx = nil
}
