package identity_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
)

// counting is the secret 00 01 ... 1f.
const counting = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// vectors were computed by another implementation of HKDF, from counting.
func vectors() map[identity.Holder]string {
	return map[identity.Holder]string{
		{Component: "agent"}:                "konsul-key:v1:agent:mF/5HagqnWQre2JlCGDO+ICmxKmYGFxCTEMLiO4JqH8=",
		{Component: "agent", Node: "web-1"}: "konsul-key:v1:agent/web-1:EhTIXnjEdP8UI2lRcyO6DYQg4lXJAYrGO2GlshZqymI=",
		{Component: "gateway"}:              "konsul-key:v1:gateway:CGW9OLPzsadhdCcpFZIjTu01L6pMG3p8Xmv+gGQVF3k=",
		{Component: "wan-gossip"}:           "konsul-key:v1:wan-gossip:lcLEZcrPQjLgUJdRlIq625QFRo8Fxxs+duxN0tvhz90=",
		{Component: "replicator"}:           "konsul-key:v1:replicator:s45vNk2wDKSkWkLbrImiLEeEQ0OzenMmxshVbCLM49s=",
		{Component: "failover-router"}:      "konsul-key:v1:failover-router:yFbS3+plyujqSwB6oIfWKv0sNwurYJ0V85d8X1HAP0U=",
	}
}

func parse(t *testing.T, text string) identity.Credential {
	t.Helper()
	c, err := identity.ParseCredential("f", text)
	require.NoError(t, err)
	return c
}

func TestComponentKeysAreDerivedAsEver(t *testing.T) {
	secret := parse(t, counting)
	for holder, want := range vectors() {
		t.Run(holder.String(), func(t *testing.T) {
			key, err := secret.Key(holder)
			require.NoError(t, err)
			require.Equal(t, want, identity.FormatKey(holder, key))
			again, err := parse(t, want+"\n").Key(holder)
			require.NoError(t, err)
			require.Equal(t, key, again)
		})
	}
}

func TestAKeyProvesNobodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		file, process   identity.Holder
		wantErr, remedy string
	}{
		"its own":                     {file: identity.Holder{Component: "gateway"}, process: identity.Holder{Component: "gateway"}},
		"all agents' for one of them": {file: identity.Holder{Component: "agent"}, process: identity.Holder{Component: "agent", Node: "web-1"}},
		"another component's": {
			file: identity.Holder{Component: "agent", Node: "web-1"}, process: identity.Holder{Component: "gateway"},
			wantErr: "holds the key of agent web-1, and this process is gateway",
		},
		"another node's": {
			file: identity.Holder{Component: "agent", Node: "web-1"}, process: identity.Holder{Component: "agent", Node: "web-2"},
			wantErr: "holds the key of agent web-1, and this process is agent web-2",
			remedy:  "konsulctl secret derive --component agent --node web-2",
		},
		"one agent's for all": {
			file: identity.Holder{Component: "agent", Node: "web-1"}, process: identity.Holder{Component: "agent"},
			wantErr: "this process is agent",
		},
		"an agent's for the registry": {
			file: identity.Holder{Component: "agent", Node: "web-1"}, process: identity.Holder{Component: "registry"},
			wantErr: "this process is registry",
		},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := parse(t, vectors()[c.file]).Key(c.process)
			if c.wantErr != "" {
				require.ErrorContains(t, err, c.wantErr)
				f, ok := fault.As(err)
				require.True(t, ok)
				require.Equal(t, "server.secret_file", f.Field())
				require.Contains(t, f.Remedy(), c.remedy)
				require.NotContains(t, err.Error(), strings.TrimPrefix(vectors()[c.file], "konsul-key:v1:agent/web-1:"))
				return
			}
			require.NoError(t, err)
			want, err := parse(t, counting).Key(c.process)
			require.NoError(t, err)
			require.Equal(t, want, key)
		})
	}
}

func TestWhoNeedsTheSecretIsNotContentWithAKey(t *testing.T) {
	_, err := parse(t, vectors()[identity.Holder{Component: "agent", Node: "web-1"}]).Secret("ca")
	require.ErrorContains(t, err, "holds the key of agent web-1, and the ca needs the datacenter secret itself")
	secret, err := parse(t, counting).Secret("ca")
	require.NoError(t, err)
	require.Len(t, secret, 32)
}

