package backupfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"

	"konsul.dev/pkg/fault"
)

const ageHeader = "age-encryption.org/"

// ParseRecipients understands age recipients, "age1...". field is where they were written.
func ParseRecipients(field string, texts []string) ([]age.Recipient, error) {
	var recipients []age.Recipient
	for i, text := range texts {
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, fault.Invalid(fmt.Sprintf("%s[%d]", field, i), "%q is no age recipient", text).
				WithRemedy("use the public key that age-keygen printed, age1...").Wrap(err)
		}
		recipients = append(recipients, parsed...)
	}
	return recipients, nil
}

// ReadIdentities reads the secret keys in a file that age-keygen wrote.
func ReadIdentities(field, path string) ([]age.Identity, error) {
	bad := func(err error) error {
		return fault.Invalid(field, "holds no age identity: %v", err).WithRemedy("name the file that age-keygen wrote").Wrap(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, bad(err)
	}
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, bad(err)
	}
	return identities, nil
}

// Encrypt returns a writer whose bytes only the recipients can read, or w itself without
// recipients. Close it; that does not close w.
func Encrypt(w io.Writer, recipients []age.Recipient) (io.WriteCloser, error) {
	if len(recipients) == 0 {
		return plain{w}, nil
	}
	sealed, err := age.Encrypt(w, recipients...)
	if err != nil {
		return nil, fmt.Errorf("begin encryption: %w", err)
	}
	return sealed, nil
}

type plain struct{ io.Writer }

// Close implements io.Closer.
func (plain) Close() error { return nil }

// Encrypted reports whether a file that begins like this is encrypted.
func Encrypted(beginning []byte) bool { return bytes.HasPrefix(beginning, []byte(ageHeader)) }

// Decrypt returns the bytes of a file, encrypted or not, and whether it was. Damage shows while
// reading.
func Decrypt(src io.Reader, identities []age.Identity) (io.Reader, bool, error) {
	in := bufio.NewReaderSize(src, 64<<10)
	beginning, err := in.Peek(len(ageHeader))
	if !Encrypted(beginning) {
		if err != nil && len(beginning) == 0 {
			return nil, false, Damaged("it is empty or cannot be read: %v", err)
		}
		return in, false, nil
	}
	if len(identities) == 0 {
		return nil, true, fault.New(fault.FailedPrecondition, ReasonEncrypted, "the backup is encrypted").
			WithField("--identity").WithRemedy("name the file with the age identity of one of its recipients")
	}
	out, err := age.Decrypt(in, identities...)
	if err != nil {
		why := err
		if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
			why = errors.New("it is for none of the identities")
		}
		return nil, true, fault.New(fault.FailedPrecondition, ReasonEncrypted, "the backup cannot be decrypted").
			WithField("--identity").WithRemedy("name the file with the age identity of one of its recipients; if it is the right one, the file is damaged").Wrap(why)
	}
	return sealedReader{out}, true, nil
}

// sealedReader says of an encrypted file that was changed that it is damaged.
type sealedReader struct{ io.Reader }

// Read implements io.Reader.
func (s sealedReader) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return io.EOF itself
		err = Damaged("it cannot be decrypted: %v", err)
	}
	return n, err
}
