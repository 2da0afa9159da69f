package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/servicedef"
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
}

func (a *app) serviceRegister() *cobra.Command {
	var r registration
	cmd := &cobra.Command{
		Use: "register (--name NAME --address HOST [--port PORT] | --file FILE)", Short: "Put an instance into the catalogue",
		Long: `Put an instance into the catalogue, or replace it, with all its checks, in one commit.

--file reads a service definition (YAML, the one key ` + "`service`" + `); its failover section, if it has
one, becomes the service's failover policy in the whole federation.

konsulctl runs no checks: each check has the status given with --check until somebody reports another.
To have a service watched, give its definition to the agent of its node instead (services_dir).
An instance without checks counts as passing.`,
		Example: `  konsulctl service register --name api --address 10.0.0.5 --port 8080 --tag v1 --meta team=web
  konsulctl service register --name api --id api-2 --address 10.0.0.6 --port 8080 --check http=passing
  konsulctl service register --file payment-api.yaml`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, policy, err := r.request()
			if err != nil {
				return err
			}
			return a.call(cmd, func(ctx context.Context, api konsul.API) error { return a.register(ctx, api, request, policy) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.file, "file", "", "service definition to register")
	flags.StringVar(&r.name, "name", "", "name of the service")
	flags.StringVar(&r.id, "id", "", "id of the instance, unique in its datacenter (default: the name)")
	flags.StringVar(&r.address, "address", "", "host or IP of the instance")
	flags.Uint16Var(&r.port, "port", 0, "port of the instance")
	flags.StringSliceVar(&r.tags, "tag", nil, "tag (repeatable)")
	flags.StringToStringVar(&r.meta, "meta", nil, "key=value (repeatable)")
	flags.StringArrayVar(&r.checks, "check", nil, "check and its status, ID=passing|warning|critical (repeatable)")
	flags.StringVar(&r.node, "node", "", "node the instance runs on (default: called by its address)")
	flags.StringVar(&r.nodeAddress, "node-address", "", "host or IP of the node (default: that of the instance)")
	a.datacenterFlag(cmd, &r.datacenter, "datacenter to register in (default: the definition's, else the gateway's)")
	cmd.MarkFlagsOneRequired("file", "name")
	for _, flag := range []string{"name", "id", "address", "port", "tag", "meta"} {
		cmd.MarkFlagsMutuallyExclusive("file", flag)
	}
	must(cmd.MarkFlagFilename("file", "yaml", "yml"))
	a.requestIDFlag(cmd)
	return cmd
}

func (a *app) register(ctx context.Context, api konsul.API, request *registryv1.RegisterRequest, policy *registryv1.FailoverPolicy) error {
	answer, err := api.Catalog.Register(ctx, request)
	if err != nil {
		return err
	}
	s := cmp.Or(answer.GetService(), request.GetService())
	if err := a.print(answer, func(g *output.Grid) {
		g.Line("registered %s (%s) in %s", s.GetId(), s.GetName(), answer.GetMeta().GetDatacenter())
	}); err != nil || policy == nil {
		return err
	}
	if a.requestID != "" { // One id is for one write.
		ctx = konsul.WithRequestID(ctx, a.requestID+"/failover")
	}
	if _, err := api.Catalog.SetFailoverPolicy(ctx, &registryv1.SetFailoverPolicyRequest{Policy: policy}); err != nil {
		return fmt.Errorf("the instance is registered, but the failover policy was not set: %w", err)
	}
	a.note("failover policy of %s set in the federation", policy.GetService())
	return nil
}

func (r *registration) request() (*registryv1.RegisterRequest, *registryv1.FailoverPolicy, error) {
	definition := &servicedef.Definition{
		Name: r.name, ID: cmp.Or(r.id, r.name), Address: r.address, Port: r.port, Tags: r.tags, Meta: r.meta,
	}
	if r.file != "" {
		var err error
		if definition, err = servicedef.Load(r.file); err != nil {
			return nil, nil, badFile(err)
		}
	}
	datacenter := named(cmp.Or(r.datacenter, definition.Datacenter))
	checks, err := r.checksOf(definition)
	errs := []error{err}
	if !servicedef.ValidName(definition.Name) {
		errs = append(errs, fault.Invalid("--name", "%q is no service name", definition.Name).
			WithRemedy("use a DNS label such as payment-api: lower-case letters, digits and inner hyphens, at most 63"))
	}
	if definition.Address == "" && r.nodeAddress == "" {
		field := "--address"
		if r.file != "" {
			field = "service.address"
		}
		errs = append(errs, fault.Invalid(field, "is missing").
			WithRemedy("give the address of the instance, or of its node with --node-address"))
	}
	if r.datacenter != "" && datacenter != "" {
		errs = append(errs, definition.CheckDatacenter(datacenter))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	nodeAddress := cmp.Or(r.nodeAddress, definition.Address)
	node := cmp.Or(r.node, nodeAddress)
	request := &registryv1.RegisterRequest{
		Node: &registryv1.Node{Name: node, Address: nodeAddress},
		Service: &registryv1.Service{
			Id: definition.ID, Name: definition.Name, Node: node, Address: definition.Address,
			Port: uint32(definition.Port), Tags: definition.Tags, Meta: definition.Meta,
		},
		Checks: checks, Datacenter: datacenter,
	}
	return request, policyOf(definition), nil
}

// checksOf answers the checks to register: those of the flags, which give each check of the file its status.
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
	for i, c := range definition.Checks {
		if given := find(checks, c.ID); given != nil {
			given.Name = c.Name
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
