package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"konsul.dev/tools/lab/internal/plan"
	"konsul.dev/tools/lab/internal/secret"
)

// writeFiles writes secrets, configuration and service definitions. Kept secrets stay as they are.
func (l *Lab) writeFiles(reused bool) error {
	for _, dc := range l.layout.Datacenters {
		if err := os.MkdirAll(dc.ServicesDir(), 0o700); err != nil {
			return fmt.Errorf("make folder of %s: %w", dc.Name, err)
		}
		if !reused {
			if err := write(dc.SecretFile(), []byte(secret.New())); err != nil {
				return err
			}
		}
		if err := l.writeKeys(dc); err != nil {
			return err
		}
		if err := l.writeConfig(dc); err != nil {
			return err
		}
	}
	primary := l.layout.Primary()
	if !reused {
		if err := write(primary.TokenFile(), []byte(secret.New())); err != nil {
			return err
		}
	}
	token, err := os.ReadFile(primary.TokenFile())
	if err != nil {
		return fmt.Errorf("read management token: %w", err)
	}
	l.token = strings.TrimSpace(string(token))
	return nil
}

// writeKeys writes what the processes have in place of the datacenter secret.
func (l *Lab) writeKeys(dc plan.Datacenter) error {
	text, err := os.ReadFile(dc.SecretFile())
	if err != nil {
		return fmt.Errorf("read the secret of %s: %w", dc.Name, err)
	}
	if err := os.MkdirAll(dc.KeysDir(), 0o700); err != nil {
		return fmt.Errorf("make folder of %s: %w", dc.Name, err)
	}
	for _, h := range l.layout.Keys(dc) {
		key, err := secret.Key(string(text), h)
		if err != nil {
			return err
		}
		if err := write(dc.KeyFile(h.Component), []byte(key)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) writeConfig(dc plan.Datacenter) error {
	text, err := l.layout.Config(dc)
	if err != nil {
		return err
	}
	if err := write(dc.ConfigFile(), text); err != nil {
		return err
	}
	definitions, err := l.layout.Definitions(dc)
	if err != nil {
		return err
	}
	for name, text := range definitions {
		if err := write(filepath.Join(dc.ServicesDir(), name), text); err != nil {
			return err
		}
	}
	return nil
}

// writeEnv writes the settings for scripts, to be read with `. FILE`.
func (l *Lab) writeEnv(dc plan.Datacenter) error {
	return write(dc.EnvFile(), []byte(secret.Env(dc.URL(), l.token, dc.RootsFile())))
}

// writePIDs writes the processes that run now, one a line.
func (l *Lab) writePIDs(s *site) error {
	var text []byte
	for _, p := range s.group.Members() {
		text = fmt.Appendf(text, "%d\n", p.PID())
	}
	return write(s.PIDFile(), text)
}

// write replaces a file as a whole, so that a reader never sees half of it.
func write(path string, text []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return fmt.Errorf("write a lab's file: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write a lab's file: %w", err)
	}
	return nil
}
