package raftnode

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// parallelWriter is the parallel leader write of Ongaro, "Consensus: Bridging Theory and Practice",
// 10.2.1: followers write entries while the leader writes them. The Raft library sends entries once
// the leader's disk has them, so that a write waits for two disks, one after the other.
//
// It stands on both sides of the library. The leader's log hands it entries before they are
// written, and it sends them to followers as an AppendEntries of the library's own form. As the
// library's transport it returns what the follower answered when the library comes to send the same
// entries. What a follower did not take the library sends itself. The leader still counts itself
// only once its disk has the entries. If its disk fails, a later leader commits or overwrites what
// was sent, and writers get OUTCOME_UNKNOWN.
//
// TestParallelWriteHoldsWithTheRaftLibrary pins what it assumes of the library.
type parallelWriter struct {
	network
	self raft.Server
	raft atomic.Pointer[raft.Raft]
	// tail is the last entry written. Only the goroutine that writes the log uses it.
	tail entryID
	// sends are the requests in flight.
	sends sync.WaitGroup

	mu        sync.Mutex
	followers map[raft.ServerID]*follower
}

// network is what the Raft library needs of a transport.
type network interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// entryID names an entry: two logs that hold it are equal up to it.
type entryID struct{ index, term uint64 }

func lastOf(logs []*raft.Log) entryID {
	last := logs[len(logs)-1]
	return entryID{last.Index, last.Term}
}

// follower is what the leader knows of a follower's log.
type follower struct {
	// match is the last entry the follower said it has, zero if it is not known. It may have lost
	// its disk since.
	match entryID
	// unread says that the library has not been told yet that the follower took match.
	unread bool
	// inFlight is what is being sent, nil if nothing is.
	inFlight *inFlight
}

type inFlight struct {
	last entryID
	done chan struct{}
}

func newParallelWriter(c Config) *parallelWriter {
	self := raft.Server{ID: raft.ServerID(c.ID), Address: raft.ServerAddress(c.Advertise)}
	return &parallelWriter{self: self, followers: map[raft.ServerID]*follower{}}
}

// header is the header of each message of a leader.
func (p *parallelWriter) header() raft.RPCHeader {
	return raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(p.self.ID), Addr: p.EncodePeer(p.self.ID, p.self.Address),
	}
}

// write sends entries to the followers and writes them to the own log with toDisk.
func (p *parallelWriter) write(logs []*raft.Log, toDisk func([]*raft.Log) error) error {
	if p.send(logs) {
		// The senders run before this goroutine blocks in fsync with its processor: another thread
		// would need 100 us to take the processor away and find them.
		runtime.Gosched()
	}
	if err := toDisk(logs); err != nil {
		return err
	}
	if len(logs) > 0 {
		p.tail = lastOf(logs)
	}
	return nil
}

// AppendEntriesPipeline implements raft.Transport without a pipeline: one request with entries is
// in flight to each follower.
func (p *parallelWriter) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport. It succeeds without a message if the follower took these
// entries already.
func (p *parallelWriter) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(args.Entries) == 0 {
		return p.network.AppendEntries(id, target, args, resp)
	}
	last := entryID{args.Entries[len(args.Entries)-1].Index, args.Term}
	if p.took(id, last) {
		*resp = raft.AppendEntriesResponse{RPCHeader: args.RPCHeader, Term: args.Term, LastLog: last.index, Success: true}
		return nil
	}
	err := p.network.AppendEntries(id, target, args, resp)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.follower(id).sent(last, err == nil && resp.Success)
	return err
}

// follower returns a follower; p.mu is held.
func (p *parallelWriter) follower(id raft.ServerID) *follower {
	f := p.followers[id]
	if f == nil {
		f = &follower{}
		p.followers[id] = f
	}
	return f
}

func (f *follower) sent(last entryID, success bool) {
	f.match = entryID{}
	if success {
		f.match = last
	}
}

// took reports whether a follower took entries up to last, after waiting for them if they are in
// flight. It reports so once: a follower that comes back with an empty disk is asked by the library
// again.
func (p *parallelWriter) took(id raft.ServerID, last entryID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.follower(id)
	if sending := f.inFlight; sending != nil && sending.last == last {
		p.mu.Unlock()
		<-sending.done
		p.mu.Lock()
	}
	took := f.unread && f.match == last
	f.unread = false
	return took
}

// send sends entries that are about to be written to each follower that has all before them. It
// reports whether there is any.
func (p *parallelWriter) send(logs []*raft.Log) (sends bool) {
	r := p.raft.Load()
	if r == nil || len(logs) == 0 || r.State() != raft.Leader || !p.follows(logs[0]) {
		return false
	}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.ID == p.self.ID {
			continue
		}
		sending := p.begin(s.ID, p.tail.index, lastOf(logs))
		if sending == nil {
			continue
		}
		request := &raft.AppendEntriesRequest{
			RPCHeader: p.header(), Term: sending.last.term,
			PrevLogEntry: p.tail.index, PrevLogTerm: p.tail.term, Entries: logs, LeaderCommitIndex: r.CommitIndex(),
		}
		p.sends.Go(func() { p.carry(s, request, sending) })
		sends = true
	}
	return sends
}

// follows reports whether an entry is the next one to what this server wrote last in the same term.
// What comes before others may be from an earlier leader, or a restore that leaps over indexes
// within a term.
func (p *parallelWriter) follows(entry *raft.Log) bool {
	return p.tail.term == entry.Term && p.tail.index+1 == entry.Index
}

// begin notes that entries up to last go to a follower. It returns nil if the follower may lack the
// entry before, or a request to it is in flight.
func (p *parallelWriter) begin(id raft.ServerID, before uint64, last entryID) *inFlight {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.follower(id)
	if f.inFlight != nil || f.match.term != last.term || f.match.index < before {
		return nil
	}
	f.unread = false
	f.inFlight = &inFlight{last: last, done: make(chan struct{})}
	return f.inFlight
}

func (p *parallelWriter) carry(s raft.Server, request *raft.AppendEntriesRequest, sending *inFlight) {
	response := &raft.AppendEntriesResponse{}
	err := p.network.AppendEntries(s.ID, s.Address, request, response)
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.follower(s.ID)
	f.inFlight = nil
	f.sent(sending.last, err == nil && response.Success)
	f.unread = err == nil && response.Success
	close(sending.done)
}
