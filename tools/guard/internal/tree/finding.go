package tree

import (
	"cmp"
	"fmt"
	"slices"
)

// Finding is one place where a rule is broken.
type Finding struct {
	File    string // relative to the root, with slashes
	Line    int    // 0 when the finding is about the whole file
	Rule    string
	Message string
	Remedy  string // what to do instead
}

// String gives the finding in the form editors jump to.
func (f Finding) String() string {
	place := f.File
	if f.Line > 0 {
		place = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return fmt.Sprintf("%s: %s: %s; %s", place, f.Rule, f.Message, f.Remedy)
}

// Sort orders findings by file, line and rule.
func Sort(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
}
