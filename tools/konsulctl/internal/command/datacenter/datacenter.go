// Package datacenter has konsulctl's commands for the federation and its datacenters.
package datacenter

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the datacenter command.
func Command(a *cli.App) *cobra.Command {
	token := cli.Group(&cobra.Command{
		Use: "token", Short: "Make join tokens",
		Example: "  konsulctl datacenter token create --datacenter asia-pacific --out asia-pacific.token",
	}, tokenCreate(a))
	return cli.Group(&cobra.Command{
		Use: "datacenter", Short: "See the datacenters, and admit new ones",
		Example: "  konsulctl datacenter list",
	}, list(a), token)
}

func list(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the datacenters gossip knows",
		Long: `List the datacenters gossip knows, as the asked one sees them, with the measured round trip to each.
JSON is that of GET /api/v1/datacenters.`,
		Example: "  konsulctl datacenter list\n  konsulctl datacenter list -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Datacenters.ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { datacenterTable(g, answer) })
			})
		},
	}
}

func datacenterTable(g *output.Grid, answer *wangossipv1.ListDatacentersResponse) {
	g.Row("DATACENTER", "STATE", "ROLE", "ROUND TRIP", "MEMBERS", "SINCE", "GATEWAYS")
	for _, dc := range answer.GetDatacenters() {
		role := "secondary"
		if dc.GetPrimary() {
			role = "primary"
		}
		name := dc.GetName()
		if name == answer.GetDatacenter() {
			name += " (asked)"
		}
		alive := 0
		for _, m := range dc.GetMembers() {
			if m.GetStatus() == "alive" {
				alive++
			}
		}
		g.Row(name, strings.ToLower(strings.TrimPrefix(dc.GetState().String(), "DATACENTER_STATE_")), role,
			output.RoundTrip(dc.GetRoundTrip()), fmt.Sprintf("%d of %d", alive, len(dc.GetMembers())),
			output.Time(dc.GetStateSince()), strings.Join(dc.GetGatewayAddresses(), ","))
	}
	for _, dc := range answer.GetDatacenters() {
		for _, rival := range cli.Rivals(dc) {
			g.Line("Warning: %s", rival)
		}
	}
}

func tokenCreate(a *cli.App) *cobra.Command {
	var datacenter, out string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create --datacenter NAME", Short: "Make a token that admits one datacenter, once",
		Long: `Make a token with which a new datacenter joins the federation, once, under the name given. Ask the primary.
The token is a secret and shown only this once: written to standard output, or with --out to a new file
that only you can read. Name that file as ca.join_token_file in the new datacenter's configuration.`,
		Example: `  konsulctl datacenter token create --datacenter asia-pacific > asia-pacific.token
  konsulctl datacenter token create --datacenter asia-pacific --ttl 15m --out asia-pacific.token`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := &cav1.CreateJoinTokenRequest{Datacenter: datacenter}
			if ttl != 0 {
				request.Ttl = durationpb.New(ttl)
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				if out == "" && a.Format != output.Table {
					answer, err := api.CA.CreateJoinToken(ctx, request)
					if err != nil {
						return err
					}
					return a.Print(answer, nil)
				}
				var answer *cav1.CreateJoinTokenResponse
				err := a.SecretTo(out, func() (token string, err error) {
					if answer, err = api.CA.CreateJoinToken(ctx, request); err != nil {
						return "", err
					}
					a.Note("admits %s once, until %s", datacenter, output.Time(answer.GetExpiresAt()))
					return answer.GetToken(), nil
				})
				if err != nil {
					return err
				}
				return a.PrintWithout("token", answer)
			})
		},
	}
	cmd.Flags().StringVar(&datacenter, "datacenter", "", "name of the datacenter to admit")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the token works, at most 24h (default 1h)")
	cmd.Flags().StringVar(&out, "out", "", "write the token to this new file")
	cli.Must(cmd.MarkFlagRequired("datacenter"))
	return cmd
}

// Federation returns the federation command.
func Federation(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "federation", Short: "See the federation record",
		Example: "  konsulctl federation show",
	}, federationShow(a))
}

func federationShow(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the federation record: its id, epoch, primary and members",
		Long:    "Show the federation record as the asked datacenter knows it. JSON is that of GET /api/v1/federation.",
		Example: "  konsulctl federation show",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Federation.GetFederation(ctx, &federationv1.GetFederationRequest{})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { federationTable(g, answer.GetFederation()) })
			})
		},
	}
}

func federationTable(g *output.Grid, f *federationv1.Federation) {
	g.Row("Federation", f.GetId())
	g.Row("Primary", f.GetPrimaryDatacenter())
	g.Row("Epoch", fmt.Sprint(f.GetEpoch()))
	g.Row("Asked", f.GetDatacenter())
	g.Line("")
	g.Row("DATACENTER", "ID", "JOINED", "VERSION", "GATEWAYS")
	for _, m := range f.GetMembers() {
		g.Row(m.GetName(), m.GetId(), output.Time(m.GetJoinedAt()), m.GetVersion(), strings.Join(m.GetGatewayAddresses(), ","))
	}
	g.Line("")
	g.Row("EPOCH", "PRIMARY", "BEGAN")
	for _, e := range f.GetHistory() {
		g.Row(fmt.Sprint(e.GetNumber()), e.GetPrimaryDatacenter(), output.Time(e.GetBeganAt()))
	}
}
