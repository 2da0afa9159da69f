package raftnode

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// fakeNetwork is a network with one peer.
type fakeNetwork struct {
	network
	asked []*raft.AppendEntriesRequest
	reply func(*raft.AppendEntriesRequest) (bool, error)
}

func (f *fakeNetwork) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	f.asked = append(f.asked, args)
	success, err := f.reply(args)
	resp.Term, resp.Success = args.Term, success
	return err
}

func takes(*raft.AppendEntriesRequest) (bool, error) { return true, nil }

func entries(term, from, to uint64) *raft.AppendEntriesRequest {
	request := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: from - 1, PrevLogTerm: term}
	for i := from; i <= to; i++ {
		request.Entries = append(request.Entries, &raft.Log{Index: i, Term: term})
	}
	return request
}

// ask is the library sending entries.
func ask(t *testing.T, p *parallelWriter, request *raft.AppendEntriesRequest) bool {
	t.Helper()
	response := &raft.AppendEntriesResponse{}
	require.NoError(t, p.AppendEntries("b", "", request, response))
	return response.Success
}

// give sends entries before the library does, and reports whether it did.
func give(p *parallelWriter, request *raft.AppendEntriesRequest) bool {
	last := request.Entries[len(request.Entries)-1]
	sending := p.begin("b", request.PrevLogEntry, entryID{last.Index, last.Term})
	if sending != nil {
		p.carry(raft.Server{ID: "b"}, request, sending)
	}
	return sending != nil
}

func newFake() (*parallelWriter, *fakeNetwork) {
	p, f := newParallelWriter(Config{ID: "a"}), &fakeNetwork{reply: takes}
	p.network = f
	return p, f
}

func TestWhatAFollowerTookInParallelIsNotSentAgain(t *testing.T) {
	p, f := newFake()
	require.False(t, give(p, entries(3, 2, 2)), "nothing is known of the follower yet")
	require.True(t, ask(t, p, entries(3, 1, 2)))
	require.True(t, give(p, entries(3, 3, 4)))
	require.Len(t, f.asked, 2)

	require.True(t, ask(t, p, entries(3, 2, 4)), "the follower has these and all before them")
	require.Len(t, f.asked, 2)
	require.True(t, ask(t, p, entries(3, 3, 4)))
	require.Len(t, f.asked, 3, "an answer is good for one question")
}

func TestAFollowerThatRefusesParallelEntriesIsAskedByTheLibrary(t *testing.T) {
	for name, reply := range map[string]func(*raft.AppendEntriesRequest) (bool, error){
		"refuses": func(*raft.AppendEntriesRequest) (bool, error) { return false, nil },
		"is gone": func(*raft.AppendEntriesRequest) (bool, error) { return false, errors.New("connection refused") },
	} {
		t.Run(name, func(t *testing.T) {
			p, f := newFake()
			require.True(t, ask(t, p, entries(3, 1, 2)))
			f.reply = reply
			require.True(t, give(p, entries(3, 3, 3)))
			f.reply = takes
			require.False(t, give(p, entries(3, 4, 4)), "it may lack the one before")
			require.True(t, ask(t, p, entries(3, 3, 4)))
			require.Len(t, f.asked, 3)
			require.True(t, give(p, entries(3, 5, 5)))
		})
	}
}

// A server that comes back under its id with an empty disk is told everything anew, in the same
// term.
func TestAParallelAnswerSpeaksOfTheseEntriesOnly(t *testing.T) {
	p, f := newFake()
	require.True(t, ask(t, p, entries(3, 1, 8)))
	require.True(t, give(p, entries(3, 9, 9)))
	f.reply = func(args *raft.AppendEntriesRequest) (bool, error) { return args.PrevLogEntry == 0, nil }
	require.False(t, ask(t, p, entries(3, 10, 10)))
	require.True(t, ask(t, p, entries(3, 1, 8)))
	require.True(t, ask(t, p, entries(3, 1, 9)))
	require.Len(t, f.asked, 5, "every question went out")
}

func TestAnotherTermsAnswerIsNoAnswer(t *testing.T) {
	p, f := newFake()
	require.True(t, ask(t, p, entries(3, 1, 2)))
	require.True(t, give(p, entries(3, 3, 3)))
	require.True(t, ask(t, p, entries(4, 3, 3)))
	require.Len(t, f.asked, 3)
	require.False(t, give(p, entries(5, 4, 4)))
}

// After a restore the log goes on behind the snapshot, in the same term: a follower that took such
// an entry in parallel would lack what the snapshot holds.
func TestOnlyWhatFollowsTheOwnLastEntryIsSentInParallel(t *testing.T) {
	p, _ := newFake()
	require.False(t, p.follows(&raft.Log{Index: 1, Term: 1}))
	require.NoError(t, p.write(entries(3, 4, 5).Entries, func([]*raft.Log) error { return nil }))
	require.True(t, p.follows(&raft.Log{Index: 6, Term: 3}))
	require.False(t, p.follows(&raft.Log{Index: 7, Term: 3}), "a restore came between")
	require.False(t, p.follows(&raft.Log{Index: 6, Term: 4}), "the entry before may not be this server's")
}
