package konsul_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

// discoverService is the example of ADR-0027, "Geo-Aware Routing".
func discoverService(ctx context.Context, client *konsul.Client, name string) (*konsul.Service, error) {
	// Try local DC first (lowest latency)
	local, err := client.Service.Get(ctx, name, &konsul.QueryOptions{
		Datacenter: "local",
	})
	if err == nil && len(local) > 0 {
		return konsul.SelectNearest(local), nil
	}

	// Failover to nearest DC
	global, err := client.Service.Get(ctx, name, &konsul.QueryOptions{
		AllDatacenters: true,
		PreferLocal:    true,
		SortByLatency:  true,
	})
	if err != nil {
		return nil, err
	}

	return konsul.SelectNearest(global), nil
}

// The service is gone from the own datacenter, so the nearest other one is used.
func Example_geoAwareRouting() {
	gateway, cleanUp, err := federation()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cleanUp()

	client, err := konsul.New(gateway.Config()) // or konsul.ConfigFromEnv()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	service, err := discoverService(context.Background(), client, "api")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(service.ID, service.Datacenter, service.Endpoint(), service.RoundTrip)
	// Output: api-2 us-west 10.0.2.1:8080 31ms
}

// federation is a gateway of a datacenter that has lost its api.
func federation() (*konsultest.Gateway, func(), error) {
	dir, err := os.MkdirTemp("", "konsul-example")
	if err != nil {
		return nil, nil, err
	}
	gateway, err := konsultest.New(dir)
	if err != nil {
		return nil, nil, err
	}
	konsultest.On(gateway, func(*registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
		return &registryv1.QueryServiceResponse{Meta: &registryv1.QueryMeta{Datacenter: "us-east"}}, nil
	})
	konsultest.On(gateway, func(*failoverrouterv1.ResolveRequest) (*failoverrouterv1.ResolveResponse, error) {
		return &failoverrouterv1.ResolveResponse{
			Endpoints: []*failoverrouterv1.Endpoint{
				endpoint("us-west", "api-2", "10.0.2.1", 31*time.Millisecond),
				endpoint("eu-central", "api-3", "10.0.3.1", 95*time.Millisecond),
			},
			Datacenters: []*failoverrouterv1.DatacenterOutcome{{Datacenter: "us-east"}, {Datacenter: "us-west", Endpoints: 1}, {Datacenter: "eu-central", Endpoints: 1}},
			FailedOver:  true,
		}, nil
	})
	return gateway, func() {
		gateway.Stop()
		_ = os.RemoveAll(dir)
	}, nil
}

func endpoint(dc, id, address string, roundTrip time.Duration) *failoverrouterv1.Endpoint {
	e := &failoverrouterv1.Endpoint{Datacenter: dc, Reason: "nearest", Instance: &registryv1.ServiceInstance{
		Node: &registryv1.Node{Name: "node-" + id, Address: address}, Datacenter: dc,
		Service: &registryv1.Service{Id: id, Name: "api", Node: "node-" + id, Port: 8080},
		Status:  registryv1.HealthStatus_HEALTH_STATUS_PASSING,
	}}
	if roundTrip >= 0 {
		e.RoundTrip = durationpb.New(roundTrip)
	}
	return e
}
