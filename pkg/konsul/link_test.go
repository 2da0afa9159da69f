package konsul_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/encoding"
)

// gRPC offers every compression that is linked with each call, in a header that servers pay for.
func TestTheSDKLinksNoCompression(t *testing.T) {
	require.Nil(t, encoding.GetCompressor("gzip"))
}
