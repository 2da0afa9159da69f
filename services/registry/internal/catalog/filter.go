package catalog

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-bexpr/grammar"

	"konsul.dev/pkg/fault"
)

// Bounds of a filter's expression.
const (
	maxFilter = 2 << 10
	// maxFilterSteps bounds the work of the parser, which nested parentheses multiply.
	maxFilterSteps = 500_000
	maxFilterDepth = 64
)

// Filter decides by an expression over the fields of a T. The language is that of Consul's filters;
// it is read and checked as a whole, so that deciding cannot fail.
type Filter[T any] struct{ decide func(T) bool }

// field is something that an expression may name. Exactly one of the functions is there.
type field[T any] struct {
	text   func(T) string
	number func(T) uint32
	list   func(T) []string
	dict   func(T) map[string]string
}

// fields maps the names, in lower case, with dots between.
type fields[T any] map[string]field[T]

// parseFilter reads an expression; nil when it is empty. Faults name the request's field "filter"
// and the position at fault.
func parseFilter[T any](expression string, known fields[T]) (filter *Filter[T], err error) {
	if expression == "" {
		return nil, nil
	}
	if len(expression) > maxFilter {
		return nil, fault.Invalid("filter", "is %d bytes long; at most %d are allowed", len(expression), maxFilter).WithRemedy("ask for less, or select by tags and meta")
	}
	parsed, err := grammar.Parse("", []byte(expression), grammar.MaxExpressions(maxFilterSteps))
	if err != nil {
		return nil, unreadable(err)
	}
	root, ok := parsed.(grammar.Expression)
	if !ok {
		return nil, fault.Invalid("filter", "is no expression").WithRemedy(filterRemedy)
	}
	c := compiler[T]{source: expression, known: known}
	decide, err := c.compile(root, 0)
	if err != nil {
		return nil, err
	}
	return &Filter[T]{decide: decide}, nil
}

const filterRemedy = "write something like: Service.Meta.version == \"2\" and \"http\" in Service.Tags"

// unreadable turns what the parser says, "line:column (offset): what", into a fault.
func unreadable(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	position, what, ok := strings.Cut(first, ": ")
	if !ok {
		return fault.Invalid("filter", "cannot be read: %s", first).WithRemedy(filterRemedy)
	}
	position, _, _ = strings.Cut(position, " ")
	if strings.Contains(what, "max number of expresssions") || strings.Contains(what, "max number of expressions") {
		return fault.Invalid("filter", "takes too many steps to read").WithRemedy("use fewer parentheses")
	}
	what, _, _ = strings.Cut(what, ", expected")
	return fault.Invalid("filter", "cannot be read at %s (line:column): %s", position, what).WithMeta("position", position).WithRemedy(filterRemedy)
}

// compiler turns a syntax tree into a function.
type compiler[T any] struct {
	source string
	known  fields[T]
}

func (c compiler[T]) compile(e grammar.Expression, depth int) (func(T) bool, error) {
	if depth > maxFilterDepth {
		return nil, fault.Invalid("filter", "is nested more than %d deep", maxFilterDepth).WithRemedy("use fewer parentheses")
	}
	switch e := e.(type) {
	case *grammar.UnaryExpression:
		inner, err := c.compile(e.Operand, depth+1)
		if err != nil {
			return nil, err
		}
		return func(t T) bool { return !inner(t) }, nil
	case *grammar.BinaryExpression:
		left, errLeft := c.compile(e.Left, depth+1)
		right, errRight := c.compile(e.Right, depth+1)
		if err := errors.Join(errLeft, errRight); err != nil {
			return nil, err
		}
		if e.Operator == grammar.BinaryOpOr {
			return func(t T) bool { return left(t) || right(t) }, nil
		}
		return func(t T) bool { return left(t) && right(t) }, nil
	case *grammar.MatchExpression:
		return c.match(e)
	}
	return nil, fault.Invalid("filter", "uses any or all, which are not known here").WithRemedy("ask with in and contains: \"v1\" in Service.Tags, Checks.http == \"critical\"")
}

// match compiles one comparison.
func (c compiler[T]) match(e *grammar.MatchExpression) (func(T) bool, error) {
	path := e.Selector.Path
	for n := len(path); n > 0; n-- {
		f, ok := c.known[strings.ToLower(strings.Join(path[:n], "."))]
		if !ok {
			continue
		}
		rest := path[n:]
		switch {
		case f.dict != nil && len(rest) > 0:
			key := strings.Join(rest, ".")
			return c.text(e, func(t T) (string, bool) { value, there := f.dict(t)[key]; return value, there })
		case len(rest) > 0:
			return nil, c.refuse(e, "%s has no field %q", strings.Join(path[:n], "."), strings.Join(rest, "."))
		case f.dict != nil:
			return c.collection(e, func(t T, key string) bool { _, ok := f.dict(t)[key]; return ok }, func(t T) bool { return len(f.dict(t)) == 0 })
		case f.list != nil:
			return c.collection(e, func(t T, item string) bool { return slices.Contains(f.list(t), item) }, func(t T) bool { return len(f.list(t)) == 0 })
		case f.number != nil:
			return c.number(e, f.number)
		default:
			return c.text(e, func(t T) (string, bool) { return f.text(t), true })
		}
	}
	names := slices.Sorted(maps.Keys(c.known))
	return nil, c.refuse(e, "there is no field %q", e.Selector.String()).WithRemedy("use one of " + strings.Join(names, ", "))
}

