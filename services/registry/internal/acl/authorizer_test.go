package acl_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
)

var start = time.Unix(1_000, 0)

// tester is a test, or rapid's run of one.
type tester interface {
	require.TestingT
	Helper()
}

// world feeds a view by hand.
type world struct {
	t     tester
	clock *clock.Manual
	view  *acl.View
	index uint64
}

func newWorld(t tester) *world {
	manual := clock.NewManual(start)
	return &world{t: t, clock: manual, view: acl.NewView(manual)}
}

func (w *world) put(table registryv1.Table, key string, m proto.Message) {
	w.t.Helper()
	w.index++
	row := &registryv1.Record{Table: table, Key: key, ModifyIndex: w.index, CreateIndex: w.index, Deleted: m == nil}
	if m != nil {
		value, err := proto.Marshal(m)
		require.NoError(w.t, err)
		row.Value = value
	}
	require.NoError(w.t, w.view.Apply([]*registryv1.Record{row}))
}

func (w *world) policy(name string, rules ...*registryv1.ACLRule) {
	w.t.Helper()
	w.put(registryv1.Table_TABLE_ACL_POLICY, name, &registryv1.ACLPolicy{Name: name, Rules: rules})
}

func (w *world) role(name string, policies ...string) {
	w.t.Helper()
	w.put(registryv1.Table_TABLE_ACL_ROLE, name, &registryv1.ACLRole{Name: name, Policies: policies})
}

func (w *world) token(change func(*registryv1.ACLToken)) {
	w.t.Helper()
	token := &registryv1.ACLToken{AccessorId: "acc", SecretHash: acl.Hash(secret)}
	change(token)
	w.put(registryv1.Table_TABLE_ACL_TOKEN, token.GetAccessorId(), token)
}

func (w *world) resolve() *acl.Authorizer {
	w.t.Helper()
	a, err := w.view.Resolve(secret)
	require.NoError(w.t, err)
	return a
}

// rule reads "kv prefix config/ read,write"; the kind "all" matches everything.
func rule(text string) *registryv1.ACLRule {
	part := strings.Fields(text)
	r := &registryv1.ACLRule{Resource: part[0]}
	switch part[1] {
	case "exact":
		r.Match = &registryv1.ACLRule_Exact{Exact: part[2]}
	case "prefix":
		r.Match = &registryv1.ACLRule_Prefix{Prefix: part[2]}
	case "glob":
		r.Match = &registryv1.ACLRule_Glob{Glob: part[2]}
	}
	r.Access = strings.Split(part[len(part)-1], ",")
	return r
}

func rules(texts ...string) []*registryv1.ACLRule {
	var out []*registryv1.ACLRule
	for _, text := range texts {
		out = append(out, rule(text))
	}
	return out
}

// may asks "kv write local/a"; "kv delete below local/a" asks for everything below.
func may(t tester, a *acl.Authorizer, question string) bool {
	t.Helper()
	part := strings.Fields(question)
	resource, err := acl.ParseResource("resource", part[0])
	require.NoError(t, err)
	access, err := acl.ParseAccess("access", part[1])
	require.NoError(t, err)
	need := acl.Need{Resource: resource, Access: access}
	if len(part) > 2 {
		need.Name, need.Below = part[len(part)-1], part[2] == "below"
	}
	return a.Allows(need)
}

