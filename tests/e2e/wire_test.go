package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/framework"
	"konsul.dev/tests/wire"
)

// TestOnlyTLSAndEncryptedGossipBetweenDatacenters is promise P6 on the wire, and P3: what is
// written locally is never seen there even as ciphertext's plaintext.
func TestOnlyTLSAndEncryptedGossipBetweenDatacenters(t *testing.T) {
	capture, err := wire.Start("8443", "8302")
	if err != nil && os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skipf("capturing packets needs root: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(capture.Stop)
	lab := framework.StartLab(t, framework.LabOptions{})
	west := lab.Access(framework.USWest)

	const canary = "canary-2f1c7f5e"
	west.MustCTL(t, "kv", "set", "--global", "wire/global", canary)
	west.MustCTL(t, "kv", "set", "wire/local", canary)
	west.MustCTL(t, "service", "register", "--name", canary, "--address", "127.0.0.1", "--port", "9999")
	lab.Access(framework.EUCentral).MustCTL(t, "service", "get", canary, "--datacenter", framework.USWest)
	story{t: t, access: map[string]framework.Access{framework.EUCentral: lab.Access(framework.EUCentral)}}.
		reads(framework.EUCentral, canary, "--global", "wire/global")

	var gateway, gossipStreams int
	for _, f := range capture.Flows(lab.Network) {
		require.NoError(t, wire.CheckSecrets(f.Bytes, canary, west.Token), "%s to %s", f.Source, f.Destination)
		if strings.HasSuffix(f.Destination, ":8443") || strings.HasSuffix(f.Source, ":8443") {
			require.NoError(t, wire.CheckTLS(f.Bytes), "%s to %s", f.Source, f.Destination)
			gateway += len(f.Bytes)
			continue
		}
		require.NoError(t, wire.CheckGossipStream(f.Bytes), "%s to %s", f.Source, f.Destination)
		require.NoError(t, wire.CheckSecrets(f.Bytes, framework.USEast, framework.USWest), "%s to %s", f.Source, f.Destination)
		gossipStreams += len(f.Bytes)
	}
	packets := capture.Packets(lab.Network)
	for _, p := range packets {
		require.NoError(t, wire.CheckGossipPacket(p.Bytes), "%s to %s", p.Source, p.Destination)
		require.NoError(t, wire.CheckSecrets(p.Bytes, canary, framework.USEast, framework.USWest), "%s to %s", p.Source, p.Destination)
	}
	require.NotZero(t, gateway, "nothing was captured on 8443")
	require.NotZero(t, gossipStreams, "no gossip stream was captured")
	require.NotEmpty(t, packets, "no gossip packet was captured")
}
