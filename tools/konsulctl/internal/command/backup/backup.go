// Package backup has konsulctl's commands that make, check and restore backups.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the backup command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "backup", Short: "Back up a datacenter's registry, and restore it",
		Long: `Back up everything a datacenter's registry holds, and restore it into the same or another datacenter.

A backup holds the values of all keys and the hashes of all tokens: keep it like them, or encrypt it with
--recipient (age; make keys with age-keygen). Join tokens are not in it.`,
		Example: "  konsulctl backup create --file backup-us-east.tar.gz\n  konsulctl backup restore --file backup-us-east.tar.gz --datacenter us-east-new",
	}, create(a), inspect(a), verify(a), restore(a), list(a))
}

// backupMessage is how many bytes of a file travel together.
const messageBytes = 256 << 10

func create(a *cli.App) *cobra.Command {
	var file, base, datacenter, identity string
	var recipients []string
	cmd := &cobra.Command{
		Use: "create", Short: "Back up a datacenter's registry",
		Long: `Write the state of a datacenter's registry, as it is at one index, to a file. The file gets its name when it is whole
and has been checked. With --file - it goes to standard output: look at the exit code, or verify it where it arrives.

With --base only what changed since that backup is written; restoring takes both. The registry remembers deletions for
about 65,000 changes: a base from before that is refused, and a full backup is what helps.`,
		Example: `  konsulctl backup create --file backup-us-east.tar.gz
  konsulctl backup create --file monday.tar.gz --base sunday.tar.gz
  konsulctl backup create --file - | ssh vault 'cat > backup-us-east.tar.gz'
  konsulctl backup create --file backup.tar.gz.age --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, err := backupfile.ParseRecipients("--recipient", recipients)
			if err != nil {
				return err
			}
			if file == "" {
				return fault.Invalid("--file", "is missing").WithRemedy("name the file to write, such as backup-us-east.tar.gz")
			}
			req := &registryv1.CreateBackupRequest{Datacenter: cli.Named(datacenter)}
			if base != "" {
				m, _, _, err := verifyFile(base, identity)
				if err != nil {
					return err
				}
				req.Base = &registryv1.BackupBase{Id: m.ID, Index: m.Index, FederationId: m.FederationID, DatacenterId: m.DatacenterID, Generation: m.Generation}
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				stream, err := api.Backup.CreateBackup(ctx, req)
				if err != nil {
					return err
				}
				m, seal, err := write(a, file, to, &received{next: stream.Recv})
				if err != nil {
					return err
				}
				if file == standard {
					a.Note("backup %s of %s at index %d, sha256 %s", m.ID, m.Datacenter, m.Index, seal.SHA256)
					return nil
				}
				return show(a, file, m, seal, len(to) > 0)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "file", "", "file to write, - for standard output")
	flags.StringVar(&base, "base", "", "write only what changed since the backup in this file")
	flags.StringArrayVar(&recipients, "recipient", nil, "encrypt for this age public key; may be given again")
	flags.StringVar(&identity, "identity", "", "file with the age identity, if the base is encrypted")
	a.DatacenterFlag(cmd, &datacenter, "datacenter to back up (default: the gateway's)")
	return cmd
}

// received is the stream of a backup as a reader.
type received struct {
	next func() (*registryv1.CreateBackupResponse, error)
	rest []byte
}

// Read implements io.Reader.
func (r *received) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.next()
		if err != nil {
			return 0, err
		}
		r.rest = m.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// standard stands for standard output where a file is named.
const standard = "-"

// writeBackup lays a backup down under its name once it is whole.
func write(a *cli.App, path string, to []age.Recipient, src io.Reader) (m backupfile.Manifest, seal backupfile.Seal, err error) {
	if path == standard {
		return copyBackup(a, a.Out, to, src)
	}
	part, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		if at := (*fs.PathError)(nil); errors.As(err, &at) {
			err = at.Err // The name of the part says nothing to whoever reads this.
		}
		return m, seal, fault.Invalid("--file", "cannot be written").WithRemedy("name a file in a folder that exists and may be written").Wrap(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(part.Close()), os.Remove(part.Name()))
		}
	}()
	if m, seal, err = copyBackup(a, part, to, src); err != nil {
		return m, seal, err
	}
	if err = errors.Join(part.Sync(), part.Close()); err != nil {
		return m, seal, fmt.Errorf("write %s: %w", path, err)
	}
	if err = os.Rename(part.Name(), path); err != nil {
		return m, seal, fmt.Errorf("name %s: %w", path, err)
	}
	return m, seal, nil
}

// copyBackup writes a backup, encrypted if need be, and checks it while it does.
func copyBackup(a *cli.App, w io.Writer, to []age.Recipient, src io.Reader) (m backupfile.Manifest, seal backupfile.Seal, err error) {
	sealed, err := backupfile.Encrypt(w, to)
	if err != nil {
		return m, seal, err
	}
	p := &progress{app: a, what: "received"}
	if m, seal, err = backupfile.Verify(io.TeeReader(io.TeeReader(src, p), sealed)); err != nil {
		return m, seal, err
	}
	p.end()
	if err = sealed.Close(); err != nil {
		return m, seal, fmt.Errorf("write the backup: %w", err)
	}
	return m, seal, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// progress says now and then how far a long transfer is.
type progress struct {
	app   *cli.App
	what  string
	bytes int64
	said  time.Time
	told  bool
}

const progressEvery = 2 * time.Second

// Write implements io.Writer.
func (p *progress) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	now := time.Now()
	if p.said.IsZero() {
		p.said = now
	}
	if now.Sub(p.said) >= progressEvery {
		p.said, p.told = now, true
		p.app.Note("%s %d MiB", p.what, p.bytes>>20)
	}
	return len(b), nil
}

// end completes what was said, if anything was.
func (p *progress) end() {
	if p.told {
		p.app.Note("%s %d MiB, all of it", p.what, p.bytes>>20)
	}
}

// openBackup returns the bytes of a backup file, decrypted.
func open(path, identity string) (io.ReadCloser, bool, error) {
	var keys []age.Identity
	if identity != "" {
		var err error
		if keys, err = backupfile.ReadIdentities("--identity", identity); err != nil {
			return nil, false, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, fault.Invalid("file", "%s cannot be read", path).WithRemedy("name a backup that exists").Wrap(err)
	}
	plain, encrypted, err := backupfile.Decrypt(f, keys)
	if err != nil {
		return nil, encrypted, errors.Join(err, f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{plain, f}, encrypted, nil
}

func verifyFile(path, identity string) (backupfile.Manifest, backupfile.Seal, bool, error) {
	f, encrypted, err := open(path, identity)
	if err != nil {
		return backupfile.Manifest{}, backupfile.Seal{}, encrypted, fmt.Errorf("%s: %w", path, err)
	}
	m, seal, err := backupfile.Verify(f)
	if err = errors.Join(err, f.Close()); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return m, seal, encrypted, err
}

// backupDocument is a backup as -o json and -o yaml show it.
type document struct {
	File      string              `json:"file" yaml:"file"`
	Encrypted bool                `json:"encrypted" yaml:"encrypted"`
	Manifest  backupfile.Manifest `json:"manifest" yaml:"manifest"`
	Seal      backupfile.Seal     `json:"seal" yaml:"seal"`
}

func show(a *cli.App, file string, m backupfile.Manifest, seal backupfile.Seal, encrypted bool) error {
	return a.Print(document{file, encrypted, m, seal}, func(g *output.Grid) {
		g.Line("%s", file)
		g.Row("backup", m.ID)
		if m.Base != nil {
			g.Row("increment on", fmt.Sprintf("%s at index %d", m.Base.ID, m.Base.Index))
		}
		g.Row("datacenter", m.Datacenter)
		g.Row("datacenter id", m.DatacenterID)
		g.Row("federation", m.FederationID)
		g.Row("index", fmt.Sprint(m.Index))
		g.Row("epoch", fmt.Sprint(m.Epoch))
		g.Row("created", m.CreatedAt.UTC().Format(time.RFC3339))
		g.Row("konsul version", m.Version)
		g.Row("format", fmt.Sprint(m.Format))
		g.Row("encrypted", cli.Yes(encrypted))
		g.Row("sha256", seal.SHA256)
		for _, table := range tablesOf(seal) {
			g.Row("rows "+table, fmt.Sprintf("%d, %d deleted", seal.Rows[table], seal.Tombstones[table]))
		}
	})
}

func tablesOf(seal backupfile.Seal) []string {
	var tables []string
	for table := range seal.Rows {
		tables = append(tables, table)
	}
	for table := range seal.Tombstones {
		tables = append(tables, table)
	}
	slices.Sort(tables)
	return slices.Compact(tables)
}

// backupFiles are files that are named as arguments, or with --file as those to restore have to be.
type backupFiles []string

func (f *backupFiles) flag(cmd *cobra.Command, what string) {
	cmd.Flags().StringArrayVar((*[]string)(f), "file", nil, what)
}

// args takes at most so many files in all, and asks for one.
func (f *backupFiles) args(most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		*f = append(*f, args...)
		switch files := *f; {
		case len(files) == 0:
			return cli.Usage(cmd, errors.New("FILE is missing"))
		case len(files) > most:
			return cli.Usage(cmd, fmt.Errorf("too many files from %q on", files[most]))
		}
		return nil
	}
}

func inspect(a *cli.App) *cobra.Command {
	var identity string
	var files backupFiles
	cmd := &cobra.Command{
		Use: "inspect FILE", Short: "Show what a backup is of and how much is in it",
		Long: `Show the manifest of a backup and how many rows of each table it holds. It reads and checks the whole file, and needs no
server.`,
		Example: "  konsulctl backup inspect backup-us-east.tar.gz\n  konsulctl backup inspect backup.tar.gz.age --identity key.txt -o json",
		Args:    files.args(1),
		RunE: func(*cobra.Command, []string) error {
			m, seal, encrypted, err := verifyFile(files[0], identity)
			if err != nil {
				return err
			}
			return show(a, files[0], m, seal, encrypted)
		},
	}
	files.flag(cmd, "the backup, instead of FILE")
	cmd.Flags().StringVar(&identity, "identity", "", "file with the age identity of an encrypted backup")
	return cmd
}

func verify(a *cli.App) *cobra.Command {
	var identity string
	var files backupFiles
	cmd := &cobra.Command{
		Use: "verify FILE...", Short: "Check that backups are whole",
		Long: `Read backups to their end and check every checksum. Several files are checked as a chain too: a full backup and the increments
on it, in order. It needs no server. Exit code 1 says that one of them is damaged or does not belong.`,
		Example: "  konsulctl backup verify backup-us-east.tar.gz\n  konsulctl backup verify sunday.tar.gz monday.tar.gz",
		Args:    files.args(math.MaxInt),
		RunE: func(*cobra.Command, []string) error {
			chain, documents := make([]backupfile.Manifest, len(files)), make([]document, len(files))
			for i, path := range files {
				m, seal, encrypted, err := verifyFile(path, identity)
				if err != nil {
					return err
				}
				chain[i], documents[i] = m, document{path, encrypted, m, seal}
			}
			// One file alone may well be an increment.
			if len(files) > 1 {
				if err := backupfile.CheckChain(chain); err != nil {
					return err
				}
			}
			return a.Print(documents, func(g *output.Grid) {
				for _, d := range documents {
					g.Line("%s is whole: %s at index %d", d.File, d.Manifest.Datacenter, d.Manifest.Index)
				}
			})
		},
	}
	files.flag(cmd, "a backup, instead of FILE; repeatable")
	cmd.Flags().StringVar(&identity, "identity", "", "file with the age identity of encrypted backups")
	return cmd
}

func restore(a *cli.App) *cobra.Command {
	var files backupFiles
	var datacenter, identity string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "restore FILE...", Short: "Replace a datacenter's registry by a backup",
		Long: `Replace everything a datacenter's registry holds by a backup. Give an increment's base and the increments before it too, oldest
first. The files are checked here and again by the registry before anything changes.

With --datacenter a backup of one datacenter is restored into another: its rows become that datacenter's. Without it
the backup must be of the gateway's datacenter. The datacenter keeps who it is: its federation, its servers, its members
and its trust anchors; a secondary also keeps its global rows, which are the primary's. Whoever reads or watches is told
to begin anew, and no index goes back.

Tokens are the backup's again; the initial management token and the one used for this go on working.`,
		Example: `  konsulctl backup restore --file backup-us-east.tar.gz
  konsulctl backup restore --file backup-us-east.tar.gz --datacenter us-east-new
  konsulctl backup restore --file sunday.tar.gz --file monday.tar.gz --dry-run`,
		Args: files.args(math.MaxInt),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var chain []backupfile.Manifest
			for _, path := range files {
				m, _, _, err := verifyFile(path, identity)
				if err != nil {
					return err
				}
				chain = append(chain, m)
			}
			if err := backupfile.CheckChain(chain); err != nil {
				return err
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := sendFiles(ctx, a, api, files, identity, &registryv1.RestoreStart{Datacenter: datacenter, DryRun: dryRun})
				if err != nil {
					return err
				}
				for _, text := range answer.GetNotes() {
					a.Note("%s", text)
				}
				return a.Print(answer, func(g *output.Grid) { restoreTable(g, answer) })
			})
		},
	}
	files.flag(cmd, "a backup, instead of FILE; give increments after their base")
	flags := cmd.Flags()
	flags.StringVar(&identity, "identity", "", "file with the age identity of encrypted backups")
	flags.BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	a.DatacenterFlag(cmd, &datacenter, "datacenter to restore into (default: the gateway's, which must be the backup's)")
	return cmd
}