func TestDecisions(t *testing.T) {
	for name, c := range map[string]struct {
		rules   []*registryv1.ACLRule
		allowed []string
		denied  []string
	}{
		"nothing is allowed by default": {
			denied: []string{"kv read local/a", "kv list global/a", "service read web", "operator read cluster", "federation read", "backup write", "agent read n1"},
		},
		"list shows names alone": {
			rules("kv all list"), []string{"kv list local/a"}, []string{"kv read local/a", "kv write local/a", "kv delete local/a", "service list a"},
		},
		"read implies list": {
			rules("kv all read"), []string{"kv list local/a", "kv read global/a"}, []string{"kv write local/a", "kv delete local/a"},
		},
		"write implies read and list, not delete": {
			rules("kv all write"), []string{"kv list local/a", "kv read local/a", "kv write local/a"}, []string{"kv delete local/a"},
		},
		"delete implies list alone": {
			rules("kv all delete"), []string{"kv list local/a", "kv delete local/a"}, []string{"kv read local/a", "kv write local/a"},
		},
		"several ways in one rule": {
			rules("kv all write,delete"), []string{"kv write local/a", "kv delete local/a"}, nil,
		},
		"a bare pattern is good in both scopes": {
			rules("kv prefix config/ read"), []string{"kv read local/config/x", "kv read global/config/x", "kv read config/x"}, []string{"kv read local/other", "kv read config"},
		},
		"a scoped pattern is good in its scope": {
			rules("kv prefix global/config/ read"), []string{"kv read global/config/x", "kv read config/x"}, []string{"kv read local/config/x"},
		},
		"a whole scope": {
			rules("kv prefix local/ write"), []string{"kv write local/a"}, []string{"kv write global/a", "kv read global/a"},
		},
		"exact is exact": {
			rules("service exact web read"), []string{"service read web"}, []string{"service read web2", "service read we", "service read"},
		},
		"a glob stays in its part": {
			rules("kv glob config/*/url read"), []string{"kv read local/config/db/url"}, []string{"kv read local/config/db/x/url", "kv read local/config/url"},
		},
		"two asterisks cross parts": {
			rules("kv glob config/**/url read"), []string{"kv read local/config/db/x/url", "kv read local/config/db/url"}, []string{"kv read local/config/url"},
		},
		"deny wins over a longer prefix": {
			rules("kv prefix config/ deny", "kv prefix config/app/ write"), nil, []string{"kv write local/config/app/x", "kv list local/config/app/x"},
		},
		"deny wins over an exact name": {
			rules("kv glob **secret** deny", "kv exact a/secret read", "kv all read"), []string{"kv read local/a/x"}, []string{"kv read local/a/secret", "kv list global/secrets"},
		},
		"deny in one scope": {
			rules("kv all read", "kv prefix global/ deny"), []string{"kv read local/x", "kv read x"}, []string{"kv read global/x"},
		},
		"deleting below takes all of it": {
			rules("kv prefix config/ delete"),
			[]string{"kv delete below local/config/", "kv delete below local/config/app/", "kv delete below global/config/a"},
			[]string{"kv delete below local/conf", "kv delete below local/other/"},
		},
		"deleting below what holds something denied": {
			rules("kv all delete", "kv exact config/app/secret deny", "kv glob private/*/key deny"),
			[]string{"kv delete below local/config/db/", "kv delete below local/other/"},
			[]string{"kv delete below local/config/", "kv delete below local/", "kv delete below local/private/", "kv delete below local/private/x/"},
		},
		"two rules do not add up to all below": {
			rules("kv prefix config/a delete", "kv prefix config/b delete"), []string{"kv delete below local/config/a"}, []string{"kv delete below local/config/"},
		},
		"a glob of everything below is a prefix": {
			rules("kv glob config/** delete"), []string{"kv delete below local/config/", "kv delete local/config/x"}, []string{"kv delete local/configx"},
		},
		"resources do not mix": {
			rules("service all write", "operator exact acl read"), []string{"service write web", "operator read acl"}, []string{"node write web", "kv write local/web", "operator read cluster", "intention read web"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy("p", c.rules...)
			w.token(func(t *registryv1.ACLToken) { t.Policies = []string{"p"} })
			for _, q := range c.allowed {
				require.True(t, may(t, w.resolve(), q), q)
			}
			for _, q := range c.denied {
				require.False(t, may(t, w.resolve(), q), q)
			}
		})
	}
}

