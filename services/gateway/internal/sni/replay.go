package sni

import "net"

// Replay returns conn as it was before Peek: what was read comes first. CloseWrite is passed on.
func Replay(conn net.Conn, hello Hello) net.Conn { return &replay{Conn: conn, rest: hello.Read} }

type replay struct {
	net.Conn

	rest []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.rest) > 0 {
		n := copy(p, r.rest)
		r.rest = r.rest[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// Alert is the description of a fatal TLS alert (RFC 8446, section 6).
type Alert byte

// Alerts we send in place of a bare end of connection, so that the client's log says what happened.
const (
	AlertUnrecognizedName Alert = 112
	AlertInternalError    Alert = 80
	AlertAccessDenied     Alert = 49
)

// Refuse returns a client that sent a hello with a fatal alert. It does not close the connection.
func Refuse(conn net.Conn, alert Alert) error {
	const recordAlert, fatal = 21, 2
	_, err := conn.Write([]byte{recordAlert, 3, 3, 0, 2, fatal, byte(alert)})
	return err
}
