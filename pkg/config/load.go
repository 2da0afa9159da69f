package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	yamlparser "github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"

	"konsul.dev/pkg/fault"
)

// Options says where configuration comes from.
type Options struct {
	// Files are YAML files, later ones win.
	Files []string
	// Environ is the environment as os.Environ gives it.
	Environ []string
	// Aliases maps environment variables with names of their own to keys.
	Aliases map[string]string
	// Sets are key=value pairs from the command line; values are YAML.
	Sets []string
}

// Loadable is a service's configuration: a struct that embeds Base and knows its own rules.
type Loadable interface {
	// Settings returns the shared part.
	Settings() *Base
	// Normalize fills what follows from other settings.
	Normalize()
	// Validate reports every problem at once.
	Validate() error
}

const envPrefix = "KONSUL_"

// sections are the top-level keys a konsul.yaml may have, whoever reads it.
func sections() []string {
	return []string{
		"server", "endpoints", "telemetry",
		"registry", "wan_gossip", "replicator", "ca", "gateway", "failover_router", "agent",
	}
}

// Load fills *out, which holds the defaults, from the sources. It names every unknown key at once.
func Load(out any, opts Options) error {
	k := koanf.New(".")
	for _, path := range opts.Files {
		if err := k.Load(file.Provider(path), yamlparser.Parser()); err != nil {
			return badFile(path, err)
		}
	}
	env, err := fromEnviron(opts.Environ, opts.Aliases)
	if err != nil {
		return err
	}
	flags, err := fromSets(opts.Sets)
	if err != nil {
		return err
	}
	for _, layer := range []map[string]any{env, flags} {
		if err := k.Load(confmap.Provider(layer, "."), nil); err != nil {
			return fmt.Errorf("merge configuration: %w", err)
		}
	}
	if r, ok := out.(retiring); ok {
		r.Settings().retire(k, r.RetiredKeys())
	}
	return decode(k, out)
}

// retiring is a configuration that takes keys of older files.
type retiring interface {
	Loadable
	// RetiredKeys maps keys that have no effect any more to what to do instead.
	RetiredKeys() map[string]string
}

// retire takes retired keys away and notes them.
func (b *Base) retire(k *koanf.Koanf, keys map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if k.Exists(key) {
			k.Delete(key)
			b.notes = append(b.notes, key+" has no effect: "+keys[key])
		}
	}
}

// ConfigNotes says what --check-config finds that is no mistake.
func (b *Base) ConfigNotes() []string { return b.notes }

func decode(k *koanf.Koanf, out any) error {
	own := ownSections(reflect.TypeOf(out).Elem())
	var errs []error
	tree := map[string]any{}
	for name, value := range k.Raw() {
		switch {
		case slices.Contains(own, name):
			tree[name] = value
		case !slices.Contains(sections(), name):
			errs = append(errs, fault.Invalid(name, "unknown section").WithRemedy("sections are "+strings.Join(sections(), ", ")))
		}
	}
	var meta mapstructure.Metadata
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result: out, TagName: "koanf", Squash: true, WeaklyTypedInput: true, Metadata: &meta,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			fitting,
			mapstructure.StringToTimeDurationHookFunc(),
			mapstructure.StringToSliceHookFunc(","),
			mapstructure.TextUnmarshallerHookFunc(),
		),
	})
	if err != nil {
		return fmt.Errorf("prepare configuration decoder: %w", err)
	}
	if err := decoder.Decode(tree); err != nil {
		errs = append(errs, badValues(err, k, reflect.TypeOf(out).Elem())...)
	}
	slices.Sort(meta.Unused)
	for _, key := range meta.Unused {
		errs = append(errs, fault.Invalid(key, "unknown key").WithRemedy("remove it, or correct its spelling"))
	}
	return errors.Join(errs...)
}

func ownSections(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("koanf"), ",")
		switch {
		case name != "":
			names = append(names, name)
		case field.Anonymous:
			names = append(names, ownSections(field.Type)...)
		}
	}
	return names
}

func fromEnviron(environ []string, aliases map[string]string) (map[string]any, error) {
	values := map[string]any{}
	for _, pair := range environ {
		name, text, _ := strings.Cut(pair, "=")
		key, known := aliases[name]
		if !known {
			rest, ours := strings.CutPrefix(name, envPrefix)
			if !ours || !strings.Contains(rest, "__") {
				continue
			}
			key = strings.ToLower(strings.ReplaceAll(rest, "__", "."))
		}
		value, err := scalar(text)
		if err != nil {
			return nil, fault.Invalid(name, "%v", err).WithRemedy("give a YAML value")
		}
		values[key] = value
	}
	return values, nil
}

func fromSets(sets []string) (map[string]any, error) {
	values := map[string]any{}
	for _, pair := range sets {
		key, text, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fault.Invalid("--set", "%q is no key=value", pair).WithRemedy("write --set server.datacenter=us-east")
		}
		value, err := scalar(text)
		if err != nil {
			return nil, fault.Invalid("--set "+key, "%v", err).WithRemedy("give a YAML value")
		}
		values[key] = value
	}
	return values, nil
}

func scalar(text string) (any, error) {
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return nil, fmt.Errorf("parse %q: %w", text, err)
	}
	if value == nil {
		return "", nil
	}
	return value, nil
}

// LoadService loads, normalizes and validates a service's configuration.
func LoadService(cfg Loadable, opts Options) error {
	if opts.Environ == nil {
		opts.Environ = os.Environ()
	}
	if aliased, ok := cfg.(interface{ EnvAliases() map[string]string }); ok {
		opts.Aliases = aliased.EnvAliases()
	}
	if err := Load(cfg, opts); err != nil {
		return err
	}
	cfg.Normalize()
	return cfg.Validate()
}