func TestWhetherAnythingBelowAPrefixMayBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		rules     []*registryv1.ACLRule
		some, not []string
	}{
		"nothing": {nil, nil, []string{"kv read", "kv read config/", "service read", "operator read"}},
		"a prefix": {
			rules("kv prefix config/ read"),
			[]string{"kv read", "kv read conf", "kv read config/app/", "kv read local/config/", "kv read global/"},
			[]string{"kv read other/", "kv write config/", "service read"},
		},
		"one key": {
			rules("kv exact config/a read"), []string{"kv read config/", "kv read config/a", "kv read"}, []string{"kv read config/a/b", "kv read config/b"},
		},
		"a glob": {
			rules("kv glob config/*/url read"), []string{"kv read config/x/", "kv read"}, []string{"kv read other/"},
		},
		"names alone": {rules("kv all list"), nil, []string{"kv read", "kv read a"}},
		"one scope": {
			rules("kv prefix global/config/ read"), []string{"kv read config/", "kv read global/"}, []string{"kv read local/", "kv read local/config/"},
		},
		"all of it denied": {
			rules("kv prefix config/ read", "kv prefix conf deny"), nil, []string{"kv read", "kv read config/"},
		},
		"a part denied": {
			rules("kv prefix config/ read", "kv prefix config/secret/ deny"), []string{"kv read config/", "kv read config/s"}, []string{"kv read config/secret/", "kv read config/secret/x"},
		},
		"the one key denied": {
			rules("kv exact config/secret read", "kv glob **secret** deny"), nil, []string{"kv read", "kv read config/"},
		},
		"another resource": {
			rules("service prefix web read", "node all deny"), []string{"service read", "service read web-1"}, []string{"node read", "service read db"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy("p", c.rules...)
			w.token(func(t *registryv1.ACLToken) { t.Policies = []string{"p"} })
			ask := func(question string) bool {
				part := strings.Fields(question)
				resource, err := acl.ParseResource("resource", part[0])
				require.NoError(t, err)
				access, err := acl.ParseAccess("access", part[1])
				require.NoError(t, err)
				return w.resolve().AllowsSome(acl.Need{Resource: resource, Access: access, Name: strings.Join(part[2:], " "), Below: true})
			}
			for _, q := range c.some {
				require.True(t, ask(q), q)
			}
			for _, q := range c.not {
				require.False(t, ask(q), q)
			}
		})
	}
	require.True(t, acl.Everything().AllowsSome(acl.Need{Resource: acl.KV, Access: acl.Read}))
}

func TestOnlyManagementChangesAccessControl(t *testing.T) {
	w := newWorld(t)
	var all []*registryv1.ACLRule
	for _, resource := range []string{"kv", "service", "node", "intention", "federation", "operator", "backup", "agent"} {
		all = append(all, rule(resource+" all read,write,delete"))
	}
	w.policy("p", all...)
	w.token(func(t *registryv1.ACLToken) { t.Policies = []string{"p"} })
	need := acl.Need{Resource: acl.ACL, Name: "policy/x", Access: acl.Write}
	err := w.resolve().Check(need)
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err))
	require.ErrorContains(t, err, "token acc lacks acl:write on policy/x")
	w.token(func(t *registryv1.ACLToken) { t.Management = true })
	require.NoError(t, w.resolve().Check(need))
	require.False(t, acl.From(t.Context()).Allows(acl.Need{Resource: acl.KV, Name: "local/a", Access: acl.List}), "outside of a call nothing is allowed")
}

func TestTheFaultNamesThePermission(t *testing.T) {
	w := newWorld(t)
	w.token(func(*registryv1.ACLToken) {})
	f, ok := fault.As(w.resolve().Check(acl.Need{Resource: acl.KV, Name: "local/config/x", Access: acl.Write}))
	require.True(t, ok)
	require.Equal(t, "kv:write on local/config/x", f.Meta()["permission"])
	require.Contains(t, f.Message(), "kv:write on local/config/x")
	require.NotEmpty(t, f.Remedy())
}

