package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
)

// ShownValue is how much of a value a list shows.
const ShownValue = 60

// Value returns what a VALUE argument stands for.
func (a *App) Value(text string) ([]byte, error) {
	switch {
	case text == "-":
		value, err := io.ReadAll(a.In)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return value, nil
	case strings.HasPrefix(text, "@@"):
		return []byte(text[1:]), nil
	case strings.HasPrefix(text, "@"):
		value, err := os.ReadFile(text[1:])
		if err != nil {
			return nil, fault.Invalid("VALUE", "cannot be read").Wrap(err).WithRemedy("name a file that can be read, or write @@ for a value that begins with @")
		}
		return value, nil
	default:
		return []byte(text), nil
	}
}

// Count returns a number with its noun.
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// MetaOf returns metadata on one line, in the order of its keys.
func MetaOf(meta map[string]string) string {
	pairs := make([]string, 0, len(meta))
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		pairs = append(pairs, key+"="+meta[key])
	}
	return Commas(pairs)
}

// TTLOf returns a time to live; empty for none.
func TTLOf(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return fmt.Sprint(d.AsDuration())
}

// Commas joins texts. One that holds a comma, a quote or a space is quoted, so that it is seen
// where each ends.
func Commas(texts []string) string {
	shown := make([]string, len(texts))
	for i, text := range texts {
		if shown[i] = text; text == "" || strings.ContainsAny(text, `,"`) || strings.ContainsFunc(text, unicode.IsSpace) {
			shown[i] = strconv.Quote(text)
		}
	}
	return strings.Join(shown, ",")
}

// Yes returns yes, or nothing.
func Yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
