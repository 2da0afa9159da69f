package konsul

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
	"konsul.dev/pkg/rpc"
)

// script is a connection on which each call meets the next outcome; the last one stays.
type script struct {
	outcomes []error
	hang     bool
	seen     []any
	deadline time.Duration
}

func (s *script) Invoke(ctx context.Context, _ string, args, _ any, _ ...grpc.CallOption) error {
	s.seen = append(s.seen, args)
	if d, ok := ctx.Deadline(); ok {
		s.deadline = time.Until(d)
	}
	if s.hang {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	return s.outcomes[min(len(s.seen), len(s.outcomes))-1]
}

func (s *script) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return &scriptStream{outcomes: s.outcomes}, nil
}

type scriptStream struct {
	grpc.ClientStream
	outcomes []error
}

func (s *scriptStream) Context() context.Context { return context.Background() }
func (s *scriptStream) SendMsg(any) error        { return nil }
func (s *scriptStream) CloseSend() error         { return nil }
func (s *scriptStream) RecvMsg(any) error {
	err := s.outcomes[0]
	s.outcomes = s.outcomes[1:]
	return err
}

func ours(code fault.Code, reason string) error {
	return rpc.ToStatus(fault.New(code, reason, "no")).Err()
}

func TestRetryOnlyWhatIsSafe(t *testing.T) {
	bare := status.Error(codes.Unavailable, "connection error: refused")
	noLeader := ours(fault.Unavailable, fault.ReasonNoLeader)
	unknown := ours(fault.Unknown, fault.ReasonOutcomeUnknown)
	read := func(t transport) error {
		_, err := registryv1.NewKVServiceClient(t).Get(context.Background(), &registryv1.GetRequest{Key: "k"})
		return err
	}
	write := func(t transport) error {
		_, err := registryv1.NewKVServiceClient(t).Set(context.Background(), &registryv1.SetRequest{Key: "k"})
		return err
	}
	token := func(t transport) error {
		_, err := cav1.NewCertificateServiceClient(t).CreateJoinToken(context.Background(), &cav1.CreateJoinTokenRequest{})
		return err
	}
	for name, c := range map[string]struct {
		call  func(transport) error
		first error
		again bool
	}{
		"read, connection lost":         {read, bare, true},
		"read, no leader":               {read, noLeader, true},
		"read, not found":               {read, ours(fault.NotFound, "KEY_NOT_FOUND"), false},
		"read, refused certificate":     {read, status.Error(codes.Unavailable, "tls: failed to verify certificate: x509: unknown"), false},
		"write, connection lost":        {write, bare, true},
		"write, no leader":              {write, noLeader, true},
		"write, outcome unknown":        {write, unknown, true},
		"write, unknown without reason": {write, status.Error(codes.Unknown, "?"), false},
		"write, CAS lost":               {write, ours(fault.Aborted, "CAS_MISMATCH"), false},
		"token, connection lost":        {token, bare, false},
		"token, refused before":         {token, noLeader, true},
		"token, outcome unknown":        {token, unknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{outcomes: []error{c.first, nil}}
				err := c.call(newTransport(s, Config{Timeout: time.Minute, DisableBatching: true}))
				if c.again {
					require.NoError(t, err)
					require.Len(t, s.seen, 2)
					return
				}
				require.Error(t, err)
				require.Len(t, s.seen, 1)
				_, ok := fault.As(err)
				require.True(t, ok, "errors of the SDK are faults")
			})
		})
	}
}

func TestRepeatedWriteKeepsItsRequestIDAndANewOneGetsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{outcomes: []error{status.Error(codes.Unavailable, "reset"), nil, nil}}
		kv := registryv1.NewKVServiceClient(newTransport(s, Config{Timeout: time.Minute, DisableBatching: true}))
		request := &registryv1.SetRequest{Key: "k"}
		for range 2 {
			_, err := kv.Set(t.Context(), request)
			require.NoError(t, err)
		}
		require.Len(t, s.seen, 3)
		id := func(i int) string { return s.seen[i].(*registryv1.SetRequest).GetRequestId() }
		require.NotEmpty(t, id(0))
		require.Equal(t, id(0), id(1), "the same write")
		require.NotEqual(t, id(0), id(2), "another write with the same message")
		require.Empty(t, request.GetRequestId(), "the caller's message is left alone")
	})
}

