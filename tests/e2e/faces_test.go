package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
	"konsul.dev/tests/framework"
)

// question is one question put to all three faces; each must give the same document.
type question struct {
	name   string
	grpc   func(context.Context, grpc.ClientConnInterface) (proto.Message, error)
	path   string
	ctl    []string
	answer proto.Message
	// unlike are fields that differ from moment to moment, or from server to server.
	unlike []protoreflect.Name
}

func questions() []question {
	return []question{
		{
			name: "read one key",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewKVServiceClient(c).Get(ctx, &registryv1.GetRequest{Key: "faces/é b"})
			},
			path: "/api/v1/kv/" + url.PathEscape("faces/é b"), ctl: []string{"kv", "get", "faces/é b"},
			answer: &registryv1.GetResponse{}, unlike: []protoreflect.Name{"meta"},
		},
		{
			name: "read a global key of another datacenter",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewKVServiceClient(c).Get(ctx, &registryv1.GetRequest{
					Key: "faces/global", Scope: registryv1.Scope_SCOPE_GLOBAL, Datacenter: framework.USEast,
				})
			},
			path:   "/api/v1/kv/faces/global?scope=SCOPE_GLOBAL&datacenter=us-east",
			ctl:    []string{"kv", "get", "--global", "--datacenter", framework.USEast, "faces/global"},
			answer: &registryv1.GetResponse{}, unlike: []protoreflect.Name{"meta"},
		},
		{
			name: "list keys",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewKVServiceClient(c).List(ctx, &registryv1.ListRequest{Prefix: "faces/"})
			},
			path: "/api/v1/kv?prefix=faces/", ctl: []string{"kv", "list", "faces/"},
			answer: &registryv1.ListResponse{}, unlike: []protoreflect.Name{"meta"},
		},
		{
			name: "one service",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewCatalogServiceClient(c).QueryService(ctx, &registryv1.QueryServiceRequest{Service: "faces", PassingOnly: true})
			},
			path: "/api/v1/health/services/faces?passing_only=true", ctl: []string{"service", "get", "faces"},
			answer: &registryv1.QueryServiceResponse{}, unlike: []protoreflect.Name{"meta"},
		},
		{
			name: "one service in all datacenters",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return failoverrouterv1.NewRouterServiceClient(c).Resolve(ctx, &failoverrouterv1.ResolveRequest{
					Service: "faces", AllDatacenters: true, PreferLocal: true, SortByLatency: true,
				})
			},
			path: "/api/v1/resolve/faces?all_datacenters=true&prefer_local=true&sort_by_latency=true",
			ctl:  []string{"service", "get", "faces", "--all-datacenters"},
			// Round trips are measured anew between two questions, and may swap two like
			// datacenters.
			answer: &failoverrouterv1.ResolveResponse{}, unlike: []protoreflect.Name{"round_trip", "datacenters"},
		},
		{
			name: "the federation",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return federationv1.NewFederationServiceClient(c).GetFederation(ctx, &federationv1.GetFederationRequest{})
			},
			path: "/api/v1/federation", ctl: []string{"federation", "show"}, answer: &federationv1.GetFederationResponse{},
			unlike: []protoreflect.Name{"time"},
		},
		{
			name: "datacenters",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return wangossipv1.NewDatacenterServiceClient(c).ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{})
			},
			path: "/api/v1/datacenters", ctl: []string{"datacenter", "list"},
			answer: &wangossipv1.ListDatacentersResponse{}, unlike: []protoreflect.Name{"round_trip"},
		},
		{
			name: "a policy",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewACLServiceClient(c).GetPolicy(ctx, &registryv1.GetPolicyRequest{Name: "faces"})
			},
			path: "/api/v1/acl/policies/faces", ctl: []string{"acl", "policy", "get", "faces"},
			answer: &registryv1.GetPolicyResponse{}, unlike: []protoreflect.Name{"meta"},
		},
		{
			name: "tokens",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewACLServiceClient(c).ListTokens(ctx, &registryv1.ListTokensRequest{})
			},
			path: "/api/v1/acl/tokens", ctl: []string{"acl", "token", "list"},
			answer: &registryv1.ListTokensResponse{}, unlike: []protoreflect.Name{"meta"},
		},
		{
			name: "one's own token",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewACLServiceClient(c).GetSelf(ctx, &registryv1.GetSelfRequest{})
			},
			path: "/api/v1/acl/self", ctl: []string{"acl", "token", "get", "--self"},
			answer: &registryv1.GetSelfResponse{}, unlike: []protoreflect.Name{"meta"},
		},
		{
			name: "cluster status",
			grpc: func(ctx context.Context, c grpc.ClientConnInterface) (proto.Message, error) {
				return registryv1.NewOperatorServiceClient(c).ClusterStatus(ctx, &registryv1.ClusterStatusRequest{})
			},
			path: "/api/v1/cluster/status", ctl: []string{"cluster", "status"}, answer: &registryv1.ClusterStatusResponse{},
			unlike: []protoreflect.Name{"time", "last_log_index", "commit_index", "applied_index"},
		},
	}
}

