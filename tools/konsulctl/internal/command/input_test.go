package command_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/command"
)

// machineWords are what a library says of our types and its own functions, and nobody can act on.
var machineWords = regexp.MustCompile(`strconv\.|cannot unmarshal|!!|command\.|cli\.|json:|yaml:|proto:|pflag|grpc:|group \[|%!|0x[0-9a-f]{6}`)

// said is what a refusal must hold: a field, a remedy, and no words of machines.
func said(t *testing.T, r result, field string) {
	t.Helper()
	require.Equal(t, 2, r.code, r.stderr)
	require.Empty(t, r.stdout)
	require.Contains(t, r.stderr, "  field: "+field+"\n")
	require.Contains(t, r.stderr, "  remedy: ")
	require.Contains(t, r.stderr, "  reason: ")
	require.NotRegexp(t, machineWords, r.stderr)
}

func TestABadFlagIsNamedWithWhatIsWanted(t *testing.T) {
	gateway := federation(t)
	for name, c := range map[string]struct {
		args  []string
		field string
		text  string
	}{
		"port":            {[]string{"service", "register", "--name", "x", "--port", "seven"}, "--port", `"seven" is no whole number from 0 to 65535`},
		"port too large":  {[]string{"service", "register", "--name", "x", "--port", "70000"}, "--port", "65535"},
		"negative number": {[]string{"kv", "set", "k", "v", "--cas", "-1"}, "--cas", `"-1" is no whole number`},
		"huge number":     {[]string{"kv", "set", "k", "v", "--cas", "18446744073709551616"}, "--cas", "no whole number"},
		"short number":    {[]string{"kv", "history", "k", "--limit", "1e3"}, "--limit", "no whole number"},
		"duration":        {[]string{"kv", "get", "k", "--timeout", "10"}, "--timeout", `"10" is no duration`},
		"bool":            {[]string{"kv", "set", "k", "v", "--global=maybe"}, "--global", "neither true nor false"},
		"list":            {[]string{"acl", "token", "create", "--policy", `a"b`}, "--policy", "is no list"},
		"map":             {[]string{"kv", "set", "k", "v", "--meta", "owner"}, "--meta", `"owner" is not KEY=VALUE`},
		"map given twice": {[]string{"kv", "set", "k", "v", "--meta", "a=1", "--meta", "a=2"}, "--meta", "twice"},
		"condition":       {[]string{"service", "list", "--node-meta", "rack"}, "--node-meta", "KEY=VALUE"},
		"format":          {[]string{"kv", "get", "k", "--output", "xml"}, "--output", "table, json and yaml"},
		"read mode":       {[]string{"kv", "get", "k", "--read-mode", "fresh"}, "--read-mode", "linearizable"},
		"comparison":      {[]string{"kv", "txn", "--if", "k is 3", "--get", "k"}, "--if", "no comparison"},
		"compared number": {[]string{"kv", "txn", "--if", "k version = x", "--get", "k"}, "--if", `"x" is no number`},
		"open quote":      {[]string{"kv", "txn", "--if", `"k exists`, "--get", "k"}, "--if", "closing quote"},
		"assignment":      {[]string{"kv", "txn", "--set", "k"}, "--set", "KEY=VALUE"},
		"lock":            {[]string{"kv", "txn", "--if-held", "l", "--get", "k"}, "--if-held", "LOCK=TOKEN"},
		"fence":           {[]string{"kv", "set", "k", "v", "--fence", "l=x"}, "--fence", "no token of a lock"},
		"ttl":             {[]string{"lease", "grant", "soon"}, "TTL", "no duration"},
		"rule":            {[]string{"acl", "policy", "create", "p", "--rule", "kv"}, "--rule", "is no rule"},
		"status":          {[]string{"service", "get", "api", "--status", "fine"}, "--status", "passing, warning or critical"},
	} {
		t.Run(name, func(t *testing.T) {
			r := ctl(t, gateway, "", c.args...)
			said(t, r, c.field)
			require.Contains(t, r.stderr, c.text)
		})
	}
}

