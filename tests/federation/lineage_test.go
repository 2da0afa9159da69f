package federation_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// admit makes the secondary a member, as its join does.
func (w *world) admit() {
	w.t.Helper()
	ca := w.east.ClientAs(w.east.Servers[0], east, "ca")
	public, _, err := ed25519.GenerateKey(nil)
	require.NoError(w.t, err)
	_, err = ca.Trust.PutJoinToken(ca.Bare(), &registryv1.PutJoinTokenRequest{Token: &registryv1.JoinToken{
		Id: "join", PublicKey: public, Datacenter: west, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}})
	require.NoError(w.t, err)
	_, err = ca.Trust.AdmitDatacenter(ca.Bare(), &registryv1.AdmitDatacenterRequest{
		TokenId: "join", Datacenter: &federationv1.Datacenter{Name: west, Id: uuid.NewString()},
	})
	require.NoError(w.t, err)
}

// known waits until a registry knows a member by its history, and returns that.
func (w *world) known(c *registrytest.Client, datacenter string) (lineage string) {
	w.t.Helper()
	registrytest.Eventually(w.t, func() error {
		resp, err := c.Federation.GetFederation(c.Ctx(), &federationv1.GetFederationRequest{})
		if err != nil {
			return err
		}
		for _, m := range resp.GetFederation().GetMembers() {
			if m.GetName() == datacenter {
				lineage = m.GetLineageId()
			}
		}
		if lineage == "" {
			return fmt.Errorf("%s is not known by its history", datacenter)
		}
		return nil
	})
	return lineage
}

// second lays out one more registry under a datacenter's name, with an empty folder.
func (w *world) second(datacenter string, gateway []string, adjust func(*registry.Config)) *registrytest.Server {
	w.t.Helper()
	c := registrytest.Prepare(w.t, 1, registrytest.Options{Datacenter: datacenter, Primary: east, CA: w.ca, Gateway: gateway, Adjust: adjust})
	return c.Servers[0]
}

// refused waits until a server gives up.
func refused(t *testing.T, s *registrytest.Server) error {
	t.Helper()
	select {
	case err := <-s.Failed:
		require.Equal(t, "OTHER_LINEAGE", fault.ReasonOf(err), "%v", err)
		return err
	case <-time.After(registrytest.Patience):
		t.Fatal("it goes on")
		return nil
	}
}

// sees is a wan-gossip of the east that sees one other datacenter.
type sees struct {
	wangossipv1.UnimplementedDatacenterServiceServer
	other string
}

func (s sees) ListDatacenters(context.Context, *wangossipv1.ListDatacentersRequest) (*wangossipv1.ListDatacentersResponse, error) {
	return &wangossipv1.ListDatacentersResponse{Datacenters: []*wangossipv1.Datacenter{
		{Name: east, State: wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE}, {Name: s.other, State: wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE},
	}}, nil
}

func (w *world) gossip(other string) string {
	w.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "wan-gossip", Identity: w.ca.Source(east, "wan-gossip"), Telemetry: obs.Discard(),
	})
	require.NoError(w.t, err)
	wangossipv1.RegisterDatacenterServiceServer(server, sees{other: other})
	go func() { _ = server.Serve(listener) }()
	w.t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func TestASecondRegistryUnderASecondarysNameIsNotFounded(t *testing.T) {
	w := newWorld(t)
	w.admit()
	first := w.known(w.primary, west)

	second := w.second(west, w.east.Addresses(), nil)
	second.Start()
	require.ErrorContains(t, refused(t, second), first)
	second.Stop()

	// The disks are lost for good, and an operator says so.
	w.stop()
	w.west.Servers[0].Stop()
	file := filepath.Join(second.Dir(""), "found-as")
	require.NoError(t, os.WriteFile(file, []byte(first+"\n"), 0o600))
	second.Start()
	client := registrytest.NewClient(t, w.ca.Source(west, "gateway"), west, second.Address())
	registrytest.Eventually(t, func() error {
		resp, err := client.Federation.GetFederation(client.Bare(), &federationv1.GetFederationRequest{})
		if err == nil && resp.GetFederation().GetLineageId() != first {
			return fmt.Errorf("founded as %s", resp.GetFederation().GetLineageId())
		}
		return err
	})
}

func TestASecondRegistryUnderThePrimarysNameIsNotFounded(t *testing.T) {
	w := newWorld(t)
	first := w.known(w.secondary, east)
	gossip := w.gossip(west)
	second := w.second(east, w.west.Addresses(), func(c *registry.Config) { c.Endpoints.WANGossip = []string{gossip} })
	second.Start()
	require.ErrorContains(t, refused(t, second), first)
}

// One that was founded while it saw nobody gives way when it sees the others, and until then they
// do not take it for the datacenter.
func TestASecondRegistryThatWasFoundedAloneIsRefusedEverywhere(t *testing.T) {
	w := newWorld(t)
	w.known(w.secondary, east)
	second := w.second(east, w.west.Addresses(), nil)
	second.Start()
	client := registrytest.NewClient(t, w.ca.Source(east, "gateway"), east, second.Address())
	registrytest.Eventually(t, func() error {
		_, err := client.Federation.GetFederation(client.Ctx(), &federationv1.GetFederationRequest{})
		return err
	})

	w.stop()
	w.west.Servers[0].Stop()
	w.west.Servers[0].Configure(func(c *registry.Config) { c.Endpoints.Gateway = []string{second.Address()} })
	w.west.Servers[0].Start()
	w.west.WaitReady()
	w.secondary = w.west.Client(w.west.Servers[0])
	_, err := w.secondary.KV.Set(w.secondary.Ctx(), &registryv1.SetRequest{Key: "global/lost", Value: []byte("x")})
	require.Equal(t, "OTHER_LINEAGE", fault.ReasonOf(err), "%v", err)
	stream, err := w.secondary.Watch.Watch(w.secondary.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_SERVICE, Datacenter: east})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, "OTHER_LINEAGE", fault.ReasonOf(err), "%v", err)

	w.replicateFrom(second.Address())
	registrytest.Eventually(t, func() error {
		status, source := w.source()
		if status.GetReplicatorError() == "" && strings.Contains(source.GetError(), "the federation knows") {
			return nil
		}
		return fmt.Errorf("it is not refused: %v", status)
	})
	w.stop()

	second.Stop()
	gossip := w.gossip(west)
	second.Configure(func(c *registry.Config) { c.Endpoints.WANGossip = []string{gossip} })
	second.Start()
	require.Error(t, refused(t, second))
}

func TestRestartsAndMoreServersOfADatacenterGoOn(t *testing.T) {
	w := newWorld(t)
	w.admit()
	w.known(w.primary, west)
	first := w.known(w.secondary, east)
	w.west.Servers[0].Stop()
	w.west.Servers[0].Start()
	w.west.WaitReady()
	w.arrives("after a restart", "1")
	w.west.Grow()
	w.west.WaitReady()
	w.east.Servers[0].Stop()
	w.east.Servers[0].Start()
	w.east.WaitReady()
	w.arrives("after the primary's", "2")
	require.Equal(t, first, w.known(w.secondary, east))
	for _, s := range append(w.east.Servers, w.west.Servers...) {
		select {
		case err := <-s.Failed:
			require.NoError(t, err)
		default:
		}
	}
}
