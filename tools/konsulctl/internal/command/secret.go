package command

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"konsul.dev/pkg/fault"
)

// secretBytes is the length of a datacenter secret.
const secretBytes = 32

func (a *app) secret() *cobra.Command {
	return group(&cobra.Command{
		Use: "secret", Short: "Make datacenter secrets",
		Example: "  konsulctl secret generate --out us-east.secret",
	}, a.secretGenerate())
}

func (a *app) secretGenerate() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "generate", Short: "Make the secret of a datacenter",
		Long: `Make the secret of a datacenter, 32 random bytes as base64, on this machine: no gateway is asked. It is written
to standard output, or with --out to a new file that only you can read. Give every service of the
datacenter the file as server.secret_file; with it they get their first certificates.`,
		Example: "  konsulctl secret generate --out us-east.secret",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			return a.secretTo(out, func() (string, error) {
				secret := make([]byte, secretBytes)
				if _, err := rand.Read(secret); err != nil {
					return "", fmt.Errorf("read random bytes: %w", err)
				}
				return base64.StdEncoding.EncodeToString(secret), nil
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write the secret to this new file")
	return cmd
}

// secretTo writes what produce answers to standard output, or to a new file of the user's own. The file
// is made first: a secret that exists only once must have a place to go.
func (a *app) secretTo(path string, produce func() (string, error)) (err error) {
	if path == "" {
		secret, err := produce()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.Out, strings.TrimSuffix(secret, "\n"))
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.Invalid("--out", "cannot be made").Wrap(err).WithRemedy("name a file that does not exist, in a folder that does")
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			_ = os.Remove(path)
		}
	}()
	secret, err := produce()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(file, strings.TrimSuffix(secret, "\n")); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
