package restedge

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestWordsInBodies(t *testing.T) {
	decode := func(body string) (*registryv1.RegisterNodeRequest, error) {
		req := &registryv1.RegisterNodeRequest{}
		return req, jsonMarshaler().NewDecoder(strings.NewReader(body)).Decode(req)
	}
	short, err := decode(`{"node":{"name":"n","meta":{"status":"passing"}},"checks":[{"id":"a","status":"passing"},{"id":"b","status":"Critical","ttl":"10s"}],
		"services":[{"service":{"name":"s","weights":{"passing":7}},"checks":[{"id":"c","status":"HEALTH_STATUS_WARNING","output":"passing"}]}]}`)
	require.NoError(t, err)
	full := &registryv1.RegisterNodeRequest{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"node":{"name":"n","meta":{"status":"passing"}},"checks":[{"id":"a","status":"HEALTH_STATUS_PASSING"},
		{"id":"b","status":"HEALTH_STATUS_CRITICAL","ttl":"10s"}],"services":[{"service":{"name":"s","weights":{"passing":7}},"checks":[{"id":"c","status":"HEALTH_STATUS_WARNING","output":"passing"}]}]}`), full))
	require.Equal(t, protojson.Format(full), protojson.Format(short))

	for name, c := range map[string]struct{ body, field, says string }{
		"no such word":         {`{"checks":[{"status":"fine"}]}`, "status", "fine"},
		"word beside a typo":   {`{"checks":[{"status":"passing","outptu":"x"}]}`, "outptu", "is no field"},
		"word given twice":     {`{"checks":[{"status":"passing","status":"passing"}]}`, "body", "duplicate"},
		"word where none is":   {`{"checks":"passing"}`, "body", "passing"},
		"cut off":              {`{"checks":[{"status":"passing"`, "body", "EOF"},
		"deeper than is sound": {strings.Repeat("[", 1<<20), "body", "depth"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(c.body)
			var m malformedError
			require.ErrorAs(t, err, &m)
			require.Equal(t, c.field, m.Field)
			require.Contains(t, m.Message, c.says)
		})
	}
}
