package config

import (
	"cmp"

	"konsul.dev/pkg/fault"
)

// AtLeast returns an error naming the field if value is less than least. The remedy may be empty.
func AtLeast[T cmp.Ordered](field string, value, least T, remedy string) error {
	if value >= least {
		return nil
	}
	return fault.Invalid(field, "%v is less than %v", value, least).WithRemedy(remedy)
}

// Between returns an error naming the field unless value is from least to most. The remedy may be
// empty.
func Between[T cmp.Ordered](field string, value, least, most T, remedy string) error {
	if least <= value && value <= most {
		return nil
	}
	return fault.Invalid(field, "%v is not between %v and %v", value, least, most).WithRemedy(remedy)
}
