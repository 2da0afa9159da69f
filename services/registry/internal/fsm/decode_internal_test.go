package fsm

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// FuzzDecodeInto decodes what the generated decoder does, whatever lies between the operations.
func FuzzDecodeInto(f *testing.F) {
	put := &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{Key: "a", Value: []byte("v")}}}
	drop := &registryv1.Operation{Op: &registryv1.Operation_Delete{Delete: &registryv1.RecordKey{Key: "b"}}}
	for _, cmd := range []*registryv1.Command{
		{RequestId: "r", Operations: []*registryv1.Operation{put, drop, {}, put}, Conditions: []*registryv1.Condition{{Reason: "no"}}, Digest: 7},
		{Operations: []*registryv1.Operation{put}, Otherwise: []*registryv1.Operation{put, put}, Batch: [][]byte{{}, {1}}},
	} {
		data, err := proto.Marshal(cmd)
		require.NoError(f, err)
		f.Add(data)
		f.Add(append(data, data...))
	}
	f.Add([]byte{0x22, 0x04, 0x0a, 0x00, 0x12, 0x00, 0x22, 0x00}) // An operation that is a put first and then a delete.
	f.Add([]byte{0x22, 0x00, 0x22, 0x00, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		want, got := &registryv1.Command{}, &registryv1.Command{}
		wantErr, gotErr := want.UnmarshalVTUnsafe(bytes.Clone(data)), decodeInto(got, data)
		require.Equal(t, wantErr != nil, gotErr != nil, "%v, not %v", gotErr, wantErr)
		if wantErr == nil {
			require.True(t, proto.Equal(want, got), "%v\n%v", want, got) // A diff takes no fields that are none.
		}
	})
}

func TestRowsOfALargeCommandReferToThemselvesOnly(t *testing.T) {
	cmd := &registryv1.Command{RequestId: "r"}
	for _, key := range []string{"first", "second", "third"} {
		cmd.Operations = append(cmd.Operations, &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
			Key: key, Value: bytes.Repeat([]byte(key), 100), OriginDatacenter: "dc1", Meta: map[string]string{key: key},
		}}})
	}
	cmd.Operations[2].Op = &registryv1.Operation_Replicate{Replicate: cmd.GetOperations()[2].GetPut()}
	data, err := cmd.MarshalVT()
	require.NoError(t, err)
	got, err := Decode(data)
	require.NoError(t, err)
	clear(data)
	require.Empty(t, cmp.Diff(cmd, got, protocmp.Transform()))
}
