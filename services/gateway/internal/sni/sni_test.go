package sni_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/gateway/internal/sni"
)

// hello returns the first flight of a client.
func hello(t testing.TB, name string, protos ...string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer func() { _ = client.Close() }()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos}).Handshake()
	}()
	buffer := make([]byte, 16<<10)
	require.NoError(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, err := server.Read(buffer)
	require.NoError(t, err)
	return buffer[:n]
}

// cut returns the same handshake message in records of at most size bytes.
func cut(flight []byte, size int) []byte {
	message := flight[5:]
	var out []byte
	for len(message) > 0 {
		n := min(size, len(message))
		out = append(out, 22, 3, 1, byte(n>>8), byte(n))
		out, message = append(out, message[:n]...), message[n:]
	}
	return out
}

func TestPeekFindsTheNameAndKeepsEveryByte(t *testing.T) {
	const name = "registry.control.us-west.1.konsul"
	flight := hello(t, name)
	for testName, c := range map[string]struct {
		bytes  []byte
		reader func(io.Reader) io.Reader
	}{
		"at once":           {bytes: flight},
		"byte by byte":      {bytes: flight, reader: iotest.OneByteReader},
		"in small records":  {bytes: cut(flight, 7)},
		"both":              {bytes: cut(flight, 1), reader: iotest.OneByteReader},
		"with more behind":  {bytes: append(bytes.Clone(flight), "early"...)},
		"upper case":        {bytes: hello(t, strings.ToUpper(name))},
		"with long offers":  {bytes: hello(t, name, strings.Repeat("a", 255), strings.Repeat("b", 255))},
		"data with the end": {bytes: flight, reader: iotest.DataErrReader},
	} {
		t.Run(testName, func(t *testing.T) {
			var source io.Reader = bytes.NewReader(c.bytes)
			if c.reader != nil {
				source = c.reader(source)
			}
			got, err := sni.Peek(source)
			require.NoError(t, err)
			require.Equal(t, name, got.ServerName)
			rest, err := io.ReadAll(source)
			require.NoError(t, err)
			require.Equal(t, c.bytes, append(got.Read, rest...))
		})
	}
}

func TestPeekSaysWhyThereIsNoName(t *testing.T) {
	flight := hello(t, "a.b.c.konsul")
	endless := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, make([]byte, 64<<10)...)
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"plain HTTP":     {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), sni.ErrNotTLS},
		"no server name": {hello(t, ""), sni.ErrNoName},
		"an address":     {hello(t, "127.0.0.1"), sni.ErrNoName},
		"nothing":        {nil, sni.ErrIncomplete},
		"half a hello":   {flight[:len(flight)/2], sni.ErrIncomplete},
		"too long":       {endless, sni.ErrTooLong},
		"another record": {append([]byte{23}, flight[1:]...), sni.ErrNotTLS},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := sni.Peek(bytes.NewReader(c.bytes))
			require.ErrorIs(t, err, c.want)
			require.Empty(t, got.ServerName)
			require.True(t, bytes.HasPrefix(c.bytes, got.Read))
		})
	}
}

func TestPeekHonoursTheDeadline(t *testing.T) {
	client, server := net.Pipe()
	defer func() { _ = client.Close() }()
	require.NoError(t, server.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err := sni.Peek(server)
	require.ErrorIs(t, err, sni.ErrIncomplete)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func FuzzPeek(f *testing.F) {
	flight := hello(f, "payment-api.us-east.1.konsul")
	f.Add(flight)
	f.Add(cut(flight, 3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 0})
	f.Fuzz(func(t *testing.T, input []byte) {
		source := bytes.NewReader(input)
		got, err := sni.Peek(source)
		require.LessOrEqual(t, len(got.Read), sni.MaxHello)
		require.Equal(t, err == nil, got.ServerName != "")
		rest, readErr := io.ReadAll(source)
		require.NoError(t, readErr)
		require.True(t, bytes.Equal(input, append(got.Read, rest...)))
	})
}
