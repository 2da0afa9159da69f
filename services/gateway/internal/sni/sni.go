// Package sni reads the server name out of the first bytes of a TLS connection without taking part
// in it.
//
// What is read is kept, so that the connection can be passed on, or terminated, as if nobody had
// looked. Nothing is answered and nothing is decrypted. A Hello belongs to one goroutine.
package sni

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// MaxHello bounds what is read in search of a ClientHello. A hello with post-quantum key shares and
// long extensions stays below 4 KiB; TLS itself allows 64 KiB.
const MaxHello = 16 << 10

// Why no server name was found.
var (
	// ErrNotTLS means the bytes are not the begin of a TLS connection.
	ErrNotTLS = errors.New("not TLS")
	// ErrTooLong means no hello ended within MaxHello bytes.
	ErrTooLong = errors.New("client hello is too long")
	// ErrIncomplete means the peer stopped within its hello: it closed, or its time ran out.
	ErrIncomplete = errors.New("client hello is incomplete")
	// ErrNoName means the hello carries no server name.
	ErrNoName = errors.New("client hello carries no server name")
)

// Hello is what was learnt, and all that was read to learn it.
type Hello struct {
	// ServerName is in lower case, as sent otherwise.
	ServerName string
	// Read is every byte taken from the connection, in order; it may reach beyond the hello.
	Read []byte
}

// Peek reads from r until a whole ClientHello is there, however many records it is cut into. The
// Hello's Read is set even when there is an error. The caller sets a deadline on r.
func Peek(r io.Reader) (Hello, error) {
	tape := &tape{source: r}
	var name string
	seen := false
	// The standard library parses the hello and is stopped before it answers: a parser of our own
	// would be a second opinion about bytes that the far end judges with the same library.
	server := tls.Server(tape, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			name, seen = hello.ServerName, true
			return nil, errSeen
		},
	})
	err := server.HandshakeContext(context.Background()) // the reader's deadline ends it
	hello := Hello{ServerName: name, Read: tape.buffer.Bytes()}
	switch {
	case seen && name == "":
		return hello, ErrNoName
	case seen:
		hello.ServerName = string(bytes.ToLower([]byte(name)))
		return hello, nil
	case tape.tooLong:
		return hello, ErrTooLong
	case tape.failed != nil:
		return hello, errors.Join(ErrIncomplete, tape.failed)
	default:
		return hello, errors.Join(ErrNotTLS, err)
	}
}

var errSeen = errors.New("hello seen")

// tape is a connection that records what is read and swallows what is written.
type tape struct {
	source  io.Reader
	buffer  bytes.Buffer
	failed  error
	tooLong bool
}

func (t *tape) Read(p []byte) (int, error) {
	room := MaxHello - t.buffer.Len()
	if room <= 0 {
		t.tooLong = true
		return 0, ErrTooLong
	}
	n, err := t.source.Read(p[:min(len(p), room)])
	t.buffer.Write(p[:n])
	if err != nil {
		t.failed = err
	}
	return n, err
}

func (*tape) Write(p []byte) (int, error)      { return len(p), nil }
func (*tape) Close() error                     { return nil }
func (*tape) LocalAddr() net.Addr              { return nil }
func (*tape) RemoteAddr() net.Addr             { return nil }
func (*tape) SetDeadline(time.Time) error      { return nil }
func (*tape) SetReadDeadline(time.Time) error  { return nil }
func (*tape) SetWriteDeadline(time.Time) error { return nil }
