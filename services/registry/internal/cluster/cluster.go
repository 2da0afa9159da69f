package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/raftnode"
)

// Peers are ways to other servers of the datacenter. Calls on them return faults.
type Peers interface {
	Server(id string) (grpc.ClientConnInterface, error)
	// Address returns a way to whoever serves gRPC at an address.
	Address(address string) (grpc.ClientConnInterface, error)
}

// Params is what a Cluster is made of.
type Params struct {
	// Own is this server, without its incarnation.
	Own *registryv1.Member
	// Expect is how many servers found a cluster, this one included; 0: this one only joins.
	Expect int
	// Others are the gRPC addresses this server was told of; its own may be among them.
	Others     []string
	Datacenter string
	Node       *raftnode.Node
	Rows       *member.View
	Directory  *Directory
	Peers      Peers
	// MayFound refuses to found a cluster under the name of a datacenter that the federation knows
	// already.
	MayFound func(context.Context) error
	// Propose commits a command wherever the leader is.
	Propose func(context.Context, *registryv1.Command) (*registryv1.CommandResult, error)
	Log     *slog.Logger
}

// Cluster is a server's place among the others.
type Cluster struct {
	Params

	// change is held by the leader while it changes the membership, so that changes come one at a
	// time.
	change sync.Mutex

	mu  sync.Mutex
	met []*registryv1.Member
	why string
	// looking has the members that said they have moved, while their old addresses are asked.
	looking map[string]bool
}

// New returns a cluster whose Run has not begun.
func New(p Params) *Cluster {
	p.Own = proto.CloneOf(p.Own)
	p.Own.Incarnation = p.Node.Disk().Incarnation
	return &Cluster{Params: p, why: "it has just started", looking: map[string]bool{}}
}

const (
	// quickly is how often a server that has no cluster asks the others, until patience is over.
	quickly  = 50 * time.Millisecond
	slowly   = 500 * time.Millisecond
	patience = 10 * time.Second
	// greetTimeout bounds one answer.
	greetTimeout = time.Second
	// settled is how often a member looks whether its row is right.
	settled = time.Second
	// lonely is how long a member goes without a leader before it asks the others whether it still
	// is one.
	lonely = 3 * time.Second
)

// Run brings this server into its cluster and keeps its row right until ctx ends. It fails when the
// server must not go on with the data it has.
func (c *Cluster) Run(ctx context.Context) error {
	if c.Node.Fresh() {
		if err := c.enter(ctx); err != nil {
			return err
		}
	} else {
		// The others may have been recovered without this server: then its data is the past.
		if err := c.superseded(c.greet(ctx)); err != nil {
			return err
		}
		c.Node.Open()
	}
	if ctx.Err() != nil {
		return nil
	}
	return c.stay(ctx)
}

