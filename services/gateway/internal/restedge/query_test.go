package restedge

import (
	"net/url"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestWhatParametersMean(t *testing.T) {
	for query, want := range map[string]proto.Message{
		"read_mode=stale":                    &registryv1.GetRequest{ReadMode: registryv1.ReadMode_READ_MODE_STALE},
		"readMode=Linearizable&scope=GLOBAL": &registryv1.GetRequest{ReadMode: registryv1.ReadMode_READ_MODE_LINEARIZABLE, Scope: registryv1.Scope_SCOPE_GLOBAL},
		"read_mode=READ_MODE_DEFAULT":        &registryv1.GetRequest{ReadMode: registryv1.ReadMode_READ_MODE_DEFAULT},
		"read_mode=2&raw":                    &registryv1.GetRequest{ReadMode: registryv1.ReadMode_READ_MODE_STALE},
		"keys_only&limit=3":                  &registryv1.ListRequest{KeysOnly: true, Limit: 3},
		"meta[a.b]=c":                        &registryv1.SetRequest{Meta: map[string]string{"a.b": "c"}},
	} {
		values, err := url.ParseQuery(query)
		require.NoError(t, err)
		got := want.ProtoReflect().New().Interface()
		require.NoError(t, queryParser{}.Parse(got, values, utilities.NewDoubleArray(nil)), query)
		require.True(t, proto.Equal(want, got), "%s: %v", query, got)
	}
	for query, field := range map[string]string{
		"read_mode=unspecified": "read_mode", "read_mode.x=1": "read_mode.x", "key[a]=b": "key[a]", "nothing=1": "nothing", "limit=": "limit",
	} {
		values, err := url.ParseQuery(query)
		require.NoError(t, err)
		err = queryParser{}.Parse(&registryv1.ListRequest{}, values, utilities.NewDoubleArray(nil))
		require.ErrorAs(t, err, &malformedError{}, query)
		f, ok := malformed(err.Error())
		require.True(t, ok, query)
		require.Equal(t, field, f.Field())
		require.NotEmpty(t, f.Remedy())
	}
}
