package readlease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	heartbeat = 400 * time.Millisecond
	tick      = time.Millisecond
)

// simulation is a cluster of three in virtual time, of which the leases are real. The first leader,
// a follower that reads under leases, and the third voter each have a clock with a rate of its own.
// Messages are late, and the first leader is cut off from one or both others. Both others elect
// another leader when neither has heard from the first one for a heartbeat timeout of its own
// clock. That one writes at once.
type simulation struct {
	chance *rand.Rand
	// now is the true time.
	now                     time.Duration
	leader, follower, third *skewed

	lease  *Leader
	lessor *Lessor
	holder *Holder

	term uint64
	// followerCut and thirdCut say that no message passes between the first leader and that server.
	followerCut, thirdCut bool
	// heardByFollower and heardByThird are when these last heard from the first leader, by their
	// own clocks.
	heardByFollower, heardByThird time.Duration
	// replaced says that the others elected another leader.
	replaced bool
	// acknowledged is the last write that a client knows of; leaderHas and followerHas are what
	// these would answer.
	acknowledged, leaderHas, followerHas uint64

	leaderReads, followerReads int
	stale                      []string
}

// skewed is a clock that advances at a rate.
type skewed struct {
	s    *simulation
	rate float64
}

func (c *skewed) Elapsed() time.Duration { return time.Duration(float64(c.s.now) * c.rate) }

// After lets the time pass at once.
func (c *skewed) After(d time.Duration) <-chan time.Time {
	c.s.pass(time.Duration(float64(d)/c.rate) + 1)
	done := make(chan time.Time, 1)
	done <- time.Time{}
	return done
}

func newSimulation(seed uint64, leader, follower, third float64) *simulation {
	s := &simulation{chance: rand.New(rand.NewPCG(seed, 0)), term: 1} //nolint:gosec // not for security
	s.leader, s.follower, s.third = &skewed{s, leader}, &skewed{s, follower}, &skewed{s, third}
	s.lease = NewLeader(s.leader, heartbeat, heartbeat)
	s.lessor = NewLessor(s.leader, lasting, s.recall, func(Event) {})
	s.holder = NewHolder(s.follower)
	return s
}

func (s *simulation) late() time.Duration {
	return time.Duration(s.chance.Int64N(int64(15 * time.Millisecond)))
}

// pass lets time pass. Clients read from the first leader and from the follower all the time.
func (s *simulation) pass(d time.Duration) {
	for end := s.now + d; s.now < end; s.now += min(tick, end-s.now) {
		s.read()
		out := func(heard time.Duration, clock *skewed) bool { return clock.Elapsed()-heard > heartbeat }
		if s.followerCut && s.thirdCut && !s.replaced && out(s.heardByFollower, s.follower) && out(s.heardByThird, s.third) {
			s.replaced = true
			s.acknowledged++ // The follower has the entry, and does not know yet that it is committed.
		}
	}
}

func (s *simulation) read() {
	if s.lease.Left(s.term) > 0 {
		s.leaderReads++
		if s.leaderHas < s.acknowledged {
			s.stale = append(s.stale, fmt.Sprintf("leader at %v", s.now))
		}
	}
	if index, ok := s.holder.Index(); ok && s.followerHas >= index {
		s.followerReads++
		if s.followerHas < s.acknowledged {
			s.stale = append(s.stale, fmt.Sprintf("follower at %v", s.now))
		}
	}
}

func (s *simulation) recall(_ context.Context, _ string, lease Lease) error {
	if s.followerCut {
		return errors.New("cut off")
	}
	s.holder.Recall(lease.Term, lease.Number)
	return nil
}

// verify is a round of heartbeats. The answer of one other server is enough.
func (s *simulation) verify() bool {
	began := s.leader.Elapsed()
	s.pass(s.late())
	if !s.followerCut {
		s.heardByFollower = s.follower.Elapsed()
	}
	if !s.thirdCut {
		s.heardByThird = s.third.Elapsed()
	}
	if s.followerCut && s.thirdCut {
		return false
	}
	s.pass(s.late())
	s.lease.Renew(s.term, began)
	return true
}

func (s *simulation) askForLease() {
	if s.followerCut {
		return
	}
	asked := s.follower.Elapsed()
	s.pass(s.late())
	lease := s.lessor.Give("follower", func() (uint64, time.Duration) { return s.term, s.lease.Left(s.term) })
	index := s.leaderHas
	s.pass(s.late())
	s.holder.Take(lease, index, asked)
}

func (s *simulation) write() {
	resume := s.lessor.Pause()
	defer resume()
	if !s.verify() {
		return
	}
	s.leaderHas++
	s.acknowledged = s.leaderHas
	if !s.followerCut {
		s.followerHas = s.leaderHas
	}
}

// heal ends all cuts. The first leader leads again, in a new term.
func (s *simulation) heal() {
	if s.replaced {
		s.replaced = false
		s.term++
	}
	s.followerCut, s.thirdCut = false, false
	s.leaderHas, s.followerHas = s.acknowledged, s.acknowledged
	s.verify()
}

func (s *simulation) run(steps int) {
	for range steps {
		switch s.chance.IntN(12) {
		case 0:
			s.followerCut = true
		case 1:
			s.followerCut, s.thirdCut = true, true
			s.pass(time.Duration(s.chance.Int64N(int64(2 * heartbeat))))
		case 2:
			s.heal()
		case 3, 4:
			s.write()
		default:
			s.verify()
			s.askForLease()
		}
		s.pass(2 * s.late())
	}
}

func TestNoReadUnderALeaseIsStaleWhileRatesOfClocksDifferByLessThanTheMargin(t *testing.T) {
	const fast = 1.06 // A little less than 16/15.
	for _, leader := range []float64{1, fast} {
		for _, follower := range []float64{1, fast} {
			for _, third := range []float64{1, fast} {
				for seed := range uint64(5) {
					s := newSimulation(seed, leader, follower, third)
					s.run(2000)
					require.Empty(t, s.stale, "seed %d, rates %v, %v, %v", seed, leader, follower, third)
					require.Greater(t, s.leaderReads, 5000)
					require.Greater(t, s.followerReads, 5000)
				}
			}
		}
	}
}

func TestTheSimulationFindsStaleReadsWhenRatesDifferByMore(t *testing.T) {
	for name, rates := range map[string][3]float64{
		"the leader's clock is slow":         {0.7, 1, 1},
		"the follower's clock is slow":       {1, 0.7, 1},
		"the leader's clock alone is fast":   {1.4, 1, 1},
		"the clocks of both others are fast": {1, 1.4, 1.4},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimulation(1, rates[0], rates[1], rates[2])
			s.run(2000)
			require.NotEmpty(t, s.stale)
		})
	}
}
