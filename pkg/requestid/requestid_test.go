package requestid_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
)

func TestMintedIDsAreToldFromNamedOnes(t *testing.T) {
	t.Parallel()
	id := requestid.New()
	parsed, err := uuid.Parse(id)
	require.NoError(t, err)
	require.EqualValues(t, 8, parsed.Version())
	require.Equal(t, uuid.RFC4122, parsed.Variant())
	require.NotEqual(t, id, requestid.New())

	require.True(t, requestid.Minted(id))
	require.True(t, requestid.Minted(id+"#1"), "a later commit of the same request")
	for _, named := range []string{"", "r", uuid.NewString(), id[1:], "8" + id[1:], id[:35]} {
		require.False(t, requestid.Minted(named), named)
	}
}

func TestAnUnknownOutcomeNamesItsRequestID(t *testing.T) {
	t.Parallel()
	unknown := fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "who knows")
	minted := requestid.New()
	for id, remedy := range map[string]string{
		"mine": "repeat it with --request-id mine, or look whether it was done",
		minted: "repeat it within 30s with --request-id " + minted + ", or look whether it was done",
	} {
		f, ok := fault.As(requestid.Explain(unknown, id))
		require.True(t, ok)
		require.Equal(t, id, f.Meta()[requestid.MetaKey])
		require.Equal(t, remedy, f.Remedy())
		again, _ := fault.As(requestid.Explain(f, "another"))
		require.Equal(t, id, again.Meta()[requestid.MetaKey], "who is closest to the write knows best")
	}
	for _, err := range []error{nil, errors.New("x"), fault.New(fault.Unavailable, fault.ReasonNoLeader, "x")} {
		require.Equal(t, err, requestid.Explain(err, "r"))
	}
	require.Equal(t, error(unknown), requestid.Explain(unknown, ""))
}
