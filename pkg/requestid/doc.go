// Package requestid makes idempotency keys and tells those that were minted from those that callers
// name.
//
// A write carries a request id, by which the registry does it once. Whoever passes a write on and
// may have to repeat it mints one if the caller named none. The registry keeps the record of a
// minted id for Retention, and that of a named one for longer. All functions are safe for
// concurrent use.
package requestid
