// Package reference keeps docs/errors.md and docs/metrics.md true, and docs/glossary.md in order. The first two hold a table generated from the code,
// between marks, in a page written by people: the code is the one place where a reason, its remedy, or a
// metric's help is written down.
//
// It reads syntax only. A reason and a metric's name must therefore be string constants, which they should
// be anyway: they are published.
package reference
