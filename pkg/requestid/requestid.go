package requestid

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"konsul.dev/pkg/fault"
)

// Retention is how long the registry keeps the record of a minted id. Nobody repeats a write under
// a minted id for as long: the SDK begins its last try 3 s after the first, the gateway 3 s after
// it got that, another datacenter is tried for 5 s, a server looks for a leader for 5 s, and a
// proposal is on its way for at most 10 s. It is part of what the registry's state machine means:
// changing it takes a new command version.
const Retention = 30 * time.Second

// mark begins every minted id: a UUID of version 8, which RFC 9562 leaves to vendors, whose first
// four bytes say "kons". The other 90 bits are random.
const (
	mark        = "6b6f6e73-"
	version     = '8'
	versionAt   = 14
	usualLength = 36
)

// New returns a minted id, which no other call returns.
func New() string {
	id := uuid.New()
	copy(id[:], "kons")
	id[6] = id[6]&0x0f | 0x80 // The version.
	return id.String()
}

// Minted reports whether an id was minted, or made of one by appending to it.
func Minted(id string) bool {
	return len(id) >= usualLength && id[:len(mark)] == mark && id[versionAt] == version
}

// Explain adds the request id and the remedy to the error of a write whose outcome is not known.
// Other errors, and one that names its request id already, come back as they are.
func Explain(err error, id string) error {
	f, ok := fault.As(err)
	if !ok || id == "" || f.Reason() != fault.ReasonOutcomeUnknown || f.Meta()[MetaKey] != "" {
		return err
	}
	remedy := fmt.Sprintf("repeat it with --request-id %s, or look whether it was done", id)
	if Minted(id) {
		remedy = fmt.Sprintf("repeat it within %s with --request-id %s, or look whether it was done", Retention, id)
	}
	return f.WithMeta(MetaKey, id).WithRemedy(remedy)
}

// MetaKey is where an error says the request id.
const MetaKey = "request_id"