func TestAllFacesGiveTheSameAnswer(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	west := lab.Access(framework.USWest)
	west.MustCTL(t, "kv", "set", "faces/é b", "local value")
	west.MustCTL(t, "kv", "set", "--global", "faces/global", "global value")
	for _, dc := range framework.Datacenters()[:2] {
		lab.Access(dc).MustCTL(t, "service", "register", "--name", "faces", "--id", "faces-"+dc, "--address", "127.0.0.1", "--port", "9000")
	}
	west.MustCTL(t, "acl", "policy", "create", "faces", "--rule", "kv read,delete faces/**", "--rule", "service write exact:faces", "--rule", "node list")
	framework.Eventually(t, soon, "the policy is here", func() error {
		if r := west.CTL(t, "acl", "policy", "get", "faces"); r.Code != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
	framework.Eventually(t, soon, "the global value is here", func() error {
		_, err := west.Client(t).KV.Get(t.Context(), "global/faces/global", nil)
		return err
	})
	conn := edge(t, west)
	for _, q := range questions() {
		t.Run(q.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+west.Token), 20*time.Second)
			defer cancel()
			fromGRPC, err := q.grpc(ctx, conn)
			require.NoError(t, err)
			reply := west.REST(t, http.MethodGet, q.path, nil, nil)
			require.Equal(t, http.StatusOK, reply.Status, "%s", reply.Body)
			fromREST, fromCTL := proto.Clone(q.answer), proto.Clone(q.answer)
			require.NoError(t, protojson.Unmarshal(reply.Body, fromREST), "%s", reply.Body)
			out := west.MustCTL(t, append(q.ctl, "-o", "json")...)
			require.NoError(t, protojson.Unmarshal([]byte(out), fromCTL), "%s", out)

			ignore := cmp.Options{protocmp.Transform()}
			for _, name := range q.unlike {
				ignore = append(ignore, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == `["`+string(name)+`"]` }, cmp.Ignore()))
			}
			require.Empty(t, cmp.Diff(fromGRPC, fromREST, ignore), "REST differs from gRPC")
			require.Empty(t, cmp.Diff(fromGRPC, fromCTL, ignore), "konsulctl differs from gRPC")
		})
	}
}

// edge dials a datacenter's gateway as any gRPC client would.
func edge(t *testing.T, access framework.Access) *grpc.ClientConn {
	t.Helper()
	tlsConfig, err := credentials.NewClientTLSFromFile(access.CAFile, "")
	require.NoError(t, err)
	address, err := url.Parse(access.Addr)
	require.NoError(t, err)
	conn, err := grpc.NewClient(address.Host, grpc.WithTransportCredentials(tlsConfig))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

func TestRESTCarriesRawBytes(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	access := lab.Access(framework.EUCentral)
	for name, value := range map[string][]byte{
		"binary": {0, 255, 10, 13, 128, 34}, "empty": {}, "text": []byte("plain"), "looks like JSON": []byte(`{"value":"x"}`),
	} {
		t.Run(name, func(t *testing.T) {
			path := "/api/v1/kv/raw/" + url.PathEscape(name)
			reply := access.REST(t, http.MethodPut, path, value, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
			require.Equal(t, http.StatusOK, reply.Status, "%s", reply.Body)
			reply = access.REST(t, http.MethodGet, path+"?raw", nil, nil)
			require.Equal(t, http.StatusOK, reply.Status)
			require.Equal(t, string(value), string(reply.Body))
			require.NotEmpty(t, reply.Header.Get("X-Konsul-Index"))
		})
	}
	reply := access.REST(t, http.MethodGet, "/openapi.json", nil, nil)
	require.Equal(t, http.StatusOK, reply.Status)
	require.Contains(t, string(reply.Body), "/api/v1/kv/{key}")
	require.Equal(t, http.StatusNotFound, access.REST(t, http.MethodGet, "/v1/kv/x", nil, nil).Status, "/v1 stays free")
}