func TestATryThatEndsInNoTimeDoesNotHideThatTheOutcomeIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{outcomes: []error{ours(fault.Unknown, fault.ReasonOutcomeUnknown), status.Error(codes.DeadlineExceeded, "late")}}
		kv := registryv1.NewKVServiceClient(newTransport(s, Config{Timeout: time.Minute, DisableBatching: true}))
		_, err := kv.Set(t.Context(), &registryv1.SetRequest{Key: "k"})
		require.Equal(t, fault.ReasonOutcomeUnknown, fault.ReasonOf(err), "%v", err)
		f, _ := fault.As(err)
		require.Equal(t, s.seen[0].(*registryv1.SetRequest).GetRequestId(), f.Meta()[requestid.MetaKey])
	})
}

func TestAWriteCarriesTheIDOfItsContext(t *testing.T) {
	s := &script{outcomes: []error{nil}}
	conn := newTransport(s, Config{Timeout: time.Minute})
	id := func() string {
		return s.seen[len(s.seen)-1].(interface{ GetRequestId() string }).GetRequestId()
	}
	client := &KVClient{api: registryv1.NewKVServiceClient(conn)}
	_, err := client.Delete(WithRequestID(t.Context(), "mine"), "k", nil)
	require.NoError(t, err)
	require.Equal(t, "mine", id())
	_, err = registryv1.NewKVServiceClient(conn).Txn(WithRequestID(t.Context(), "mine too"), &registryv1.TxnRequest{})
	require.NoError(t, err)
	require.Equal(t, "mine too", id())
	_, err = registryv1.NewKVServiceClient(conn).Txn(WithRequestID(t.Context(), "mine"), &registryv1.TxnRequest{RequestId: "the message's"})
	require.NoError(t, err)
	require.Equal(t, "the message's", id())
	_, err = client.Delete(WithRequestID(t.Context(), ""), "k", nil)
	require.NoError(t, err)
	require.Len(t, id(), 36)
}

func TestRetriesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{outcomes: []error{ours(fault.Unavailable, fault.ReasonNoLeader)}}
		start := time.Now()
		_, err := registryv1.NewKVServiceClient(newTransport(s, Config{Timeout: time.Minute, DisableBatching: true})).Get(t.Context(), &registryv1.GetRequest{})
		require.Equal(t, fault.ReasonNoLeader, fault.ReasonOf(err))
		require.LessOrEqual(t, time.Since(start), retryFor)
		require.Greater(t, len(s.seen), 3)
	})
}

func TestAServersPaceIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := rpc.ToStatus(fault.New(fault.Unavailable, "DRAINING", "soon").WithRetryAfter(2 * time.Second)).Err()
		s := &script{outcomes: []error{busy, nil}}
		start := time.Now()
		_, err := registryv1.NewKVServiceClient(newTransport(s, Config{Timeout: time.Minute, DisableBatching: true})).Get(t.Context(), &registryv1.GetRequest{})
		require.NoError(t, err)
		require.Equal(t, 2*time.Second, time.Since(start))
	})
}

func TestTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		request *registryv1.GetRequest
		want    time.Duration
	}{
		"plain":                      {&registryv1.GetRequest{}, time.Second},
		"wait without index":         {&registryv1.GetRequest{Wait: durationpb.New(time.Minute)}, time.Second},
		"blocking":                   {&registryv1.GetRequest{Index: 7, Wait: durationpb.New(time.Minute)}, time.Minute + time.Second},
		"blocking, the default wait": {&registryv1.GetRequest{Index: 7}, defaultWait + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{hang: true}
				_, err := registryv1.NewKVServiceClient(newTransport(s, Config{Timeout: time.Second, DisableBatching: true})).Get(t.Context(), c.request)
				require.Equal(t, fault.DeadlineExceeded, fault.CodeOf(err))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, c.want, s.deadline)
			})
		})
	}
}

func TestACallerWhoGivesUpIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := registryv1.NewKVServiceClient(newTransport(&script{hang: true}, Config{Timeout: time.Minute, DisableBatching: true})).Get(ctx, &registryv1.GetRequest{})
		require.Equal(t, fault.Canceled, fault.CodeOf(err))
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestStreamsAnswerFaultsAndEnd(t *testing.T) {
	s := &script{outcomes: []error{nil, ours(fault.OutOfRange, "COMPACTED"), io.EOF}}
	stream, err := wangossipv1.NewDatacenterServiceClient(newTransport(s, Config{})).WatchDatacenters(t.Context(), &wangossipv1.WatchDatacentersRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, "COMPACTED", fault.ReasonOf(err))
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}
