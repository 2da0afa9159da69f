package forward

import (
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Kind says which server may answer a call.
type Kind int

const (
	// Anywhere is answered by whichever server was asked.
	Anywhere Kind = iota
	// Read is answered as its read mode says, by a server that has what the leader had when it was asked.
	Read
	// Write is answered by the leader.
	Write
	// Proposal is a write that needs no state to be understood: the server that was asked turns it into a
	// command and brings that to the leader.
	Proposal
)

// Route is how calls of one method travel.
type Route struct {
	Kind Kind
	// KindOf decides by the request instead; nil: Kind.
	KindOf func(req any) Kind
	// Reply makes an empty response.
	Reply func() proto.Message
	// Primary says that a request belongs to the primary datacenter; nil: none does.
	Primary func(req any) bool
	// Named says that requests with one id are told apart by other means: the id is made of what they are about, or a secret is made up for each.
	Named bool
	// Note writes down in a request which server leads as the call sets out; nil: nothing is noted. Who repeats it sees that
	// the leadership has moved since.
	Note func(req any, leader string)
	// Service names what is asked for, for metrics.
	Service func(req any) string
	// Found reports whether a response shows that there is what Service names, which the caller chose; nil: the caller did not.
	Found func(reply any) bool
}

// Routes maps full method names.
type Routes map[string]Route

// To is a Route's Reply for a response type.
func To[T any, P interface {
	*T
	proto.Message
}]() func() proto.Message {
	return func() proto.Message { return P(new(T)) }
}

func readMode(req any) registryv1.ReadMode {
	if r, ok := req.(interface{ GetReadMode() registryv1.ReadMode }); ok {
		return r.GetReadMode()
	}
	return registryv1.ReadMode_READ_MODE_DEFAULT
}

func requestedDatacenter(req any) string {
	if r, ok := req.(interface{ GetDatacenter() string }); ok {
		return r.GetDatacenter()
	}
	return ""
}