func TestRightsFollowPoliciesAndRoles(t *testing.T) {
	w := newWorld(t)
	w.token(func(t *registryv1.ACLToken) { t.Policies, t.Roles = []string{"own"}, []string{"team"} })
	first := w.resolve()
	require.False(t, may(t, first, "kv read local/a"))
	w.role("team", "shared")
	w.policy("shared", rule("kv all read"))
	second := w.resolve()
	require.True(t, may(t, second, "kv read local/a"))
	require.False(t, may(t, first, "kv read local/a"), "an authorizer stays what it was")
	w.policy("foreign", rule("kv all write"))
	require.Same(t, second, w.resolve(), "what it does not have changes nothing, not even the authorizer")
	now, err := w.view.Refresh(second)
	require.NoError(t, err)
	require.Same(t, second, now)
	w.policy("own", rule("kv all deny"))
	require.False(t, may(t, w.resolve(), "kv read local/a"))
	now, err = w.view.Refresh(second)
	require.NoError(t, err)
	require.NotSame(t, second, now)
	w.put(registryv1.Table_TABLE_ACL_POLICY, "own", nil)
	require.True(t, may(t, w.resolve(), "kv read local/a"))
	w.put(registryv1.Table_TABLE_ACL_ROLE, "team", nil)
	require.False(t, may(t, w.resolve(), "kv read local/a"))
	w.put(registryv1.Table_TABLE_ACL_TOKEN, "acc", nil)
	_, err = w.view.Refresh(second)
	require.Equal(t, acl.ReasonTokenUnknown, fault.ReasonOf(err))
	_, err = w.view.Resolve(secret)
	require.Equal(t, acl.ReasonTokenUnknown, fault.ReasonOf(err))
}

func TestATokenExpiresByTheClockAlone(t *testing.T) {
	w := newWorld(t)
	w.token(func(t *registryv1.ACLToken) {
		t.Management, t.ExpiresAt = true, timestamppb.New(start.Add(time.Minute))
	})
	a := w.resolve()
	require.Empty(t, w.view.Expired(w.clock.Now(), true))
	w.clock.Advance(time.Minute)
	_, err := w.view.Resolve(secret)
	require.Equal(t, acl.ReasonTokenExpired, fault.ReasonOf(err))
	require.Equal(t, fault.Unauthenticated, fault.CodeOf(err))
	_, err = w.view.Refresh(a)
	require.Equal(t, acl.ReasonTokenExpired, fault.ReasonOf(err))
	require.Len(t, w.view.Expired(w.clock.Now(), true), 1)
	require.Empty(t, w.view.Expired(w.clock.Now(), false), "a secondary leaves global ones to the primary")
}

func TestTheAnonymousTokenIsNobodyUntilItHasSomething(t *testing.T) {
	w := newWorld(t)
	_, known := w.view.Anonymous()
	require.False(t, known)
	anonymous := func(policies ...string) {
		w.put(registryv1.Table_TABLE_ACL_TOKEN, acl.AnonymousAccessor, &registryv1.ACLToken{AccessorId: acl.AnonymousAccessor, Policies: policies})
	}
	anonymous()
	_, known = w.view.Anonymous()
	require.False(t, known)
	w.policy("public", rule("kv prefix public/ read"))
	anonymous("public")
	a, known := w.view.Anonymous()
	require.True(t, known)
	require.True(t, may(t, a, "kv read local/public/x"))
	require.False(t, may(t, a, "kv read local/x"))
}

