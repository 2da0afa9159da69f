package admission

import (
	"context"
	"net"

	"konsul.dev/pkg/fault"
)

// ReasonPort is the reason of a port that cannot be bound.
const ReasonPort = "PORT_UNAVAILABLE"

// Bind binds a TCP port. Its error names the setting that holds the address.
func Bind(ctx context.Context, how net.ListenConfig, field, address string) (net.Listener, error) {
	port, err := how.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fault.New(fault.Unavailable, ReasonPort, "cannot listen on %s", address).
			WithField(field).WithRemedy("stop what uses the port, or choose another address").Wrap(err)
	}
	return port, nil
}
