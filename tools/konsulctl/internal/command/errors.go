package command

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"konsul.dev/pkg/fault"
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

const reasonUsage = "USAGE"

func exitCode(err error) int {
	worst := exitOK
	if child := (childError{}); errors.As(err, &child) && len(leaves(err)) == 1 {
		return child.code
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

// leaves answers the errors that were joined into one, each with what it was wrapped in.
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

// report writes what went wrong for people, and for programs that read lines.
func report(w io.Writer, err error) {
	for _, leaf := range leaves(err) {
		lines := []string{"konsulctl: " + leaf.Error()}
		if f, ok := fault.As(leaf); ok {
			for _, detail := range []struct{ name, text string }{{"field", f.Field()}, {"remedy", f.Remedy()}} {
				if detail.text != "" {
					lines = append(lines, "  "+detail.name+": "+detail.text)
				}
			}
		}
		_, _ = fmt.Fprintln(w, strings.Join(lines, "\n"))
	}
}
