package ops

import (
	"crypto/tls"
	"net"

	"konsul.dev/pkg/identity"
)

func tlsListener(listener net.Listener, source identity.Source) net.Listener {
	return tls.NewListener(listener, source.ServerTLS(identity.ServerOptions{NextProtos: []string{"h2", "http/1.1"}}))
}
