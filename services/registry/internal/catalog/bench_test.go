package catalog_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/catalog"
)

// row returns a row of a table as it is stored.
func row(t require.TestingT, table registryv1.Table, key string, m proto.Message) *registryv1.Record {
	value, err := proto.Marshal(m)
	require.NoError(t, err)
	return &registryv1.Record{Table: table, Key: key, Value: value, CreateIndex: 1, ModifyIndex: 1}
}

// fill puts instances into a view: ten to a node, perService of each name, each with a check, tags
// and meta.
func fill(t require.TestingT, v *catalog.View, instances, perService int) {
	for n := range (instances + 9) / 10 {
		node := fmt.Sprintf("node-%06d", n)
		rows := []*registryv1.Record{row(t, registryv1.Table_TABLE_NODE, node, &registryv1.Node{Name: node, Address: fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)})}
		for i := n * 10; i < min(n*10+10, instances); i++ {
			id := fmt.Sprintf("instance-%06d", i)
			rows = append(
				rows,
				row(t, registryv1.Table_TABLE_SERVICE, id, &registryv1.Service{
					Id: id, Name: fmt.Sprintf("service-%04d", i/perService), Node: node, Port: 8080,
					Tags: []string{"http", "v1"}, Meta: map[string]string{"version": "1.2.3", "team": "payments"},
				}),
				row(t, registryv1.Table_TABLE_CHECK, id+"/http", &registryv1.Check{Id: "http", Name: "http", ServiceId: id, Status: passing, Output: "200 OK"}),
			)
		}
		_, err := v.Apply(1, rows)
		require.NoError(t, err)
	}
}

// What a health query costs the server beside its travel: encoded anew for each, as it would be
// without keeping the encoding, and as it is.
func BenchmarkHealthQuery(b *testing.B) {
	for _, size := range []int{100, 1000} {
		v := catalog.NewView("dc1")
		fill(b, v, size, size)
		meta := &registryv1.QueryMeta{Datacenter: "dc1", Index: 1}
		b.Run(fmt.Sprintf("instances=%d/marshalled", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				instances, _ := v.Query("service-0000", catalog.Selection{})
				data, err := proto.Marshal(&registryv1.QueryServiceResponse{Instances: instances, Meta: meta})
				require.NoError(b, err)
				b.SetBytes(int64(len(data)))
			}
		})
		b.Run(fmt.Sprintf("instances=%d/kept", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encoded, _ := v.Encoded("service-0000", false)
				resp := &registryv1.QueryServiceResponse{Meta: meta}
				resp.ProtoReflect().SetUnknown(encoded)
				data, err := proto.Marshal(resp)
				require.NoError(b, err)
				b.SetBytes(int64(len(data)))
			}
		})
		b.Run(fmt.Sprintf("instances=%d/filtered", size), func(b *testing.B) {
			b.ReportAllocs()
			filter, err := catalog.ParseInstanceFilter(`Service.Meta.version == "1.2.3" and "v2" in Service.Tags`)
			require.NoError(b, err)
			for b.Loop() {
				v.Query("service-0000", catalog.Selection{Filter: filter})
			}
		})
	}
}

// Planning a registration of a node with ten services that are new.
func BenchmarkPlanRegistration(b *testing.B) {
	v := catalog.NewView("dc1")
	fill(b, v, 1000, 100)
	w := catalog.NewWriter("dc1", 100)
	req := &registryv1.RegisterNodeRequest{Node: &registryv1.Node{Name: "fresh", Address: "10.9.9.9"}}
	for i := range 10 {
		req.Services = append(req.Services, &registryv1.ServiceRegistration{
			Service: &registryv1.Service{Id: fmt.Sprint("fresh-", i), Name: "service-0001", Port: 80, Tags: []string{"http"}, Meta: map[string]string{"version": "1"}},
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		_, err := w.RegisterNode(v, req, "", time.Unix(1, 0))
		require.NoError(b, err)
	}
}

// BenchmarkMemory reports the bytes that an instance costs, with a check of its own and a tenth of
// a node.
func BenchmarkMemory(b *testing.B) {
	for _, size := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("instances=%d", size), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				v := catalog.NewView("dc1")
				fill(b, v, size, 100)
				b.ReportMetric(float64(heap()-before)/float64(size), "B/instance")
				runtime.KeepAlive(v)
			}
		})
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
