// Package servicedef reads service definitions: the `service:` YAML of ADR-0027 with the checks
// that watch over an instance.
//
// Reading is strict: a key nobody knows, a key written twice and a value of the wrong kind are
// errors that name the place ("service.checks[0].interval"), and all problems of a file are
// reported at once as InvalidArgument faults. Everything here is a function of its input and safe
// for concurrent use.
package servicedef
