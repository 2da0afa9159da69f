// Package cluster has konsulctl's commands for a datacenter's servers: how they are, and what an
// operator changes of them.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// patience is how long `--all-datacenters` waits for one datacenter: one that is gone must not hold
// up the others' rows.
const patience = 5 * time.Second

// The states of a datacenter in an overview.
const (
	stateHealthy     = "healthy"
	stateDegraded    = "degraded"
	stateUnavailable = "unavailable"
	stateUnreachable = "unreachable"
	stateLeft        = "left"
)

// Command returns the cluster command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "cluster", Short: "See how the registry's servers are",
		Example: "  konsulctl cluster status --all-datacenters",
	}, status(a))
}

func status(a *cli.App) *cobra.Command {
	var datacenter string
	var all bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show the servers and their Raft state",
		Long: `Show the servers of one datacenter's registry and their Raft state, or with --all-datacenters a row for
every datacenter gossip knows.

A datacenter is healthy when nothing is wrong with it, degraded when it serves all the same (a server is
down), and unavailable when no majority of its servers follows a leader. With --all-datacenters one that
cannot be reached is a row with the state "unreachable".

The exit code is 0 only when every datacenter shown is healthy or has left; it is 5 when one is unavailable
or unreachable, else 1. JSON is that of GET /api/v1/cluster/status, or with
--all-datacenters {"datacenters": [{"datacenter", "state", "primary", "error", "status"}]}, with that
document as each status.`,
		Example: `  konsulctl cluster status
  konsulctl cluster status --datacenter us-west
  konsulctl cluster status --all-datacenters`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				if all {
					return overview(ctx, a, api)
				}
				gossip := knownByGossip(ctx, api)
				answer, err := api.Operator.ClusterStatus(ctx, &registryv1.ClusterStatusRequest{Datacenter: cli.Named(datacenter)})
				known := <-gossip
				if err != nil {
					return err
				}
				if err := a.Print(answer, func(g *output.Grid) { statusTable(g, answer) }); err != nil {
					return err
				}
				for _, dc := range known {
					if dc.GetName() == answer.GetDatacenter() {
						warn(a, dc)
					}
				}
				return ill([]member{{Datacenter: answer.GetDatacenter(), State: stateOf(answer), answer: answer}})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	cmd.Flags().BoolVar(&all, "all-datacenters", false, "ask every datacenter")
	cmd.MarkFlagsMutuallyExclusive("datacenter", "all-datacenters")
	return cmd
}

// gossipPatience is how long gossip is waited for: its list is only looked into for rivals.
const gossipPatience = time.Second

// knownByGossip asks gossip for the datacenters meanwhile. It sends none when gossip does not
// reply.
func knownByGossip(ctx context.Context, api konsul.API) <-chan []*wangossipv1.Datacenter {
	known := make(chan []*wangossipv1.Datacenter, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, gossipPatience)
		defer cancel()
		list, _ := api.Datacenters.ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{})
		known <- list.GetDatacenters()
	}()
	return known
}

// warn notes who else claims a datacenter's name.
func warn(a *cli.App, dc *wangossipv1.Datacenter) {
	for _, rival := range cli.Rivals(dc) {
		a.Note("%s", rival)
	}
}

func statusTable(g *output.Grid, s *registryv1.ClusterStatusResponse) {
	g.Row("Datacenter", s.GetDatacenter())
	g.Row("State", stateOf(s))
	g.Row("Leader", s.GetLeader())
	g.Row("Primary", s.GetPrimaryDatacenter())
	g.Row("Epoch", fmt.Sprint(s.GetEpoch()))
	g.Row("Federation", s.GetFederationId())
	for _, p := range s.GetProblems() {
		kind := "Problem"
		if p.GetWarning() {
			kind = "Warning"
		}
		g.Row(kind, strings.TrimSuffix(p.GetMessage()+"; "+p.GetRemedy(), "; "))
	}
	g.Line("")
	g.Row("SERVER", "ADDRESS", "STATE", "VOTER", "TERM", "LAST LOG", "COMMIT", "APPLIED", "VERSION")
	for _, n := range s.GetServers() {
		g.Row(n.GetId(), n.GetAddress(), n.GetState(), cli.Yes(n.GetVoter()), fmt.Sprint(n.GetTerm()),
			fmt.Sprint(n.GetLastLogIndex()), fmt.Sprint(n.GetCommitIndex()), fmt.Sprint(n.GetAppliedIndex()), n.GetVersion())
	}
}

// member is one datacenter of an overview.
type member struct {
	Datacenter string          `json:"datacenter"`
	State      string          `json:"state"`
	Primary    bool            `json:"primary"`
	Error      string          `json:"error"`
	Status     json.RawMessage `json:"status"`

	answer *registryv1.ClusterStatusResponse
	err    error
}

