package admission

import (
	"crypto/tls"
	"net"
	"net/http"
)

// Spoke is for http.Server.ConnState, where connections come from a gate's listener, with TLS or
// without: a client that has begun a request is established.
func Spoke(conn net.Conn, state http.ConnState) {
	if state != http.StateActive {
		return
	}
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if admitted, ok := conn.(*Conn); ok {
		admitted.Established()
	}
}
