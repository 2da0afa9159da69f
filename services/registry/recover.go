package registry

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/raftnode"
)

// RecoverCommand is `konsul-registry recover`: it makes one stopped server the only voter of its
// cluster.
func RecoverCommand() konsulfx.Command[Config] {
	dryRun := false
	return konsulfx.Command[Config]{
		Word: "recover", Help: "after the majority is lost for good: make this stopped server the only voter, with the data it has",
		Flags: func(flags *flag.FlagSet) {
			flags.BoolVar(&dryRun, "dry-run", false, "check the data and say what would be done, and change nothing")
		},
		Run: func(ctx context.Context, cfg Config, out io.Writer) error { return Recover(ctx, cfg, dryRun, out) },
	}
}

// Recover makes the stopped server that cfg describes the only voter of its cluster, and says so on
// out before. It refuses data that is damaged. With dryRun it says what it would do.
func Recover(ctx context.Context, cfg Config, dryRun bool, out io.Writer) (err error) {
	s, err := New(cfg, Deps{})
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	store, err := badgerstore.Open(s.cfg.Registry.storeOptions(s.dir("state"), log))
	if err != nil {
		return fmt.Errorf("open the state; is the server still running? %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	recovery, err := raftnode.PrepareRecovery(s.raftConfig(), store, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, recovery.Close()) }()
	describe(recovery, out)
	if dryRun {
		fmt.Fprintln(out, "dry run: nothing was changed")
		return nil
	}
	if err := recovery.Run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "done: %s is the only voter, with the state of index %d. Start it, then start other servers with empty data folders.\n",
		s.cfg.Registry.ID, recovery.Applied)
	return nil
}

func describe(r *raftnode.Recovery, out io.Writer) {
	fmt.Fprintf(out, "server %s: term %d, log up to index %d, state up to index %d, snapshot at index %d\n", r.Disk.ID, r.LastTerm, r.Last, r.Applied, r.Snapshot)
	var lost []string
	for _, m := range r.Members {
		vote := "voter"
		if !m.Voter {
			vote = "no vote"
		}
		fmt.Fprintf(out, "member %s at %s (%s)\n", m.ID, m.Address, vote)
		if m.ID != r.Disk.ID {
			lost = append(lost, m.ID)
		}
	}
	fmt.Fprintf(out, "The snapshot, the log and the state are whole.\n")
	fmt.Fprintf(out, "To do: apply the log up to index %d, its last writes included even if they were never acknowledged;\n", r.Last)
	fmt.Fprintf(out, "make %s the only voter; drop the log before its new snapshot; become generation %d.\n", r.Disk.ID, r.Disk.Generation+1)
	for _, id := range lost {
		fmt.Fprintf(out, "%s must not run again with the data it has: what only it acknowledged is lost.\n", id)
	}
}