func TestFlagsThatAreMissingOrDoNotGoTogetherAreNamed(t *testing.T) {
	for line, says := range map[string]string{
		"lock acquire jobs/nightly":                      "konsulctl: --lease: is missing\n  field: --lease\n",
		"lock release jobs/nightly":                      "--token: is missing",
		"check pass http":                                "one of --instance and --node is needed",
		"check pass http --instance a --node b":          "--instance and --node do not go together",
		"kv set --global --local k v":                    "--global and --local do not go together",
		"kv txn --file x --get k":                        "--file and --get do not go together",
		"service get api --all-datacenters --failover x": "--all-datacenters and --failover do not go together",
	} {
		r := ctl(t, federation(t), "", strings.Fields(line)...)
		require.Equal(t, 2, r.code, r.stderr)
		require.Contains(t, r.stderr, says)
		require.NotRegexp(t, machineWords, r.stderr)
		require.Contains(t, r.stderr, "  remedy: see `konsulctl ")
	}
}

func TestAValueThatBeginsWithADashIsStoredOrTheRefusalSaysHow(t *testing.T) {
	pem := "-----BEGIN PRIVATE KEY-----\nc2VjcmV0c2VjcmV0c2VjcmV0\n-----END PRIVATE KEY-----"
	for name, c := range map[string]struct {
		args []string
		how  string
	}{
		"number":    {[]string{"kv", "set", "v/neg", "-5"}, "konsulctl kv set [flags] -- KEY VALUE"},
		"pem":       {[]string{"kv", "set", "v/pem", pem}, "konsulctl kv set [flags] -- KEY VALUE"},
		"word":      {[]string{"kv", "set", "k", "--verbose"}, "konsulctl kv set [flags] -- KEY VALUE"},
		"key":       {[]string{"kv", "get", "-k"}, "konsulctl kv get [flags] -- KEY"},
		"prefix":    {[]string{"kv", "list", "-k/"}, "konsulctl kv list [flags] -- [PREFIX]"},
		"lock":      {[]string{"lock", "get", "-l"}, "konsulctl lock get [flags] -- NAME"},
		"watch":     {[]string{"watch", "kv", "-k"}, "konsulctl watch kv [flags] -- KEY"},
		"heartbeat": {[]string{"node", "heartbeat", "-n"}, "konsulctl node heartbeat [flags] -- NAME..."},
	} {
		t.Run(name, func(t *testing.T) {
			r := ctl(t, federation(t), "", c.args...)
			require.Equal(t, 2, r.code)
			require.Contains(t, r.stderr, c.how)
			require.NotRegexp(t, machineWords, r.stderr)
			require.NotContains(t, r.stderr, "c2VjcmV0", "what was pasted is not repeated")
		})
	}
	for _, value := range []string{"-5", pem, "--verbose"} {
		gateway := federation(t)
		require.Zero(t, ctl(t, gateway, "", "kv", "set", "--local", "--", "k", value).code)
		require.Equal(t, value, string(konsultest.Last[*registryv1.SetRequest](gateway).GetValue()))
	}
	gateway := federation(t)
	require.Zero(t, ctl(t, gateway, "", "check", "fail", "http", "--instance", "api-1", "--note", "-5 degrees").code)
	require.Equal(t, "-5 degrees", konsultest.Last[*registryv1.UpdateChecksRequest](gateway).GetUpdates()[0].GetOutput())
	require.Contains(t, ctl(t, nil, "", "--help").stdout, "kv set v/neg -- -5")
	require.Contains(t, ctl(t, nil, "", "kv", "set", "--help").stdout, "kv set v/neg -- -5")
}

