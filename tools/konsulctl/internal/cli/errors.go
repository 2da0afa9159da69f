package cli

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
	"konsul.dev/pkg/rpc"
	"konsul.dev/tools/konsulctl/internal/output"
)

// The exit codes; rootHelp explains them.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNotFound
	exitDenied
	exitUnavailable
	exitConflict
)

// ReasonUsage says that a command line is not understood.
const ReasonUsage = "USAGE"

func exitCode(err error) int {
	worst := exitOK
	if child := (ExitError{}); errors.As(err, &child) && len(leaves(err)) == 1 {
		return child.Code
	}
	for _, err := range leaves(err) {
		code := exitFailed
		switch fault.CodeOf(err) {
		case fault.InvalidArgument:
			code = exitUsage
		case fault.NotFound:
			code = exitNotFound
		case fault.Unauthenticated, fault.PermissionDenied:
			code = exitDenied
		case fault.Unavailable, fault.DeadlineExceeded:
			code = exitUnavailable
		case fault.Aborted:
			code = exitConflict
		}
		if worst == exitOK {
			worst = code
		}
	}
	return worst
}

// leaves returns the errors that were joined into one, each with what it was wrapped in.
func leaves(err error) []error {
	for inner := err; inner != nil; {
		switch e := inner.(type) { //nolint:errorlint // this walks the chain itself, to find where it forks
		case interface{ Unwrap() []error }:
			prefix := strings.TrimSuffix(err.Error(), inner.Error())
			var all []error
			for _, part := range e.Unwrap() {
				for _, leaf := range leaves(part) {
					if prefix != "" {
						leaf = fmt.Errorf("%s%w", prefix, leaf)
					}
					all = append(all, leaf)
				}
			}
			return all
		case *fault.Error:
			return []error{err}
		case interface{ Unwrap() error }:
			inner = e.Unwrap()
		default:
			return []error{err}
		}
	}
	return nil
}

// problem is an error as -o json and -o yaml show it: the document with which REST refuses.
type problem struct {
	// Code is the gRPC code's name, such as "NotFound".
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Reason  string            `json:"reason,omitempty"`
	Field   string            `json:"field,omitempty"`
	Remedy  string            `json:"remedy,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
}

func problemOf(err error) problem {
	f, ok := fault.As(err)
	if !ok {
		return problem{Code: codes.Internal.String(), Message: err.Error()}
	}
	return problem{
		Code: rpc.ToStatus(f).Code().String(), Message: err.Error(), Reason: f.Reason(), Field: f.Field(), Remedy: f.Remedy(), Meta: f.Meta(),
	}
}

// report writes what went wrong: a document for each error, or lines for people.
func (a *App) report(err error) {
	for _, leaf := range leaves(err) {
		p := problemOf(leaf)
		if a.Format != output.Table {
			a.beside(p)
			continue
		}
		_, _ = fmt.Fprintln(a.Err, "konsulctl: "+output.Printable(p.Message))
		for _, detail := range []struct{ name, text string }{{"field", p.Field}, {"reason", p.Reason}, {"request id", p.Meta[requestid.MetaKey]}, {"remedy", p.Remedy}} {
			if detail.text != "" {
				_, _ = fmt.Fprintln(a.Err, "  "+detail.name+": "+output.Printable(detail.text))
			}
		}
	}
}

// ExitError is a command that ended with a code of its own.
type ExitError struct{ Code int }

// Error implements error.
func (e ExitError) Error() string { return fmt.Sprintf("the command ended with code %d", e.Code) }

// InFlags names what is at fault by what was typed, where name knows it.
func InFlags(err error, name func(field string) string) error {
	all := leaves(err)
	for i, leaf := range all {
		f, ok := fault.As(leaf)
		if !ok {
			continue
		}
		if f.Reason() == reasonServiceIDTaken {
			f = f.WithRemedy("give it an id of its own with --id, or take the other one over with --replace")
		}
		if known := name(f.Field()); known != "" {
			f = f.WithField(known)
		}
		all[i] = renamed{leaf, f}
	}
	return errors.Join(all...)
}

// reasonServiceIDTaken is the registry's refusal to take what is somebody else's.
const reasonServiceIDTaken = "SERVICE_ID_TAKEN"

// ArgumentFields returns what the argument of a command is called that names an instance or a node.
func ArgumentFields(field string) string {
	return map[string]string{"service_id": "id", "node": "name", "nodes": "name"}[field]
}
