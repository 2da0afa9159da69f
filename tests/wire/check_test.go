package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/wire"
)

func TestChecksCatchPlaintext(t *testing.T) {
	require.Error(t, wire.CheckTLS([]byte("GET / HTTP/1.1\r\n")))
	require.Error(t, wire.CheckTLS([]byte("PRI * HTTP/2.0\r\n")))
	require.Error(t, wire.CheckGossipPacket([]byte("\x88some compound message of gossip, not encrypted")))
	require.Error(t, wire.CheckGossipStream([]byte{6, 1, 2, 3}))
	require.Error(t, wire.CheckSecrets([]byte("xx canary xx"), "canary"))
}

func TestChecksAcceptWhatIsPromised(t *testing.T) {
	require.NoError(t, wire.CheckTLS([]byte{22, 3, 1, 0, 2, 9, 9, 23, 3, 3, 0, 9, 1}))
	require.NoError(t, wire.CheckGossipPacket(append([]byte{1}, make([]byte, 40)...)))
	require.NoError(t, wire.CheckGossipStream([]byte{10, 0, 0}))
	require.NoError(t, wire.CheckSecrets([]byte("ciphertext"), "canary"))
}
