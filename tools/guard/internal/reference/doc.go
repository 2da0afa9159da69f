// Package reference keeps docs/errors.md, docs/metrics.md and docs/configuration.md true, and
// docs/glossary.md in order. The first three hold tables generated from the code, between marks, in
// a page written by people: the code is the one place where a reason, its remedy, a metric's help
// or a setting's meaning is written down.
//
// It reads syntax only. A reason and a metric's name must therefore be string constants, which they
// should be anyway: they are published. Defaults of settings are evaluated from the literals in
// DefaultConfig.
package reference
