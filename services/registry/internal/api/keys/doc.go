// Package keys serves the key-value service: single keys, batches, transactions and histories.
package keys