func TestBytesThatAreNoTextAreRefusedByTheNameTheyWereTypedUnder(t *testing.T) {
	const bad = "k\xff"
	for name, c := range map[string]struct {
		args  []string
		field string
	}{
		"key":               {[]string{"kv", "set", bad, "v"}, "key"},
		"read":              {[]string{"kv", "get", bad}, "key"},
		"prefix":            {[]string{"kv", "list", bad}, "prefix"},
		"watched key":       {[]string{"watch", "kv", bad}, "key"},
		"watched service":   {[]string{"watch", "service", bad}, "name"},
		"note":              {[]string{"check", "fail", "h", "--instance", "co-1", "--note", bad}, "--note"},
		"instance":          {[]string{"check", "fail", "h", "--instance", bad}, "--instance"},
		"check":             {[]string{"check", "fail", bad, "--instance", "co-1"}, "id"},
		"reason":            {[]string{"maintenance", "enable", "--node", "n", "--reason", bad}, "--reason"},
		"datacenter":        {[]string{"kv", "get", "k", "--datacenter", bad}, "--datacenter"},
		"meta":              {[]string{"kv", "set", "k", "v", "--meta", "a=" + bad}, "--meta"},
		"tag":               {[]string{"service", "get", "api", "--tag", bad}, "--tag"},
		"filter":            {[]string{"service", "list", "--filter", bad}, "--filter"},
		"compared key":      {[]string{"kv", "txn", "--if", bad + " exists", "--get", "k"}, "--if"},
		"key of an else":    {[]string{"kv", "txn", "--else-get", bad}, "--else-get"},
		"key below which":   {[]string{"kv", "txn", "--delete-prefix", bad}, "--delete-prefix"},
		"key of a set":      {[]string{"kv", "txn", "--set", bad + "=v"}, "--set"},
		"policy":            {[]string{"acl", "policy", "get", bad}, "name"},
		"rule":              {[]string{"acl", "policy", "create", "p", "--rule", "kv read " + bad}, "--rule"},
		"token":             {[]string{"acl", "token", "get", bad}, "accessor"},
		"lock":              {[]string{"lock", "acquire", bad, "--lease", "l1"}, "name"},
		"lease":             {[]string{"lease", "keep-alive", bad, "--once"}, "id"},
		"heartbeat":         {[]string{"node", "heartbeat", "n1", bad}, "name"},
		"peer":              {[]string{"operator", "raft", "remove-peer", bad}, "id"},
		"request id":        {[]string{"kv", "delete", "k", "--request-id", bad}, "--request-id"},
		"join":              {[]string{"datacenter", "token", "create", "--datacenter", bad}, "--datacenter"},
		"failover":          {[]string{"service", "get", "api", "--failover", bad}, "--failover"},
		"explained name":    {[]string{"acl", "explain", "kv", "read", bad}, "name"},
		"registered name":   {[]string{"node", "register", "n1", "--address", bad}, "--address"},
		"deregistered name": {[]string{"service", "deregister", bad}, "id"},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := federation(t)
			r := ctl(t, gateway, "", c.args...)
			said(t, r, c.field)
			require.Empty(t, gateway.Requests())
		})
	}
	gateway := federation(t)
	require.Zero(t, ctl(t, gateway, "", "kv", "set", "k", bad).code, "a value is any bytes")
	require.Equal(t, bad, string(konsultest.Last[*registryv1.SetRequest](gateway).GetValue()))
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
			gateway := federation(t)
			r := ctl(t, gateway, "", "kv", "txn", "--if", text, "--get", "a b", "--set", `"a=b"=c=d`, "--set", "a b=1")
			require.Zero(t, r.code, r.stderr)
			request := konsultest.Last[*registryv1.TxnRequest](gateway)
			require.True(t, proto.Equal(want, request.GetCompare()[0]), "%v", request.GetCompare()[0])
			require.Equal(t, "a b", request.GetSuccess()[0].GetGet().GetKey())
			require.Equal(t, "a=b", request.GetSuccess()[1].GetSet().GetKey())
			require.Equal(t, "c=d", string(request.GetSuccess()[1].GetSet().GetValue()))
			require.Equal(t, "a b", request.GetSuccess()[2].GetSet().GetKey())
		})
	}
}

func TestAKeyThatCanBeSetCanBeGranted(t *testing.T) {
	gateway := federation(t)
	r := ctl(t, gateway, "", "acl", "policy", "create", "web", "--rule", "kv read a b", "--rule", "kv  read,list  my files/*", "--rule", "kv write exact:a  b: c", "--rule", "node read")
	require.Zero(t, r.code, r.stderr)
	rules := konsultest.Last[*registryv1.CreatePolicyRequest](gateway).GetPolicy().GetRules()
	require.Equal(t, "a b", rules[0].GetExact())
	require.Equal(t, []string{"read", "list"}, rules[1].GetAccess())
	require.Equal(t, "my files/*", rules[1].GetGlob())
	require.Equal(t, "a  b: c", rules[2].GetExact())
	require.Nil(t, rules[3].GetMatch())
}

