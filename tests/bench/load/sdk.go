package load

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tests/bench/target"
)

// connectSDK makes one client of our library, as a process has. It talks to the registry directly,
// with the gateway's certificate, and like a gateway spreads its calls over all servers.
func (d *driver) connectSDK(access target.Access, op Op, transport credentials.TransportCredentials) error {
	cfg := konsul.Config{Token: target.Token, DialOptions: []grpc.DialOption{
		grpc.WithTransportCredentials(transport), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
	}}
	for _, address := range access.Addresses {
		cfg.Addresses = append(cfg.Addresses, "https://"+address)
	}
	var err error
	if d.sdk, err = konsul.New(cfg); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	content := value()
	d.op = func(ctx context.Context, _, key int) error {
		_, err := d.sdk.KV.Get(ctx, Key(key), nil)
		return err
	}
	if op == SDKPut {
		d.op = func(ctx context.Context, _, key int) error {
			_, err := d.sdk.KV.Set(ctx, Key(key), content, nil)
			return err
		}
	}
	return nil
}