// A newer primary may write what this version does not know: it must never be taken for more than
// it is.
func TestWhatIsNotUnderstoodAllowsNothingAndDeniesTheResource(t *testing.T) {
	w := newWorld(t)
	unknown := func(r *registryv1.ACLRule) *registryv1.ACLRule {
		r.ProtoReflect().SetUnknown([]byte{0xa2, 0x06, 0x01, 'x'}) // A field 100, such as another way to match.
		return r
	}
	w.policy("p", unknown(&registryv1.ACLRule{Resource: "kv", Access: []string{"read"}}), rule("service all read"),
		unknown(&registryv1.ACLRule{Resource: "service", Access: []string{"deny"}}), &registryv1.ACLRule{Resource: "volume", Access: []string{"read"}}, rule("node all read"))
	w.token(func(t *registryv1.ACLToken) { t.Policies = []string{"p"} })
	require.False(t, may(t, w.resolve(), "kv read local/a"))
	require.False(t, may(t, w.resolve(), "service read a"))
	require.True(t, may(t, w.resolve(), "node read a"))
}

// model is the rules read one by one, as their documentation says.
type model struct {
	resource, kind, pattern string
	access                  map[string]bool
}

func modelOf(r *registryv1.ACLRule) model {
	m := model{resource: r.GetResource(), access: map[string]bool{}}
	switch match := r.GetMatch().(type) {
	case *registryv1.ACLRule_Exact:
		m.kind, m.pattern = "exact", match.Exact
	case *registryv1.ACLRule_Prefix:
		m.kind, m.pattern = "prefix", match.Prefix
	case *registryv1.ACLRule_Glob:
		m.kind, m.pattern = "glob", match.Glob
	}
	for _, word := range r.GetAccess() {
		m.access[word] = true
		switch word {
		case "read", "delete":
			m.access["list"] = true
		case "write":
			m.access["read"], m.access["list"] = true, true
		}
	}
	return m
}

func (m model) matches(resource, name string) bool {
	if m.resource != resource {
		return false
	}
	pattern := m.pattern
	if resource == "kv" && !strings.HasPrefix(pattern, "local/") && !strings.HasPrefix(pattern, "global/") {
		_, name, _ = strings.Cut(name, "/")
	}
	switch m.kind {
	case "exact":
		return pattern == name
	case "prefix", "":
		return strings.HasPrefix(name, pattern)
	}
	return asRegexp(pattern).MatchString(name)
}

