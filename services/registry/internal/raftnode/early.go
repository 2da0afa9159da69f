package raftnode

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// early lets followers write entries while the leader writes them too (Ongaro's thesis "Consensus: Bridging
// Theory and Practice", 10.2.1: "Writing to the leader's disk in parallel"). The Raft library sends entries
// after the leader's disk has them, so that a write waits for two disks, one after the other.
//
// When the leader's log is handed entries, they go to the followers as an AppendEntries such as the library sends.
// When the library comes to send them, it gets the answer that the follower gave. What a follower did not take the
// library sends itself. The leader counts itself only after its disk has the entries, as ever: a leader whose disk fails
// has sent what a later leader may commit or overwrite, and whoever waits hears that the outcome is unknown.
type early struct {
	network
	own  raft.Server
	raft atomic.Pointer[raft.Raft]
	// tail is the last entry that was written; only the goroutine that writes the log uses it.
	tail position
	// sends are those that are on their way.
	sends sync.WaitGroup

	mu    sync.Mutex
	peers map[raft.ServerID]*taker
}

// network is what the Raft library asks of a transport.
type network interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// taker is a follower that is sent entries.
type taker struct {
	// term and index are up to where the follower's log was the leader's when it last answered: it is worth while to
	// send what comes next. It may have lost its disk since.
	term, index uint64
	// took is what it last took; the library has not asked for it yet.
	took position
	// sending is what is on its way; nil if nothing is.
	sending *sending
}

type sending struct {
	last position
	done chan struct{}
}

func newEarly(c Config) *early {
	own := raft.Server{ID: raft.ServerID(c.ID), Address: raft.ServerAddress(c.Advertise)}
	return &early{own: own, peers: map[raft.ServerID]*taker{}}
}

// header is what the library puts at the beginning of each message.
func (e *early) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(e.own.ID), Addr: e.EncodePeer(e.own.ID, e.own.Address)}
}

// AppendEntriesPipeline answers that there is none: of the log's entries one is on its way at a time, and a
// pipeline would only have two more goroutines pass each answer on.
func (e *early) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries answers for a follower that has the entries already, and asks it otherwise.
func (e *early) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(args.Entries) == 0 {
		return e.network.AppendEntries(id, target, args, resp)
	}
	last := position{args.Entries[len(args.Entries)-1].Index, args.Term}
	if e.took(id, last) {
		*resp = raft.AppendEntriesResponse{RPCHeader: args.RPCHeader, Term: args.Term, LastLog: last.index, Success: true}
		return nil
	}
	err := e.network.AppendEntries(id, target, args, resp)
	e.note(id, last, err == nil && resp.Success)
	return err
}

func (e *early) peer(id raft.ServerID) *taker {
	p := e.peers[id]
	if p == nil {
		p = &taker{}
		e.peers[id] = p
	}
	return p
}

// settled waits until nothing is on its way to a follower.
func (e *early) settled(id raft.ServerID) {
	e.mu.Lock()
	s := e.peer(id).sending
	e.mu.Unlock()
	if s != nil {
		<-s.done
	}
}

// took says whether a follower took entries up to here, after waiting for what is on its way. It says so once, for
// the entries that were sent and no others: a follower that comes back with an empty disk has none that it had.
func (e *early) took(id raft.ServerID, last position) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peer(id)
	if s := p.sending; s != nil && s.last == last {
		e.mu.Unlock()
		<-s.done
		e.mu.Lock()
	}
	took := p.took == last
	p.took = position{}
	return took
}

// note notes what a follower said to entries that the library sent.
func (e *early) note(id raft.ServerID, last position, success bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peer(id)
	p.term, p.index = 0, 0
	if success {
		p.term, p.index = last.term, last.index
	}
}

// send sends entries that are about to be written to every follower that has all before them. It says whether there are any.
func (e *early) send(logs []*raft.Log) (sends bool) {
	r := e.raft.Load()
	if r == nil || len(logs) == 0 || r.State() != raft.Leader || !e.follows(logs[0]) {
		return false
	}
	last := logs[len(logs)-1]
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.ID == e.own.ID {
			continue
		}
		on := e.begin(s.ID, e.tail.index, position{last.Index, last.Term})
		if on == nil {
			continue
		}
		request := &raft.AppendEntriesRequest{
			RPCHeader: e.header(), Term: last.Term,
			PrevLogEntry: e.tail.index, PrevLogTerm: e.tail.term, Entries: logs, LeaderCommitIndex: r.CommitIndex(),
		}
		e.sends.Go(func() { e.carry(s, request, on) })
		sends = true
	}
	return sends
}

// follows says whether an entry is the next one to what this server wrote last in the same term. What comes before
// others may be from anywhere: from an earlier leader, or from a restore, which leaps over indexes within a term.
func (e *early) follows(entry *raft.Log) bool {
	return e.tail.term == entry.Term && e.tail.index+1 == entry.Index
}

// begin notes what goes to a follower, unless it lacks what comes before or has not answered yet.
func (e *early) begin(id raft.ServerID, before uint64, last position) *sending {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peer(id)
	if p.sending != nil || p.term != last.term || p.index < before {
		return nil
	}
	p.took = position{}
	p.sending = &sending{last: last, done: make(chan struct{})}
	return p.sending
}

func (e *early) carry(s raft.Server, request *raft.AppendEntriesRequest, on *sending) {
	response := &raft.AppendEntriesResponse{}
	err := e.network.AppendEntries(s.ID, s.Address, request, response)
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peer(s.ID)
	p.sending = nil
	p.term, p.index = 0, 0
	if err == nil && response.Success {
		p.took = on.last
		p.term, p.index = on.last.term, on.last.index
	}
	close(on.done)
}

// wrote notes the last entry of the log.
func (e *early) wrote(logs []*raft.Log) {
	if n := len(logs); n > 0 {
		e.tail = position{logs[n-1].Index, logs[n-1].Term}
	}
}
