package upgrade

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tests/framework"
)

// legacy is what the earlier programs were told beside the load.
type legacy struct {
	// token may only read keys.
	token string
}

// tell has the datacenter keep one of everything that a server keeps for long.
func tell(t *testing.T, s *framework.Site) legacy {
	t.Helper()
	client := s.Access.Client(t)
	_, err := client.KV.Set(konsul.WithRequestID(t.Context(), "named-by-a-caller"), "once", []byte("first"), nil)
	require.NoError(t, err)
	_, err = client.KV.Set(t.Context(), "once", []byte("second"), nil)
	require.NoError(t, err)
	_, err = client.KV.Set(t.Context(), "everywhere", []byte("global"), &konsul.SetOptions{Global: true})
	require.NoError(t, err)
	s.Access.MustCTL(t, "acl", "policy", "create", "reader", "--rule", "kv read")
	file := filepath.Join(t.TempDir(), "token")
	s.Access.MustCTL(t, "acl", "token", "create", "--policy", "reader", "--out", file)
	secret, err := os.ReadFile(file)
	require.NoError(t, err)
	return legacy{token: strings.TrimSpace(string(secret))}
}

// remembers asks today's programs for all of it.
func (l legacy) remembers(t *testing.T, s *framework.Site) {
	t.Helper()
	client := s.Access.Client(t)
	_, err := client.KV.Set(konsul.WithRequestID(t.Context(), "named-by-a-caller"), "once", []byte("first"), nil)
	require.NoError(t, err, "it is answered as it was the first time")
	once, err := client.KV.Get(t.Context(), "once", nil)
	require.NoError(t, err)
	require.Equal(t, "second", string(once.Value), "a request is carried out once, whichever program hears of it again")
	global, err := client.KV.Get(t.Context(), "everywhere", &konsul.GetOptions{Global: true})
	require.NoError(t, err)
	require.Equal(t, "global", string(global.Value))
	reader := s.Access
	reader.Token = l.token
	require.Contains(t, reader.MustCTL(t, "kv", "get", "once"), "second")
	require.NotZero(t, reader.CTL(t, "kv", "set", "once", "third").Code)
}

// TestAFolderOfAnEarlierProgramOpens kills a server under load, and lets today's program go on with
// what it left.
func TestAFolderOfAnEarlierProgramOpens(t *testing.T) {
	s := framework.NewSite(t, framework.USEast, 1)
	s.Programs = earlierPrograms(t)
	s.Open()
	was := tell(t, s)
	work := startLoad(t, s.Access)
	work.goesOn(t, 3000)
	s.End("r1", syscall.SIGKILL)

	s.Programs = ""
	s.Start("konsul-registry", "r1", 1)
	work.goesOn(t, 1000)
	was.remembers(t, s)
	s.End("r1", syscall.SIGKILL)
	s.Start("konsul-registry", "r1", 1)
	work.goesOn(t, 1000)
	s.End("r1", syscall.SIGTERM)
	s.Start("konsul-registry", "r1", 1)
	work.goesOn(t, 100)
	work.stop()
	work.verify(t, s.Access.Client(t))
	was.remembers(t, s)
}

// TestAClusterIsUpgradedServerByServer upgrades everything in a datacenter while it serves, as the
// runbook says: the registry's servers one after the other, then the gateway and the ca.
func TestAClusterIsUpgradedServerByServer(t *testing.T) {
	s := framework.NewSite(t, framework.USEast, 3)
	s.Programs = earlierPrograms(t)
	s.Open()
	s.Voters("registry-1", "registry-2", "registry-3")
	was := tell(t, s)
	work := startLoad(t, s.Access)
	work.goesOn(t, 1000)

	s.Programs = ""
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("r%d", i)
		s.End(name, syscall.SIGTERM)
		work.goesOn(t, 300)
		if i == 2 {
			s.Wipe(name) // Its disk is new: it gets everything from the others, one of which is an earlier program still.
		}
		s.Start("konsul-registry", name, i)
		s.Voters("registry-1", "registry-2", "registry-3")
		work.goesOn(t, 300)
		was.remembers(t, s)
	}
	s.End("gateway", syscall.SIGTERM)
	s.Start("konsul-gateway", "gateway", 1)
	work.goesOn(t, 300)
	s.End("ca", syscall.SIGTERM)
	s.Start("konsul-ca", "ca", 1)
	work.goesOn(t, 300)
	// Whoever was not the leader while it was upgraded leads once, so that each applies what it did
	// not write.
	for i := 1; i <= 3; i++ {
		s.Access.CTL(t, "operator", "raft", "transfer-leadership", fmt.Sprintf("registry-%d", i))
		work.goesOn(t, 100)
	}
	work.stop()
	work.verify(t, s.Access.Client(t))
	was.remembers(t, s)
}
