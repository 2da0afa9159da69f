// Package source listens to another datacenter's global records.
//
// A stream has a watchdog: a source that says nothing for too long, not even a heartbeat, is given
// up with a SOURCE_SILENT fault, whether it is dead, paused or cut off. Every stream has a
// connection of its own, so that the next one starts with a fresh handshake, perhaps through
// another gateway. A stream belongs to one goroutine.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/replicator/internal/cursor"
)

// Reasons a stream ends.
const (
	// ReasonSilent means that nothing was heard for the stream's timeout.
	ReasonSilent = "SOURCE_SILENT"
	// ReasonClosed means that the source ended the stream, as it does when it drains.
	ReasonClosed = "SOURCE_CLOSED"
)

// Dialer opens a connection to the registry of a datacenter. It need not wait for it.
type Dialer func(datacenter string) (*grpc.ClientConn, error)

// Params is what a client is made of.
type Params struct {
	Dial Dialer
	// Target is the datacenter that copies.
	Target       string
	FederationID string
	// Timeout is how long a source may be silent.
	Timeout time.Duration
	// Heartbeat is how often an idle source is asked to speak.
	Heartbeat time.Duration
}

// Client opens streams. Safe for concurrent use.
type Client struct{ params Params }

// New returns a client.
func New(p Params) *Client { return &Client{params: p} }

// Stream is one run of messages from a source.
type Stream struct {
	source   string
	timeout  time.Duration
	cancel   context.CancelCauseFunc
	ctx      context.Context //nolint:containedctx // the stream's own life, which Close ends
	watchdog *time.Timer
	conn     *grpc.ClientConn
	messages grpc.ServerStreamingClient[federationv1.ReplicationResponse]
}

// Open asks for everything that changed after a position. Close the stream in the end.
func (c *Client) Open(ctx context.Context, from cursor.Position, lineages cursor.Lineages) (*Stream, error) {
	conn, err := c.params.Dial(from.Source)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", from.Source, err)
	}
	s := &Stream{source: from.Source, timeout: c.params.Timeout, conn: conn}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.watchdog = time.AfterFunc(s.timeout, func() { s.cancel(c.silent(from.Source)) })
	s.messages, err = federationv1.NewReplicationServiceClient(conn).Replicate(s.ctx, &federationv1.ReplicationRequest{
		SourceDc:            from.Source,
		TargetDc:            c.params.Target,
		LastReplicatedIndex: int64(from.Index), //nolint:gosec // a Raft index never comes near the sign bit
		Epoch:               from.Epoch,
		FederationId:        c.params.FederationID,
		Heartbeat:           durationpb.New(c.params.Heartbeat),
		SourceLineageId:     lineages.Source,
		TargetLineageId:     lineages.Target,
	})
	s.watchdog.Stop()
	if err != nil {
		err = s.explain(err)
		s.Close()
		return nil, err
	}
	return s, nil
}

func (c *Client) silent(source string) error {
	return fault.New(fault.Unavailable, ReasonSilent, "%s has said nothing for %s", source, c.params.Timeout)
}

// Recv waits for the next message, at most for the timeout. After an error the stream is over.
func (s *Stream) Recv() (*federationv1.ReplicationResponse, error) {
	s.watchdog.Reset(s.timeout)
	defer s.watchdog.Stop()
	m, err := s.messages.Recv()
	if err != nil {
		return nil, s.explain(err)
	}
	return m, nil
}

// Close ends the stream and its connection.
func (s *Stream) Close() {
	s.watchdog.Stop()
	s.cancel(context.Canceled)
	// Nothing is left to lose on a connection that is not used any more.
	_ = s.conn.Close()
}

// explain returns why the stream ended: the watchdog and the caller know better than the transport.
func (s *Stream) explain(err error) error {
	if cause := context.Cause(s.ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return fault.New(fault.Unavailable, ReasonClosed, "%s ended the stream", s.source)
	}
	return err
}
