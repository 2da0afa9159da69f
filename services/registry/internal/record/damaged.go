package record

import "konsul.dev/pkg/fault"

// ReasonStateDamaged says that the files of this server do not fit together.
const ReasonStateDamaged = "STATE_DAMAGED"

// Damaged is why a server with such files does not start.
func Damaged(format string, args ...any) *fault.Error {
	return fault.New(fault.DataLoss, ReasonStateDamaged, format, args...).
		WithRemedy("keep a copy of the folder, then start this server with an empty one: the others bring it up to date")
}
