package ready_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/lab/internal/ready"
)

// fake is a datacenter whose answers are set by the test.
type fake struct {
	serving error
	members []ready.Member
	passing map[string]int
}

func (f fake) Serving(context.Context) error                           { return f.serving }
func (f fake) CreateJoinToken(context.Context, string) (string, error) { return "token", nil }
func (f fake) Datacenters(context.Context) ([]ready.Member, error)     { return f.members, nil }
func (f fake) Passing(_ context.Context, service string) (int, error)  { return f.passing[service], nil }
func (f fake) Close() error                                            { return nil }

func TestServes(t *testing.T) {
	services := []string{"api", "payment-api"}
	for name, c := range map[string]struct {
		dc   fake
		says string
	}{
		"all healthy":        {fake{passing: map[string]int{"api": 1, "payment-api": 2}}, ""},
		"token unknown":      {fake{serving: errors.New("unknown token")}, "unknown token"},
		"a sample is not up": {fake{passing: map[string]int{"api": 1}}, "payment-api"},
	} {
		t.Run(name, func(t *testing.T) {
			err := ready.Serves(t.Context(), c.dc, services)
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestConnectedWantsEveryDatacenterAlive(t *testing.T) {
	names := []string{"a", "b"}
	alive := fake{members: []ready.Member{{Name: "a", Alive: true}, {Name: "b", Alive: true}}}
	require.NoError(t, ready.Connected(t.Context(), alive, names))
	failed := fake{members: []ready.Member{{Name: "a", Alive: true}, {Name: "b"}}}
	require.ErrorContains(t, ready.Connected(t.Context(), failed, names), "b is not alive")
	alone := fake{members: []ready.Member{{Name: "a", Alive: true}}}
	require.ErrorContains(t, ready.Connected(t.Context(), alone, names), "b is not alive")
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		require.NoError(t, ready.Await(t.Context(), "it", func(context.Context) error {
			if looks++; looks < 3 {
				return errors.New("not yet")
			}
			return nil
		}, nil))
		require.Equal(t, 3, looks)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := ready.Await(ctx, "the moon", func(context.Context) error { return errors.New("still dark") }, nil)
		require.ErrorContains(t, err, "waiting for the moon")
		require.ErrorContains(t, err, "still dark")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		dead := errors.New("it died")
		require.ErrorIs(t, ready.Await(t.Context(), "it", func(context.Context) error { return errors.New("no") },
			func() error { return dead }), dead)
	})
}
