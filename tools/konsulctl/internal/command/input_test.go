package command_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/command"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestABadFlagIsNamedWithWhatIsWanted(t *testing.T) {
	gateway := commandtest.Federation(t)
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
			r := commandtest.Ctl(t, gateway, "", c.args...)
			commandtest.Said(t, r, c.field)
			require.Contains(t, r.Stderr, c.text)
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
		r := commandtest.Ctl(t, commandtest.Federation(t), "", strings.Fields(line)...)
		require.Equal(t, 2, r.Code, r.Stderr)
		require.Contains(t, r.Stderr, says)
		require.NotRegexp(t, commandtest.MachineWords, r.Stderr)
		require.Contains(t, r.Stderr, "  remedy: see `konsulctl ")
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
			r := commandtest.Ctl(t, commandtest.Federation(t), "", c.args...)
			require.Equal(t, 2, r.Code)
			require.Contains(t, r.Stderr, c.how)
			require.NotRegexp(t, commandtest.MachineWords, r.Stderr)
			require.NotContains(t, r.Stderr, "c2VjcmV0", "what was pasted is not repeated")
		})
	}
	for _, value := range []string{"-5", pem, "--verbose"} {
		gateway := commandtest.Federation(t)
		require.Zero(t, commandtest.Ctl(t, gateway, "", "kv", "set", "--local", "--", "k", value).Code)
		require.Equal(t, value, string(konsultest.Last[*registryv1.SetRequest](gateway).GetValue()))
	}
	gateway := commandtest.Federation(t)
	require.Zero(t, commandtest.Ctl(t, gateway, "", "check", "fail", "http", "--instance", "api-1", "--note", "-5 degrees").Code)
	require.Equal(t, "-5 degrees", konsultest.Last[*registryv1.UpdateChecksRequest](gateway).GetUpdates()[0].GetOutput())
	require.Contains(t, commandtest.Ctl(t, nil, "", "--help").Stdout, "kv set v/neg -- -5")
	require.Contains(t, commandtest.Ctl(t, nil, "", "kv", "set", "--help").Stdout, "kv set v/neg -- -5")
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
			gateway := commandtest.Federation(t)
			r := commandtest.Ctl(t, gateway, "", c.args...)
			commandtest.Said(t, r, c.field)
			require.Empty(t, gateway.Requests())
		})
	}
	gateway := commandtest.Federation(t)
	require.Zero(t, commandtest.Ctl(t, gateway, "", "kv", "set", "k", bad).Code, "a value is any bytes")
	require.Equal(t, bad, string(konsultest.Last[*registryv1.SetRequest](gateway).GetValue()))
}

func TestMetaIsTakenAsItStands(t *testing.T) {
	gateway := commandtest.Federation(t)
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
		r := commandtest.Ctl(t, gateway, "", args...)
		require.Zero(t, r.Code, r.Stderr)
		require.Equal(t, want, sent(), line)
	}
}

func TestWithoutATokenItAsksAsEverybody(t *testing.T) {
	gateway := commandtest.Federation(t)
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
	gateway := commandtest.Federation(t)
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
				r := commandtest.Ctl(t, gateway, "", append(c.args, format)...)
				require.NotZero(t, r.Code)
				require.Empty(t, r.Stdout)
				var got document
				require.NoError(t, json.Unmarshal([]byte(r.Stderr), &got), r.Stderr)
				require.NotEmpty(t, got.Message)
				got.Message = ""
				require.Equal(t, c.want, got)
				require.Equal(t, 1, strings.Count(r.Stderr, "\n"))
			}
			require.Contains(t, commandtest.Ctl(t, gateway, "", append(c.args, "-o", "yaml")...).Stderr, "\nreason: "+c.want.Reason+"\n")
			require.Contains(t, commandtest.Ctl(t, gateway, "", c.args...).Stderr, "\n  reason: "+c.want.Reason+"\n")
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
	clean(commandtest.Ctl(t, gateway, "", "kv", "get", "k").Stderr)
	clean(commandtest.Ctl(t, gateway, "", "kv", "get", evil).Stderr)
	clean(commandtest.Ctl(t, gateway, "", "kv"+evil).Stderr)
	clean(commandtest.Ctl(t, gateway, "", "kv", "get", "k", "--"+evil).Stderr)
	clean(commandtest.Ctl(t, gateway, "", "kv", "get", "k", "--token-file", evil).Stderr)
	text, code := commandtest.Interrupted(t, gateway, 1, "watch", "kv", "a")
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
		r := commandtest.Ctl(t, gateway, "", strings.Fields(line)...)
		require.Zero(t, r.Code)
		require.Contains(t, r.Stderr, "rows may be missing", line)
		r = commandtest.Ctl(t, gateway, "", append(strings.Fields(line), "-o", "json")...)
		require.Empty(t, r.Stderr)
		require.Contains(t, r.Stdout, `"results_filtered": true`, line)
	}
}

