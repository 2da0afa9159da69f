package restedge

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// deadlines is a response that counts what is asked of it.
type deadlines struct {
	*httptest.ResponseRecorder
	set int
}

// SetReadDeadline is what http.ResponseController calls.
func (d *deadlines) SetReadDeadline(time.Time) error {
	d.set++
	return nil
}

// A client that gives up at once ends the handler before anybody waited for its first message;
// net/http panics when the response is used after that, and the gateway is gone.
func TestNothingIsAskedOfAResponseWhoseHandlerHasReturned(t *testing.T) {
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := inTurn(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("\x00\x00\x00\x00\x00")), time.Second)
	m := messagesOf(r.Context())
	m.next()
	require.Equal(t, 1, w.set)
	m.end()
	m.next()
	require.Equal(t, 1, w.set)
	_, err := m.Read(make([]byte, 5))
	require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
}
