package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTheReferenceShowsTheRealDefaults compares docs/configuration.md, whose defaults are read from
// syntax, with what a process begins with.
func TestTheReferenceShowsTheRealDefaults(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	require.NoError(t, err)
	told := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) >= 5 && strings.HasPrefix(line, "| `") {
			told[strings.Trim(cells[1], " `")] = strings.Trim(cells[3], " `")
		}
	}
	begun := map[string]string{}
	defaults(reflect.ValueOf(DefaultConfig()), "", begun)
	require.NotEmpty(t, begun)
	for key, value := range begun {
		require.Contains(t, told, key, "run make fix-docs")
		if key == "server.node" {
			continue // the name of this host
		}
		if d, err := time.ParseDuration(told[key]); err == nil && d.String() == value {
			continue // "1h" is how people write 1h0m0s
		}
		require.Equal(t, value, told[key], key)
	}
	for key := range told {
		if !strings.Contains(key, "[]") {
			require.Contains(t, begun, key, "the reference shows a setting that nobody reads")
		}
	}
}

func defaults(v reflect.Value, prefix string, into map[string]string) {
	for field, value := range v.Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("koanf"), ",")
		switch {
		case !field.IsExported(): // What the configuration itself notes.
		case field.Anonymous:
			defaults(value, prefix, into)
		case value.Kind() == reflect.Struct:
			defaults(value, prefix+key+".", into)
		default:
			into[prefix+key] = shown(value)
		}
	}
}

func shown(value reflect.Value) string {
	switch v := value.Interface().(type) {
	case time.Duration:
		return v.String()
	case []string:
		if len(v) == 0 {
			return ""
		}
		return "[" + strings.Join(v, ", ") + "]"
	}
	if value.Kind() == reflect.Slice {
		return ""
	}
	return fmt.Sprint(value.Interface())
}
