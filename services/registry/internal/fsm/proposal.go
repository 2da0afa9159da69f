package fsm

import (
	"fmt"
	"hash/fnv"
	"slices"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Proposal is a command on its way into the log. Several share an entry, and with it an index,
// unless they claim the same thing.
type Proposal struct {
	// Command is encoded, without time and epoch: those are the leader's to say when it writes the
	// entry.
	Command []byte
	// Claims are hashes of the rows the command puts or deletes and of its request id, odd, and of
	// the rows it only reads or compares, even. A row put twice at one index would let a
	// compare-and-set against the first value succeed over the second; one that is put and deleted
	// at one index would leave whoever waits for a change after that index waiting, and so would
	// one that is put at the index at which a command before it read it.
	Claims []uint64
	// Version is what every member must understand before the command may enter the log.
	Version uint32
}

// Outcome is what became of a proposal.
type Outcome struct {
	Result *registryv1.CommandResult
	Err    error
}

const (
	// alone is the claim of a command that shares its entry with none.
	alone = 0
	// sweep is the claim of a command that only deletes, and does not name all it deletes: it
	// shares its entry with others like it.
	sweep = 1
)

// NewProposal encodes a command. It refuses one with a string that is not UTF-8: no server could
// write down its record.
func NewProposal(cmd *registryv1.Command) (Proposal, error) {
	data, err := proto.Marshal(cmd) // MarshalVT does not check strings.
	if err != nil {
		return Proposal{}, fmt.Errorf("encode command: %w", err)
	}
	return Proposal{Command: data, Claims: claims(cmd), Version: Needs(cmd)}, nil
}

func claims(cmd *registryv1.Command) []uint64 {
	out := make([]uint64, 0, len(cmd.GetOperations())+1)
	sweeps, puts := false, false
	if id := cmd.GetRequestId(); id != "" {
		out = append(out, claim(registryv1.Table_TABLE_REQUEST, id))
	}
	for _, operation := range slices.Concat(cmd.GetOperations(), cmd.GetOtherwise()) {
		switch op := operation.GetOp().(type) {
		case *registryv1.Operation_Put:
			out, puts = append(out, claim(op.Put.GetTable(), op.Put.GetKey())), true
		case *registryv1.Operation_Replicate:
			out, puts = append(out, claim(op.Replicate.GetTable(), op.Replicate.GetKey())), true
		case *registryv1.Operation_AcquireLock:
			// Two acquisitions at one index would have one token.
			out, puts = append(out, claim(locks, op.AcquireLock.GetName())), true
		case *registryv1.Operation_Delete:
			out = append(out, claim(op.Delete.GetTable(), op.Delete.GetKey()))
		case *registryv1.Operation_DeletePrefix, *registryv1.Operation_DeleteBelow:
			sweeps = true
		case *registryv1.Operation_EndLease:
			// It deletes keys, and leaves locks that are lost, which nobody compares by their index
			// before they are read.
			sweeps = true
		case *registryv1.Operation_Get:
			out = append(out, reading(op.Get.GetTable(), op.Get.GetKey()))
		default:
			return []uint64{alone}
		}
	}
	for _, c := range cmd.GetConditions() {
		out = append(out, reading(c.GetRow().GetTable(), c.GetRow().GetKey()))
	}
	switch {
	case sweeps && puts:
		return []uint64{alone}
	case sweeps:
		out = append(out, sweep)
	}
	return out
}

// claim is that of a row which is written.
func claim(table registryv1.Table, key string) uint64 { return hash(table, key) | 1 }

// reading is the claim of a row which is not: any number of commands that do not write it may share
// an entry.
func reading(table registryv1.Table, key string) uint64 { return hash(table, key) &^ 1 }

func hash(table registryv1.Table, key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(table)})
	_, _ = h.Write([]byte(key)) // A hash takes everything.
	return max(h.Sum64(), sweep+1)
}

// mostSkipped bounds how many proposals are looked at that must wait for another entry: of
// thousands that write one row only the first can go, and asking all others each time would take
// longer than writing.
const mostSkipped = 64

// Together moves the proposals that may share an entry of at most so many bytes to the front, the
// first and those that do not conflict with anything before them, and returns how many they are: at
// least one. Otherwise the order stays.
func Together[T any](waiting []T, proposal func(T) Proposal, maxBytes int) int {
	chosen := choose(len(waiting), func(i int) Proposal { return proposal(waiting[i]) }, maxBytes)
	last := chosen[len(chosen)-1]
	rest := make([]T, 0, last+1-len(chosen))
	for i, next := 0, 0; i <= last; i++ {
		if i == chosen[next] {
			waiting[next] = waiting[i]
			next++
		} else {
			rest = append(rest, waiting[i])
		}
	}
	copy(waiting[len(chosen):], rest)
	return len(chosen)
}

// choose returns the places of the proposals that share an entry, in order.
func choose(count int, proposal func(i int) Proposal, maxBytes int) []int {
	first := proposal(0)
	chosen := append(make([]int, 0, count), 0)
	if slices.Contains(first.Claims, alone) {
		return chosen
	}
	taken := map[uint64]struct{}{}
	claim := func(p Proposal) {
		for _, c := range p.Claims {
			taken[c] = struct{}{}
		}
	}
	claim(first)
	size, sweeps, skipped := len(first.Command), slices.Contains(first.Claims, sweep), 0
	for n := 1; n < count && skipped < mostSkipped; n++ {
		p := proposal(n)
		conflicts := slices.Contains(p.Claims, sweep) != sweeps || slices.ContainsFunc(p.Claims, func(c uint64) bool {
			_, written := taken[c|1]
			_, read := taken[c&^1]
			return c == alone || c != sweep && (written || read && c&1 == 1)
		})
		claim(p) // What is skipped must come before what conflicts with it.
		if conflicts {
			skipped++
			continue
		}
		if size += len(p.Command); size > maxBytes {
			break
		}
		chosen = append(chosen, n)
	}
	return chosen
}

// DecodeEntry reads the commands of a log entry, each with the entry's time and epoch.
func DecodeEntry(data []byte) ([]*registryv1.Command, error) {
	entry, err := Decode(data)
	if err != nil {
		return nil, err
	}
	batch := entry.GetBatch()
	if len(batch) == 0 {
		return []*registryv1.Command{entry}, nil
	}
	if len(entry.GetOperations()) > 0 || len(entry.GetConditions()) > 0 {
		return nil, ErrUnknownCommand
	}
	cmds := make([]*registryv1.Command, len(batch))
	for i, data := range batch {
		cmd, err := Decode(data)
		if err != nil {
			return nil, fmt.Errorf("command %d of the entry: %w", i, err)
		}
		if len(cmd.GetBatch()) > 0 {
			return nil, ErrUnknownCommand
		}
		cmd.Time, cmd.Epoch = entry.GetTime(), entry.GetEpoch()
		cmds[i] = cmd
	}
	return cmds, nil
}
