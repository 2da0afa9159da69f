package acl

import (
	"unicode/utf8"

	"konsul.dev/pkg/fault"
)

// glob is a compiled pattern: bytes to be met as they are, and wildcards.
type glob []int16

const (
	// one is any character but a slash.
	one int16 = -1 - iota
	// run is any run of characters without a slash.
	run
	// anything is any run of characters.
	anything
)

// parseGlob compiles a pattern. "*" is a run without a slash, "**" any run, "?" one character but a
// slash; a backslash takes what follows it as it is.
func parseGlob(field, pattern string) (glob, error) {
	var g glob
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 == len(pattern):
			return nil, fault.Invalid(field, "ends in a lone backslash").WithRemedy(`write \\ for a backslash`)
		case c == '\\':
			i++
			g = append(g, int16(pattern[i]))
		case c == '*' && i+2 < len(pattern) && pattern[i+1] == '*' && pattern[i+2] == '*':
			return nil, fault.Invalid(field, "holds three asterisks in a row").
				WithRemedy(`use ** for any run of characters, * for one without a slash, \* for an asterisk`)
		case c == '*' && i+1 < len(pattern) && pattern[i+1] == '*':
			i++
			g = append(g, anything)
		case c == '*':
			g = append(g, run)
		case c == '?':
			g = append(g, one)
		default:
			g = append(g, int16(c))
		}
	}
	return g, nil
}

// match reports whether a name is one of the pattern's. It keeps the last place at which each
// wildcard could have taken more. An earlier one need not be tried again: what it could take, a
// later one of its kind can take as well, and a "*" never reaches past the slash that ends its
// part. So the time is at most the product of the pattern's length and the square of the name's.
func (g glob) match(name string) bool {
	p, n := 0, 0
	type retry struct{ p, n int }
	none := retry{p: -1}
	narrow, wide := none, none
	for {
		switch {
		case p < len(g) && g[p] == anything:
			wide, narrow = retry{p + 1, n}, none
			p++
			continue
		case p < len(g) && g[p] == run:
			narrow = retry{p + 1, n}
			p++
			continue
		case p == len(g) && n == len(name):
			return true
		case p < len(g) && n < len(name) && g[p] == one && name[n] != '/':
			_, size := utf8.DecodeRuneInString(name[n:])
			p, n = p+1, n+size
			continue
		case p < len(g) && n < len(name) && g[p] == int16(name[n]):
			p, n = p+1, n+1
			continue
		}
		switch {
		case narrow.p >= 0 && narrow.n < len(name) && name[narrow.n] != '/':
			narrow.n++
			p, n = narrow.p, narrow.n
		case wide.p >= 0 && wide.n < len(name):
			wide.n++
			narrow = none
			p, n = wide.p, wide.n
		default:
			return false
		}
	}
}

// head returns the bytes every match begins with, and whether every name that begins with them
// matches.
func (g glob) head() (string, bool) {
	var literal []byte
	for i, c := range g {
		if c < 0 {
			return string(literal), c == anything && i == len(g)-1
		}
		literal = append(literal, byte(c))
	}
	return string(literal), false
}
