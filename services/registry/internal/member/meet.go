package member

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Step is what a server without a cluster does next.
type Step int

const (
	// Wait asks again in a moment.
	Wait Step = iota
	// Follow returns Raft peers from now on: every server that founds the cluster is known and has
	// no state, so nothing that was acknowledged can be lost by its vote.
	Follow
	// Found follows, and bootstraps the cluster: this is the one of them all that does.
	Found
	// Join asks the existing cluster to take this server in.
	Join
)

// Met is what a server without Raft state knows of the others.
type Met struct {
	Own *registryv1.Member
	// Expect is how many servers found a cluster, this one included; 0: this one only joins.
	Expect int
	// Answers has an entry for every other address the server was told of; nil when it did not
	// answer.
	Answers map[string]*registryv1.GreetResponse
}

// Meet decides what to do, with which servers to found, and why it waits. A cluster is founded
// once: only when every server that was told of answers, none of them has state, and all have met
// the same ones; the first in the order of ids does it. Whoever finds a cluster joins it.
func Meet(m Met) (step Step, founders []*registryv1.Member, why string) {
	founders = []*registryv1.Member{m.Own}
	var silent []string
	for _, address := range slices.Sorted(maps.Keys(m.Answers)) {
		answer := m.Answers[address]
		switch {
		case answer == nil:
			silent = append(silent, address)
		case answer.GetSelf().GetIncarnation() == m.Own.GetIncarnation():
			// Its own address is in the list.
		case !answer.GetFresh():
			return Join, nil, fmt.Sprintf("%s is in a cluster that has not taken this server in", answer.GetSelf().GetId())
		case answer.GetSelf().GetId() == m.Own.GetId():
			return Wait, nil, fmt.Sprintf("%s has the id %q too: give every server a registry.id of its own", address, m.Own.GetId())
		case m.Expect > 0 && int(answer.GetExpect()) != m.Expect:
			return Wait, nil, fmt.Sprintf("%s expects %d servers, this one %d: set registry.bootstrap_expect alike", address, answer.GetExpect(), m.Expect)
		case !known(founders, answer.GetSelf()):
			founders = append(founders, answer.GetSelf())
		}
	}
	slices.SortFunc(founders, func(a, b *registryv1.Member) int { return cmp.Compare(a.GetId(), b.GetId()) })
	switch {
	case m.Expect == 0:
		return Wait, nil, "no server of registry.join is in a cluster yet" + notAnswering(silent)
	case len(silent) > 0 && len(founders) >= m.Expect:
		// One that is silent may have state: founding without it could make a second cluster.
		return Wait, nil, fmt.Sprintf("%d of %d servers have met, but all that are listed must answer once", len(founders), m.Expect) +
			notAnswering(silent) + ": start it, or take it out of registry.servers and registry.join"
	case len(silent) > 0:
		return Wait, nil, fmt.Sprintf("%d of %d servers have met", len(founders), m.Expect) + notAnswering(silent)
	case len(founders) != m.Expect:
		return Wait, nil, fmt.Sprintf("%d servers have met, registry.bootstrap_expect is %d", len(founders), m.Expect)
	}
	if twice := duplicate(founders); twice != "" {
		return Wait, nil, twice
	}
	for _, answer := range m.Answers {
		if !Same(answer.GetMet(), founders) && answer.GetSelf().GetId() != m.Own.GetId() {
			return Follow, founders, fmt.Sprintf("%s has not met all of them", answer.GetSelf().GetId())
		}
	}
	if founders[0].GetId() != m.Own.GetId() {
		return Follow, founders, fmt.Sprintf("%s founds the cluster", founders[0].GetId())
	}
	return Found, founders, ""
}

func notAnswering(silent []string) string {
	if len(silent) == 0 {
		return ""
	}
	return "; no answer from " + strings.Join(silent, ", ")
}

func known(list []*registryv1.Member, m *registryv1.Member) bool {
	return slices.ContainsFunc(list, func(o *registryv1.Member) bool { return o.GetIncarnation() == m.GetIncarnation() })
}

func duplicate(sorted []*registryv1.Member) string {
	addresses := map[string]string{}
	for i, m := range sorted {
		if i > 0 && sorted[i-1].GetId() == m.GetId() {
			return fmt.Sprintf("two servers have the id %q: give every server a registry.id of its own", m.GetId())
		}
		if other, taken := addresses[m.GetRaftAddress()]; taken {
			return fmt.Sprintf("%s and %s both advertise %s: set registry.raft_advertise", other, m.GetId(), m.GetRaftAddress())
		}
		addresses[m.GetRaftAddress()] = m.GetId()
	}
	return ""
}

// Same reports whether two sorted lists name the same servers, disks and addresses.
func Same(a, b []*registryv1.Member) bool {
	return slices.EqualFunc(a, b, func(x, y *registryv1.Member) bool { return proto.Equal(x, y) })
}