func TestATransactionWithNothingToDoIsRefusedHere(t *testing.T) {
	gateway := federation(t)
	for _, args := range [][]string{{}, {"--if", "k exists"}, {"--global"}} {
		r := ctl(t, gateway, "", append([]string{"kv", "txn"}, args...)...)
		require.Equal(t, 2, r.code)
		require.Contains(t, r.stderr, "nothing to carry out")
		require.Contains(t, r.stderr, "--delete-prefix")
	}
	require.Equal(t, 2, ctl(t, gateway, "{}", "kv", "txn", "--file", "-").code)
	for _, text := range []string{"[]", `{"x": 1}`, `{"compare": [{"version": "x"}]}`, "no json", `{"success": [{"set": {"value": "%"}}]}`} {
		said(t, ctl(t, gateway, text, "kv", "txn", "--file", "-"), "--file")
	}
	require.Empty(t, gateway.Requests())
}

func TestMetaIsTakenAsItStands(t *testing.T) {
	gateway := federation(t)
	want := map[string]string{"note": `"a,b=c"`, "url": "http://h?x=1,2"}
	for line, sent := range map[string]func() map[string]string{
		"kv set k v": func() map[string]string { return konsultest.Last[*registryv1.SetRequest](gateway).GetMeta() },
		"service register --name api --address 10.0.0.5 --port 8080": func() map[string]string {
			return konsultest.Last[*registryv1.RegisterRequest](gateway).GetService().GetMeta()
		},
		"node register web-1 --address 10.0.0.1": func() map[string]string {
			return konsultest.Last[*registryv1.RegisterNodeRequest](gateway).GetNode().GetMeta()
		},
	} {
		args := append(strings.Fields(line), "--meta", `note="a,b=c"`, "--meta", "url=http://h?x=1,2")
		r := ctl(t, gateway, "", args...)
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, want, sent(), line)
	}
}

func TestAPolicyFileThatIsNoneSaysWhatIsWanted(t *testing.T) {
	gateway := federation(t)
	for name, c := range map[string]struct{ text, field, says string }{
		"hcl of Consul":       {"key_prefix \"app/\" {\n  policy = \"read\"\n}\n", "--file", "Consul"},
		"hcl, one line":       {`key "app/x" { policy = "write" }`, "--file", "Consul"},
		"hcl, a level":        {`operator = "read"`, "--file", "Consul"},
		"hcl with a comment":  {"# what web may\nservice_prefix \"\" { policy = \"read\" }", "--file", "Consul"},
		"JSON of Consul":      {`{"key_prefix": {"app/": {"policy": "read"}}}`, "--file", "Consul"},
		"JSON of Consul, two": {"{\n  \"operator\": \"read\",\n  \"node_prefix\": {\"\": {\"policy\": \"read\"}}\n}", "--file", "Consul"},
		"a word":              {"hello", "--file", "is no policy"},
		"a list":              {"- {resource: kv}", "--file", "is no policy"},
		"broken":              {"rules: [", "--file", "is no policy"},
		"two documents":       {"rules: []\n---\nrules: []\n", "--file", "more than one document"},
		"unknown key":         {"rules: [{resource: kv, acess: read}]", "rules[0].acess", "is no key"},
		"key given twice":     {"rules: []\nrules: []", "rules", "twice"},
		"rule that is none":   {"rules: [kv]", "rules[0]", "a mapping of resource, access"},
		"rules that are none": {"rules: {resource: kv}", "rules", "a list of rules"},
		"resource":            {"rules: [{resource: [kv]}]", "rules[0].resource", "a text is wanted"},
		"access":              {"rules: [{access: {read: true}}]", "rules[0].access", "a list of words"},
		"access in a list":    {"rules: [{access: [[read]]}]", "rules[0].access[0]", "a text is wanted"},
		"two matches":         {"rules: [{exact: a, glob: b}]", "rules[0]", "more than one"},
		"another name":        {"name: other", "NAME", "in the file"},
		"no UTF-8":            {"description: \xff", "--file", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			r := ctl(t, gateway, c.text, "acl", "policy", "create", "web", "--file", "-")
			said(t, r, c.field)
			require.Contains(t, r.stderr, c.says)
		})
	}
	require.Empty(t, gateway.Requests())
	r := ctl(t, gateway, "description: what service = \"x\" may\nrules: [{resource: service, access: read}]", "acl", "policy", "create", "web", "--file", "-")
	require.Zero(t, r.code, r.stderr)
}

