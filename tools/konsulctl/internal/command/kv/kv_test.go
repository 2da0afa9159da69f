package kv_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	require.NoError(t, os.WriteFile(file, []byte("from a file\x00"), 0o600))
	for argument, want := range map[string]string{
		"plain": "plain", "": "", "-": "typed\n", "@" + file: "from a file\x00", "@@at": "@at", "-1": "-1",
	} {
		gateway := commandtest.Federation(t)
		r := commandtest.Ctl(t, gateway, "typed\n", "kv", "set", "--", "k", argument)
		require.Zero(t, r.Code, r.Stderr)
		require.Equal(t, want, string(konsultest.Last[*registryv1.SetRequest](gateway).GetValue()))
	}
	r := commandtest.Ctl(t, commandtest.Federation(t), "", "kv", "get", "--raw", "bytes")
	require.Equal(t, "a\x00\n\xff", r.Stdout, "raw is byte for byte")
}

func TestAKeyThatCanBeSetCanBeCompared(t *testing.T) {
	exists := func(key string) *registryv1.Compare {
		return &registryv1.Compare{Key: key, With: &registryv1.Compare_Exists{Exists: true}}
	}
	for text, want := range map[string]*registryv1.Compare{
		"a exists":                     exists("a"),
		"a b exists":                   exists("a b"),
		`"a b" exists`:                 exists("a b"),
		`"a \"b\" \\" exists`:          exists(`a "b" \`),
		`"a version = 3" exists`:       exists("a version = 3"),
		"a b absent":                   {Key: "a b", With: &registryv1.Compare_Exists{}},
		"a b version = 3":              {Key: "a b", Operator: registryv1.Compare_OPERATOR_EQUAL, With: &registryv1.Compare_Version{Version: 3}},
		`"a exists" index > 0`:         {Key: "a exists", Operator: registryv1.Compare_OPERATOR_GREATER, With: &registryv1.Compare_ModifyIndex{}},
		"a  created  <  7":             {Key: "a", Operator: registryv1.Compare_OPERATOR_LESS, With: &registryv1.Compare_CreateIndex{CreateIndex: 7}},
		"a b value != it exists":       {Key: "a b", Operator: registryv1.Compare_OPERATOR_NOT_EQUAL, With: &registryv1.Compare_Value{Value: []byte("it exists")}},
		"a value = two\nlines ":        {Key: "a", Operator: registryv1.Compare_OPERATOR_EQUAL, With: &registryv1.Compare_Value{Value: []byte("two\nlines ")}},
		"a value =":                    {Key: "a", Operator: registryv1.Compare_OPERATOR_EQUAL, With: &registryv1.Compare_Value{}},
		"價格 表 exists":                  exists("價格 表"),
		"a value = b version = 3":      {Key: "a", Operator: registryv1.Compare_OPERATOR_EQUAL, With: &registryv1.Compare_Value{Value: []byte("b version = 3")}},
		`"a value = b" version = 3`:    {Key: "a value = b", Operator: registryv1.Compare_OPERATOR_EQUAL, With: &registryv1.Compare_Version{Version: 3}},
		"config/app version = 0":       {Key: "config/app", Operator: registryv1.Compare_OPERATOR_EQUAL, With: &registryv1.Compare_Version{}},
		"global/config/app index != 0": {Key: "global/config/app", Operator: registryv1.Compare_OPERATOR_NOT_EQUAL, With: &registryv1.Compare_ModifyIndex{}},
	} {
		t.Run(text, func(t *testing.T) {
			gateway := commandtest.Federation(t)
			r := commandtest.Ctl(t, gateway, "", "kv", "txn", "--if", text, "--get", "a b", "--set", `"a=b"=c=d`, "--set", "a b=1")
			require.Zero(t, r.Code, r.Stderr)
			request := konsultest.Last[*registryv1.TxnRequest](gateway)
			require.True(t, proto.Equal(want, request.GetCompare()[0]), "%v", request.GetCompare()[0])
			require.Equal(t, "a b", request.GetSuccess()[0].GetGet().GetKey())
			require.Equal(t, "a=b", request.GetSuccess()[1].GetSet().GetKey())
			require.Equal(t, "c=d", string(request.GetSuccess()[1].GetSet().GetValue()))
			require.Equal(t, "a b", request.GetSuccess()[2].GetSet().GetKey())
		})
	}
}

func TestATransactionWithNothingToDoIsRefusedHere(t *testing.T) {
	gateway := commandtest.Federation(t)
	for _, args := range [][]string{{}, {"--if", "k exists"}, {"--global"}} {
		r := commandtest.Ctl(t, gateway, "", append([]string{"kv", "txn"}, args...)...)
		require.Equal(t, 2, r.Code)
		require.Contains(t, r.Stderr, "nothing to carry out")
		require.Contains(t, r.Stderr, "--delete-prefix")
	}
	require.Equal(t, 2, commandtest.Ctl(t, gateway, "{}", "kv", "txn", "--file", "-").Code)
	for _, text := range []string{"[]", `{"x": 1}`, `{"compare": [{"version": "x"}]}`, "no json", `{"success": [{"set": {"value": "%"}}]}`} {
		commandtest.Said(t, commandtest.Ctl(t, gateway, text, "kv", "txn", "--file", "-"), "--file")
	}
	require.Empty(t, gateway.Requests())
}

func TestTxnFlagsMakeTheTransaction(t *testing.T) {
	g := commandtest.Federation(t)
	got := commandtest.Ctl(t, g, "", "kv", "txn", "--if", "a absent", "--if", "b value = x y", "--if", "c version > 3", "--if-held", "jobs/n=9",
		"--set", "a=1=2", "--get", "b", "--delete", "c", "--delete-prefix", "d/", "--else-get", "a", "--global")
	require.Zero(t, got.Code, got.Stderr)
	requests := g.Requests()
	same := requests[len(requests)-1].(*registryv1.TxnRequest)
	require.Equal(t, registryv1.Scope_SCOPE_GLOBAL, same.GetScope())
	require.Len(t, same.GetCompare(), 4)
	require.False(t, same.GetCompare()[0].GetExists())
	require.Equal(t, "x y", string(same.GetCompare()[1].GetValue()))
	require.Equal(t, registryv1.Compare_OPERATOR_GREATER, same.GetCompare()[2].GetOperator())
	require.EqualValues(t, 9, same.GetCompare()[3].GetHeld().GetToken())
	require.Len(t, same.GetSuccess(), 4)
	require.Equal(t, "1=2", string(same.GetSuccess()[0].GetSet().GetValue()))
	require.Equal(t, "d/", same.GetSuccess()[3].GetDeletePrefix().GetKey())
	require.Equal(t, "a", same.GetFailure()[0].GetGet().GetKey())
	require.NotEmpty(t, same.GetRequestId())

	got = commandtest.Ctl(t, g, `{"success":[{"set":{"key":"k","value":"dg=="}}]}`, "kv", "txn", "--file", "-")
	require.Zero(t, got.Code, got.Stderr)
	requests = g.Requests()
	require.Equal(t, "v", string(requests[len(requests)-1].(*registryv1.TxnRequest).GetSuccess()[0].GetSet().GetValue()))
	for _, wrong := range []string{"", "a", "a is there", "a version = x", "a version =", "a color = red", " exists = 1"} {
		got = commandtest.Ctl(t, g, "", "kv", "txn", "--if", wrong, "--get", "a")
		require.Equal(t, 2, got.Code, "%q: %s", wrong, got.Stderr)
	}
	require.Equal(t, 2, commandtest.Ctl(t, g, "{]", "kv", "txn", "--file", "-").Code)
	require.Equal(t, 2, commandtest.Ctl(t, g, "", "kv", "txn", "--set", "a").Code)
	for _, write := range [][]string{{"set", "a", "1"}, {"delete", "a"}} {
		require.Equal(t, 2, commandtest.Ctl(t, g, "", append([]string{"kv", "--fence", "a"}, write...)...).Code)
		require.Zero(t, commandtest.Ctl(t, g, "", append(append([]string{"kv"}, write...), "--fence", "jobs/n=9")...).Code)
		requests = g.Requests()
		fenced := requests[len(requests)-1].(interface{ GetFence() *registryv1.Fence }).GetFence()
		require.Equal(t, "jobs/n", fenced.GetLock())
		require.EqualValues(t, 9, fenced.GetToken())
	}
}