// collection compiles a question about a list or about the keys of a map.
func (c compiler[T]) collection(e *grammar.MatchExpression, contains func(T, string) bool, empty func(T) bool) (func(T) bool, error) {
	switch e.Operator {
	case grammar.MatchIn, grammar.MatchContains:
		return func(t T) bool { return contains(t, e.Value.Raw) }, nil
	case grammar.MatchNotIn, grammar.MatchNotContains:
		return func(t T) bool { return !contains(t, e.Value.Raw) }, nil
	case grammar.MatchIsEmpty, grammar.MatchIsNil:
		return empty, nil
	case grammar.MatchIsNotEmpty, grammar.MatchIsNotNil:
		return func(t T) bool { return !empty(t) }, nil
	}
	return nil, c.refuse(e, "%s holds many values: it can be asked with in, contains and is empty", e.Selector)
}

func (c compiler[T]) number(e *grammar.MatchExpression, get func(T) uint32) (func(T) bool, error) {
	if e.Operator != grammar.MatchEqual && e.Operator != grammar.MatchNotEqual {
		return nil, c.refuse(e, "%s is a number: it can be asked with == and !=", e.Selector)
	}
	want, err := strconv.ParseUint(e.Value.Raw, 10, 32)
	if err != nil {
		return nil, c.refuse(e, "%s is compared with %q, which is no number", e.Selector, e.Value.Raw)
	}
	equal := e.Operator == grammar.MatchEqual
	return func(t T) bool { return (uint64(get(t)) == want) == equal }, nil
}

// text compiles a question about a text: a field, or what a map holds under a key. A key that is
// not there equals nothing, contains nothing and is empty.
func (c compiler[T]) text(e *grammar.MatchExpression, get func(T) (string, bool)) (func(T) bool, error) {
	ask, negative, err := c.question(e)
	if err != nil {
		return nil, err
	}
	return func(t T) bool { return ask(get(t)) != negative }, nil
}

// question returns what is asked of a text that may be absent, and whether the answer is to be
// turned round.
func (c compiler[T]) question(e *grammar.MatchExpression) (ask func(value string, there bool) bool, negative bool, err error) {
	raw := ""
	if e.Value != nil {
		raw = e.Value.Raw
	}
	switch e.Operator {
	case grammar.MatchEqual, grammar.MatchNotEqual:
		return func(v string, there bool) bool { return there && v == raw }, e.Operator == grammar.MatchNotEqual, nil
	case grammar.MatchIn, grammar.MatchContains, grammar.MatchNotIn, grammar.MatchNotContains:
		negative = e.Operator == grammar.MatchNotIn || e.Operator == grammar.MatchNotContains
		return func(v string, there bool) bool { return there && strings.Contains(v, raw) }, negative, nil
	case grammar.MatchMatches, grammar.MatchNotMatches:
		pattern, err := regexp.Compile(raw)
		if err != nil {
			return nil, false, c.refuse(e, "%q is no regular expression: %v", raw, err)
		}
		return func(v string, there bool) bool { return there && pattern.MatchString(v) }, e.Operator == grammar.MatchNotMatches, nil
	case grammar.MatchIsEmpty, grammar.MatchIsNotEmpty:
		return func(v string, _ bool) bool { return v == "" }, e.Operator == grammar.MatchIsNotEmpty, nil
	case grammar.MatchIsNil, grammar.MatchIsNotNil:
		return func(_ string, there bool) bool { return !there }, e.Operator == grammar.MatchIsNotNil, nil
	}
	return nil, false, c.refuse(e, "%s cannot be asked so", e.Selector)
}

// refuse names the place of a comparison by what it selects: the syntax tree keeps no positions.
func (c compiler[T]) refuse(e *grammar.MatchExpression, format string, args ...any) *fault.Error {
	f := fault.Invalid("filter", "%s", fmt.Sprintf(format, args...))
	if at := strings.Index(c.source, e.Selector.Path[0]); at >= 0 {
		line := 1 + strings.Count(c.source[:at], "\n")
		column := at - strings.LastIndexByte(c.source[:at], '\n')
		position := fmt.Sprintf("%d:%d", line, column)
		f = fault.Invalid("filter", "%s, at %s (line:column)", fmt.Sprintf(format, args...), position).WithMeta("position", position)
	}
	return f.WithRemedy(filterRemedy)
}