// asRegexp says what a glob means in a language of others.
func asRegexp(glob string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(glob); i++ {
		switch {
		case glob[i] == '\\' && i+1 < len(glob):
			_, size := firstRune(glob[i+1:])
			b.WriteString(regexp.QuoteMeta(glob[i+1 : i+1+size]))
			i += size
		case strings.HasPrefix(glob[i:], "**"):
			b.WriteString(".*")
			i++
		case glob[i] == '*':
			b.WriteString("[^/]*")
		case glob[i] == '?':
			b.WriteString("[^/]")
		default:
			_, size := firstRune(glob[i:])
			b.WriteString(regexp.QuoteMeta(glob[i : i+size]))
			i += size - 1
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

func firstRune(s string) (rune, int) {
	for i, r := range s {
		if i > 0 {
			return r, i
		}
	}
	return 0, len(s)
}

func TestCompiledRulesDecideAsTheirModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		resource := rapid.SampledFrom([]string{"kv", "service", "node"})
		pattern := rapid.StringMatching(`((local|global)/)?[ab/]{0,3}(\*|\*\*|\?|[ab/]){0,2}[ab/]{0,2}`)
		plain := rapid.StringMatching(`((local|global)/)?[ab/]{1,5}`)
		access := rapid.SampledFrom([][]string{{"list"}, {"read"}, {"write"}, {"delete"}, {"deny"}, {"write", "delete"}, {"list", "delete"}})
		w := newWorld(t)
		var models []model
		var names []string
		for i := range rapid.IntRange(0, 3).Draw(t, "policies") {
			var rules []*registryv1.ACLRule
			for range rapid.IntRange(0, 5).Draw(t, "rules") {
				r := &registryv1.ACLRule{Resource: resource.Draw(t, "resource"), Access: access.Draw(t, "access")}
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					r.Match = &registryv1.ACLRule_Exact{Exact: plain.Draw(t, "exact")}
				case 1:
					r.Match = &registryv1.ACLRule_Prefix{Prefix: plain.Draw(t, "prefix")}
				case 2:
					glob := pattern.Filter(func(s string) bool { return s != "" && !strings.Contains(s, "***") }).Draw(t, "glob")
					r.Match = &registryv1.ACLRule_Glob{Glob: glob}
				}
				rules = append(rules, r)
				models = append(models, modelOf(r))
			}
			name := fmt.Sprintf("p%d", i)
			w.policy(name, rules...)
			names = append(names, name)
		}
		w.role("r", names[len(names)/2:]...)
		w.token(func(t *registryv1.ACLToken) { t.Policies, t.Roles = names[:len(names)/2], []string{"r"} })
		a := w.resolve()
		for range 20 {
			kind, name := resource.Draw(t, "asked"), rapid.StringMatching(`[ab/]{1,6}`).Draw(t, "name")
			if kind == "kv" {
				name = rapid.SampledFrom([]string{"local/", "global/"}).Draw(t, "scope") + name
			}
			word := rapid.SampledFrom([]string{"list", "read", "write", "delete"}).Draw(t, "way")
			want, denied := false, false
			for _, m := range models {
				if m.matches(kind, name) {
					want, denied = want || m.access[word], denied || m.access["deny"]
				}
			}
			need, err := acl.Question{Resource: kind, Access: word, Name: name}.Need()
			require.NoError(t, err)
			require.Equal(t, want && !denied, a.Allows(need), "%s; rules %v", need, models)
			explained := w.view.Explain(a, need)
			require.Equal(t, want && !denied, explained.GetAllowed())
			require.Equal(t, denied, len(explained.GetMatches()) > 0 && explained.GetMatches()[0].GetDenies())
			// What is allowed below a prefix is allowed of everything there.
			if below := (acl.Need{Resource: need.Resource, Name: name[:strings.LastIndex(name, "/")+1], Access: need.Access, Below: true}); strings.Contains(name, "/") && (kind != "kv" || strings.Count(name, "/") > 1) && a.Allows(below) {
				require.True(t, a.Allows(need), "%s, but not %s", below, need)
			}
		}
	})
}

func FuzzRulesAreParsedOrRefusedByPlace(f *testing.F) {
	for _, seed := range [][3]string{{"kv", "config/*", "read"}, {"kv", `a\*b**?`, "deny"}, {"x", "***", "write"}, {"service", "\\", "list"}, {"node", "\xff", "read,deny"}} {
		f.Add(seed[0], seed[1], seed[2], "local/config/x")
	}
	f.Fuzz(func(t *testing.T, resource, pattern, access, name string) {
		p := &registryv1.ACLPolicy{Name: "p", Rules: []*registryv1.ACLRule{{
			Resource: resource, Match: &registryv1.ACLRule_Glob{Glob: pattern}, Access: strings.Split(access, ","),
		}}}
		_, err := acl.Writer{}.PutPolicy(nil, p, true, nil)
		if err != nil {
			failure, ok := fault.As(err)
			require.True(t, ok)
			require.True(t, strings.HasPrefix(failure.Field(), "rules[0]."), failure.Field())
			return
		}
		w := newWorld(t)
		w.policy("p", p.GetRules()...)
		w.token(func(t *registryv1.ACLToken) { t.Policies = []string{"p"} })
		need, err := acl.Question{Resource: resource, Access: "read", Name: name}.Need()
		if err != nil {
			return
		}
		want := modelOf(p.GetRules()[0])
		if resource == "kv" && !strings.HasPrefix(need.Name, "local/") && !strings.HasPrefix(need.Name, "global/") {
			need.Name = "local/" + need.Name
		}
		require.Equal(t, want.matches(resource, need.Name) && want.access["read"] && !want.access["deny"], w.resolve().Allows(need))
	})
}
