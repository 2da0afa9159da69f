package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/host"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/servicedef"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// registration is what `service register` was given.
type registration struct {
	file                                 string
	name, id, address, node, nodeAddress string
	datacenter                           string
	port                                 uint16
	tags, checks                         []string
	meta                                 map[string]string
	ttl                                  time.Duration
	replace                              bool
}

// checkTTL is the check that --ttl makes, called as one of a definition that has no id.
const checkTTL = "ttl"

func register(a *cli.App) *cobra.Command {
	var r registration
	cmd := &cobra.Command{
		Use: "register (--name NAME --address HOST [--port PORT] | --file FILE)", Short: "Put an instance into the catalogue",
		Long: `Put an instance into the catalogue, or update it, with all its checks, in one commit. An id belongs to who registered
it: another node's, service's or owner's instance is only taken over with --replace. Of its node, what is not named stays.

--file reads a service definition (YAML or JSON, the one key ` + "`service`" + `); its failover section, if it has
one, becomes the service's failover policy in the whole federation.

konsulctl runs no checks: each check has the status given with --check until somebody reports another. With --ttl
there is one that is critical when no report came for so long (` + "`konsulctl check pass ttl --instance ID`" + `).
To have a service watched, give its definition to the agent of its node instead (services_dir).
An instance without checks counts as passing, whatever happens to it, unless its node sends heartbeats.`,
		Example: `  konsulctl service register --name api --address 10.0.0.5 --port 8080 --tag v1 --meta team=web
  konsulctl service register --name api --id api-2 --address 10.0.0.6 --port 8080 --ttl 30s
  konsulctl service register --file payment-api.yaml`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, policy, err := r.request()
			if err != nil {
				return err
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				return r.asTyped(send(ctx, a, api, request, policy))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.file, "file", "", "service definition to register")
	flags.StringVar(&r.name, "name", "", "name of the service")
	flags.StringVar(&r.id, "id", "", "id of the instance, unique in its datacenter (default: the name, for one instance)")
	flags.StringVar(&r.address, "address", "", "host or IP of the instance")
	flags.Uint16Var(&r.port, "port", 0, "port of the instance")
	flags.StringArrayVar(&r.tags, "tag", nil, "tag (repeatable); commas are part of it")
	flags.Var((*cli.Pairs)(&r.meta), "meta", "KEY=VALUE (repeatable)")
	flags.StringArrayVar(&r.checks, "check", nil, "check and its status, ID=passing|warning|critical (repeatable)")
	flags.StringVar(&r.node, "node", "", "node the instance runs on (default: called by its address)")
	flags.StringVar(&r.nodeAddress, "node-address", "", "host or IP of the node (default: the one it has, else that of the instance)")
	flags.DurationVar(&r.ttl, "ttl", 0, "expect reports: the instance is critical when none came for so long")
	flags.BoolVar(&r.replace, "replace", false, "take the instance over, whoever has its id, and drop what is not named of the node's meta and liveness TTL")
	a.DatacenterFlag(cmd, &r.datacenter, "datacenter to register in (default: the definition's, else the gateway's)")
	cmd.MarkFlagsOneRequired("file", "name")
	for _, flag := range []string{"name", "id", "address", "port", "tag", "meta"} {
		cmd.MarkFlagsMutuallyExclusive("file", flag)
	}
	cli.Must(cmd.MarkFlagFilename("file", "yaml", "yml", "json"))
	a.RequestIDFlag(cmd)
	return cmd
}

func send(ctx context.Context, a *cli.App, api konsul.API, request *registryv1.RegisterRequest, policy *registryv1.FailoverPolicy) error {
	answer, err := api.Catalog.Register(ctx, request)
	if err != nil {
		return err
	}
	s := cmp.Or(answer.GetService(), request.GetService())
	if err := a.Print(answer, func(g *output.Grid) {
		g.Line("registered %s (%s) in %s", s.GetId(), s.GetName(), answer.GetMeta().GetDatacenter())
	}); err != nil {
		return err
	}
	noteChecks(a, answer, request)
	if policy == nil {
		return nil
	}
	if a.RequestID != "" { // One id is for one write.
		ctx = konsul.WithRequestID(ctx, a.RequestID+"/failover")
	}
	if _, err := api.Catalog.SetFailoverPolicy(ctx, &registryv1.SetFailoverPolicyRequest{Policy: policy}); err != nil {
		return fmt.Errorf("the instance is registered, but the failover policy was not set: %w", err)
	}
	a.Note("failover policy of %s set in the federation", policy.GetService())
	return nil
}

// noteChecks says who watches over what was registered, and what must be done for it.
func noteChecks(a *cli.App, answer *registryv1.RegisterResponse, request *registryv1.RegisterRequest) {
	if a.Format != output.Table {
		return
	}
	if removed := answer.GetRemovedChecks(); len(removed) > 0 {
		a.Note("removed its checks that this registration does not name: %s", cli.Commas(removed))
	}
	id := answer.GetService().GetId()
	if len(request.GetChecks()) == 0 {
		a.Note("it has no checks: unless its node sends heartbeats, it counts as passing whatever happens; see --ttl")
	}
	for _, c := range request.GetChecks() {
		if c.GetTtl() == nil {
			continue
		}
		line := "konsulctl check pass " + c.GetId() + " --instance " + id
		if dc := request.GetDatacenter(); dc != "" {
			line += " --datacenter " + dc
		}
		a.Note("it is critical when no report comes for %s; this keeps it alive: %s", cli.TTLOf(c.GetTtl()), line)
	}
}

// asTyped names the flags that the fields of the request were made of.
func (r *registration) asTyped(err error) error {
	if r.file != "" {
		return err
	}
	fields := map[string]string{
		"service.name": "--name", "service.id": "--id", "service.address": "--address", "service.port": "--port",
		"service.tags": "--tag", "service.meta": "--meta", "service_id": "--id",
		"node.name": "--node", "node.address": "--node-address",
	}
	if r.node == "" {
		fields["node.name"] = "--address"
	}
	if r.nodeAddress == "" {
		fields["node.address"] = "--address"
	}
	return cli.InFlags(err, func(field string) string {
		switch {
		case strings.HasPrefix(field, "checks") && r.ttl != 0 && strings.HasSuffix(field, ".ttl"):
			return "--ttl"
		case strings.HasPrefix(field, "checks"):
			return "--check"
		}
		return fields[field]
	})
}

func (r *registration) request() (*registryv1.RegisterRequest, *registryv1.FailoverPolicy, error) {
	address, badAddress := cli.HostIn("--address", r.address)
	given, badNodeAddress := cli.HostIn("--node-address", r.nodeAddress)
	// Without --id the registry takes the name, but not the instance of another address for this
	// one.
	definition := &servicedef.Definition{Name: r.name, ID: r.id, Address: address, Port: r.port, Tags: r.tags, Meta: r.meta}
	if r.file != "" {
		var err error
		if definition, err = servicedef.Load(r.file); err != nil {
			return nil, nil, badFile(err)
		}
	}
	datacenter := cli.Named(cmp.Or(r.datacenter, definition.Datacenter))
	checks, err := r.checksOf(definition)
	errs := []error{badAddress, badNodeAddress, err}
	if !servicedef.ValidName(definition.Name) {
		errs = append(errs, fault.Invalid("--name", "%q is no service name", definition.Name).
			WithRemedy("use a DNS label such as payment-api: lower-case letters, digits and inner hyphens, at most 63"))
	}
	if definition.Address == "" && r.address == "" && r.nodeAddress == "" && r.node == "" {
		field := "--address"
		if r.file != "" {
			field = "service.address"
		}
		errs = append(errs, fault.Invalid(field, "is missing").
			WithRemedy("give the address of the instance, or its node with --node or --node-address"))
	}
	if r.datacenter != "" && datacenter != "" {
		errs = append(errs, definition.CheckDatacenter(datacenter))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	nodeAddress := cmp.Or(given, definition.Address)
	node := cmp.Or(r.node, host.NodeName(nodeAddress))
	if r.node != "" {
		nodeAddress = given // A node that is registered keeps its own.
	}
	request := &registryv1.RegisterRequest{
		Node: &registryv1.Node{Name: node, Address: nodeAddress},
		Service: &registryv1.Service{
			Id: definition.ID, Name: definition.Name, Node: node, Address: definition.Address,
			Port: uint32(definition.Port), Tags: definition.Tags, Meta: definition.Meta,
		},
		Checks: checks, Datacenter: datacenter, Replace: r.replace,
	}
	return request, policyOf(definition), nil
}

// checksOf returns the checks to register: those of the flags, which give each check of the file
// its status.
func (r *registration) checksOf(definition *servicedef.Definition) ([]*registryv1.Check, error) {
	var checks []*registryv1.Check
	var errs []error
	for _, text := range r.checks {
		id, status, _ := strings.Cut(text, "=")
		health, ok := konsul.Status(status).Proto()
		switch {
		case id == "" || !ok || status == "":
			errs = append(errs, fault.Invalid("--check", "%q is no check", text).WithRemedy("write ID=passing, ID=warning or ID=critical"))
		case find(checks, id) != nil:
			errs = append(errs, fault.Invalid("--check", "%q is given twice", id).WithRemedy("give each check one status"))
		default:
			checks = append(checks, &registryv1.Check{Id: id, ServiceId: definition.ID, Status: health})
		}
	}
	if r.ttl != 0 {
		if find(checks, checkTTL) == nil {
			// Who registers it says that it is well now.
			checks = append(checks, &registryv1.Check{Id: checkTTL, ServiceId: definition.ID, Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING})
		}
		find(checks, checkTTL).Ttl = durationpb.New(r.ttl)
	}
	for i, c := range definition.Checks {
		given := find(checks, c.ID)
		if given == nil && c.TTL != 0 {
			// Nobody runs it: it waits for reports, and is critical until the first.
			given = &registryv1.Check{Id: c.ID, ServiceId: definition.ID}
			checks = append(checks, given)
		}
		if given != nil {
			given.Name = c.Name
			if c.TTL != 0 && given.GetTtl() == nil {
				given.Ttl = durationpb.New(c.TTL)
			}
			continue
		}
		errs = append(errs, fault.Invalid(fmt.Sprintf("service.checks[%d]", i), "konsulctl runs no checks, and %q has no status", c.ID).
			WithRemedy("give the definition to the node's agent, or the status with --check "+c.ID+"=passing"))
	}
	return checks, errors.Join(errs...)
}

func find(checks []*registryv1.Check, id string) *registryv1.Check {
	if i := slices.IndexFunc(checks, func(c *registryv1.Check) bool { return c.GetId() == id }); i >= 0 {
		return checks[i]
	}
	return nil
}

func policyOf(definition *servicedef.Definition) *registryv1.FailoverPolicy {
	if len(definition.Failover) == 0 {
		return nil
	}
	policy := &registryv1.FailoverPolicy{Service: definition.Name}
	for _, t := range definition.Failover {
		policy.Failover = append(policy.Failover, &registryv1.FailoverTarget{Datacenter: t.Datacenter, Targets: t.Targets})
	}
	return policy
}

// badFile makes an unreadable file a usage error; problems of its content are faults already.
func badFile(err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	return fault.Invalid("--file", "cannot be used").Wrap(err)
}
