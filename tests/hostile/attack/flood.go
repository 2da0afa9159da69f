package attack

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Flood is one connection with many gRPC calls of one method, all with large messages of zeros. It
// speaks HTTP/2 by itself: a gRPC client would not hold back half of a message.
type Flood struct {
	Method string
	// Token goes with each call; empty: none does.
	Token string
	// Certificate is the caller's; nil: it shows none.
	Certificate *tls.Certificate
	// First is a message that goes before the large ones; nil: none does.
	First []byte
	// Streams is how many calls are made at once, Bytes how large each message is, Messages how
	// many of them each call sends; 0: one.
	Streams, Bytes, Messages int
	// Gzip packs the messages, which makes them very small.
	Gzip bool
	// Unfinished calls hold back the last byte of their last message until the flood ends.
	Unfinished bool
}

// Outcome is how many calls ended in each way: with a gRPC status such as "7", or with an error of
// the transport.
type Outcome map[string]int

// String returns what came of the calls, for the log of a test.
func (o Outcome) String() string {
	var ends []string
	for _, end := range slices.Sorted(maps.Keys(o)) {
		ends = append(ends, fmt.Sprintf("%d × %s", o[end], end))
	}
	return strings.Join(ends, ", ")
}

// Run makes the calls and waits until all have ended, or ctx has.
func (f Flood) Run(ctx context.Context, t *testing.T, address string) Outcome {
	t.Helper()
	//nolint:gosec // the attacker does not care whom it attacks
	secure := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	if f.Certificate != nil {
		secure.Certificates = []tls.Certificate{*f.Certificate}
	}
	transport := &http.Transport{
		TLSClientConfig: secure, ForceAttemptHTTP2: true, DisableCompression: true, MaxConnsPerHost: 1,
		HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true},
	}
	defer transport.CloseIdleConnections()
	message := f.message(t)
	outcome := Outcome{}
	var mu sync.Mutex
	var calls sync.WaitGroup
	for range f.Streams {
		calls.Go(func() {
			end := f.call(ctx, transport, "https://"+address+f.Method, message)
			mu.Lock()
			defer mu.Unlock()
			outcome[end]++
		})
	}
	calls.Wait()
	t.Logf("the calls ended so: %s", outcome)
	return outcome
}

// zeros is an endless supply.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// message returns what makes a message as gRPC frames it: whether it is packed, its length, and
// itself.
func (f Flood) message(t *testing.T) func() io.Reader {
	t.Helper()
	prefix := func(packed byte, length int) io.Reader {
		return bytes.NewReader(binary.BigEndian.AppendUint32([]byte{packed}, uint32(length))) //nolint:gosec // lengths of tests
	}
	if !f.Gzip {
		return func() io.Reader {
			return io.MultiReader(prefix(0, f.Bytes), io.LimitReader(zeros{}, int64(f.Bytes)))
		}
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := io.CopyN(w, zeros{}, int64(f.Bytes))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return func() io.Reader { return io.MultiReader(prefix(1, packed.Len()), bytes.NewReader(packed.Bytes())) }
}

// withheld is a body whose last byte does not come.
type withheld struct {
	ctx context.Context //nolint:containedctx // io.Reader has no place for it
	io.Reader
}

func (w withheld) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if errors.Is(err, io.EOF) {
		<-w.ctx.Done()
		return n, w.ctx.Err()
	}
	return n, err
}

func (f Flood) call(ctx context.Context, transport *http.Transport, url string, message func() io.Reader) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var body []io.Reader
	if f.First != nil {
		length := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(f.First))) //nolint:gosec // lengths of tests
		body = append(body, bytes.NewReader(append(length, f.First...)))
	}
	for range max(1, f.Messages) {
		body = append(body, message())
	}
	content := io.MultiReader(body...)
	if f.Unfinished {
		last := int64(max(1, f.Messages))*int64(f.Bytes+5) - 1
		content = withheld{ctx: ctx, Reader: io.LimitReader(content, last)}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, content)
	if err != nil {
		return err.Error()
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	if f.Token != "" {
		request.Header.Set("Authorization", "Bearer "+f.Token)
	}
	if f.Gzip {
		request.Header.Set("Grpc-Encoding", "gzip")
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "transport: " + err.Error()
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "transport: " + err.Error()
	}
	for _, from := range []http.Header{response.Trailer, response.Header} {
		if code := from.Get("Grpc-Status"); code != "" {
			return "status " + code + " " + from.Get("Grpc-Message")
		}
	}
	return response.Status
}
