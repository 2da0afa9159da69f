package catalog

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPatternsAreWhatTheirRegularExpressionsSay(t *testing.T) {
	r := newRules()
	for form, p := range map[string]pattern{
		`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`:              r.label,
		`^[A-Za-z0-9]([A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$`: r.id,
	} {
		expression := regexp.MustCompile(form)
		rapid.Check(t, func(t *rapid.T) {
			name := rapid.OneOf(
				rapid.StringMatching(`[a-zA-Z0-9._:/ -]{0,6}`), rapid.StringMatching(`[a-z0-9-]{60,65}`), rapid.StringMatching(`[a-z0-9.-]{125,130}`), rapid.String(),
			).Draw(t, "name")
			require.Equal(t, expression.MatchString(name), p.MatchString(name), "%q", name)
		})
	}
}