func TestSecretFilesAreReadStrictly(t *testing.T) {
	const good = "mF/5HagqnWQre2JlCGDO+ICmxKmYGFxCTEMLiO4JqH8="
	for name, c := range map[string]struct{ text, want string }{
		"base64":                         {text: identity.NewSecret() + "\n"},
		"hex":                            {text: counting},
		"a key":                          {text: "konsul-key:v1:gateway:" + good + "\n"},
		"an agent's":                     {text: "konsul-key:v1:agent/web-1.example:" + good},
		"too short":                      {text: "c2hvcnQ=", want: "fewer than 32"},
		"neither":                        {text: "not either", want: "neither a datacenter secret"},
		"empty":                          {text: "", want: "fewer than 32"},
		"a key of a later version":       {text: "konsul-key:v2:gateway:" + good, want: "neither a datacenter secret"},
		"a key of nobody":                {text: "konsul-key:v1::" + good, want: "damaged"},
		"a key of what has none":         {text: "konsul-key:v1:ca:" + good, want: "damaged"},
		"a gateway's of a node":          {text: "konsul-key:v1:gateway/web-1:" + good, want: "damaged"},
		"an agent's of an empty node":    {text: "konsul-key:v1:agent/:" + good, want: "damaged"},
		"an agent's of a path":           {text: "konsul-key:v1:agent/a/b:" + good, want: "damaged"},
		"a key cut short":                {text: "konsul-key:v1:gateway:" + good[:40], want: "damaged"},
		"a key without its second colon": {text: "konsul-key:v1:gateway", want: "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
			_, err := identity.ReadCredential(path)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "server.secret_file")
		})
	}
	_, err := identity.ReadSecret(filepath.Join(t.TempDir(), "none"), "ca")
	require.ErrorContains(t, err, "server.secret_file")
}

func FuzzCredential(f *testing.F) {
	f.Add(counting)
	for _, text := range vectors() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := identity.ParseCredential("f", text)
		if err != nil || c.IsSecret() {
			return
		}
		// What is read as a component's key is no datacenter secret, and nobody else's key.
		_, err = c.Secret("ca")
		require.Error(t, err)
		_, err = c.Key(identity.Holder{Component: "registry"})
		require.Error(t, err)
	})
}

func TestAComponentEnrollsWithItsKeyAlone(t *testing.T) {
	w := newWorld(t)
	w.cfg.Service, w.cfg.Node = "agent", "web-1"
	key, err := identity.DeriveKey(w.secret, identity.Holder{Component: "agent", Node: "web-1"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.cfg.SecretFile, []byte(identity.FormatKey(identity.Holder{Component: "agent", Node: "web-1"}, key)), 0o600))
	w.serve(time.Hour)
	e, err := w.enroll()
	require.NoError(t, err)
	require.Equal(t, "spiffe://"+w.id().FederationID+".konsul/dc/us-east/svc/agent/web-1", e.ID().String())

	w.cfg.Service, w.cfg.Node = "registry", ""
	_, err = w.enroll()
	require.ErrorContains(t, err, "this process is registry")
}

func TestAnAgentGetsItsNodeOnceTheCANamesNodes(t *testing.T) {
	w := newWorld(t)
	w.cfg.Service = "agent"
	ca := w.serve(time.Hour)
	ca.old = true
	ca.sign = func(key *ecdsa.PublicKey) *x509.Certificate {
		without := w.id()
		without.Node = ""
		return w.ca.Sign(without, "us-east", key, time.Now(), time.Now().Add(time.Hour))
	}
	w.cfg.Node = "web-1"
	e, err := w.enroll()
	require.NoError(t, err, "a ca of an earlier version is shown the datacenter secret")
	require.Empty(t, e.ID().Node)

	ca.old = false
	ca.sign = func(key *ecdsa.PublicKey) *x509.Certificate {
		return w.ca.Sign(w.id(), "us-east", key, time.Now(), time.Now().Add(time.Hour))
	}
	e, err = w.enroll()
	require.NoError(t, err)
	require.Empty(t, e.ID().Node, "a start does not need the ca")
	w.run(e)
	require.Eventually(t, func() bool {
		again, err := w.enroll()
		return err == nil && again.ID().Node == "web-1"
	}, 10*time.Second, 10*time.Millisecond, "the certificate that names the node is in use, and kept")
	again, err := w.enroll()
	require.NoError(t, err)
	require.ErrorContains(t, again.Set(w.ca.Material(identity.ID{
		FederationID: w.id().FederationID, Datacenter: "us-east", Kind: identity.KindService, Service: "agent", Node: "web-2",
	}, "us-east")), "web-2")

	// With a component's key alone there is nothing else to show.
	key, err := identity.DeriveKey(w.secret, identity.Holder{Component: "agent", Node: "web-1"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.cfg.SecretFile, []byte("konsul-key:v1:agent/web-1:"+base64.StdEncoding.EncodeToString(key)), 0o600))
	require.NoError(t, os.RemoveAll(w.cfg.Dir))
	ca.old = true
	_, err = w.enroll()
	require.Equal(t, "ENROLLMENT_REFUSED", fault.ReasonOf(err))
}
