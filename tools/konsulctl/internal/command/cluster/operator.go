package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Operator returns the operator command.
func Operator(a *cli.App) *cobra.Command {
	raft := cli.Group(&cobra.Command{
		Use: "raft", Short: "See and change which servers make the registry",
		Example: "  konsulctl operator raft list-peers",
	}, listPeers(a), addPeer(a), removePeer(a), transferLeadership(a))
	autopilot := cli.Group(&cobra.Command{
		Use: "autopilot", Short: "See and change how the leader looks after the servers",
		Example: "  konsulctl operator autopilot state",
	}, autopilotState(a), autopilotGet(a), autopilotSet(a))
	return cli.Group(&cobra.Command{
		Use: "operator", Short: "Operate the registry's servers",
		Long: `Operate the servers of a datacenter's registry.

Restart all of them, one after the other, without losing a write:
  1. konsulctl operator autopilot state       "Failures survived" must be 1 or more
  2. stop one server (SIGTERM), start it again; leave the leader for last
  3. konsulctl operator autopilot state       wait until it is healthy again, then take the next one`,
		Example: "  konsulctl operator raft list-peers\n  konsulctl operator autopilot state",
	}, raft, autopilot)
}

func listPeers(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "list-peers", Short: "List the registry's servers",
		Long: `List the servers that are members of the registry's cluster, as the asked one knows them; it needs no leader.
LAST CONTACT is how long ago a server heard from the leader. JSON is that of GET /api/v1/operator/raft/peers.`,
		Example: "  konsulctl operator raft list-peers\n  konsulctl operator raft list-peers --datacenter us-west -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Operator.ClusterStatus(ctx, &registryv1.ClusterStatusRequest{Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { peersTable(g, answer) })
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func peersTable(g *output.Grid, s *registryv1.ClusterStatusResponse) {
	g.Row("SERVER", "RAFT ADDRESS", "GRPC ADDRESS", "STATE", "VOTER", "LAST CONTACT", "LAST LOG", "VERSION", "COMMANDS")
	for _, n := range s.GetServers() {
		contact := ""
		if d := n.GetLastContact(); d != nil && n.GetState() != "leader" {
			contact = d.AsDuration().Round(time.Millisecond).String()
		}
		g.Row(n.GetId(), n.GetAddress(), n.GetGrpcAddress(), n.GetState(), cli.Yes(n.GetVoter()), contact,
			fmt.Sprint(n.GetLastLogIndex()), n.GetVersion(), fmt.Sprint(n.GetCommandVersion()))
	}
}

func addPeer(a *cli.App) *cobra.Command {
	var datacenter, id string
	cmd := &cobra.Command{
		Use: "add-peer ADDRESS", Short: "Make a server a member of the cluster",
		Long: `Make the server that serves gRPC at ADDRESS (host:port) a member of the cluster. It must run. It begins without
a vote; autopilot gives it one when it has been healthy for server_stabilization_time.

Servers that list one of the members in registry.join become members by themselves. This command is for one
that lists none of them, and to take back one that was removed.
JSON is that of POST /api/v1/operator/raft/peers.`,
		Example: "  konsulctl operator raft add-peer 10.1.0.14:8502\n  konsulctl operator raft add-peer 10.1.0.14:8502 --id registry-4",
		Args:    cli.Exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Operator.AddPeer(ctx, &registryv1.AddPeerRequest{
					Address: args[0], Id: id, Datacenter: cli.Named(datacenter),
				})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("%s is a member; it has no vote yet", answer.GetMember().GetId())
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to change (default: the gateway's)")
	cmd.Flags().StringVar(&id, "id", "", "refuse if another server than this one answers there")
	return cmd
}

func removePeer(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "remove-peer ID", Short: "Take a server out of the cluster",
		Long: `Take a server out of the cluster. It does not come back with the disk it has until add-peer takes it back.
A leader hands over first. It is refused when the other voters that answer would be no majority.
JSON is that of DELETE /api/v1/operator/raft/peers/{id}.`,
		Example: "  konsulctl operator raft remove-peer registry-3",
		Args:    cli.Exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Operator.RemovePeer(ctx, &registryv1.RemovePeerRequest{
					Id: args[0], Datacenter: cli.Named(datacenter),
				})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { g.Line("%s is no member any more; %s leads", args[0], answer.GetLeader()) })
			})
		},
		ValidArgsFunction: completePeers(a),
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to change (default: the gateway's)")
	return cmd
}

func transferLeadership(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "transfer-leadership [ID]", Short: "Make another server the leader",
		Long: `Make another server the leader: the one named, or the voter that is furthest.
JSON is that of POST /api/v1/operator/raft/transfer-leadership.`,
		Example: "  konsulctl operator raft transfer-leadership\n  konsulctl operator raft transfer-leadership registry-2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return cli.Usage(cmd, fmt.Errorf("too many arguments from %q on", args[1]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Operator.TransferLeadership(ctx, &registryv1.TransferLeadershipRequest{
					Id: strings.Join(args, ""), Datacenter: cli.Named(datacenter),
				})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					if answer.GetTo() == answer.GetFrom() {
						g.Line("%s led already", answer.GetTo())
						return
					}
					g.Line("%s leads; it was %s", answer.GetTo(), answer.GetFrom())
				})
			})
		},
		ValidArgsFunction: completePeers(a),
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to change (default: the gateway's)")
	return cmd
}

func completePeers(a *cli.App) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.Complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
			answer, err := api.Operator.ClusterStatus(ctx, &registryv1.ClusterStatusRequest{})
			for _, s := range answer.GetServers() {
				names = append(names, s.GetId())
			}
			return names, err
		})
	}
}