func TestWithoutATokenItAsksAsEverybody(t *testing.T) {
	gateway := federation(t)
	for name, environ := range map[string]map[string]string{"empty": {"KONSUL_TOKEN": ""}, "blank": {"KONSUL_TOKEN": " \n"}, "none": {}} {
		t.Run(name, func(t *testing.T) {
			environ["KONSUL_ADDR"], environ["KONSUL_CA_FILE"] = gateway.Address, gateway.CAFile
			var stderr strings.Builder
			code := command.Run(t.Context(), cli.Env{
				In: strings.NewReader(""), Out: &stderr, Err: &stderr,
				Lookup: func(name string) (string, bool) { value, ok := environ[name]; return value, ok },
			}, []string{"kv", "get", "k"})
			require.Equal(t, 4, code, "the gateway was asked, and knows no such token: %s", stderr.String())
			require.Contains(t, stderr.String(), "the token is unknown")
		})
	}
}

func TestErrorsAreDocumentsWhenAnswersAre(t *testing.T) {
	gateway := federation(t)
	type document struct{ Code, Message, Reason, Field, Remedy string }
	for name, c := range map[string]struct {
		args []string
		want document
	}{
		"the registry's": {[]string{"kv", "get", "missing"}, document{Code: "NotFound", Reason: "KEY_NOT_FOUND", Field: "key"}},
		"a lost race":    {[]string{"kv", "set", "--cas", "3", "k", "v"}, document{Code: "Aborted", Reason: "CAS_MISMATCH", Field: "--cas", Remedy: "read the key again"}},
		"usage":          {[]string{"kv", "get"}, document{Code: "InvalidArgument", Reason: "USAGE", Remedy: "see `konsulctl kv get --help`"}},
		"a flag":         {[]string{"kv", "get", "k", "--at-index", "x"}, document{Code: "InvalidArgument", Reason: "USAGE", Field: "--at-index", Remedy: "write one in digits"}},
		"a command":      {[]string{"kvv"}, document{Code: "InvalidArgument", Reason: "USAGE", Remedy: "see `konsulctl --help`"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, format := range []string{"-ojson", "--output=json"} {
				r := ctl(t, gateway, "", append(c.args, format)...)
				require.NotZero(t, r.code)
				require.Empty(t, r.stdout)
				var got document
				require.NoError(t, json.Unmarshal([]byte(r.stderr), &got), r.stderr)
				require.NotEmpty(t, got.Message)
				got.Message = ""
				require.Equal(t, c.want, got)
				require.Equal(t, 1, strings.Count(r.stderr, "\n"))
			}
			require.Contains(t, ctl(t, gateway, "", append(c.args, "-o", "yaml")...).stderr, "\nreason: "+c.want.Reason+"\n")
			require.Contains(t, ctl(t, gateway, "", c.args...).stderr, "\n  reason: "+c.want.Reason+"\n")
		})
	}
}

