package registry_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/api/keys"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/registrytest"
)

func txnSet(key, value string) *registryv1.TxnOperation {
	return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: key, Value: []byte(value)}}}
}

func txnGet(key string) *registryv1.TxnOperation {
	return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Get{Get: &registryv1.TxnGet{Key: key}}}
}

func exists(key string, there bool) *registryv1.Compare {
	return &registryv1.Compare{Key: key, With: &registryv1.Compare_Exists{Exists: there}}
}

func TestATransactionDoesAllOrNothing(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	request := &registryv1.TxnRequest{
		Compare:   []*registryv1.Compare{exists("a", false)},
		Success:   []*registryv1.TxnOperation{txnSet("a", "1"), txnSet("b", "1"), txnGet("b"), txnGet("none")},
		Failure:   []*registryv1.TxnOperation{txnGet("a")},
		RequestId: uuid.NewString(),
	}
	first, err := cl.KV.Txn(cl.Ctx(), request)
	require.NoError(t, err)
	require.True(t, first.GetSucceeded())
	require.Len(t, first.GetResults(), 4)
	require.Equal(t, first.GetMeta().GetIndex(), first.GetResults()[0].GetEntry().GetModifyIndex())
	require.Equal(t, "1", string(first.GetResults()[2].GetEntry().GetValue()), "a read sees what was written before it")
	require.Nil(t, first.GetResults()[3].GetEntry())

	// A request made again, here at another server, is answered again and not carried out again.
	again, err := c.Client(c.Leader()).KV.Txn(cl.Ctx(), request)
	require.NoError(t, err)
	require.True(t, again.GetSucceeded())
	require.Equal(t, first.GetMeta().GetIndex(), again.GetMeta().GetIndex())

	request.RequestId = ""
	other, err := cl.KV.Txn(cl.Ctx(), request)
	require.NoError(t, err)
	require.False(t, other.GetSucceeded())
	require.Len(t, other.GetResults(), 1)
	require.Equal(t, "1", string(other.GetResults()[0].GetEntry().GetValue()))

	deleted, err := cl.KV.Txn(cl.Ctx(), &registryv1.TxnRequest{
		Compare: []*registryv1.Compare{
			{Key: "a", With: &registryv1.Compare_Value{Value: []byte("1")}},
			{Key: "a", Operator: registryv1.Compare_OPERATOR_LESS, With: &registryv1.Compare_ModifyIndex{ModifyIndex: first.GetMeta().GetIndex() + 1}},
			{Key: "b", Operator: registryv1.Compare_OPERATOR_GREATER, With: &registryv1.Compare_Version{Version: 0}},
			{Key: "none", With: &registryv1.Compare_CreateIndex{CreateIndex: 0}},
		},
		Success: []*registryv1.TxnOperation{{Operation: &registryv1.TxnOperation_DeletePrefix{DeletePrefix: &registryv1.TxnDelete{Key: "a"}}}},
	})
	require.NoError(t, err)
	require.True(t, deleted.GetSucceeded())
	require.EqualValues(t, 1, deleted.GetResults()[0].GetDeleted())
	require.NoError(t, gone(cl, "a"))
}

