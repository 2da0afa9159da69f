package registry_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/internal/raftnode"
	"konsul.dev/services/registry/registrytest"
)

func TestAFullQueueRefusesWithADelayAndLosesNothing(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Adjust: func(cfg *registry.Config) { cfg.Registry.Raft.MaxInFlight = 4 }})
	cl := c.Client(c.Leader())
	const writers, each = 32, 20
	var mu sync.Mutex
	acknowledged, refused := []string{}, 0
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("w%d/%d", w, i)
				_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: key, Value: []byte(key)})
				mu.Lock()
				if err == nil {
					acknowledged = append(acknowledged, key)
				} else {
					refused++
					f, _ := fault.As(err)
					if f.Code() != fault.ResourceExhausted || f.Reason() != raftnode.ReasonQueueFull || f.RetryAfter() <= 0 {
						t.Errorf("refused by %v", err)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Positive(t, refused, "four may wait, thirty-two came")
	require.NotEmpty(t, acknowledged)
	for _, key := range acknowledged {
		require.Equal(t, key, get(t, cl, key, registryv1.ReadMode_READ_MODE_LINEARIZABLE))
	}
}