func TestNothingFromElsewhereControlsTheTerminal(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\u202e\r\n"
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.GetRequest) (*registryv1.GetResponse, error) {
		return nil, fault.New(fault.Internal, "EVIL", "it said %s", evil).WithRemedy("do " + evil)
	})
	konsultest.On(gateway, func(*registryv1.WatchRequest) (*registryv1.WatchResponse, error) {
		return &registryv1.WatchResponse{Index: 5, Synced: true, Records: []*registryv1.Record{{Key: "local/a", Value: []byte(evil), ModifyIndex: 4}}}, nil
	})
	clean := func(text string) {
		t.Helper()
		require.NotContains(t, text, "\x1b")
		require.NotContains(t, text, "\x07")
		require.NotContains(t, text, "\r")
		require.NotContains(t, text, "\u202e")
	}
	clean(ctl(t, gateway, "", "kv", "get", "k").stderr)
	clean(ctl(t, gateway, "", "kv", "get", evil).stderr)
	clean(ctl(t, gateway, "", "kv"+evil).stderr)
	clean(ctl(t, gateway, "", "kv", "get", "k", "--"+evil).stderr)
	clean(ctl(t, gateway, "", "kv", "get", "k", "--token-file", evil).stderr)
	text, code := interrupted(t, gateway, 1, "watch", "kv", "a")
	require.Zero(t, code)
	clean(text)
	require.Equal(t, 1, strings.Count(text, "\n"))
}

func TestAShortenedListSaysSo(t *testing.T) {
	gateway := konsultest.Start(t)
	meta := func() *registryv1.QueryMeta {
		return &registryv1.QueryMeta{Datacenter: "us-west", ResultsFiltered: true}
	}
	konsultest.On(gateway, func(r *registryv1.ListRequest) (*registryv1.ListResponse, error) {
		if r.GetPageToken() == "" {
			return &registryv1.ListResponse{NextPageToken: "more", Meta: &registryv1.QueryMeta{}}, nil
		}
		return &registryv1.ListResponse{Meta: meta()}, nil
	})
	konsultest.On(gateway, func(*registryv1.ListServicesRequest) (*registryv1.ListServicesResponse, error) {
		return &registryv1.ListServicesResponse{Meta: meta()}, nil
	})
	konsultest.On(gateway, func(*registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
		return &registryv1.ListNodesResponse{Meta: meta()}, nil
	})
	konsultest.On(gateway, func(*registryv1.ListChecksRequest) (*registryv1.ListChecksResponse, error) {
		return &registryv1.ListChecksResponse{Meta: meta()}, nil
	})
	konsultest.On(gateway, func(*registryv1.ListLeasesRequest) (*registryv1.ListLeasesResponse, error) {
		return &registryv1.ListLeasesResponse{Meta: meta()}, nil
	})
	konsultest.On(gateway, func(*registryv1.ListLocksRequest) (*registryv1.ListLocksResponse, error) {
		return &registryv1.ListLocksResponse{Meta: meta()}, nil
	})
	for _, line := range []string{"kv list", "service list", "node list", "check list", "maintenance status", "lease list", "lock list"} {
		r := ctl(t, gateway, "", strings.Fields(line)...)
		require.Zero(t, r.code)
		require.Contains(t, r.stderr, "rows may be missing", line)
		r = ctl(t, gateway, "", append(strings.Fields(line), "-o", "json")...)
		require.Empty(t, r.stderr)
		require.Contains(t, r.stdout, `"results_filtered": true`, line)
	}
}

func TestAStaleReadSaysHowOldItIs(t *testing.T) {
	gateway := federation(t)
	konsultest.On(gateway, func(*registryv1.GetRequest) (*registryv1.GetResponse, error) {
		return &registryv1.GetResponse{
			Entry: &registryv1.Entry{Key: "k", Value: []byte("v")}, Meta: &registryv1.QueryMeta{Datacenter: "us-west", LastContactMs: 1200},
		}, nil
	})
	r := ctl(t, gateway, "", "kv", "get", "k", "--read-mode", "stale")
	require.Contains(t, r.stdout, "heard from its leader 1.2s ago; it knows none now")
	r = ctl(t, gateway, "", "kv", "get", "k", "--read-mode", "stale", "--raw")
	require.Equal(t, "v", r.stdout)
	require.Contains(t, r.stderr, "1.2s ago")
	require.NotContains(t, ctl(t, gateway, "", "kv", "get", "k").stdout, "ago")
	for _, line := range []string{"kv list", "service list", "node list", "check list", "lock list", "service get api", "service instance api-1", "node get web-1"} {
		require.Contains(t, ctl(t, gateway, "", append(strings.Fields(line), "--read-mode", "stale")...).stdout, "stale read", line)
	}
}

