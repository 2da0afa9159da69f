package output_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/tools/konsulctl/internal/output"
)

func TestRoundTripsAreSaidAsPeopleSayThem(t *testing.T) {
	require.Empty(t, output.RoundTrip(nil))
	for d, want := range map[time.Duration]string{
		0: "0ms", 20 * time.Microsecond: "<0.1ms", 300 * time.Microsecond: "0.3ms", 4210 * time.Microsecond: "4.2ms",
		95*time.Millisecond + 400*time.Microsecond: "95ms", 1250 * time.Millisecond: "1.2s",
	} {
		require.Equal(t, want, output.RoundTrip(durationpb.New(d)))
	}
}

func TestNothingEscapesItsCell(t *testing.T) {
	var out bytes.Buffer
	g := output.NewGrid(&out)
	g.Row("A", "B")
	g.Row("tab\tbed", "\x1b[31mred")
	g.Row("", "two\nlines")
	g.Row("日本", "bad\xff")
	require.NoError(t, g.Flush())
	require.Equal(t, "A           B\n\"tab\\tbed\"  \"\\x1b[31mred\"\n-           \"two\\nlines\"\n日本          \"bad\\xff\"\n", out.String())
}

func TestClip(t *testing.T) {
	require.Equal(t, "abc", output.Clip("abc", 3))
	require.Equal(t, "éé…", output.Clip("éééé", 3))
}

func TestFormats(t *testing.T) {
	answer := &registryv1.GetResponse{
		Entry: &registryv1.Entry{Key: "a: b", Value: []byte("v"), ModifyIndex: 7}, Meta: &registryv1.QueryMeta{KnownLeader: true},
	}
	for format, want := range map[output.Format]string{
		output.JSON: `{
  "entry": {
    "key": "a: b",
    "value": "dg==",
    "scope": "SCOPE_UNSPECIFIED",
    "flags": "0",
    "create_index": "0",
    "modify_index": "7",
    "version": "0",
    "origin_datacenter": "",
    "modified_at": null,
    "lease": "",
    "meta": {}
  },
  "meta": {
    "datacenter": "",
    "index": "0",
    "known_leader": true,
    "last_contact_ms": "0",
    "results_filtered": false,
    "copy_age": null
  }
}
`,
		output.YAML: `entry:
  key: 'a: b'
  value: dg==
  scope: SCOPE_UNSPECIFIED
  flags: "0"
  create_index: "0"
  modify_index: "7"
  version: "0"
  origin_datacenter: ""
  modified_at: null
  lease: ""
  meta: {}
meta:
  datacenter: ""
  index: "0"
  known_leader: true
  last_contact_ms: "0"
  results_filtered: false
  copy_age: null
`,
		output.Table: "a: b\n",
	} {
		var out bytes.Buffer
		require.NoError(t, format.Write(&out, answer, func(g *output.Grid) { g.Line("%s", answer.GetEntry().GetKey()) }))
		require.Equal(t, want, out.String())
	}
}

func TestEmptyListsStayLists(t *testing.T) {
	var out bytes.Buffer
	format := output.YAML
	require.NoError(t, format.Write(&out, &registryv1.ListResponse{}, nil))
	require.Contains(t, out.String(), "entries: []\n")
}

func TestFormatFlag(t *testing.T) {
	var f output.Format
	for _, name := range output.Formats() {
		require.NoError(t, f.Set(name))
		require.Equal(t, name, f.String())
	}
	require.ErrorContains(t, f.Set("xml"), "table, json and yaml")
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("pipe closed") }

func TestAWriteThatFailsIsReported(t *testing.T) {
	for _, format := range []output.Format{output.Table, output.JSON, output.YAML} {
		require.ErrorContains(t, format.Write(broken{}, map[string]string{"a": "b"}, func(g *output.Grid) { g.Row("a") }), "pipe closed")
	}
}
