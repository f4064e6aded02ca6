package udp

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"

	"github.com/mcp-edge/edge-agent/transport/internal/framed"
)

// mailbox holds what has arrived for one reader. While it is empty it holds no
// memory. One goroutine may take or discard; the other methods may be called by
// anyone at any time.
type mailbox struct {
	packets  *packets
	deadline framed.Deadline
	arrived  chan struct{} // of one: there is a packet, or the end

	mu          sync.Mutex
	first, last *packet
	count       int
	over        error // why no more will come
}

func newMailbox(p *packets) *mailbox {
	return &mailbox{packets: p, arrived: make(chan struct{}, 1)}
}

// put takes over p, unless there is no room for it. Before it is full it lets
// the reader run, who may be waiting for this processor; what comes meanwhile,
// the kernel holds.
func (m *mailbox) put(p *packet) bool {
	count := m.add(p)
	if count > m.packets.room()/4 {
		runtime.Gosched()
	}
	return count > 0
}

// add returns how many there are then, or 0.
func (m *mailbox) add(p *packet) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over != nil || m.count >= m.packets.room() {
		return 0
	}
	m.packets.waiting.Add(1)
	if m.first == nil {
		m.first = p
	} else {
		m.last.next = p
	}
	m.last = p
	m.count++
	m.wake()
	return m.count
}

// take waits for a packet, which is the caller's then. After the end it first
// hands out what had arrived, but not after a Close of our own.
func (m *mailbox) take() (*packet, error) {
	for {
		if p, err := m.poll(); p != nil || err != nil {
			return p, err
		}
		select {
		case <-m.arrived:
		case <-m.deadline.Passed():
			if p, err := m.poll(); p != nil || err != nil {
				return p, err
			}
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// poll does not wait.
func (m *mailbox) poll() (*packet, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.first
	if p == nil || errors.Is(m.over, net.ErrClosed) {
		return nil, m.over
	}
	m.first, p.next = p.next, nil
	m.count--
	m.packets.waiting.Add(-1)
	return p, nil
}

// discard drops what has arrived, and says whether more can come.
func (m *mailbox) discard() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
	return m.over
}

// end says that nothing more will come, and why. What happened first counts,
// but for net.ErrClosed, which also drops what has not been read.
func (m *mailbox) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	closed := errors.Is(err, net.ErrClosed)
	if m.over == nil || closed {
		m.over = err
	}
	if closed {
		m.clear()
	}
	m.wake()
}

// ending is what end was told, or nil.
func (m *mailbox) ending() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over
}

func (m *mailbox) clear() {
	for p := m.first; p != nil; p = m.first {
		m.first = p.next
		m.packets.takeBack(p)
	}
	m.packets.waiting.Add(-int64(m.count))
	m.count = 0
}

func (m *mailbox) wake() {
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}