func autopilotState(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "state", Short: "Show what the leader thinks of every server",
		Long: `Show what the leader thinks of every server, and how many voters may fail before the registry stops writing.
A server is healthy while it hears from the leader and its log is not far behind, both as the settings say.
JSON is that of GET /api/v1/operator/autopilot/state.`,
		Example: "  konsulctl operator autopilot state\n  konsulctl operator autopilot state -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Operator.GetAutopilotState(ctx, &registryv1.GetAutopilotStateRequest{Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { healthTable(g, answer) })
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func healthTable(g *output.Grid, s *registryv1.GetAutopilotStateResponse) {
	g.Row("Healthy", cli.Yes(s.GetHealthy()))
	g.Row("Failures survived", fmt.Sprint(s.GetFailureTolerance()))
	g.Row("Leader", s.GetLeader())
	g.Row("Voters", strings.Join(s.GetVoters(), ","))
	g.Line("")
	g.Row("SERVER", "RAFT ADDRESS", "STATE", "STATUS", "HEALTHY", "SINCE", "LAST CONTACT", "LAST LOG", "VERSION")
	for _, h := range s.GetServers() {
		g.Row(h.GetId(), h.GetAddress(), h.GetState(), h.GetNodeStatus(), cli.Yes(h.GetHealthy()), output.Time(h.GetStableSince()),
			h.GetLastContact().AsDuration().Round(time.Millisecond).String(), fmt.Sprint(h.GetLastLogIndex()), h.GetVersion())
	}
}

func autopilotGet(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "get-config", Short: "Show by which settings the leader looks after the servers",
		Long:    `Show by which settings the leader looks after the servers. JSON is that of GET /api/v1/operator/autopilot/config.`,
		Example: "  konsulctl operator autopilot get-config",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Operator.GetAutopilotConfig(ctx, &registryv1.GetAutopilotConfigRequest{Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { autopilotTable(g, answer.GetConfig(), answer.GetModifyIndex()) })
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func autopilotTable(g *output.Grid, c *registryv1.AutopilotConfig, index uint64) {
	g.Row("cleanup_dead_servers", fmt.Sprint(c.GetCleanupDeadServers()))
	g.Row("dead_server_after", c.GetDeadServerAfter().AsDuration().String())
	g.Row("min_quorum", fmt.Sprint(c.GetMinQuorum()))
	g.Row("last_contact_threshold", c.GetLastContactThreshold().AsDuration().String())
	g.Row("max_trailing_logs", fmt.Sprint(c.GetMaxTrailingLogs()))
	g.Row("server_stabilization_time", c.GetServerStabilizationTime().AsDuration().String())
	g.Row("changed at index", fmt.Sprint(index))
}

func autopilotSet(a *cli.App) *cobra.Command {
	var datacenter string
	var cleanup bool
	var minQuorum uint32
	var trailing, cas uint64
	var dead, contact, stable time.Duration
	cmd := &cobra.Command{
		Use: "set-config", Short: "Change settings by which the leader looks after the servers",
		Long: `Change the settings that are named and leave the others. JSON is that of PATCH /api/v1/operator/autopilot/config.`,
		Example: "  konsulctl operator autopilot set-config --dead-server-after 1h --min-quorum 5\n" +
			"  konsulctl operator autopilot set-config --cleanup-dead-servers=false",
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &registryv1.SetAutopilotConfigRequest{Config: &registryv1.AutopilotConfig{}, Datacenter: cli.Named(datacenter)}
			set := map[string]func(){
				"cleanup-dead-servers":      func() { req.Config.CleanupDeadServers = proto.Bool(cleanup) },
				"dead-server-after":         func() { req.Config.DeadServerAfter = durationpb.New(dead) },
				"min-quorum":                func() { req.Config.MinQuorum = proto.Uint32(minQuorum) },
				"last-contact-threshold":    func() { req.Config.LastContactThreshold = durationpb.New(contact) },
				"max-trailing-logs":         func() { req.Config.MaxTrailingLogs = proto.Uint64(trailing) },
				"server-stabilization-time": func() { req.Config.ServerStabilizationTime = durationpb.New(stable) },
			}
			named := 0
			for flag, apply := range set {
				if cmd.Flags().Changed(flag) {
					apply()
					named++
				}
			}
			if named == 0 {
				return cli.Usage(cmd, errors.New("no setting is named"))
			}
			if cmd.Flags().Changed("cas") {
				req.Cas = proto.Uint64(cas)
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Operator.SetAutopilotConfig(ctx, req)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { autopilotTable(g, answer.GetConfig(), answer.GetModifyIndex()) })
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to change (default: the gateway's)")
	flags := cmd.Flags()
	flags.BoolVar(&cleanup, "cleanup-dead-servers", true, "remove servers that have not answered for --dead-server-after")
	flags.DurationVar(&dead, "dead-server-after", 0, "how long a server must not have answered to be dead")
	flags.Uint32Var(&minQuorum, "min-quorum", 0, "never remove a server when fewer voters would remain")
	flags.DurationVar(&contact, "last-contact-threshold", 0, "a server that heard from the leader longer ago is not healthy")
	flags.Uint64Var(&trailing, "max-trailing-logs", 0, "a server whose log is further behind is not healthy")
	flags.DurationVar(&stable, "server-stabilization-time", 0, "how long a new server must be healthy before it gets a vote")
	flags.Uint64Var(&cas, "cas", 0, "only if the settings were last changed at this index, as get-config says")
	a.RequestIDFlag(cmd)
	return cmd
}
