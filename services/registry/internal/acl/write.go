package acl

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused changes.
const (
	// ReasonPolicyNotFound says that there is no policy of that name.
	ReasonPolicyNotFound = "ACL_POLICY_NOT_FOUND"
	// ReasonRoleNotFound says that there is no role of that name.
	ReasonRoleNotFound = "ACL_ROLE_NOT_FOUND"
	// ReasonTokenNotFound says that there is no token with that accessor id.
	ReasonTokenNotFound = "ACL_TOKEN_NOT_FOUND"
	// ReasonPolicyExists says that a policy has that name already.
	ReasonPolicyExists = "ACL_POLICY_EXISTS"
	// ReasonRoleExists says that a role has that name already.
	ReasonRoleExists = "ACL_ROLE_EXISTS"
	// ReasonTokenExists says that a token has that secret already.
	ReasonTokenExists = "ACL_TOKEN_EXISTS"
	// ReasonInUse says that roles or tokens have what was to be deleted.
	ReasonInUse = "ACL_IN_USE"
	// ReasonLastManagement says that no management token would be left.
	ReasonLastManagement = "ACL_LAST_MANAGEMENT_TOKEN"
	// ReasonMoved says that what a change was planned on changed meanwhile; it is planned again.
	ReasonMoved = "ACL_MOVED"
	// ReasonSecretLost says that a repeated request made its token before, with a secret nobody
	// has.
	ReasonSecretLost = "ACL_SECRET_LOST"
	// ReasonAnonymous says that the anonymous token cannot be treated like that.
	ReasonAnonymous = "ACL_ANONYMOUS_TOKEN"
)

// Limits of names and texts.
const (
	maxNameBytes        = 128
	maxDescriptionBytes = 1 << 10
	maxLinks            = 64
)

// Writer makes the commands of changes for one datacenter. It only reads what it is handed.
type Writer struct {
	// Datacenter is where the changes originate.
	Datacenter string
}

func checkName(field, name string) error {
	const remedy = "use letters, digits, dots, dashes and underscores, at most 128 of them"
	switch {
	case name == "":
		return fault.Invalid(field, "is missing").WithRemedy(remedy)
	case len(name) > maxNameBytes:
		return fault.Invalid(field, "is %d bytes long", len(name)).WithRemedy(remedy)
	case strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}):
		return fault.Invalid(field, "%q holds a character that names do not have", name).WithRemedy(remedy)
	}
	return nil
}

func checkDescription(field, text string) error {
	if len(text) > maxDescriptionBytes {
		return fault.Invalid(field, "is %d bytes long; at most %d are allowed", len(text), maxDescriptionBytes)
	}
	return nil
}

// links checks names of policies or roles and returns them sorted, each once.
func links(r record.Reader, field string, table registryv1.Table, names []string) ([]string, error) {
	if len(names) > maxLinks {
		return nil, fault.Invalid(field, "are %d; at most %d are allowed", len(names), maxLinks).WithRemedy("put several into one role or policy")
	}
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := checkName(at, name); err != nil {
			return nil, err
		}
		row, err := r.Get(table, name)
		if err != nil {
			return nil, err
		}
		if !record.Live(row) {
			return nil, notFound(table, name).WithField(at)
		}
	}
	sorted := slices.Sorted(slices.Values(names))
	return slices.Compact(sorted), nil
}

func notFound(table registryv1.Table, name string) *fault.Error {
	switch table {
	case policyTable:
		return PolicyNotFound(name)
	case roleTable:
		return RoleNotFound(name)
	}
	return TokenNotFound(name)
}

// PolicyNotFound is the fault of a policy that is not there.
func PolicyNotFound(name string) *fault.Error {
	return fault.New(fault.NotFound, ReasonPolicyNotFound, "there is no policy %q", name).WithField("name").
		WithRemedy("see `konsulctl acl policy list`; one just made in the primary needs a moment to get here")
}

// RoleNotFound is the fault of a role that is not there.
func RoleNotFound(name string) *fault.Error {
	return fault.New(fault.NotFound, ReasonRoleNotFound, "there is no role %q", name).WithField("name").
		WithRemedy("see `konsulctl acl role list`; one just made in the primary needs a moment to get here")
}