// Why says what this server waits for, empty when it knows a leader.
func (c *Cluster) Why() string {
	if c.Node.LeaderID() != "" {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

func (c *Cluster) explain(why string) {
	c.mu.Lock()
	changed := why != c.why && why != ""
	c.why = why
	c.mu.Unlock()
	if changed {
		c.Log.Info("not in a cluster yet", "reason", why)
	}
}

// Greeting returns who this server is.
func (c *Cluster) Greeting() *registryv1.GreetResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &registryv1.GreetResponse{
		Self: c.Own, Fresh: c.Node.Fresh(), Expect: uint32(c.Expect), Met: c.met, Generation: c.Node.Disk().Generation, //nolint:gosec // a handful
	}
	for _, s := range c.Node.Servers() {
		resp.Members = append(resp.Members, s.ID)
	}
	return resp
}

// greet asks every server that is known of; those that do not answer have nil.
func (c *Cluster) greet(ctx context.Context) map[string]*registryv1.GreetResponse {
	addresses := slices.Clone(c.Others)
	if !c.Node.Fresh() {
		addresses = append(addresses, c.Directory.all()...)
	}
	slices.Sort(addresses)
	addresses = slices.DeleteFunc(slices.Compact(addresses), func(address string) bool { return address == c.Own.GetAddress() })
	greetings := make([]*registryv1.GreetResponse, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		wg.Go(func() { greetings[i], _ = c.greetOne(ctx, address) }) // nil of an error.
	}
	wg.Wait()
	answers := map[string]*registryv1.GreetResponse{}
	for i, greeting := range greetings {
		answers[addresses[i]] = greeting
		c.Directory.learn(greeting.GetSelf())
	}
	return answers
}

func (c *Cluster) greetOne(ctx context.Context, address string) (*registryv1.GreetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	conn, err := c.Peers.Address(address)
	if err != nil {
		return nil, err
	}
	return registryv1.NewMemberServiceClient(conn).Greet(ctx, &registryv1.GreetRequest{Self: c.Own})
}

// Greeted is told who greets. A member that is no longer where its row says, on the disk that the
// row names, has moved. Whether it still runs at the old address, so that the greeter is a copy of
// it, is asked first, and not waited for. Without this a majority that moved at once would never
// elect a leader to record where it is.
func (c *Cluster) Greeted(m *registryv1.Member) {
	row := c.Rows.Server(m.GetId())
	same := row.GetIncarnation() == m.GetIncarnation() && row.GetAddress() == m.GetAddress() && row.GetRaftAddress() == m.GetRaftAddress()
	if row == nil || same || row.GetRemoved() || row.GetIncarnation() != m.GetIncarnation() || m.GetAddress() == "" || m.GetRaftAddress() == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looking[m.GetId()] {
		return
	}
	c.looking[m.GetId()] = true
	go func() {
		if !c.clone(context.Background(), m, row) {
			c.Directory.move(move{said: m, row: row})
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.looking, m.GetId())
	}()
}

// clone reports whether a server that says it has moved still runs where its row says: then it is a
// copy.
func (c *Cluster) clone(ctx context.Context, m, row *registryv1.Member) bool {
	return row.GetIncarnation() == m.GetIncarnation() && row.GetAddress() != m.GetAddress() && c.lives(ctx, row)
}

// enter finds or founds the cluster of a server without state.
func (c *Cluster) enter(ctx context.Context) error {
	begun := time.Now()
	following := false
	for ctx.Err() == nil && c.Node.Fresh() {
		answers := c.greet(ctx)
		step, founders, why := member.Meet(member.Met{Own: c.Own, Expect: c.Expect, Answers: answers})
		c.explain(why)
		switch step {
		case member.Found:
			if err := c.MayFound(ctx); err != nil {
				return err
			}
			c.follow(founders)
			return c.found(founders)
		case member.Follow:
			c.follow(founders)
			following = true
		case member.Join:
			// The one who founds it has just done so, and this server is among the founders.
			if following && counted(c.Own.GetId(), answers) {
				break
			}
			if err := c.join(ctx, answers); err != nil {
				c.explain(err.Error())
				break
			}
			return nil
		case member.Wait:
		}
		pause := quickly
		if time.Since(begun) > patience {
			pause = slowly
		}
		wait(ctx, pause)
	}
	return nil
}

func wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// follow returns peers before it says that it has met them: whoever founds may count on its vote.
func (c *Cluster) follow(founders []*registryv1.Member) {
	c.Node.Open()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met = founders
}

func (c *Cluster) found(founders []*registryv1.Member) error {
	servers := make([]raftnode.Server, len(founders))
	ids := make([]string, len(founders))
	for i, m := range founders {
		servers[i], ids[i] = raftnode.Server{ID: m.GetId(), Address: m.GetRaftAddress(), Voter: true}, m.GetId()
	}
	if err := c.Node.Found(servers); err != nil {
		return err
	}
	c.Log.Info("founded the cluster", "servers", ids)
	return nil
}

// counted reports whether a cluster that answered counts a server among its members, or may do so:
// who has just founded one has state a moment before it knows its members. Were a founder to join
// then, it would lose its vote until autopilot gives it another.
func counted(id string, answers map[string]*registryv1.GreetResponse) bool {
	for _, answer := range answers {
		justFounded := answer != nil && !answer.GetFresh() && len(answer.GetMembers()) == 0
		if justFounded || slices.Contains(answer.GetMembers(), id) {
			return true
		}
	}
	return false
}

// join asks one of those that are in a cluster to be taken in; they pass it on to their leader.
func (c *Cluster) join(ctx context.Context, answers map[string]*registryv1.GreetResponse) error {
	err := error(fault.New(fault.Unavailable, fault.ReasonNoLeader, "no server of a cluster answers"))
	req := &registryv1.JoinRequest{Member: c.Own, Fresh: c.Node.Fresh(), Generation: c.Node.Disk().Generation, RequestId: uuid.NewString()}
	for address, answer := range answers {
		if answer == nil || answer.GetFresh() {
			continue
		}
		conn, dialErr := c.Peers.Address(address)
		if dialErr != nil {
			return dialErr
		}
		var resp *registryv1.JoinResponse
		callCtx, cancel := context.WithTimeout(ctx, changeTimeout)
		resp, err = registryv1.NewMemberServiceClient(conn).Join(callCtx, req)
		cancel()
		if err == nil {
			c.Log.Info("joined the cluster", "through", address)
			return c.Admit(resp.GetGeneration(), resp.GetMembers())
		}
		if fault.CodeOf(err) != fault.Unavailable {
			return err
		}
	}
	return err
}

// Admit is told by the leader that it has made this server a member.
func (c *Cluster) Admit(generation uint64, members []*registryv1.Member) error {
	if err := c.Node.SetGeneration(generation); err != nil {
		return err
	}
	c.Directory.learn(members...)
	c.Node.Open()
	return nil
}

// ReasonSuperseded says that the cluster was recovered without a server, whose data is the past
// now.
const ReasonSuperseded = "SERVER_SUPERSEDED"

func (c *Cluster) superseded(answers map[string]*registryv1.GreetResponse) error {
	own := c.Node.Disk().Generation
	for address, answer := range answers {
		if answer != nil && !answer.GetFresh() && answer.GetGeneration() > own {
			return fault.New(fault.FailedPrecondition, ReasonSuperseded, "the cluster was recovered from a lost quorum without this server, says %s at %s", answer.GetSelf().GetId(), address).
				WithRemedy("keep a copy of the data folder, then start this server with an empty one")
		}
	}
	return nil
}

// stay keeps the own row right, and comes back when the cluster has lost this server.
func (c *Cluster) stay(ctx context.Context) error {
	heard := time.Now()
	for ctx.Err() == nil {
		pause := settled
		switch leader := c.Node.LeaderID(); {
		case leader == "" && time.Since(heard) > lonely:
			answers := c.greet(ctx)
			if err := c.superseded(answers); err != nil {
				return err
			}
			c.rejoin(ctx, answers)
		case leader == "":
			pause = quickly
		default:
			heard = time.Now()
			if proto.Equal(c.Rows.Server(c.Own.GetId()), c.Own) {
				break
			}
			pause = slowly
			if err := c.announce(ctx, leader); err != nil {
				c.Log.Debug("could not announce this server", "error", err)
			}
		}
		wait(ctx, pause)
	}
	return nil
}

// rejoin asks for membership those that do not count this server as a member, or else tells where
// this one is: if it has moved, the leader does not reach it.
func (c *Cluster) rejoin(ctx context.Context, answers map[string]*registryv1.GreetResponse) {
	strangers, peers := map[string]*registryv1.GreetResponse{}, []string{}
	for address, answer := range answers {
		switch {
		case answer == nil || answer.GetFresh():
		case slices.Contains(answer.GetMembers(), c.Own.GetId()):
			peers = append(peers, address)
		default:
			strangers[address] = answer
		}
	}
	if len(strangers) > 0 {
		if err := c.join(ctx, strangers); err != nil {
			c.explain(fmt.Sprintf("this server is no member of the cluster: %v", err))
		}
		return
	}
	c.explain("no leader: the servers that answer have no majority")
	for _, address := range peers {
		conn, err := c.Peers.Address(address)
		if err == nil {
			err = c.announceTo(ctx, conn)
		}
		if err == nil {
			return
		}
		if fault.CodeOf(err) != fault.Unavailable {
			c.explain(fmt.Sprintf("the leader refuses this server: %v", err))
			return
		}
	}
}

func (c *Cluster) announce(ctx context.Context, leader string) error {
	if leader == c.Own.GetId() {
		ctx, cancel := context.WithTimeout(ctx, changeTimeout)
		defer cancel()
		return c.Announce(ctx, c.Own)
	}
	conn, err := c.Peers.Server(leader)
	if err != nil {
		return err
	}
	return c.announceTo(ctx, conn)
}

// announceTo tells a server, which passes it on to its leader, where this one is.
func (c *Cluster) announceTo(ctx context.Context, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	_, err := registryv1.NewMemberServiceClient(conn).Announce(ctx, &registryv1.AnnounceRequest{Member: c.Own, RequestId: uuid.NewString()})
	return err
}