func restoreTable(g *output.Grid, answer *registryv1.RestoreBackupResponse) {
	if answer.GetDryRun() {
		g.Line("nothing was changed: this is what restoring %s of index %d into %s would bring", answer.GetSourceDatacenter(), answer.GetBackupIndex(), answer.GetDatacenter())
	} else {
		g.Line("restored %s of index %d into %s, at index %d", answer.GetSourceDatacenter(), answer.GetBackupIndex(), answer.GetDatacenter(), answer.GetIndex())
	}
	for _, t := range answer.GetRestored() {
		g.Row(t.GetTable(), fmt.Sprint(t.GetRows()))
	}
	g.Row("kept", fmt.Sprint(answer.GetKept()))
}

// sendBackups brings the files to the registry and returns what it says.
func sendFiles(ctx context.Context, a *cli.App, api konsul.API, files []string, identity string, start *registryv1.RestoreStart) (*registryv1.RestoreBackupResponse, error) {
	stream, err := api.Backup.RestoreBackup(ctx)
	if err != nil {
		return nil, err
	}
	p := &progress{app: a, what: "sent"}
	// A refused message ends in an answer that says why.
	err = stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Start{Start: start}})
	for _, path := range files {
		if err != nil {
			break
		}
		if err = sendFile(stream.Send, path, identity, p); errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	p.end()
	return stream.CloseAndRecv()
}