// TokenNotFound is the fault of a token that is not there.
func TokenNotFound(name string) *fault.Error {
	return fault.New(fault.NotFound, ReasonTokenNotFound, "there is no token with the accessor id %q here", name).WithField("accessor_id").
		WithRemedy("see `konsulctl acl token list`; a local token is known in its own datacenter only")
}

// Policy returns a stored policy.
func Policy(r record.Reader, name string) (*registryv1.ACLPolicy, error) {
	value := &registryv1.ACLPolicy{}
	row, err := read(r, policyTable, name, value)
	value.CreateIndex, value.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	return value, err
}

// Role returns a stored role.
func Role(r record.Reader, name string) (*registryv1.ACLRole, error) {
	value := &registryv1.ACLRole{}
	row, err := read(r, roleTable, name, value)
	value.CreateIndex, value.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	return value, err
}

func read(r record.Reader, table registryv1.Table, name string, into proto.Message) (*registryv1.Record, error) {
	row, err := record.Find(r, table, name, into)
	if err == nil && row == nil {
		return nil, notFound(table, name)
	}
	return row, err
}

// Policies returns every stored policy, by name.
func Policies(r record.Reader) ([]*registryv1.ACLPolicy, error) {
	var out []*registryv1.ACLPolicy
	err := record.Each(r, policyTable, record.ScanOptions{}, func(row *registryv1.Record) error {
		p := &registryv1.ACLPolicy{}
		err := record.Decode(row, p)
		p.CreateIndex, p.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
		out = append(out, p)
		return err
	})
	return out, err
}

// Roles returns every stored role, by name.
func Roles(r record.Reader) ([]*registryv1.ACLRole, error) {
	var out []*registryv1.ACLRole
	err := record.Each(r, roleTable, record.ScanOptions{}, func(row *registryv1.Record) error {
		role := &registryv1.ACLRole{}
		err := record.Decode(row, role)
		role.CreateIndex, role.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
		out = append(out, role)
		return err
	})
	return out, err
}

// PutPolicy returns the command that stores a policy: a new one, or instead of the one there is.
func (w Writer) PutPolicy(r record.Reader, given *registryv1.ACLPolicy, fresh bool, cas *uint64) (*registryv1.Command, error) {
	if err := checkName("policy.name", given.GetName()); err != nil {
		return nil, err
	}
	if err := checkDescription("policy.description", given.GetDescription()); err != nil {
		return nil, err
	}
	if n := len(given.GetRules()); n > maxRules {
		return nil, fault.Invalid("rules", "are %d; at most %d are allowed", n, maxRules).WithRemedy("split the policy, or use prefixes and globs")
	}
	for i, rule := range given.GetRules() {
		if _, err := parseRule(i, rule); err != nil {
			return nil, err
		}
	}
	value := &registryv1.ACLPolicy{Name: given.GetName(), Description: given.GetDescription(), Rules: given.GetRules()}
	return w.replace(r, policyTable, given.GetName(), value, fresh, cas, ReasonPolicyExists)
}

// PutRole returns the command that stores a role: a new one, or instead of the one there is.
func (w Writer) PutRole(r record.Reader, given *registryv1.ACLRole, fresh bool, cas *uint64) (*registryv1.Command, error) {
	if err := checkName("role.name", given.GetName()); err != nil {
		return nil, err
	}
	if err := checkDescription("role.description", given.GetDescription()); err != nil {
		return nil, err
	}
	policies, err := links(r, "role.policies", policyTable, given.GetPolicies())
	if err != nil {
		return nil, err
	}
	value := &registryv1.ACLRole{Name: given.GetName(), Description: given.GetDescription(), Policies: policies}
	return w.replace(r, roleTable, given.GetName(), value, fresh, cas, ReasonRoleExists)
}

// replace writes a row that must be absent, or there and, if asked, at an index.
func (w Writer) replace(r record.Reader, table registryv1.Table, key string, value proto.Message, fresh bool, cas *uint64, exists string) (*registryv1.Command, error) {
	op, err := record.Put(table, key, w.Datacenter, value)
	if err != nil {
		return nil, err
	}
	cmd := &registryv1.Command{Operations: []*registryv1.Operation{op}}
	if fresh {
		cmd.Conditions = []*registryv1.Condition{record.When(table, key, 0, exists)}
		return cmd, nil
	}
	row, err := r.Get(table, key)
	if err != nil {
		return nil, err
	}
	if !record.Live(row) {
		return nil, notFound(table, key)
	}
	condition := record.When(table, key, row.GetModifyIndex(), ReasonMoved)
	if cas != nil {
		condition = record.When(table, key, *cas, record.ReasonCASMismatch)
	}
	cmd.Conditions = []*registryv1.Condition{condition}
	return cmd, nil
}

