package fsm

import (
	"errors"
	"unicode/utf8"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// ErrNotText says that a string of a command is not UTF-8. What people send is checked when it comes in, and the encoders between servers
// check nothing: such a command must not enter the log, for outcomes that hold the string could not be written down.
var ErrNotText = errors.New("a string of the command is not UTF-8")

// checkText answers ErrNotText unless all strings of a command are text.
func checkText(cmd *registryv1.Command) error {
	ok := utf8.ValidString(cmd.GetRequestId())
	for _, c := range cmd.GetConditions() {
		ok = ok && utf8.ValidString(c.GetRow().GetKey()) && utf8.ValidString(c.GetReason())
	}
	for _, op := range cmd.GetOperations() {
		ok = ok && isText(op)
	}
	for _, op := range cmd.GetOtherwise() {
		ok = ok && isText(op)
	}
	if !ok {
		return ErrNotText
	}
	return nil
}

func isText(operation *registryv1.Operation) bool {
	switch op := operation.GetOp().(type) {
	case *registryv1.Operation_Put:
		return isTextRow(op.Put)
	case *registryv1.Operation_Replicate:
		return isTextRow(op.Replicate)
	case *registryv1.Operation_Delete:
		return utf8.ValidString(op.Delete.GetKey())
	case *registryv1.Operation_DeletePrefix:
		return utf8.ValidString(op.DeletePrefix.GetKey())
	case *registryv1.Operation_DeleteBelow:
		return utf8.ValidString(op.DeleteBelow.GetPrefix().GetKey())
	case *registryv1.Operation_Get:
		return utf8.ValidString(op.Get.GetKey())
	case *registryv1.Operation_EndLease:
		return utf8.ValidString(op.EndLease.GetId())
	case *registryv1.Operation_AcquireLock:
		return utf8.ValidString(op.AcquireLock.GetName()) && utf8.ValidString(op.AcquireLock.GetLease()) && utf8.ValidString(op.AcquireLock.GetHolder())
	}
	return true
}

func isTextRow(r *registryv1.Record) bool {
	for key, value := range r.GetMeta() {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return false
		}
	}
	return utf8.ValidString(r.GetKey()) && utf8.ValidString(r.GetOriginDatacenter()) && utf8.ValidString(r.GetLease())
}
