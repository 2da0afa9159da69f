package config

import (
	"reflect"
	"slices"
	"strings"
)

// Changed returns the keys whose values differ between two configurations of one type, in order.
func Changed(a, b any) []string {
	var keys []string
	changed("", reflect.Indirect(reflect.ValueOf(a)), reflect.Indirect(reflect.ValueOf(b)), &keys)
	slices.Sort(keys)
	return keys
}

func changed(prefix string, a, b reflect.Value, keys *[]string) {
	for i := range a.NumField() {
		field := a.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("koanf"), ",")
		switch {
		case field.Type.Kind() == reflect.Struct && (name != "" || field.Anonymous):
			inner := prefix
			if name != "" {
				inner += name + "."
			}
			changed(inner, a.Field(i), b.Field(i), keys)
		case name != "" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			*keys = append(*keys, prefix+name)
		}
	}
}
