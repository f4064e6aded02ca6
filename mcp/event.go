package mcp

// event is something that happens once. Its channel is made when somebody waits
// for it: nobody waits for most events of most sessions. The session's mu guards
// it.
type event struct {
	happened bool
	channel  chan struct{}
}

// happens may be called again.
func (e *event) happens() {
	if e.channel != nil && !e.happened {
		close(e.channel)
	}
	e.happened = true
}

// wait returns a channel that is closed once it has happened.
func (e *event) wait() <-chan struct{} {
	if e.channel == nil {
		e.channel = make(chan struct{})
		if e.happened {
			close(e.channel)
		}
	}
	return e.channel
}
