// Package fault holds the errors that cross a service boundary.
//
// A fault says what went wrong in a form a program can act on (code and reason), and in a form a
// person can act on (message, the field at fault, the remedy). It knows no transport: package rpc
// turns faults into gRPC status and back. Faults are immutable once returned; the With methods
// copy.
package fault

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// Code classifies a fault. The values mean what docs/errors.md says and map one to one onto gRPC
// codes.
type Code int

// The codes, in the words of the house style.
const (
	// Internal is anything unforeseen; its text does not reach the caller.
	Internal Code = iota
	// InvalidArgument is wrong whatever the state; the fault names the field.
	InvalidArgument
	// NotFound means the named thing is missing.
	NotFound
	// AlreadyExists means the named thing is already there.
	AlreadyExists
	// FailedPrecondition means the state must be mended first.
	FailedPrecondition
	// Aborted means a race was lost: re-read, then retry.
	Aborted
	// OutOfRange means the index was compacted: resync.
	OutOfRange
	// Unavailable means refused before anything was proposed: safe to retry.
	Unavailable
	// Unknown means proposed, fate unsure: retry only with the same request id.
	Unknown
	// ResourceExhausted means a limit or quota was met.
	ResourceExhausted
	// Unauthenticated means the caller has no identity we accept.
	Unauthenticated
	// PermissionDenied means the caller's identity is not allowed to do this.
	PermissionDenied
	// DataLoss means a checksum failed; page someone.
	DataLoss
	// Unimplemented means this server does not know the request.
	Unimplemented
	// Canceled means the caller gave up.
	Canceled
	// DeadlineExceeded means the caller's time ran out.
	DeadlineExceeded
)

// Reasons used by more than one package; the rest live beside the code that returns them.
const (
	// ReasonInvalidArgument means the named field is wrong whatever the state.
	ReasonInvalidArgument = "INVALID_ARGUMENT"
	// ReasonOutcomeUnknown means the write was proposed and its fate is unsure.
	ReasonOutcomeUnknown = "OUTCOME_UNKNOWN"
	// ReasonNoLeader means the datacenter's registry has no leader right now.
	ReasonNoLeader = "NO_LEADER"
)

// Error is a fault. Make one with New or Invalid.
type Error struct {
	code       Code
	reason     string
	message    string
	field      string
	remedy     string
	meta       map[string]string
	retryAfter time.Duration
	cause      error
}

// New makes a fault. The reason is stable, in upper snake case, and listed in docs/errors.md; the
// message is for people and may change.
func New(code Code, reason, format string, args ...any) *Error {
	return &Error{code: code, reason: reason, message: fmt.Sprintf(format, args...)}
}

// Invalid makes an InvalidArgument fault that names the field at fault.
func Invalid(field, format string, args ...any) *Error {
	return New(InvalidArgument, ReasonInvalidArgument, format, args...).WithField(field)
}

// Error gives the message with the field in front and the cause behind.
func (e *Error) Error() string {
	text := e.message
	if e.field != "" {
		text = e.field + ": " + text
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns the cause, if any. Causes stay on this side of the wire.
func (e *Error) Unwrap() error { return e.cause }

// Code returns the fault's class.
func (e *Error) Code() Code { return e.code }

// Reason returns the stable name of the fault.
func (e *Error) Reason() string { return e.reason }

// Message returns the text for people, without field, remedy and cause.
func (e *Error) Message() string { return e.message }

// Field returns which input is at fault, in the caller's terms; empty when none is.
func (e *Error) Field() string { return e.field }

// Remedy returns what to do about it; empty when unknown.
func (e *Error) Remedy() string { return e.remedy }

// Meta returns facts for programs, such as a leader's address. The map is a copy.
func (e *Error) Meta() map[string]string { return maps.Clone(e.meta) }

// RetryAfter returns how long to wait before trying again; zero when nothing is known.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// WithField returns a copy that names the input at fault.
func (e *Error) WithField(field string) *Error {
	c := *e
	c.field = field
	return &c
}

// WithRemedy returns a copy that says what to do about it.
func (e *Error) WithRemedy(remedy string) *Error {
	c := *e
	c.remedy = remedy
	return &c
}

// WithMeta returns a copy with one more fact for programs.
func (e *Error) WithMeta(key, value string) *Error {
	c := *e
	c.meta = maps.Clone(e.meta)
	if c.meta == nil {
		c.meta = map[string]string{}
	}
	c.meta[key] = value
	return &c
}

// WithRetryAfter returns a copy that asks the caller to wait.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.retryAfter = d
	return &c
}

// Wrap returns a copy that keeps the cause for logs; the cause's text is not sent to remote
// callers.
func (e *Error) Wrap(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// As finds the outermost fault in err's chain.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// CodeOf returns the code of the fault in err's chain, Internal when there is none.
func CodeOf(err error) Code {
	if e, ok := As(err); ok {
		return e.code
	}
	return Internal
}

// ReasonOf returns the reason of the fault in err's chain, empty when there is none.
func ReasonOf(err error) string {
	if e, ok := As(err); ok {
		return e.reason
	}
	return ""
}
