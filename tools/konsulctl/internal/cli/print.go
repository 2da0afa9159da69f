package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Print writes an answer. A table says what its document says in meta: how old it is, and that rows
// were left out.
func (a *App) Print(document any, table func(*output.Grid)) error {
	meta := readMeta(document)
	if meta.GetResultsFiltered() && a.Format == output.Table {
		a.Note("rows may be missing here: the token may not read all of them")
	}
	return a.Format.Write(a.Out, document, func(g *output.Grid) {
		table(g)
		if age := a.Age(meta); age != "" {
			g.Line("%s", age)
		}
	})
}

// readMeta returns what an answer says of itself; nil: nothing.
func readMeta(document any) *registryv1.QueryMeta {
	if answer, ok := document.(interface{ GetMeta() *registryv1.QueryMeta }); ok {
		return answer.GetMeta()
	}
	return nil
}

// oldCopy is from when on a copy of the primary's records is older than a healthy one ever is.
const oldCopy = 5 * time.Second

// Age says how old an answer is: if any server was allowed to give it, and of a copy that has
// fallen behind; else nothing.
func (a *App) Age(meta *registryv1.QueryMeta) string {
	if meta == nil {
		return ""
	}
	var said []string
	if a.stale {
		contact := (time.Duration(meta.GetLastContactMs()) * time.Millisecond).String()
		said = append(said, "stale read: the server heard from its leader "+contact+" ago")
		if !meta.GetKnownLeader() {
			said = append(said, "it knows none now")
		}
	}
	if age := meta.GetCopyAge(); age != nil && (a.stale || age.AsDuration() > oldCopy) {
		said = append(said, "this copy of the primary's records is "+age.AsDuration().Round(100*time.Millisecond).String()+" old")
	}
	return strings.Join(said, "; ")
}

// Note tells a person something beside the answer.
func (a *App) Note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.Format != output.Table {
		a.beside(map[string]string{"note": text})
		return
	}
	_, _ = fmt.Fprintln(a.Err, "konsulctl: "+output.Printable(text))
}

// beside writes a document to standard error: one line of JSON, or a document of YAML.
func (a *App) beside(document any) {
	if a.Format == output.YAML {
		_, _ = fmt.Fprintln(a.Err, "---")
		_ = a.Format.Write(a.Err, document, nil) // Nobody is left to tell.
		return
	}
	_ = json.NewEncoder(a.Err).Encode(document)
}

// PrintWithout writes the document of an answer whose secret went into a file. In a table the note
// has said it all.
func (a *App) PrintWithout(secret protoreflect.Name, answer proto.Message) error {
	if a.Format == output.Table {
		return nil
	}
	shown := proto.Clone(answer).ProtoReflect()
	shown.Clear(shown.Descriptor().Fields().ByName(secret))
	return a.Print(shown.Interface(), nil)
}

// SecretTo writes what produce answers to standard output, or to a new file of the user's own. The
// file is made first: a secret that exists only once must have a place to go.
func (a *App) SecretTo(path string, produce func() (string, error)) (err error) {
	if path == "" {
		secret, err := produce()
		if err != nil {
			return err
		}
		if secret = strings.TrimSuffix(secret, "\n"); a.Format != output.Table {
			return a.Print(map[string]string{"secret": secret}, nil)
		}
		_, err = fmt.Fprintln(a.Out, secret)
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