func TestAReadOfAnOldCopySaysHowOldItIs(t *testing.T) {
	for name, c := range map[string]struct {
		age  *durationpb.Duration
		line string
		says string
	}{
		"no copy":                     {nil, "kv get k", ""},
		"a healthy one":               {durationpb.New(3500 * time.Millisecond), "kv get k", ""},
		"an old one":                  {durationpb.New(42 * time.Second), "kv get k", "this copy of the primary's records is 42s old"},
		"a healthy one, read stale":   {durationpb.New(1200 * time.Millisecond), "kv get k --read-mode stale", "records is 1.2s old"},
		"an old one, its value alone": {durationpb.New(time.Minute), "kv get k --raw", "records is 1m0s old"},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := konsultest.Start(t)
			konsultest.On(gateway, func(*registryv1.GetRequest) (*registryv1.GetResponse, error) {
				return &registryv1.GetResponse{
					Entry: &registryv1.Entry{Key: "k", Value: []byte("v")}, Meta: &registryv1.QueryMeta{KnownLeader: true, CopyAge: c.age},
				}, nil
			})
			r := ctl(t, gateway, "", strings.Fields(c.line)...)
			require.Zero(t, r.code)
			if c.says == "" {
				require.NotContains(t, r.stdout+r.stderr, " old")
				return
			}
			require.Contains(t, r.stdout+r.stderr, c.says)
			if strings.HasSuffix(c.line, "--raw") {
				require.Equal(t, "v", r.stdout)
			}
		})
	}
}

func TestASecretInAFileLeavesADocumentBehind(t *testing.T) {
	gateway := federation(t)
	for _, line := range []string{"secret generate", "acl token create --policy web", "datacenter token create --datacenter asia-pacific"} {
		r := ctl(t, gateway, "", append(strings.Fields(line), "-o", "json")...)
		require.Zero(t, r.code, r.stderr)
		require.True(t, json.Valid([]byte(r.stdout)), "%s: %s", line, r.stdout)
	}
	for _, line := range []string{"acl token create --policy web", "acl bootstrap", "datacenter token create --datacenter asia-pacific"} {
		path := filepath.Join(t.TempDir(), "secret")
		r := ctl(t, gateway, "", append(strings.Fields(line), "--out", path, "-o", "json")...)
		require.Zero(t, r.code, r.stderr)
		require.True(t, json.Valid([]byte(r.stdout)), "%s: %s", line, r.stdout)
		secret, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NotContains(t, r.stdout+r.stderr, strings.TrimSpace(string(secret)))
	}
}

func TestAClusterIsHealthyOnlyWhenItIs(t *testing.T) {
	server := func(state string) *registryv1.ServerState {
		return &registryv1.ServerState{Id: "n", State: state, Voter: true}
	}
	whole := []*registryv1.ServerState{server("leader"), server("follower"), server("follower")}
	short := []*registryv1.ServerState{server("leader"), server("follower"), server("unreachable")}
	for name, c := range map[string]struct {
		answer *registryv1.ClusterStatusResponse
		state  string
		code   int
		says   string
	}{
		"whole": {&registryv1.ClusterStatusResponse{Healthy: true, Available: true, Leader: "n", Servers: whole}, "healthy", 0, ""},
		"a warning": {&registryv1.ClusterStatusResponse{Healthy: true, Available: true, Servers: whole, Problems: []*registryv1.HealthProblem{
			{Reason: "CLOCK_DIFFERENCE", Message: "eu-central's clock is 90s ahead", Remedy: "look at its time source", Warning: true},
		}}, "healthy", 0, "Warning     eu-central's clock is 90s ahead; look at its time source"},
		"a server down": {&registryv1.ClusterStatusResponse{Available: true, Servers: short, Problems: []*registryv1.HealthProblem{
			{Reason: "SERVER_DOWN", Message: "n3 does not answer", Remedy: "start it"},
		}}, "degraded", 1, "Problem     n3 does not answer; start it"},
		"a server down, says an older one": {&registryv1.ClusterStatusResponse{Healthy: true, Servers: short}, "degraded", 1, ""},
		"no leader": {&registryv1.ClusterStatusResponse{Servers: whole, Problems: []*registryv1.HealthProblem{
			{Reason: "NO_LEADER", Message: "nobody leads"},
		}}, "unavailable", 5, "Problem     nobody leads\n"},
		"no majority, says an older one": {&registryv1.ClusterStatusResponse{Servers: short}, "unavailable", 5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := federation(t)
			konsultest.On(gateway, func(r *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
				answer := proto.CloneOf(c.answer)
				answer.Datacenter = "us-west"
				return answer, nil
			})
			for _, args := range [][]string{{"cluster", "status"}, {"cluster", "status", "--all-datacenters"}} {
				r := ctl(t, gateway, "", args...)
				require.Equal(t, c.code, r.code, r.stderr)
				require.Contains(t, r.stdout, c.state)
				if len(args) == 2 {
					require.Contains(t, r.stdout, c.says)
				}
				if c.code != 0 {
					require.Contains(t, r.stderr, "us-west is "+c.state)
					require.Contains(t, r.stderr, "  reason: UNHEALTHY\n  remedy: ")
				}
				r = ctl(t, gateway, "", append(args, "-o", "json")...)
				require.Equal(t, c.code, r.code)
				require.True(t, json.Valid([]byte(r.stdout)))
			}
		})
	}
}

