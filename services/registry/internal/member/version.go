package member

import (
	"strings"

	"konsul.dev/pkg/fault"
)

// Oldest is the command version that every program understands.
const Oldest = 1

// ReasonServersTooOld says that members run programs that do not understand a command.
const ReasonServersTooOld = "SERVERS_TOO_OLD"

// Admit refuses commands of a version that one of the members does not understand: it would have to
// stop when it met one. One that never said what it understands is taken to know the oldest only.
func (v *View) Admit(version uint32, members []string) error {
	if version <= Oldest {
		return nil
	}
	var behind []string
	v.mu.RLock()
	for _, id := range members {
		if v.servers[id].GetCommandVersion() < version {
			behind = append(behind, id)
		}
	}
	v.mu.RUnlock()
	if len(behind) == 0 {
		return nil
	}
	names := strings.Join(behind, ", ")
	return fault.New(fault.FailedPrecondition, ReasonServersTooOld, "this takes command version %d, which %s does not understand yet", version, names).
		WithMeta("servers", strings.Join(behind, ",")).
		WithRemedy("give " + names + " the newer program, or remove it with `konsulctl operator raft remove-peer`")
}