func TestAStaleReadSaysHowOldItIs(t *testing.T) {
	gateway := commandtest.Federation(t)
	konsultest.On(gateway, func(*registryv1.GetRequest) (*registryv1.GetResponse, error) {
		return &registryv1.GetResponse{
			Entry: &registryv1.Entry{Key: "k", Value: []byte("v")}, Meta: &registryv1.QueryMeta{Datacenter: "us-west", LastContactMs: 1200},
		}, nil
	})
	r := commandtest.Ctl(t, gateway, "", "kv", "get", "k", "--read-mode", "stale")
	require.Contains(t, r.Stdout, "heard from its leader 1.2s ago; it knows none now")
	r = commandtest.Ctl(t, gateway, "", "kv", "get", "k", "--read-mode", "stale", "--raw")
	require.Equal(t, "v", r.Stdout)
	require.Contains(t, r.Stderr, "1.2s ago")
	require.NotContains(t, commandtest.Ctl(t, gateway, "", "kv", "get", "k").Stdout, "ago")
	for _, line := range []string{"kv list", "service list", "node list", "check list", "lock list", "service get api", "service instance api-1", "node get web-1"} {
		require.Contains(t, commandtest.Ctl(t, gateway, "", append(strings.Fields(line), "--read-mode", "stale")...).Stdout, "stale read", line)
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
			r := commandtest.Ctl(t, gateway, "", strings.Fields(c.line)...)
			require.Zero(t, r.Code)
			if c.says == "" {
				require.NotContains(t, r.Stdout+r.Stderr, " old")
				return
			}
			require.Contains(t, r.Stdout+r.Stderr, c.says)
			if strings.HasSuffix(c.line, "--raw") {
				require.Equal(t, "v", r.Stdout)
			}
		})
	}
}

func TestASecretInAFileLeavesADocumentBehind(t *testing.T) {
	gateway := commandtest.Federation(t)
	for _, line := range []string{"secret generate", "acl token create --policy web", "datacenter token create --datacenter asia-pacific"} {
		r := commandtest.Ctl(t, gateway, "", append(strings.Fields(line), "-o", "json")...)
		require.Zero(t, r.Code, r.Stderr)
		require.True(t, json.Valid([]byte(r.Stdout)), "%s: %s", line, r.Stdout)
	}
	for _, line := range []string{"acl token create --policy web", "acl bootstrap", "datacenter token create --datacenter asia-pacific"} {
		path := filepath.Join(t.TempDir(), "secret")
		r := commandtest.Ctl(t, gateway, "", append(strings.Fields(line), "--out", path, "-o", "json")...)
		require.Zero(t, r.Code, r.Stderr)
		require.True(t, json.Valid([]byte(r.Stdout)), "%s: %s", line, r.Stdout)
		secret, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NotContains(t, r.Stdout+r.Stderr, strings.TrimSpace(string(secret)))
	}
}

// TestEveryCommandAnswersAWrongLineInJSON walks over all commands there are.
func TestEveryCommandAnswersAWrongLineInJSON(t *testing.T) {
	lines := 0
	var walk func(words []string)
	walk = func(words []string) {
		r := commandtest.Ctl(t, nil, "", append(words, "--help")...)
		require.Zero(t, r.Code)
		_, list, grouped := strings.Cut(r.Stdout, "Available Commands:\n")
		if list, _, _ = strings.Cut(list, "\n\n"); grouped {
			for line := range strings.Lines(list) {
				if name := strings.Fields(line)[0]; name != "help" && name != "completion" {
					walk(append(slices.Clone(words), name))
				}
			}
		}
		r = commandtest.Ctl(t, nil, "", append(words, "--nosuchflag", "-o", "json")...)
		require.Equal(t, 2, r.Code, words)
		require.Empty(t, r.Stdout, words)
		var refused struct{ Code, Message, Reason, Remedy string }
		require.NoError(t, json.Unmarshal([]byte(r.Stderr), &refused), "%v: %s", words, r.Stderr)
		require.Equal(t, "USAGE", refused.Reason)
		require.Contains(t, refused.Message, "--nosuchflag")
		require.NotEmpty(t, refused.Remedy)
		lines++
	}
	walk(nil)
	require.Greater(t, lines, 60)
}

func TestWhoElseClaimsADatacentersNameIsShown(t *testing.T) {
	gateway := commandtest.Federation(t)
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
	list := commandtest.Ctl(t, gateway, "", "datacenter", "list")
	require.Contains(t, list.Stdout, "Warning: "+rival)
	require.Contains(t, commandtest.Ctl(t, gateway, "", "datacenter", "list", "-o", "json").Stdout, `"address": "10.0.9.9:8302"`)
	for _, args := range [][]string{{"cluster", "status"}, {"cluster", "status", "--all-datacenters"}} {
		require.Contains(t, commandtest.Ctl(t, gateway, "", args...).Stderr, "konsulctl: "+rival)
		require.Contains(t, commandtest.Ctl(t, gateway, "", append(args, "-o", "json")...).Stderr, `{"note":"`+rival)
	}
	require.NotContains(t, commandtest.Ctl(t, gateway, "", "cluster", "status", "--datacenter", "us-east").Stderr, rival)
}
