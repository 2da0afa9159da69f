package kv_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
)

const (
	unspecified = registryv1.Scope_SCOPE_UNSPECIFIED
	local       = registryv1.Scope_SCOPE_LOCAL
	global      = registryv1.Scope_SCOPE_GLOBAL
)

var writer = kv.Writer{Datacenter: "dc1", MaxValueBytes: 16}

type store struct {
	*recordtest.Store
	t *testing.T
}

func newStore(t *testing.T) store { return store{recordtest.New(), t} }

func (s store) apply(cmd *registryv1.Command, key record.Key, err error) error {
	s.t.Helper()
	require.NoError(s.t, err)
	index := s.Index() + 1
	result, err := fsmtest.Apply(s.At(index), index, cmd)
	require.NoError(s.t, err)
	return kv.Outcome(result, key)
}

func set(req *registryv1.SetRequest) (*registryv1.Command, record.Key, error) {
	return made(req, writer.Set)
}

func remove(req *registryv1.DeleteRequest) (*registryv1.Command, record.Key, error) {
	return made(req, writer.Delete)
}

func made[R kv.Request](req R, command func(record.Key, R) (*registryv1.Command, error)) (*registryv1.Command, record.Key, error) {
	key, err := kv.KeyOf(kv.WithKey(context.Background(), req), req)
	if err != nil {
		return nil, key, err
	}
	cmd, err := command(key, req)
	return cmd, key, err
}

func (s store) set(key, value string) {
	s.t.Helper()
	cmd, k, err := set(&registryv1.SetRequest{Key: key, Value: []byte(value)})
	require.NoError(s.t, s.apply(cmd, k, err))
}

func (s store) get(key string, scope registryv1.Scope) string {
	s.t.Helper()
	k, err := record.ParseKey(key, scope)
	require.NoError(s.t, err)
	e, _, err := kv.Get(s, k)
	require.NoError(s.t, err)
	if e == nil {
		return "-"
	}
	return fmt.Sprintf("%s=%s@%s", e.GetKey(), e.GetValue(), strings.ToLower(strings.TrimPrefix(e.GetScope().String(), "SCOPE_")))
}

func TestABareReadPrefersTheOwnValue(t *testing.T) {
	s := newStore(t)
	require.Equal(t, "-", s.get("x", unspecified))
	s.set("global/x", "g")
	require.Equal(t, "x=g@global", s.get("x", unspecified))
	require.Equal(t, "-", s.get("x", local))
	s.set("x", "l")
	require.Equal(t, "x=l@local", s.get("x", unspecified))
	require.Equal(t, "x=g@global", s.get("x", global))
	require.Equal(t, "x=g@global", s.get("global/x", unspecified))
}

func TestChangeIndexCountsDeletions(t *testing.T) {
	s := newStore(t)
	s.set("x", "l")
	s.set("global/x", "g")
	cmd, k, err := remove(&registryv1.DeleteRequest{Key: "x"})
	require.NoError(t, s.apply(cmd, k, err))
	_, changed, err := kv.Get(s, record.Key{Bare: "x"})
	require.NoError(t, err)
	require.EqualValues(t, 3, changed)
	below, err := kv.Changed(s, record.Key{}, 2)
	require.NoError(t, err)
	require.EqualValues(t, 3, below)
	below, err = kv.Changed(s, record.Key{}, 3)
	require.NoError(t, err)
	require.Zero(t, below)
}

func TestCASLosesAgainstANewerWrite(t *testing.T) {
	s := newStore(t)
	index := uint64(0)
	again := func() error {
		cmd, k, err := set(&registryv1.SetRequest{Key: "x", Cas: &index})
		return s.apply(cmd, k, err)
	}
	require.NoError(t, again(), "0 means: only if absent")
	err := again()
	require.Equal(t, fault.Aborted, fault.CodeOf(err))
	require.Equal(t, record.ReasonCASMismatch, fault.ReasonOf(err))
	index = 1
	require.NoError(t, again())
	index = 1
	cmd, k, err := remove(&registryv1.DeleteRequest{Key: "x", Cas: &index})
	require.Equal(t, record.ReasonCASMismatch, fault.ReasonOf(s.apply(cmd, k, err)))
}

func TestRecursiveDeleteStaysInItsScope(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"a/1", "a/2", "b", "global/a/1"} {
		s.set(key, "v")
	}
	cmd, k, err := remove(&registryv1.DeleteRequest{Key: "a/", Recurse: true})
	require.NoError(t, s.apply(cmd, k, err))
	require.Equal(t, "-", s.get("a/2", unspecified))
	require.Equal(t, "a/1=v@global", s.get("a/1", unspecified))
	require.Equal(t, "b=v@local", s.get("b", unspecified))
}

func TestWritesAreCheckedBeforeTheyAreProposed(t *testing.T) {
	index := uint64(1)
	_, _, err := set(&registryv1.SetRequest{Key: "x", Value: make([]byte, 17)})
	f, _ := fault.As(err)
	require.Equal(t, "value", f.Field())
	require.Equal(t, kv.ReasonValueTooLarge, f.Reason())
	_, _, err = remove(&registryv1.DeleteRequest{Key: "x", Recurse: true, Cas: &index})
	f, _ = fault.As(err)
	require.Equal(t, "cas", f.Field())
	_, _, err = remove(&registryv1.DeleteRequest{Key: "", Recurse: true})
	f, _ = fault.As(err)
	require.Equal(t, "key", f.Field())
}

func TestListMergesScopesAndPages(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"a", "b", "d", "global/a", "global/c", "global/e"} {
		s.set(key, "v")
	}
	want := []string{"a@1", "a@2", "b@1", "c@2", "d@1", "e@2"}
	for limit := uint32(1); limit <= 7; limit++ {
		var got []string
		options := kv.ListOptions{Limit: limit}
		for {
			page, err := kv.List(s, record.Key{}, options)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.Entries), int(limit))
			for _, e := range page.Entries {
				got = append(got, fmt.Sprintf("%s@%d", e.GetKey(), e.GetScope()))
			}
			if page.Next == "" {
				break
			}
			options.PageToken = page.Next
		}
		require.Equal(t, want, got, "pages of %d", limit)
	}
	page, err := kv.List(s, record.Key{Scope: global}, kv.ListOptions{})
	require.NoError(t, err)
	require.Len(t, page.Entries, 3)
	_, err = kv.List(s, record.Key{}, kv.ListOptions{PageToken: "!"})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
}