// TestEveryCommandAnswersAWrongLineInJSON walks over all commands there are.
func TestEveryCommandAnswersAWrongLineInJSON(t *testing.T) {
	lines := 0
	var walk func(words []string)
	walk = func(words []string) {
		r := ctl(t, nil, "", append(words, "--help")...)
		require.Zero(t, r.code)
		_, list, grouped := strings.Cut(r.stdout, "Available Commands:\n")
		if list, _, _ = strings.Cut(list, "\n\n"); grouped {
			for line := range strings.Lines(list) {
				if name := strings.Fields(line)[0]; name != "help" && name != "completion" {
					walk(append(slices.Clone(words), name))
				}
			}
		}
		r = ctl(t, nil, "", append(words, "--nosuchflag", "-o", "json")...)
		require.Equal(t, 2, r.code, words)
		require.Empty(t, r.stdout, words)
		var refused struct{ Code, Message, Reason, Remedy string }
		require.NoError(t, json.Unmarshal([]byte(r.stderr), &refused), "%v: %s", words, r.stderr)
		require.Equal(t, "USAGE", refused.Reason)
		require.Contains(t, refused.Message, "--nosuchflag")
		require.NotEmpty(t, refused.Remedy)
		lines++
	}
	walk(nil)
	require.Greater(t, lines, 60)
}

func TestWhoElseClaimsADatacentersNameIsShown(t *testing.T) {
	gateway := federation(t)
	konsultest.On(gateway, func(*wangossipv1.ListDatacentersRequest) (*wangossipv1.ListDatacentersResponse, error) {
		return &wangossipv1.ListDatacentersResponse{Datacenter: "us-west", Datacenters: []*wangossipv1.Datacenter{
			{Name: "us-east", State: wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE, Primary: true},
			{
				Name: "us-west", State: wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE,
				Rivals: []*wangossipv1.Member{{Name: "n9.us-west", Address: "10.0.9.9:8302", Status: "alive"}},
			},
		}}, nil
	})
	rival := "n9.us-west at 10.0.9.9:8302 (alive) claims the name us-west with another datacenter's id"
	list := ctl(t, gateway, "", "datacenter", "list")
	require.Contains(t, list.stdout, "Warning: "+rival)
	require.Contains(t, ctl(t, gateway, "", "datacenter", "list", "-o", "json").stdout, `"address": "10.0.9.9:8302"`)
	for _, args := range [][]string{{"cluster", "status"}, {"cluster", "status", "--all-datacenters"}} {
		require.Contains(t, ctl(t, gateway, "", args...).stderr, "konsulctl: "+rival)
		require.Contains(t, ctl(t, gateway, "", append(args, "-o", "json")...).stderr, `{"note":"`+rival)
	}
	require.NotContains(t, ctl(t, gateway, "", "cluster", "status", "--datacenter", "us-east").stderr, rival)
}
