package restedge

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

func framed(packed byte, declared int, content string) string {
	return string(binary.BigEndian.AppendUint32([]byte{packed}, uint32(declared))) + content //nolint:gosec // small
}

// open returns the body of a call whose messages may weigh 10 bytes, all calls together 100, and
// those of a token 25.
func open(body io.Reader, refuse func(error)) (*messages, *inflight) {
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r = inTurn(httptest.NewRecorder(), r, time.Second)
	held := newInflight(100, 10, func(string) {})
	m := messagesOf(r.Context())
	m.open(10, held.hold("alice"), refuse)
	return m, held
}

func TestMessagesComeOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := bytes.NewReader([]byte(framed(0, 3, "abc") + framed(0, 0, "") + framed(0, 2, "de")))
		m, held := open(body, func(err error) { t.Error(err) })
		var got bytes.Buffer
		done := make(chan error)
		go func() {
			_, err := io.Copy(&got, m)
			done <- err
		}()
		for _, unread := range []int{20, 12, 7, 0} {
			synctest.Wait()
			require.Equal(t, unread, body.Len(), "nothing is read ahead")
			m.next()
		}
		require.NoError(t, <-done)
		require.Equal(t, int64(5), held.total)
	})
}

func TestMessagesAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		body   string
		others int64
		reason string
		code   fault.Code
	}{
		{"too large, before it has come", framed(0, 11, ""), 0, ReasonBodyTooLarge, fault.InvalidArgument},
		{"packed", framed(1, 3, "abc"), 0, ReasonPacked, fault.Unimplemented},
		{"more than the token may have in flight", framed(0, 10, "0123456789"), 16, rpc.ReasonInflightLimit, fault.ResourceExhausted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refused := make(chan error, 1)
			m, held := open(bytes.NewReader([]byte(tc.body)), func(err error) { refused <- err })
			require.NoError(t, held.hold("alice").take(tc.others))
			m.next()
			done := make(chan error)
			go func() {
				_, err := io.Copy(io.Discard, m)
				done <- err
			}()
			err := <-refused
			require.Equal(t, tc.reason, fault.ReasonOf(err))
			require.Equal(t, tc.code, fault.CodeOf(err))
			require.NoError(t, m.Close())
			require.ErrorIs(t, <-done, http.ErrBodyReadAfterClose, "gRPC hears nothing before the call has ended")
		})
	}
}

type late struct{}

func (late) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestAMessageThatDoesNotComeEndsItsCall(t *testing.T) {
	refused := make(chan error, 1)
	m, _ := open(late{}, func(err error) { refused <- err })
	m.next()
	go func() { _, _ = io.Copy(io.Discard, m) }()
	require.ErrorContains(t, <-refused, "did not arrive within 1s")
	require.NoError(t, m.Close())
}

func TestBytesInFlightAreShared(t *testing.T) {
	f := newInflight(100, 10, func(string) {})
	greedy := f.hold("greedy")
	require.NoError(t, greedy.take(25))
	require.Equal(t, rpc.ReasonInflightLimit, fault.ReasonOf(f.hold("greedy").take(1)), "a token has a quarter")
	var others []*hold
	for _, name := range []string{"", "b", "c"} {
		h := f.hold(name)
		require.NoError(t, h.take(25))
		others = append(others, h)
	}
	require.Equal(t, rpc.ReasonInflightLimit, fault.ReasonOf(f.hold("d").take(1)))
	greedy.give(5)
	require.NoError(t, f.hold("d").take(5))
	for _, h := range append(others, greedy) {
		h.end()
		require.NoError(t, h.take(1000), "what comes after the end is dropped")
	}
	require.Equal(t, int64(5), f.total)
	require.Equal(t, map[string]int64{"d": 5}, f.of)
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(framed(0, 3, "abc")+framed(0, 0, "")), 3)
	f.Add([]byte(framed(1, 3, "abc")), 1)
	f.Add([]byte{0, 255, 255, 255, 255, 1}, 5)
	f.Fuzz(func(t *testing.T, body []byte, size int) {
		refused := make(chan error, 1)
		m, held := open(bytes.NewReader(body), nil)
		m.refuse = func(err error) {
			refused <- err
			go func() { _ = m.Close() }()
		}
		buffer := make([]byte, min(max(size, 1), 64))
		for range 2*len(body) + 2 {
			m.next()
			if _, err := m.Read(buffer); err != nil {
				break
			}
		}
		require.LessOrEqual(t, held.total, int64(25))
	})
}
