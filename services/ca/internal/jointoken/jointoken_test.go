package jointoken_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/ca/internal/issuer"
	"konsul.dev/services/ca/internal/jointoken"
)

func sample(t testing.TB) jointoken.Token {
	t.Helper()
	root, err := issuer.NewRoot("f", time.Now(), time.Hour)
	require.NoError(t, err)
	return jointoken.Token{
		ID: "1", FederationID: "f", PrimaryDatacenter: "us-east", Gateways: []string{"a:8443"}, Root: root.Certificate.Raw,
		Seed: make([]byte, 32), Datacenter: "us-west", ExpiresAt: time.Unix(1, 0).UTC(),
	}
}

func TestATokenSurvivesItsText(t *testing.T) {
	token := sample(t)
	parsed, err := jointoken.Parse(token.String() + "\n")
	require.NoError(t, err)
	require.Equal(t, token, parsed)
}

func TestADamagedTokenIsRefused(t *testing.T) {
	text := sample(t).String()
	for name, damaged := range map[string]string{
		"empty": "", "other text": "hello", "cut": text[:len(text)-9], "prefix only": "konsul-join-v1.", "short": "konsul-join-v1.AAAA",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jointoken.Parse(damaged)
			require.ErrorContains(t, err, "ca.join_token_file")
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample(f).String())
	f.Add("konsul-join-v1.e30")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := jointoken.Parse(text); err == nil {
			again, err := jointoken.Parse(token.String())
			require.NoError(t, err)
			require.Equal(t, token, again)
		}
	})
}
