package restedge

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
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

// answerTo is what the edge's REST says to a request, from a registry that agrees to everything.
func answerTo(t *testing.T, method, target, contentType, body string, registry grpc.ClientConnInterface) *httptest.ResponseRecorder {
	t.Helper()
	mux, err := newMux(t.Context(), Conns{Registry: registry, CA: registry, WANGossip: registry, FailoverRouter: registry})
	require.NoError(t, err)
	request := httptest.NewRequestWithContext(withCaller(t.Context(), Caller{Management: true}), method, target, strings.NewReader(body))
	request.Header.Set("Content-Type", contentType)
	negotiate(request)
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, request)
	return answer
}

// kept is a registry that keeps the request it got.
type kept struct {
	agreeable
	request proto.Message
}

func (k *kept) Invoke(_ context.Context, _ string, args, _ any, _ ...grpc.CallOption) error {
	k.request, _ = args.(proto.Message)
	return nil
}

func TestWhatIsPutIsStoredAsItCameOrRefused(t *testing.T) {
	for name, c := range map[string]struct {
		target, kind, body, want string
		refused                  bool
	}{
		"bytes":                {"/api/v1/kv/k", mimeRaw, "a\x00\xff", "a\x00\xff", false},
		"a form of curl's":     {"/api/v1/kv/k", "application/x-www-form-urlencoded", `{"a": 1}`, `{"a": 1}`, false},
		"base64 in JSON":       {"/api/v1/kv/k", mimeJSON, `"aGVsbG8="`, "hello", false},
		"with parameters":      {"/api/v1/kv/k", mimeJSON + "; charset=utf-8", `"aGVsbG8="`, "hello", false},
		"an object":            {"/api/v1/kv/k", mimeJSON, `{"a": 1}`, "", true},
		"a list":               {"/api/v1/kv/k", mimeJSON, `[1, 2]`, "", true},
		"a number":             {"/api/v1/kv/k", mimeJSON, `7`, "", true},
		"null":                 {"/api/v1/kv/k", mimeJSON, `null`, "", false},
		"a text":               {"/api/v1/kv/k", mimeJSON, `"hello there"`, "", true},
		"no JSON":              {"/api/v1/kv/k", mimeJSON, `hello`, "", true},
		"JSON, but raw":        {"/api/v1/kv/k?raw", mimeJSON, `{"a": 1}`, `{"a": 1}`, false},
		"base64, but raw":      {"/api/v1/kv/k?raw=true&cas=0", mimeJSON, `"aGVsbG8="`, `"aGVsbG8="`, false},
		"JSON that is not raw": {"/api/v1/kv/k?raw=false", mimeJSON, `{"a": 1}`, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			registry := &kept{}
			answer := answerTo(t, http.MethodPut, c.target, c.kind, c.body, registry)
			if c.refused {
				require.Equal(t, http.StatusBadRequest, answer.Code, answer.Body)
				require.Contains(t, answer.Body.String(), "?raw")
				require.Contains(t, answer.Body.String(), `"field":"body"`)
				require.Nil(t, registry.request)
				return
			}
			require.Equal(t, http.StatusOK, answer.Code, answer.Body)
			stored, ok := registry.request.(*registryv1.SetRequest)
			require.True(t, ok)
			require.Equal(t, c.want, string(stored.GetValue()))
		})
	}
}

// TestEveryBadInputIsNamed sends what no field takes to every kind of field that REST has.
func TestEveryBadInputIsNamed(t *testing.T) {
	machine := regexp.MustCompile(`strconv|cannot unmarshal|json:|proto:|google\.protobuf|Go value|\[\]uint8|%!|malformed request`)
	for name, c := range map[string]struct{ method, target, body, field string }{
		"number":               {"GET", "/api/v1/kv/k?index=abc", "", "index"},
		"negative number":      {"PUT", "/api/v1/kv/k?cas=-1", "x", "cas"},
		"number too large":     {"GET", "/api/v1/kv/k?at_index=18446744073709551616", "", "at_index"},
		"small number":         {"GET", "/api/v1/kv?limit=1.5", "", "limit"},
		"duration":             {"GET", "/api/v1/kv/k?index=1&wait=5", "", "wait"},
		"switch":               {"GET", "/api/v1/kv?keys_only=maybe", "", "keys_only"},
		"word":                 {"GET", "/api/v1/kv/k?read_mode=fresh", "", "read_mode"},
		"unknown parameter":    {"GET", "/api/v1/kv/k?cass=1", "", "cass"},
		"given twice":          {"GET", "/api/v1/kv/k?index=1&index=2", "", "index"},
		"no UTF-8":             {"GET", "/api/v1/kv/k?datacenter=%ff", "", "query"},
		"key that is no UTF-8": {"GET", "/api/v1/kv/%ff", "", "path"},
		"body: no JSON":        {"POST", "/api/v1/txn", "hello", "body"},
		"body: cut off":        {"POST", "/api/v1/txn", `{"success": [`, "body"},
		"body: a list":         {"POST", "/api/v1/txn", `[]`, "body"},
		"body: unknown field":  {"POST", "/api/v1/txn", `{"succes": []}`, "succes"},
		"body: number":         {"POST", "/api/v1/txn", `{"compare": [{"key": "k", "version": "x"}]}`, "version"},
		"body: number, long":   {"POST", "/api/v1/txn", `{"compare": [{"key": "k", "modify_index": -1}]}`, "modify_index"},
		"body: bytes":          {"POST", "/api/v1/txn", `{"success": [{"set": {"key": "k", "value": "%"}}]}`, "value"},
		"body: text":           {"POST", "/api/v1/lease", `{"name": 7}`, "name"},
		"body: duration":       {"POST", "/api/v1/lease", `{"ttl": "30"}`, "body"},
		"body: switch":         {"PATCH", "/api/v1/operator/autopilot/config", `{"config": {"cleanup_dead_servers": "yes"}}`, "cleanup_dead_servers"},
		"body: word":           {"PUT", "/api/v1/health/checks", `{"updates": [{"status": "fine"}]}`, "status"},
	} {
		t.Run(name, func(t *testing.T) {
			kind := mimeJSON
			if !strings.HasPrefix(name, "body") {
				kind = mimeRaw
			}
			answer := answerTo(t, c.method, c.target, kind, c.body, agreeable{})
			require.Equal(t, http.StatusBadRequest, answer.Code, answer.Body)
			require.NotRegexp(t, machine, answer.Body.String())
			var got problem
			require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &got))
			require.Equal(t, c.field, got.Field, got.Message)
			require.NotEmpty(t, got.Remedy)
			require.Equal(t, "INVALID_ARGUMENT", got.Reason)
		})
	}
}

func TestABackupsParametersAreNamedToo(t *testing.T) {
	for query, field := range map[string]string{"dry_run=maybe": "dry_run", "colour=red": "colour", "a=%zz": "query"} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/api/v1/backups/restore", nil)
		request.URL.RawQuery = query
		f, ok := fault.As(parse(request, &registryv1.RestoreStart{}))
		require.True(t, ok, query)
		require.Equal(t, field, f.Field(), "%s: %v", query, f)
		require.NotContains(t, f.Error(), "malformed request:")
		require.NotEmpty(t, f.Remedy())
	}
}