func overview(ctx context.Context, a *cli.App, api konsul.API) error {
	list, err := api.Datacenters.ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{})
	if err != nil {
		return err
	}
	members := make([]member, len(list.GetDatacenters()))
	var asked sync.WaitGroup
	for i, dc := range list.GetDatacenters() {
		members[i] = member{Datacenter: dc.GetName(), Primary: dc.GetPrimary(), Status: json.RawMessage("null")}
		if dc.GetState() == wangossipv1.DatacenterState_DATACENTER_STATE_LEFT {
			members[i].State = stateLeft
			continue
		}
		asked.Go(func() { members[i].ask(ctx, api, min(a.Timeout, patience)) })
	}
	asked.Wait()
	document := struct {
		Datacenters []member `json:"datacenters"`
	}{members}
	if err := a.Print(document, func(g *output.Grid) { overviewTable(g, members) }); err != nil {
		return err
	}
	for _, dc := range list.GetDatacenters() {
		warn(a, dc)
	}
	return cmp.Or(allFailed(members), ill(members))
}

// reasonUnhealthy says that a datacenter is not healthy.
const reasonUnhealthy = "UNHEALTHY"

// ill returns an error when a datacenter is not healthy; one that has left need not be.
func ill(members []member) error {
	code, remedy := fault.FailedPrecondition, "look at `konsulctl cluster status --datacenter` of each"
	if len(members) == 1 {
		remedy = "see to the servers that are not well"
	}
	var ailing []string
	for _, m := range members {
		if m.State == stateHealthy || m.State == stateLeft {
			continue
		}
		ailing = append(ailing, m.Datacenter+" is "+m.State)
		if m.State != stateDegraded {
			code = fault.Unavailable
		}
		if problems := m.answer.GetProblems(); len(members) == 1 && len(problems) > 0 {
			remedy = cmp.Or(problems[0].GetRemedy(), remedy)
		}
	}
	if len(ailing) == 0 {
		return nil
	}
	return fault.New(code, reasonUnhealthy, "%s", strings.Join(ailing, ", ")).WithRemedy(remedy)
}

func (m *member) ask(ctx context.Context, api konsul.API, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m.answer, m.err = api.Operator.ClusterStatus(ctx, &registryv1.ClusterStatusRequest{Datacenter: m.Datacenter})
	if m.err == nil {
		m.Status, m.err = output.RawJSON(m.answer)
	}
	if m.err != nil {
		m.State, m.Error, m.answer = stateUnreachable, m.err.Error(), nil
		return
	}
	m.State = stateOf(m.answer)
}

// allFailed returns an error when datacenters were asked and none answered.
func allFailed(members []member) error {
	var errs []error
	for _, m := range members {
		if m.answer != nil {
			return nil
		}
		if m.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Datacenter, m.err))
		}
	}
	return errors.Join(errs...)
}

func overviewTable(g *output.Grid, members []member) {
	g.Row("DATACENTER", "STATE", "ROLE", "EPOCH", "LEADER", "SERVERS", "COMMIT", "ERROR")
	for _, m := range members {
		role := "secondary"
		if m.Primary {
			role = "primary"
		}
		if m.answer == nil {
			g.Row(m.Datacenter, m.State, role, "", "", "", "", m.brief())
			continue
		}
		var commit uint64
		reachable := 0
		for _, s := range m.answer.GetServers() {
			commit = max(commit, s.GetCommitIndex())
			if s.GetState() != stateUnreachable {
				reachable++
			}
		}
		problem := ""
		if all := m.answer.GetProblems(); len(all) > 0 {
			problem = output.Clip(all[0].GetMessage(), 100)
		}
		g.Row(m.Datacenter, m.State, role, fmt.Sprint(m.answer.GetEpoch()), m.answer.GetLeader(),
			fmt.Sprintf("%d of %d", reachable, len(m.answer.GetServers())), fmt.Sprint(commit), problem)
	}
}

// brief returns the error without what surrounds it, for a cell.
func (m *member) brief() string {
	text := m.Error
	if f, ok := fault.As(m.err); ok {
		text = cmp.Or(f.Message(), text)
	}
	return output.Clip(strings.Join(strings.Fields(text), " "), 100)
}

// stateOf sums a datacenter up. A server of an older version calls one healthy whose majority
// works.
func stateOf(s *registryv1.ClusterStatusResponse) string {
	down := slices.ContainsFunc(s.GetServers(), func(n *registryv1.ServerState) bool { return n.GetState() == stateUnreachable })
	switch {
	case s.GetHealthy() && !down:
		return stateHealthy
	case s.GetHealthy() || s.GetAvailable():
		return stateDegraded
	}
	return stateUnavailable
}