func TestTransactionsAreRefusedForWhatTheyCannotBe(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	many := make([]*registryv1.TxnOperation, 129)
	for i := range many {
		many[i] = txnGet(fmt.Sprintf("k%d", i))
	}
	half := strings.Repeat("x", 512<<10)
	for name, test := range map[string]struct {
		request       *registryv1.TxnRequest
		field, reason string
	}{
		"nothing to do":   {&registryv1.TxnRequest{}, "success", fault.ReasonInvalidArgument},
		"too many":        {&registryv1.TxnRequest{Success: many}, "success", fault.ReasonInvalidArgument},
		"no operation":    {&registryv1.TxnRequest{Success: []*registryv1.TxnOperation{{}}}, "success[0]", fault.ReasonInvalidArgument},
		"bad key":         {&registryv1.TxnRequest{Failure: []*registryv1.TxnOperation{txnGet("/x")}}, "failure[0].get.key", fault.ReasonInvalidArgument},
		"large value":     {&registryv1.TxnRequest{Success: []*registryv1.TxnOperation{txnSet("x", half+"y")}}, "success[0].set.value", kv.ReasonValueTooLarge},
		"too large":       {&registryv1.TxnRequest{Success: []*registryv1.TxnOperation{txnSet("x", half), txnSet("y", half), txnSet("z", half), txnSet("zz", half)}}, "success", keys.ReasonTxnTooLarge},
		"two datacenters": {&registryv1.TxnRequest{Success: []*registryv1.TxnOperation{txnSet("global/x", "1"), txnSet("y", "1")}}, "success[1].set.key", kv.ReasonMixedScopes},
		"compare elsewhere": {
			&registryv1.TxnRequest{Compare: []*registryv1.Compare{exists("x", true)}, Success: []*registryv1.TxnOperation{txnSet("global/x", "1")}},
			"compare[0].key", kv.ReasonMixedScopes,
		},
		"nothing to compare": {
			&registryv1.TxnRequest{Compare: []*registryv1.Compare{{Key: "x"}}, Success: []*registryv1.TxnOperation{txnGet("x")}}, "compare[0]", fault.ReasonInvalidArgument,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cl.KV.Txn(cl.Ctx(), test.request)
			f, _ := fault.As(err)
			require.Equal(t, fault.InvalidArgument, f.Code(), "%v", err)
			require.Equal(t, test.field, f.Field())
			require.Equal(t, test.reason, f.Reason())
		})
	}
	// What would answer more than a commit may keep is refused, whole.
	for i := range 8 {
		_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: fmt.Sprintf("k%d", i), Value: bytes.Repeat([]byte("v"), 512<<10)})
		require.NoError(t, err)
	}
	_, err := cl.KV.Txn(cl.Ctx(), &registryv1.TxnRequest{Success: append(many[:8:8], txnSet("new", "1"))})
	require.Equal(t, kv.ReasonTooMuch, fault.ReasonOf(err))
	require.NoError(t, gone(cl, "new"))
}

func TestAGlobalTransactionIsThePrimarys(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.replicate()
	cl := p.two.Client(p.two.Servers[0])
	resp, err := cl.KV.Txn(cl.Ctx(), &registryv1.TxnRequest{
		Scope: registryv1.Scope_SCOPE_GLOBAL, Compare: []*registryv1.Compare{exists("x", false)}, Success: []*registryv1.TxnOperation{txnSet("x", "1"), txnSet("y", "2")},
	})
	require.NoError(t, err)
	require.True(t, resp.GetSucceeded())
	require.Equal(t, "dc1", resp.GetMeta().GetDatacenter())
	require.Equal(t, registryv1.Scope_SCOPE_GLOBAL, resp.GetResults()[0].GetEntry().GetScope())
	here, err := cl.KV.Txn(cl.Ctx(), &registryv1.TxnRequest{Success: []*registryv1.TxnOperation{txnSet("x", "here"), txnGet("global/none")}})
	require.NoError(t, err)
	require.Equal(t, "dc2", here.GetMeta().GetDatacenter())
	require.Equal(t, registryv1.Scope_SCOPE_LOCAL, here.GetResults()[0].GetEntry().GetScope())
}

func TestHistoryFoldersAndMetaOverTheWire(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	for i := range 5 {
		_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "dir/x", Value: fmt.Append(nil, i), Meta: map[string]string{"by": "me"}})
		require.NoError(t, err)
	}
	_, err := cl.KV.Delete(cl.Ctx(), &registryv1.DeleteRequest{Key: "dir/x"})
	require.NoError(t, err)
	set(t, cl, "top", "1")
	set(t, cl, "dir/y/z", "1")
	history, err := cl.KV.History(cl.Ctx(), &registryv1.HistoryRequest{Key: "dir/x", Limit: 3})
	require.NoError(t, err)
	require.Len(t, history.GetVersions(), 3)
	require.True(t, history.GetVersions()[0].GetDeleted())
	require.Equal(t, "4", string(history.GetVersions()[1].GetEntry().GetValue()))
	require.Equal(t, map[string]string{"by": "me"}, history.GetVersions()[1].GetEntry().GetMeta())
	rest, err := cl.KV.History(cl.Ctx(), &registryv1.HistoryRequest{Key: "dir/x", Before: history.GetNextBefore()})
	require.NoError(t, err)
	require.Len(t, rest.GetVersions(), 3)
	require.Equal(t, "2", string(rest.GetVersions()[0].GetEntry().GetValue()))
	require.Zero(t, rest.GetNextBefore())

	list, err := cl.KV.List(cl.Ctx(), &registryv1.ListRequest{KeysOnly: true, Separator: "/"})
	require.NoError(t, err)
	require.Equal(t, []string{"dir/"}, list.GetFolders())
	require.Len(t, list.GetEntries(), 1)
}
