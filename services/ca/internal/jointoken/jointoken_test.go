package jointoken_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
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

func TestATokenThatNoCAMadeIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*jointoken.Token){
		"no id":                func(k *jointoken.Token) { k.ID = "" },
		"no gateways":          func(k *jointoken.Token) { k.Gateways = nil },
		"gateway without port": func(k *jointoken.Token) { k.Gateways = []string{"a"} },
		"short seed":           func(k *jointoken.Token) { k.Seed = k.Seed[:31] },
		"no end":               func(k *jointoken.Token) { k.ExpiresAt = time.Time{} },
		"datacenter":           func(k *jointoken.Token) { k.Datacenter = "US West" },
		"primary":              func(k *jointoken.Token) { k.PrimaryDatacenter = "../us-east" },
		"federation":           func(k *jointoken.Token) { k.FederationID = "f/dc/x" },
		"root":                 func(k *jointoken.Token) { k.Root = k.Root[:9] },
	} {
		t.Run(name, func(t *testing.T) {
			token := sample(t)
			spoil(&token)
			_, err := jointoken.Parse(token.String())
			require.ErrorContains(t, err, "ca.join_token_file")
		})
	}
}

func TestNothingFollowsATokensContent(t *testing.T) {
	encoded, _ := strings.CutPrefix(sample(t).String(), "konsul-join-v1.")
	content, err := base64.RawURLEncoding.DecodeString(encoded)
	require.NoError(t, err)
	for _, text := range []string{
		string(content) + "{}",
		strings.Replace(string(content), "{", `{"extra":1,`, 1),
	} {
		_, err := jointoken.Parse("konsul-join-v1." + base64.RawURLEncoding.EncodeToString([]byte(text)))
		require.ErrorContains(t, err, "damaged")
	}
}

func TestATokenIsForItsDatacenterAndItsTime(t *testing.T) {
	token := sample(t)
	now := token.ExpiresAt
	require.NoError(t, token.Usable("us-west", now))
	require.Equal(t, jointoken.ReasonForAnother, fault.ReasonOf(token.Usable("us-east", now)))
	require.Equal(t, jointoken.ReasonExpired, fault.ReasonOf(token.Usable("us-west", now.Add(time.Second))))
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
