package acl_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
)

// typical is a token with a handful of policies, of its own and by a role.
func typical(t testing.TB) *world {
	w := newWorld(t)
	var names []string
	for i := range 4 {
		name := fmt.Sprintf("team-%d", i)
		w.policy(name, rules("kv prefix team-"+name+"/ write,delete", "service exact "+name+" write", "node all read", "kv glob **/secret deny")...)
		names = append(names, name)
	}
	w.policy("shared", rules("kv prefix config/ read", "service all read", "kv glob shared/*/url read")...)
	w.role("engineer", "shared")
	w.token(func(t *registryv1.ACLToken) { t.Policies, t.Roles = names, []string{"engineer"} })
	return w
}

func question(name string) acl.Need {
	return acl.Need{Resource: acl.KV, Name: name, Access: acl.Read}
}

func TestACheckAllocatesNothing(t *testing.T) {
	a := typical(t).resolve()
	need := question("local/config/app/version")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if !a.Allows(need) {
			t.Error("denied")
		}
	}))
}

// BenchmarkCheck is the decision alone, for a name in a scope and for one without.
func BenchmarkCheck(b *testing.B) {
	a := typical(b).resolve()
	for name, need := range map[string]acl.Need{"scoped": question("local/config/app/version"), "bare": question("config/app/version")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !a.Allows(need) {
					b.Fatal("denied")
				}
			}
		})
	}
}

// BenchmarkResolveAndCheck is what every call costs: whose token is it, and may it do this.
func BenchmarkResolveAndCheck(b *testing.B) {
	w := typical(b)
	need := question("local/config/app/version")
	b.ReportAllocs()
	for b.Loop() {
		a, err := w.view.Resolve(secret)
		if err != nil || !a.Allows(need) {
			b.Fatal("denied")
		}
	}
}
