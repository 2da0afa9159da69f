package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/output"
)

// ShownWord is how much of a bad argument an error repeats: it may be a private key that was
// pasted.
const ShownWord = 24

// Usage makes the error of a wrong command line.
func Usage(cmd *cobra.Command, err error) *fault.Error {
	return fault.New(fault.InvalidArgument, ReasonUsage, "%s", err.Error()).WithRemedy(seeHelp(cmd))
}

// What cobra says of flags that go together, or must be there.
var (
	missingFlags   = regexp.MustCompile(`^required flag\(s\) (.*) not set$`)
	oneOfFlags     = regexp.MustCompile(`^at least one of the flags in the group \[(.*)\] is required$`)
	exclusiveFlags = regexp.MustCompile(`^if any flags in the group \[.*\] are set none of the others can be; \[(.*)\] were all set$`)
)

// badFlags says in our words what cobra refused.
func badFlags(cmd *cobra.Command, err error) error {
	names := func(text, with string) string {
		return "--" + strings.Join(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(`, "`, r) }), with+"--")
	}
	text := err.Error()
	if part := missingFlags.FindStringSubmatch(text); part != nil {
		if field := names(part[1], " "); !strings.Contains(field, " ") {
			return Usage(cmd, errors.New("is missing")).WithField(field)
		}
		return Usage(cmd, errors.New(names(part[1], " and ")+" are missing"))
	}
	if part := oneOfFlags.FindStringSubmatch(text); part != nil {
		return Usage(cmd, errors.New("one of "+names(part[1], " and ")+" is needed"))
	}
	if part := exclusiveFlags.FindStringSubmatch(text); part != nil {
		return Usage(cmd, errors.New(names(part[1], " and ")+" do not go together"))
	}
	return Usage(cmd, err)
}

func seeHelp(cmd *cobra.Command) string { return "see `" + cmd.CommandPath() + " --help`" }

// badFlag says in our words what pflag refused.
func badFlag(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &value):
		return badValue(cmd, value)
	case errors.As(err, &syntax):
		return dash(cmd, syntax.GetSpecifiedFlag())
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return dash(cmd, "-"+unknown.GetSpecifiedShortnames())
	case errors.As(err, &unknown):
		return dash(cmd, "--"+unknown.GetSpecifiedName())
	}
	return Usage(cmd, err)
}

// dash is the answer to an argument that looks like a flag and is none.
func dash(cmd *cobra.Command, argument string) error {
	err := Usage(cmd, fmt.Errorf("%q is no flag of %s", output.Clip(argument, ShownWord), cmd.CommandPath()))
	if len(placeholders(cmd)) == 0 {
		return err
	}
	return err.WithRemedy(seeHelp(cmd) + "; arguments that begin with a dash go behind --: `" + cmd.CommandPath() +
		" [flags] -- " + strings.Join(placeholders(cmd), " ") + "`")
}

// badValue is the answer to a flag's value that its kind has no room for.
func badValue(cmd *cobra.Command, bad *pflag.InvalidValueError) error {
	flag := bad.GetFlag()
	message, remedy := "", seeHelp(cmd)
	switch flag.Value.Type() {
	case "uint16":
		message, remedy = "is no whole number from 0 to 65535", "write one in digits"
	case "uint32":
		message, remedy = "is no whole number from 0 to 4294967295", "write one in digits"
	case "uint64":
		message, remedy = "is no whole number from 0 to 18446744073709551615", "write one in digits"
	case "bool":
		message, remedy = "is neither true nor false", "write --"+flag.Name+" or --"+flag.Name+"=false"
	case "duration":
		message, remedy = "is no duration", "write a number and a unit, such as 30s or 5m"
	case "stringToString":
		message, remedy = "is not KEY=VALUE", "write KEY=VALUE, once for each"
	case "stringSlice":
		message, remedy = "is no list", `write words with commas between; one that holds a comma or a quote needs double quotes of its own`
	}
	if message != "" {
		message = fmt.Sprintf("%q %s", output.Clip(bad.GetValue(), ShownValue), message)
	} else if f, ok := fault.As(bad); ok { // A kind of ours.
		message = f.Message()
		if f.Remedy() != "" {
			remedy = f.Remedy()
		}
	} else {
		message = bad.Unwrap().Error()
	}
	return fault.New(fault.InvalidArgument, ReasonUsage, "%s", message).WithField("--" + flag.Name).WithRemedy(remedy)
}

// placeholders returns how a command calls its arguments, "KEY" and "VALUE" for `set KEY VALUE`.
func placeholders(cmd *cobra.Command) []string {
	var names []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if word == "|" || strings.HasPrefix(strings.TrimLeft(word, "[("), "-") {
			break
		}
		names = append(names, word)
	}
	return names
}

// argumentName returns the name of what a placeholder stands for: "key" for "[KEY]".
func argumentName(placeholder string) string {
	return strings.ToLower(strings.Trim(placeholder, "[]."))
}

// asTyped names what is at fault as the person who typed the command knows it.
func asTyped(cmd *cobra.Command, err error) error {
	all := leaves(err)
	for i, leaf := range all {
		if f, ok := fault.As(leaf); ok && f.Field() != "" {
			if field := typed(cmd, f); field != f.Field() {
				all[i] = renamed{leaf, f.WithField(field)}
			}
		}
	}
	return errors.Join(all...)
}

// renamed is an error whose fault is known by another field.
type renamed struct {
	error
	fault *fault.Error
}

// Error implements error.
func (r renamed) Error() string {
	old, _ := fault.As(r.error)
	return strings.TrimSuffix(r.error.Error(), old.Error()) + r.fault.Error()
}

// Unwrap leads to the fault under its new name.
func (r renamed) Unwrap() error { return r.fault }

// typed returns the flag or the argument that a fault's field stands for, or the field when it is
// none.
func typed(cmd *cobra.Command, f *fault.Error) string {
	flags := cmd.Flags()
	if f.Reason() == konsul.ReasonNotUTF8 {
		if name := notUTF8(cmd); name != "" {
			return name
		}
	}
	field := f.Field()
	if file := flags.Lookup("file"); file != nil && file.Changed {
		return field // The words are those of the file.
	}
	first, _, _ := strings.Cut(field, "[")
	branches := map[string]string{"compare": "if", "success": "", "failure": "else-"}
	if prefix, ok := branches[first]; ok && flags.Lookup("if-held") != nil {
		name := prefix
		if part := strings.Split(field, "."); first != "compare" && len(part) > 1 {
			name += strings.ReplaceAll(part[1], "_", "-")
		}
		if flags.Lookup(name) != nil {
			return "--" + name
		}
		return field
	}
	name := strings.ReplaceAll(field, "_", "-")
	flag := flags.Lookup(name)
	if flag == nil || !flag.Changed && slices.ContainsFunc(placeholders(cmd), func(word string) bool { return argumentName(word) == field }) {
		return field
	}
	return "--" + name
}

// notUTF8 returns the first word of the command line that is not UTF-8: a flag, or an argument.
func notUTF8(cmd *cobra.Command) (name string) {
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if name == "" && !utf8.ValidString(flag.Value.String()) {
			name = "--" + flag.Name
		}
	})
	names := placeholders(cmd)
	for i, argument := range cmd.Flags().Args() {
		if name == "" && len(names) > 0 && !utf8.ValidString(argument) {
			name = argumentName(names[min(i, len(names)-1)])
		}
	}
	return name
}
