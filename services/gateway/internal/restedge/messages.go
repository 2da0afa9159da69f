package restedge

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"konsul.dev/pkg/fault"
)

// ReasonPacked is the reason of a gRPC message that is compressed.
const ReasonPacked = "COMPRESSION_UNSUPPORTED"

// headerSize is what gRPC puts in front of each message: whether it is compressed, and its length.
const headerSize = 5

// messages is the body of a gRPC call, of which nothing is read before somebody waits for it:
// gRPC's handler transport would read ahead without end. It looks at no more than the length of
// each message.
type messages struct {
	body    io.ReadCloser
	control *http.ResponseController
	// timeout is how long a message may take to arrive once it began, and the first one once
	// somebody waits for it.
	timeout time.Duration

	mu   sync.Mutex
	wake *sync.Cond
	// wanted says that somebody waits for a message, and closed that nobody will any more.
	wanted, closed bool
	// most is the most that a message may weigh, refuse ends the call, hold counts what is read.
	// They are set by open.
	most   int64
	refuse func(error)
	hold   *hold
	header []byte
	// left is what the message lacks yet.
	left  int64
	first bool
}

type messagesKey struct{}

// inTurn returns the request with its body as messages, which messagesOf finds.
func inTurn(w http.ResponseWriter, r *http.Request, timeout time.Duration) *http.Request {
	m := &messages{body: r.Body, control: http.NewResponseController(w), timeout: timeout, first: true}
	m.wake = sync.NewCond(&m.mu)
	r = r.WithContext(context.WithValue(r.Context(), messagesKey{}, m))
	r.Body = m
	return r
}

func messagesOf(ctx context.Context) *messages {
	m, _ := ctx.Value(messagesKey{}).(*messages)
	return m
}

// open says what messages may weigh, who counts them, and how a call ends that sends others.
func (m *messages) open(most int64, hold *hold, refuse func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.most, m.hold, m.refuse = most, hold, refuse
}

// next lets one message through.
func (m *messages) next() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = true
	if m.first {
		m.deadline(time.Now().Add(m.timeout))
	}
	m.wake.Broadcast()
}

// deadline runs under mu. Nothing may be asked of a response whose handler has returned: net/http
// panics.
func (m *messages) deadline(at time.Time) {
	if m.closed {
		return
	}
	_ = m.control.SetReadDeadline(at) // Without it the client's pings tell whether it is there.
}

// Read implements io.Reader.
func (m *messages) Read(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.wanted && !m.closed {
		m.wake.Wait()
	}
	if m.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	most := int64(headerSize - len(m.header))
	if most == 0 {
		most = m.left
	}
	b = b[:min(int64(len(b)), most)]
	m.mu.Unlock()
	n, err := m.body.Read(b)
	m.mu.Lock()
	if refused := m.arrived(b[:n], err); refused != nil {
		// The call ends with what is refused, unless gRPC says first that it could not read.
		m.refuse(refused)
		for !m.closed {
			m.wake.Wait()
		}
		return 0, http.ErrBodyReadAfterClose
	}
	return n, err
}

// arrived notes what was read, and answers why the call should end.
func (m *messages) arrived(b []byte, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.Invalid("request", "did not arrive within %s", m.timeout).Wrap(err)
	}
	if len(m.header) < headerSize {
		m.header = append(m.header, b...)
		if len(m.header) < headerSize {
			return nil
		}
		if m.header[0] != 0 {
			return fault.New(fault.Unimplemented, ReasonPacked, "compressed messages are not taken").
				WithRemedy("send requests without compression")
		}
		m.left = int64(binary.BigEndian.Uint32(m.header[1:]))
		if m.left > m.most {
			return tooLarge("request", m.most)
		}
		if !m.first {
			m.deadline(time.Now().Add(m.timeout))
		}
	} else {
		if err := m.hold.take(int64(len(b))); err != nil {
			return err
		}
		m.left -= int64(len(b))
	}
	if m.left == 0 {
		m.header, m.wanted, m.first = m.header[:0], false, false
		m.deadline(time.Time{})
	}
	return nil
}

// Close implements io.Closer: nobody waits for more.
func (m *messages) Close() error {
	err := m.body.Close()
	m.end()
	return err
}

// end is for when the call's handler returns, which whoever still waits for a message may outlive.
func (m *messages) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.wake.Broadcast()
}