// sendBackup sends a file; io.EOF says that the registry wants no more.
func sendFile(send func(*registryv1.RestoreBackupRequest) error, path, identity string, p *progress) (err error) {
	f, _, err := open(path, identity)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		piece := make([]byte, messageBytes)
		n, err := io.ReadFull(f, piece)
		if n > 0 {
			if err := send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Data{Data: piece[:n]}}); err != nil {
				return err
			}
			_, _ = p.Write(piece[:n])
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_End{End: &registryv1.BackupFileEnd{}}})
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
}

func list(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "list", Short: "List the backups that the servers' schedule has kept",
		Long: `List the backups that the servers' schedule (registry.backup) has made and kept, on each server. Copy one from its server to restore
it. JSON is that of GET /api/v1/backups.`,
		Example: "  konsulctl backup list\n  konsulctl backup list --datacenter us-west -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Backup.ListBackups(ctx, &registryv1.ListBackupsRequest{Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				if silent := answer.GetUnreachable(); len(silent) > 0 {
					a.Note("no answer from %s", strings.Join(silent, ", "))
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("SERVER", "CREATED", "INDEX", "BYTES", "KIND", "ENCRYPTED", "PATH")
					for _, b := range answer.GetBackups() {
						kind := "full"
						if b.GetBaseId() != "" {
							kind = "increment"
						}
						g.Row(b.GetServer(), b.GetCreatedAt().AsTime().Format(time.RFC3339), fmt.Sprint(b.GetIndex()), fmt.Sprint(b.GetBytes()),
							kind, cli.Yes(b.GetEncrypted()), b.GetPath())
					}
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}
