package catalog_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record/recordtest"
)

// What is encoded from rows as they are stored is what the decoded answer encodes to, fields of
// newer versions included.
func TestEncodedFromRowsEqualsEncodedFromAnswers(t *testing.T) {
	later := protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "of a later version")
	node := &registryv1.Node{Name: "n1", Address: "10.0.0.1", Meta: map[string]string{"zone": "a"}, LivenessTtl: durationpb.New(5)}
	node.ProtoReflect().SetUnknown(later)
	service := &registryv1.Service{
		Id: "web-1", Name: "web", Node: "n1", Port: 80, Tags: []string{"a", ""}, Meta: map[string]string{"k": "v", "": ""},
		Weights: &registryv1.Weights{Passing: 10},
	}
	service.ProtoReflect().SetUnknown(later)
	own := &registryv1.Service{Id: "web-2", Name: "web", Node: "n2", Address: "10.0.0.9"}
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'x'
	}
	check := &registryv1.Check{
		Id: "http", ServiceId: "web-1", Status: warning, Output: string(long), ModifiedAt: &timestamppb.Timestamp{Seconds: 7, Nanos: 8}, Ttl: durationpb.New(9),
	}
	v := catalog.NewView("dc1")
	_, err := v.Apply(1, []*registryv1.Record{
		row(t, registryv1.Table_TABLE_SERVICE, "web-1", service),
		row(t, registryv1.Table_TABLE_SERVICE, "web-2", own),
		row(t, registryv1.Table_TABLE_NODE, "n1", node),
		row(t, registryv1.Table_TABLE_CHECK, "web-1/http", check),
		row(t, registryv1.Table_TABLE_CHECK, "/n2/disk", &registryv1.Check{Id: "disk", Node: "n2", Status: critical}),
	})
	require.NoError(t, err)
	answered, _ := v.Query("web", catalog.Selection{})
	require.Len(t, answered, 2)
	require.Equal(t, "10.0.0.1", answered[0].GetService().GetAddress())
	require.Equal(t, later, []byte(answered[0].GetService().ProtoReflect().GetUnknown()))
	encoded, _ := v.Encoded("web", false)
	decoded := &registryv1.QueryServiceResponse{}
	require.NoError(t, proto.Unmarshal(encoded, decoded))
	require.Empty(t, cmp.Diff(answered, decoded.GetInstances(), protocmp.Transform()))

	everything, err := catalog.ParseInstanceFilter(`Service.Port != 1`)
	require.NoError(t, err)
	counted, _ := v.Services(catalog.Selection{Filter: everything})
	summed, _ := v.Services(catalog.Selection{})
	require.Empty(t, cmp.Diff(counted, summed, protocmp.Transform()))
	require.Equal(t, []string{"", "a"}, summed[0].GetTags())
}

// A row that could not be decoded when somebody asks for it is refused when it is loaded.
func TestARowThatCannotBeDecodedIsRefused(t *testing.T) {
	text := func(field protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), s)
	}
	for name, bad := range map[string]struct {
		table registryv1.Table
		key   string
		value []byte
	}{
		"cut short":                 {registryv1.Table_TABLE_SERVICE, "web-1", text(2, "web")[:3]},
		"a name that is no text":    {registryv1.Table_TABLE_SERVICE, "web-1", text(2, "\xff")},
		"meta that is no message":   {registryv1.Table_TABLE_SERVICE, "web-1", text(7, "\xff")},
		"meta that is no text":      {registryv1.Table_TABLE_NODE, "n1", text(3, string(text(1, "\xff")))},
		"a lifetime cut short":      {registryv1.Table_TABLE_NODE, "n1", text(6, "\x08")},
		"an output that is no text": {registryv1.Table_TABLE_CHECK, "web-1/http", text(5, "\xff")},
	} {
		t.Run(name, func(t *testing.T) {
			stored := recordtest.New()
			require.NoError(t, stored.Put(&registryv1.Record{Table: bad.table, Key: bad.key, Value: bad.value, ModifyIndex: 1}))
			require.Error(t, catalog.NewView("dc1").Load(stored))
		})
	}
}
