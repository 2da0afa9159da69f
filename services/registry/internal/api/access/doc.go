// Package access serves policies, roles and tokens, and says whose a bearer token is.
package access
