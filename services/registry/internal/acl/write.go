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

func put(table registryv1.Table, key, datacenter string, m proto.Message) (*registryv1.Operation, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
		Table: table, Key: key, Value: value, OriginDatacenter: datacenter,
	}}}, nil
}

func remove(table registryv1.Table, key string) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_Delete{Delete: &registryv1.RecordKey{Table: table, Key: key}}}
}

func when(table registryv1.Table, key string, index uint64, reason string) *registryv1.Condition {
	return &registryv1.Condition{Row: &registryv1.RecordKey{Table: table, Key: key}, ModifyIndex: index, Reason: reason}
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
	if err != nil {
		return nil, err
	}
	value.CreateIndex, value.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	return value, nil
}

// Role returns a stored role.
func Role(r record.Reader, name string) (*registryv1.ACLRole, error) {
	value := &registryv1.ACLRole{}
	row, err := read(r, roleTable, name, value)
	if err != nil {
		return nil, err
	}
	value.CreateIndex, value.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	return value, nil
}

func read(r record.Reader, table registryv1.Table, name string, into proto.Message) (*registryv1.Record, error) {
	row, err := r.Get(table, name)
	if err != nil {
		return nil, err
	}
	if !record.Live(row) {
		return nil, notFound(table, name)
	}
	if err := proto.Unmarshal(row.GetValue(), into); err != nil {
		return nil, fmt.Errorf("decode %s %q: %w", table, name, err)
	}
	return row, nil
}

// Policies returns every stored policy, by name.
func Policies(r record.Reader) ([]*registryv1.ACLPolicy, error) {
	var out []*registryv1.ACLPolicy
	err := each(r, policyTable, func() proto.Message { return &registryv1.ACLPolicy{} }, func(row *registryv1.Record, m proto.Message) {
		if p, ok := m.(*registryv1.ACLPolicy); ok {
			p.CreateIndex, p.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
			out = append(out, p)
		}
	})
	return out, err
}

// Roles returns every stored role, by name.
func Roles(r record.Reader) ([]*registryv1.ACLRole, error) {
	var out []*registryv1.ACLRole
	err := each(r, roleTable, func() proto.Message { return &registryv1.ACLRole{} }, func(row *registryv1.Record, m proto.Message) {
		if p, ok := m.(*registryv1.ACLRole); ok {
			p.CreateIndex, p.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
			out = append(out, p)
		}
	})
	return out, err
}

func each(r record.Reader, table registryv1.Table, empty func() proto.Message, fn func(*registryv1.Record, proto.Message)) error {
	var failure error
	err := r.Scan(table, record.ScanOptions{}, func(row *registryv1.Record) bool {
		m := empty()
		if failure = proto.Unmarshal(row.GetValue(), m); failure != nil {
			failure = fmt.Errorf("decode %s %q: %w", table, row.GetKey(), failure)
			return false
		}
		fn(row, m)
		return true
	})
	if err == nil {
		err = failure
	}
	return err
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
	op, err := put(table, key, w.Datacenter, value)
	if err != nil {
		return nil, err
	}
	cmd := &registryv1.Command{Operations: []*registryv1.Operation{op}}
	if fresh {
		cmd.Conditions = []*registryv1.Condition{when(table, key, 0, exists)}
		return cmd, nil
	}
	row, err := r.Get(table, key)
	if err != nil {
		return nil, err
	}
	if !record.Live(row) {
		return nil, notFound(table, key)
	}
	cmd.Conditions = []*registryv1.Condition{when(table, key, row.GetModifyIndex(), ReasonMoved)}
	if cas != nil {
		cmd.Conditions = []*registryv1.Condition{when(table, key, *cas, record.ReasonCASMismatch)}
	}
	return cmd, nil
}

// DeletePolicy returns the command that deletes a policy. Unless forced it refuses while the
// datacenter knows a role or token that has it.
func (w Writer) DeletePolicy(r record.Reader, name string, force bool) (*registryv1.Command, error) {
	return w.drop(r, policyTable, name, force, func(m proto.Message) bool {
		linked, ok := m.(interface{ GetPolicies() []string })
		return ok && slices.Contains(linked.GetPolicies(), name)
	}, true)
}

// DeleteRole returns the command that deletes a role. Unless forced it refuses while the datacenter
// knows a token that has it.
func (w Writer) DeleteRole(r record.Reader, name string, force bool) (*registryv1.Command, error) {
	return w.drop(r, roleTable, name, force, func(m proto.Message) bool {
		linked, ok := m.(*registryv1.ACLToken)
		return ok && slices.Contains(linked.GetRoles(), name)
	}, false)
}

const usersNamed = 5

func (w Writer) drop(r record.Reader, table registryv1.Table, name string, force bool, has func(proto.Message) bool, inRoles bool) (*registryv1.Command, error) {
	row, err := r.Get(table, name)
	if err != nil {
		return nil, err
	}
	if !record.Live(row) {
		// Whether it never was, or an earlier try of the same request deleted it, the outcome
		// tells.
		return &registryv1.Command{Operations: []*registryv1.Operation{remove(table, name)}}, nil
	}
	var users []string
	if !force && inRoles {
		err = each(r, roleTable, func() proto.Message { return &registryv1.ACLRole{} }, func(row *registryv1.Record, m proto.Message) {
			if has(m) {
				users = append(users, "role "+row.GetKey())
			}
		})
	}
	if !force && err == nil {
		err = each(r, tokenTable, func() proto.Message { return &registryv1.ACLToken{} }, func(row *registryv1.Record, m proto.Message) {
			if has(m) {
				users = append(users, "token "+accessorOf(row.GetKey()))
			}
		})
	}
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
	return &registryv1.Command{
		Operations: []*registryv1.Operation{remove(table, name)},
		Conditions: []*registryv1.Condition{when(table, name, row.GetModifyIndex(), ReasonMoved)},
	}, nil
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
