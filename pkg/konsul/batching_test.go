package konsul_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

// store is a gateway with a few keys.
func store(t testing.TB) *konsultest.Gateway {
	gateway := konsultest.Start(t)
	var mu sync.Mutex
	values := map[string][]byte{}
	konsultest.On(gateway, func(r *registryv1.GetRequest) (*registryv1.GetResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		value, ok := values[r.GetKey()]
		if !ok {
			return nil, fault.New(fault.NotFound, "KEY_NOT_FOUND", "no %s", r.GetKey())
		}
		return &registryv1.GetResponse{Entry: &registryv1.Entry{Key: r.GetKey(), Value: value}}, nil
	})
	konsultest.On(gateway, func(r *registryv1.SetRequest) (*registryv1.SetResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		values[r.GetKey()] = r.GetValue()
		return &registryv1.SetResponse{Entry: &registryv1.Entry{Key: r.GetKey()}}, nil
	})
	konsultest.On(gateway, func(r *registryv1.DeleteRequest) (*registryv1.DeleteResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		delete(values, r.GetKey())
		return &registryv1.DeleteResponse{Deleted: 1}, nil
	})
	return gateway
}

func TestEachOfManyCallersSeesTheirOwnKeys(t *testing.T) {
	client := store(t).Client(t)
	var callers sync.WaitGroup
	for i := range 64 {
		callers.Go(func() {
			key := fmt.Sprintf("k%d", i)
			for round := range 20 {
				value := fmt.Appendf(nil, "%d in round %d", i, round)
				_, err := client.KV.Set(t.Context(), key, value, nil)
				require.NoError(t, err)
				got, err := client.KV.Get(t.Context(), key, nil)
				require.NoError(t, err)
				require.Equal(t, value, got.Value)
				_, err = client.KV.Get(t.Context(), key+"/none", nil)
				require.Equal(t, "KEY_NOT_FOUND", fault.ReasonOf(err))
				_, err = client.KV.Delete(t.Context(), key, nil)
				require.NoError(t, err)
				_, err = client.KV.Get(t.Context(), key, nil)
				require.Equal(t, fault.NotFound, fault.CodeOf(err))
			}
		})
	}
	callers.Wait()
}

// BenchmarkGets reads through a gateway that does nothing, so that what remains is the way there.
func BenchmarkGets(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		for name, off := range map[string]bool{"together": false, "each": true} {
			b.Run(fmt.Sprintf("callers=%d/%s", callers, name), func(b *testing.B) {
				gateway := store(b)
				cfg := gateway.Config()
				cfg.DisableBatching = off
				client, err := konsul.New(cfg)
				require.NoError(b, err)
				b.Cleanup(func() { require.NoError(b, client.Close()) })
				_, err = client.KV.Set(b.Context(), "k", make([]byte, 256), nil)
				require.NoError(b, err)
				b.SetParallelism(max(1, callers/2))
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := client.KV.Get(b.Context(), "k", nil); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// TestATextThatIsNoUTF8IsItsCallersAlone also when it travels with what others ask.
func TestATextThatIsNoUTF8IsItsCallersAlone(t *testing.T) {
	client := store(t).Client(t)
	_, err := client.KV.Set(t.Context(), "k", []byte{0xff}, nil)
	require.NoError(t, err, "a value is any bytes")
	var callers sync.WaitGroup
	for i := range 32 {
		callers.Go(func() {
			for range 20 {
				if i%8 == 0 {
					_, err := client.KV.Get(t.Context(), "k\xff", nil)
					require.Equal(t, konsul.ReasonNotUTF8, fault.ReasonOf(err))
					require.ErrorContains(t, err, "key: ")
					continue
				}
				_, err := client.KV.Get(t.Context(), "k", nil)
				require.NoError(t, err)
			}
		})
	}
	callers.Wait()
}