// DeletePolicy returns the command that deletes a policy. Unless forced it refuses while the
// datacenter knows a role or token that has it.
func (w Writer) DeletePolicy(r record.Reader, name string, force bool) (*registryv1.Command, error) {
	return w.drop(r, policyTable, name, force, func() ([]string, error) {
		var users []string
		roles, err := Roles(r)
		if err != nil {
			return nil, err
		}
		for _, role := range roles {
			if slices.Contains(role.GetPolicies(), name) {
				users = append(users, "role "+role.GetName())
			}
		}
		having, err := tokensWith(r, (*registryv1.ACLToken).GetPolicies, name)
		return append(users, having...), err
	})
}

// DeleteRole returns the command that deletes a role. Unless forced it refuses while the datacenter
// knows a token that has it.
func (w Writer) DeleteRole(r record.Reader, name string, force bool) (*registryv1.Command, error) {
	return w.drop(r, roleTable, name, force, func() ([]string, error) {
		return tokensWith(r, (*registryv1.ACLToken).GetRoles, name)
	})
}

// tokensWith returns the tokens that have a policy or role, as users are named.
func tokensWith(r record.Reader, links func(*registryv1.ACLToken) []string, name string) ([]string, error) {
	all, err := Tokens(r)
	var users []string
	for _, s := range all {
		if slices.Contains(links(s.Token), name) {
			users = append(users, "token "+accessorOf(s.Row.GetKey()))
		}
	}
	return users, err
}

const usersNamed = 5

func (w Writer) drop(r record.Reader, table registryv1.Table, name string, force bool, usersOf func() ([]string, error)) (*registryv1.Command, error) {
	cmd := &registryv1.Command{Operations: []*registryv1.Operation{record.Delete(table, name)}}
	row, err := r.Get(table, name)
	if err != nil || !record.Live(row) {
		// Whether it never was, or an earlier try of the same request deleted it, the outcome
		// tells.
		return cmd, err
	}
	if !force {
		users, err := usersOf()
		if err != nil {
			return nil, err
		}
		if n := len(users); n > 0 {
			text := strings.Join(users[:min(n, usersNamed)], ", ")
			if n > usersNamed {
				text += fmt.Sprintf(" and %d more", n-usersNamed)
			}
			return nil, fault.New(fault.FailedPrecondition, ReasonInUse, "%q is in use by %s", name, text).WithField("name").
				WithRemedy("take it from them first, or force: they lose what it grants")
		}
	}
	cmd.Conditions = []*registryv1.Condition{record.When(table, name, row.GetModifyIndex(), ReasonMoved)}
	return cmd, nil
}

// Outcome returns the fault of a command that did not hold, nil if it did.
func Outcome(result *registryv1.CommandResult) error {
	key := result.GetFailedRow().GetKey()
	switch result.GetFailedReason() {
	case "":
		return nil
	case ReasonPolicyExists:
		return fault.New(fault.AlreadyExists, ReasonPolicyExists, "there is a policy %q already", key).WithField("policy.name").WithRemedy("update it, or choose another name")
	case ReasonRoleExists:
		return fault.New(fault.AlreadyExists, ReasonRoleExists, "there is a role %q already", key).WithField("role.name").WithRemedy("update it, or choose another name")
	case ReasonTokenExists:
		return fault.New(fault.AlreadyExists, ReasonTokenExists, "a token has that secret already").WithField("secret").WithRemedy("use a random secret, or none and one is made up")
	case ReasonBootstrapped:
		return bootstrapClosed(0)
	case record.ReasonCASMismatch:
		return fault.New(fault.Aborted, record.ReasonCASMismatch, "%q has moved on from that index", accessorOf(key)).WithField("cas").WithRemedy("read it again and retry with its modify_index")
	default:
		return fault.New(fault.Aborted, ReasonMoved, "%q changed meanwhile", accessorOf(key)).WithRemedy("try again")
	}
}
