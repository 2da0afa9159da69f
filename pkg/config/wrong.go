package config

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"

	"konsul.dev/pkg/fault"
)

// badFile says what is wrong with a file that is no configuration.
func badFile(path string, err error) error {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	if wrong := (*yaml.TypeError)(nil); errors.As(err, &wrong) {
		what = "it holds no mapping of sections"
	}
	return fault.Invalid("--config", "read %q: %s", path, what).WithRemedy("give the path of a readable YAML file")
}

// badValues returns a fault for each setting whose value is not of its kind. The decoder names
// them, and the types of ours that it could not fill.
func badValues(err error, k *koanf.Koanf, t reflect.Type) []error {
	var errs []error
	for _, name := range badNames(err) {
		// The decoder takes a single value for a list of one.
		if whole, _, element := strings.Cut(name, "["); element && !isList(k.Get(whole)) {
			name = whole
		}
		wanted, remedy := kindOf(typeAt(t, name))
		found := "is no " + wanted
		switch value := k.Get(name).(type) {
		case nil:
		case []any:
			found = "is a list, and no " + wanted
		case map[string]any:
			found = "is a mapping, and no " + wanted
		default:
			found = fmt.Sprintf("%q is no %s", fmt.Sprint(value), wanted)
		}
		errs = append(errs, fault.Invalid(name, "%s", found).WithRemedy(remedy))
	}
	if len(errs) == 0 {
		errs = append(errs, fault.Invalid("--config", "cannot be decoded").WithRemedy("correct the value's type").Wrap(err))
	}
	return errs
}

func isList(value any) bool {
	_, ok := value.([]any)
	return ok
}

var errUnfit = errors.New("does not fit")

// fitting is a decoder's hook that refuses numbers which their setting has no room for: the decoder
// would cut them short. A number alone is no duration, but for 0.
func fitting(from, to reflect.Value) (any, error) {
	fits := true
	switch {
	case !from.CanInt() && !from.CanUint() && !from.CanFloat():
	case to.Type() == reflect.TypeFor[time.Duration]():
		fits = from.Type() == to.Type() || from.IsZero()
	case from.CanFloat() && math.IsNaN(from.Float()):
		fits = to.CanFloat()
	case to.CanInt() || to.CanUint():
		number := new(big.Float)
		switch {
		case from.CanInt():
			number.SetInt64(from.Int())
		case from.CanUint():
			number.SetUint64(from.Uint())
		default:
			number.SetFloat64(from.Float())
		}
		whole, exact := number.Int(nil)
		fits = exact == big.Exact &&
			(to.CanInt() && whole.IsInt64() && !to.OverflowInt(whole.Int64()) || to.CanUint() && whole.IsUint64() && !to.OverflowUint(whole.Uint64()))
	}
	if !fits {
		return nil, errUnfit
	}
	return from.Interface(), nil
}

// badNames returns the settings that a decoder's error is about.
func badNames(err error) []string {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var names []string
		for _, part := range many.Unwrap() {
			names = append(names, badNames(part)...)
		}
		return names
	}
	inner := errors.Unwrap(err)
	if inner != nil {
		if names := badNames(inner); len(names) > 0 {
			return names
		}
	}
	if wrong, ok := err.(*mapstructure.DecodeError); ok && wrong.Name() != "" { //nolint:errorlint // this walks the tree itself
		return []string{wrong.Name()}
	}
	return nil
}

// typeAt returns the type of a setting, nil when there is none of that name.
func typeAt(t reflect.Type, name string) reflect.Type {
	for part := range strings.SplitSeq(name, ".") {
		part, _, element := strings.Cut(part, "[")
		if t = fieldOf(t, part); t == nil {
			return nil
		}
		if element && slices.Contains([]reflect.Kind{reflect.Slice, reflect.Map, reflect.Array}, t.Kind()) {
			t = t.Elem()
		}
	}
	return t
}

func fieldOf(t reflect.Type, name string) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	for field := range t.Fields() {
		tag, _, _ := strings.Cut(field.Tag.Get("koanf"), ",")
		if tag == name && tag != "" {
			return field.Type
		}
		if tag == "" && field.Anonymous {
			if found := fieldOf(field.Type, name); found != nil {
				return found
			}
		}
	}
	return nil
}

// kindOf says what a setting of a type wants.
func kindOf(t reflect.Type) (wanted, remedy string) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return "value for this setting", "see the service's config.example.yaml"
	case t == reflect.TypeFor[time.Duration]():
		return "duration", "write a number and a unit, such as 30s or 5m"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "switch", "write true or false"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "whole number, 0 or more, that fits", "write one in digits"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "whole number that fits", "write one in digits"
	case reflect.Float32, reflect.Float64:
		return "number", "write one such as 0.5"
	case reflect.Slice:
		return "list", "write [a, b], or one value to a line behind a dash"
	case reflect.Struct, reflect.Map:
		return "mapping", "write its settings below it, as config.example.yaml does"
	}
	return "text", "write one word, or a text in quotes"
}
