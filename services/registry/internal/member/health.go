package member

import (
	"fmt"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Unreachable is the state of a server that did not say how it is.
const Unreachable = "unreachable"

const candidate = "candidate"

// Reasons of problems.
const (
	// ProblemMajorityLost says that half of the voters, or more, are not there.
	ProblemMajorityLost = "MAJORITY_LOST"
	// ProblemNoLeader says that nobody leads, or that who led does not answer.
	ProblemNoLeader = "NO_LEADER"
	// ProblemServerDown says that a server is a member and does not answer.
	ProblemServerDown = "SERVER_DOWN"
	// ProblemServerAstray says that a server answers and follows no leader while there is one.
	ProblemServerAstray = "SERVER_ASTRAY"
)

// Judge returns whether a datacenter serves writes, and what is wrong with it, the worst first.
func Judge(datacenter, leader string, servers []*registryv1.ServerState) (available bool, problems []*registryv1.HealthProblem) {
	voters, voting, leads := 0, 0, false
	for _, s := range servers {
		up := s.GetState() != Unreachable
		if s.GetVoter() {
			voters++
			if up {
				voting++
			}
		}
		leads = leads || up && s.GetId() == leader
	}
	majority := voting > voters/2
	switch {
	case !majority:
		problems = append(problems, &registryv1.HealthProblem{
			Reason:  ProblemMajorityLost,
			Message: fmt.Sprintf("%d of the %d voters of datacenter %s answer: nothing can be written", voting, voters, datacenter),
			Remedy:  "start the servers that are down; docs/runbooks/registry-quorum-lost.md if they are gone",
		})
	case !leads:
		problems = append(problems, &registryv1.HealthProblem{
			Reason: ProblemNoLeader, Message: fmt.Sprintf("datacenter %s has no leader that answers", datacenter),
			Remedy: "ask again in a few seconds: the servers elect one",
		})
	}
	for _, s := range servers {
		switch state := s.GetState(); {
		case state == Unreachable:
			problems = append(problems, &registryv1.HealthProblem{
				Reason: ProblemServerDown, Server: s.GetId(), Message: fmt.Sprintf("server %s at %s does not answer", s.GetId(), s.GetAddress()),
				Remedy: "start it; if it is gone for good, `konsulctl operator raft remove-peer " + s.GetId() + "`",
			})
		case state == candidate && majority && leads:
			problems = append(problems, &registryv1.HealthProblem{
				Reason: ProblemServerAstray, Server: s.GetId(), Message: fmt.Sprintf("server %s at %s hears no leader", s.GetId(), s.GetAddress()),
				Remedy: "see that the servers reach each other on their Raft addresses",
			})
		}
	}
	return majority && leads, problems
}
