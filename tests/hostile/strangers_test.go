package hostile

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/config"
	"konsul.dev/tests/framework"
	"konsul.dev/tests/hostile/attack"
)

// reading is good traffic: one key, over the people's port.
func reading(t *testing.T, access framework.Access) func(context.Context) error {
	client := access.Client(t)
	_, err := client.KV.Set(t.Context(), "hostile/good", []byte("value"), nil)
	require.NoError(t, err)
	return func(ctx context.Context) error {
		_, err := client.KV.Get(ctx, "hostile/good", nil)
		return err
	}
}

// requireServed holds good traffic to what the issue asks: it goes on, within a second or two.
func requireServed(t *testing.T, served attack.Served) {
	t.Helper()
	require.NoError(t, served.Last, "good traffic failed")
	require.NotZero(t, served.Calls)
	require.Less(t, served.Slowest, 3*time.Second)
}

// Each row is one face that a stranger or the holder of a low credential floods with requests over
// one connection. The bound is what the process may take beside what it held; a comment says what
// ff2b859 held before and at its peak.
func TestFloodsOfRequestsTakeLittleMemory(t *testing.T) {
	dc := attack.Start(t, attack.Options{Services: []string{attack.CA, attack.Registry, attack.Gateway, attack.Agent}})
	good := reading(t, dc.Access())
	agent := dc.Certificate(attack.Agent)
	watch, err := proto.Marshal(&registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, KeyPrefix: "hostile/"})
	require.NoError(t, err)
	for _, tc := range []struct {
		name    string
		service string
		port    int
		flood   attack.Flood
		bound   int64
	}{
		{ // 25 to 1139 MiB
			name: "the first token, without one", service: attack.Gateway, port: config.PortHTTP,
			flood: attack.Flood{Method: "/konsul.registry.v1.ACLService/Bootstrap", Streams: 16, Bytes: 79 * attack.MiB},
			bound: 64 * attack.MiB,
		},
		{ // 1139 to 1986 MiB, and good calls took 2.8 s
			name: "the first token, packed", service: attack.Gateway, port: config.PortHTTP,
			flood: attack.Flood{Method: "/konsul.registry.v1.ACLService/Bootstrap", Streams: 25, Bytes: 79 * attack.MiB, Gzip: true},
			bound: 64 * attack.MiB,
		},
		{
			name: "the first token, asked for slowly", service: attack.Gateway, port: config.PortHTTP,
			flood: attack.Flood{Method: "/konsul.registry.v1.ACLService/Bootstrap", Streams: 300, Bytes: 64 << 10, Unfinished: true},
			bound: 96 * attack.MiB,
		},
		{
			name: "values, with a token", service: attack.Gateway, port: config.PortHTTP,
			flood: attack.Flood{Method: "/konsul.registry.v1.KVService/Set", Token: dc.Access().Token, Streams: 100, Bytes: 79 * attack.MiB},
			bound: 64 * attack.MiB,
		},
		{
			name: "values that do not end, with a token", service: attack.Gateway, port: config.PortHTTP,
			flood: attack.Flood{
				Method: "/konsul.registry.v1.KVService/Set", Token: dc.Access().Token, Streams: 240, Bytes: 4*attack.MiB - 64<<10,
				Unfinished: true,
			},
			bound: 160 * attack.MiB,
		},
		{
			name: "a stream that nobody reads, with a token", service: attack.Gateway, port: config.PortHTTP,
			flood: attack.Flood{
				Method: "/konsul.registry.v1.WatchService/Watch", Token: dc.Access().Token, First: watch, Streams: 4, Bytes: 64 << 10,
				Messages: 4000,
			},
			bound: 64 * attack.MiB,
		},
		{ // 21 to 1217 MiB
			name: "enrolment, without a certificate", service: attack.CA, port: config.PortCA,
			flood: attack.Flood{Method: "/konsul.ca.v1.EnrollmentService/Enroll", Streams: 300, Bytes: 4*attack.MiB - 1, Unfinished: true},
			bound: 64 * attack.MiB,
		},
		{ // as large as the ca takes them
			name: "small enrolments, without a certificate", service: attack.CA, port: config.PortCA,
			flood: attack.Flood{Method: "/konsul.ca.v1.EnrollmentService/Enroll", Streams: 300, Bytes: 256<<10 - 1, Unfinished: true},
			bound: 32 * attack.MiB,
		},
		{ // 36 to 1058 MiB
			name: "a registration, by an agent", service: attack.Registry, port: config.PortRegistry,
			flood: attack.Flood{
				Method: "/konsul.registry.v1.CatalogService/Register", Certificate: &agent, Streams: 300, Bytes: 4*attack.MiB - 1, Unfinished: true,
			},
			bound: 128 * attack.MiB,
		},
		{ // A stream was refused before its first message was read.
			name: "a proposal, by an agent that may make none", service: attack.Registry, port: config.PortRegistry,
			flood: attack.Flood{
				Method: "/konsul.registry.v1.ProposalService/Ask", Certificate: &agent, Streams: 300, Bytes: 4*attack.MiB - 1, Unfinished: true,
			},
			bound: 64 * attack.MiB,
		},
		{ // A unary call was refused once all of it had come.
			name: "a command, by an agent that may propose none", service: attack.Registry, port: config.PortRegistry,
			flood: attack.Flood{
				Method: "/konsul.registry.v1.ProposalService/Propose", Certificate: &agent, Streams: 300, Bytes: 4*attack.MiB - 1, Unfinished: true,
			},
			bound: 64 * attack.MiB,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			served := attack.GoodTraffic(t, 50*time.Millisecond, good)
			seen := attack.Watch(t, dc.Pid(tc.service))
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			tc.flood.Run(ctx, t, dc.Addr(tc.port))
			requireServed(t, served())
			require.Less(t, seen().Grown(), tc.bound)
		})
	}
}
