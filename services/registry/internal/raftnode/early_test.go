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
func ask(t *testing.T, e *early, request *raft.AppendEntriesRequest) bool {
	t.Helper()
	response := &raft.AppendEntriesResponse{}
	require.NoError(t, e.AppendEntries("b", "", request, response))
	return response.Success
}

// give sends entries early, and says whether that was worth while.
func give(e *early, request *raft.AppendEntriesRequest) bool {
	last := request.Entries[len(request.Entries)-1]
	on := e.begin("b", request.PrevLogEntry, position{last.Index, last.Term})
	if on != nil {
		e.carry(raft.Server{ID: "b"}, request, on)
	}
	return on != nil
}

func newFake() (*early, *fakeNetwork) {
	e, f := newEarly(Config{ID: "a"}), &fakeNetwork{reply: takes}
	e.network = f
	return e, f
}

func TestWhatAFollowerTookEarlyIsNotSentAgain(t *testing.T) {
	e, f := newFake()
	require.False(t, give(e, entries(3, 2, 2)), "nothing is known of the follower yet")
	require.True(t, ask(t, e, entries(3, 1, 2)))
	require.True(t, give(e, entries(3, 3, 4)))
	require.Len(t, f.asked, 2)

	require.True(t, ask(t, e, entries(3, 2, 4)), "the follower has these and all before them")
	require.Len(t, f.asked, 2)
	require.True(t, ask(t, e, entries(3, 3, 4)))
	require.Len(t, f.asked, 3, "an answer is good for one question")
}

func TestAFollowerThatRefusesEarlyEntriesIsAskedByTheLibrary(t *testing.T) {
	for name, reply := range map[string]func(*raft.AppendEntriesRequest) (bool, error){
		"refuses": func(*raft.AppendEntriesRequest) (bool, error) { return false, nil },
		"is gone": func(*raft.AppendEntriesRequest) (bool, error) { return false, errors.New("connection refused") },
	} {
		t.Run(name, func(t *testing.T) {
			e, f := newFake()
			require.True(t, ask(t, e, entries(3, 1, 2)))
			f.reply = reply
			require.True(t, give(e, entries(3, 3, 3)))
			f.reply = takes
			require.False(t, give(e, entries(3, 4, 4)), "it may lack the one before")
			require.True(t, ask(t, e, entries(3, 3, 4)))
			require.Len(t, f.asked, 3)
			require.True(t, give(e, entries(3, 5, 5)))
		})
	}
}

// A server that comes back under its id with an empty disk is told everything anew, in the same term.
func TestAnEarlyAnswerSpeaksOfTheseEntriesOnly(t *testing.T) {
	e, f := newFake()
	require.True(t, ask(t, e, entries(3, 1, 8)))
	require.True(t, give(e, entries(3, 9, 9)))
	f.reply = func(args *raft.AppendEntriesRequest) (bool, error) { return args.PrevLogEntry == 0, nil }
	require.False(t, ask(t, e, entries(3, 10, 10)))
	require.True(t, ask(t, e, entries(3, 1, 8)))
	require.True(t, ask(t, e, entries(3, 1, 9)))
	require.Len(t, f.asked, 5, "every question went out")
}

func TestAnotherTermsAnswerIsNoAnswer(t *testing.T) {
	e, f := newFake()
	require.True(t, ask(t, e, entries(3, 1, 2)))
	require.True(t, give(e, entries(3, 3, 3)))
	require.True(t, ask(t, e, entries(4, 3, 3)))
	require.Len(t, f.asked, 3)
	require.False(t, give(e, entries(5, 4, 4)))
}

// After a restore the log goes on behind the snapshot, in the same term: a follower that took such an entry early would
// lack what the snapshot holds.
func TestOnlyWhatFollowsTheOwnLastEntryIsSentEarly(t *testing.T) {
	e, _ := newFake()
	require.False(t, e.follows(&raft.Log{Index: 1, Term: 1}))
	e.wrote(entries(3, 4, 5).Entries)
	require.True(t, e.follows(&raft.Log{Index: 6, Term: 3}))
	require.False(t, e.follows(&raft.Log{Index: 7, Term: 3}), "a restore came between")
	require.False(t, e.follows(&raft.Log{Index: 6, Term: 4}), "the entry before may not be this server's")
}
