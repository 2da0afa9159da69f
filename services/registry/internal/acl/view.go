package acl

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"sync"
	"time"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused tokens.
const (
	// ReasonTokenUnknown says that no token has that secret, as far as this datacenter knows.
	ReasonTokenUnknown = "TOKEN_UNKNOWN"
	// ReasonTokenExpired says that the token's time is over.
	ReasonTokenExpired = "TOKEN_EXPIRED"
	// ReasonPermissionDenied says that the token lacks a permission.
	ReasonPermissionDenied = "PERMISSION_DENIED"
)

const (
	tokenTable  = registryv1.Table_TABLE_ACL_TOKEN
	policyTable = registryv1.Table_TABLE_ACL_POLICY
	roleTable   = registryv1.Table_TABLE_ACL_ROLE
)

// View is the policies, roles and tokens in memory.
type View struct {
	clock clock.Clock

	mu       sync.RWMutex
	byHash   map[hash]*entry
	byID     map[string]*entry
	policies map[string]*policy
	roles    map[string]*registryv1.ACLRole
	// generation counts the changes of policies and roles.
	generation uint64
}

type entry struct {
	token *registryv1.ACLToken
	row   *registryv1.Record // without its value
	// expires is in Unix nanoseconds; 0: never.
	expires int64

	// mu guards compiled. It is taken before the View's.
	mu       sync.Mutex
	compiled *Authorizer
}

type policy struct {
	value *registryv1.ACLPolicy
	rules []rule
}

// NewView returns a view that knows nothing.
func NewView(clk clock.Clock) *View {
	return &View{clock: clk, byHash: map[hash]*entry{}, byID: map[string]*entry{}, policies: map[string]*policy{}, roles: map[string]*registryv1.ACLRole{}}
}

// Load replaces the view by what is stored.
func (v *View) Load(r record.Reader) error {
	fresh := NewView(v.clock)
	for _, table := range []registryv1.Table{policyTable, roleTable, tokenTable} {
		if err := record.Each(r, table, record.ScanOptions{}, fresh.apply); err != nil {
			return fmt.Errorf("load the access rules: %w", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.byHash, v.byID, v.policies, v.roles = fresh.byHash, fresh.byID, fresh.policies, fresh.roles
	v.generation++
	return nil
}

// Apply takes in committed rows; those of other tables are ignored.
func (v *View) Apply(rows []*registryv1.Record) error {
	for _, row := range rows {
		switch row.GetTable() {
		case tokenTable, policyTable, roleTable:
			v.mu.Lock()
			err := v.apply(row)
			v.mu.Unlock()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *View) apply(row *registryv1.Record) error {
	switch row.GetTable() {
	case policyTable:
		return v.applyPolicy(row)
	case roleTable:
		return v.applyRole(row)
	}
	return v.applyToken(row)
}

func (v *View) applyToken(row *registryv1.Record) error {
	accessor := accessorOf(row.GetKey())
	if old, ok := v.byID[accessor]; ok && old.row.GetKey() == row.GetKey() {
		delete(v.byID, accessor)
		if h := old.token.GetSecretHash(); len(h) == sha256.Size {
			delete(v.byHash, hash(h))
		}
	}
	if row.GetDeleted() {
		return nil
	}
	token := &registryv1.ACLToken{}
	if err := record.Decode(row, token); err != nil {
		return err
	}
	e := &entry{token: token, row: bare(row)}
	if token.GetExpiresAt() != nil {
		e.expires = token.GetExpiresAt().AsTime().UnixNano()
	}
	switch n := len(token.GetSecretHash()); {
	case n == sha256.Size:
		v.byHash[hash(token.GetSecretHash())] = e
	case n != 0 || accessor != AnonymousAccessor:
		return fmt.Errorf("token %s has a hash of %d bytes", accessor, n)
	}
	v.byID[accessor] = e
	return nil
}

func (v *View) applyPolicy(row *registryv1.Record) error {
	v.generation++
	delete(v.policies, row.GetKey())
	if row.GetDeleted() {
		return nil
	}
	value := &registryv1.ACLPolicy{}
	if err := record.Decode(row, value); err != nil {
		return err
	}
	value.CreateIndex, value.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	p := &policy{value: value}
	for i, r := range value.GetRules() {
		p.rules = append(p.rules, storedRule(i, r))
	}
	v.policies[row.GetKey()] = p
	return nil
}

func (v *View) applyRole(row *registryv1.Record) error {
	v.generation++
	delete(v.roles, row.GetKey())
	if row.GetDeleted() {
		return nil
	}
	value := &registryv1.ACLRole{}
	if err := record.Decode(row, value); err != nil {
		return err
	}
	v.roles[row.GetKey()] = value
	return nil
}

func bare(row *registryv1.Record) *registryv1.Record {
	return &registryv1.Record{
		Table: row.GetTable(), Key: row.GetKey(), CreateIndex: row.GetCreateIndex(), ModifyIndex: row.GetModifyIndex(),
		OriginDatacenter: row.GetOriginDatacenter(),
	}
}

// Resolve returns what the token of a secret may do, or an Unauthenticated fault.
func (v *View) Resolve(secret string) (*Authorizer, error) {
	h := sumOf(secret)
	v.mu.RLock()
	e, generation := v.byHash[h], v.generation
	v.mu.RUnlock()
	// The map compares hashes, of which an attacker who has no secret learns nothing by timing; the
	// second comparison keeps that true should the map ever be keyed by less.
	if e == nil || subtle.ConstantTimeCompare(e.token.GetSecretHash(), h[:]) != 1 {
		return nil, fault.New(fault.Unauthenticated, ReasonTokenUnknown, "the token is unknown here").
			WithRemedy("check KONSUL_TOKEN; a new token needs a moment to reach every datacenter")
	}
	return v.authorizer(e, generation)
}

// Anonymous returns what requests without a token may do; false when nothing has been given to
// them.
func (v *View) Anonymous() (*Authorizer, bool) {
	v.mu.RLock()
	e, generation := v.byID[AnonymousAccessor], v.generation
	v.mu.RUnlock()
	if e == nil || len(e.token.GetPolicies()) == 0 && len(e.token.GetRoles()) == 0 {
		return nil, false
	}
	a, err := v.authorizer(e, generation)
	return a, err == nil
}

// authorizer returns the compiled rights of a token, made anew when its policies or roles changed.
// While they have not, it returns the same one.
func (v *View) authorizer(e *entry, generation uint64) (*Authorizer, error) {
	if e.expires != 0 && v.clock.Now().UnixNano() >= e.expires {
		return nil, fault.New(fault.Unauthenticated, ReasonTokenExpired, "token %s expired at %s", e.token.GetAccessorId(),
			e.token.GetExpiresAt().AsTime().Format(time.RFC3339)).WithRemedy("ask for a new token")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if a := e.compiled; a != nil && a.generation.Load() == generation {
		return a, nil
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	sources := v.sources(e.token)
	if a := e.compiled; a != nil && slices.Equal(a.sources, sources) {
		a.generation.Store(v.generation)
		return a, nil
	}
	var rules []rule
	for _, s := range sources {
		for _, r := range v.policies[s.policy].rules {
			if r.resource < ACL {
				rules = append(rules, r)
			}
		}
	}
	a := compile(e.token, rules)
	a.entry, a.sources = e, sources
	a.generation.Store(v.generation)
	e.compiled = a
	return a, nil
}

// source is a policy a token has, and through which role.
type source struct {
	role   string
	policy string
	index  uint64
}

// sources lists the policies of a token, its own first. Names that stand for nothing give nothing.
func (v *View) sources(token *registryv1.ACLToken) []source {
	var out []source
	add := func(role string, policies []string) {
		for _, name := range policies {
			if p, ok := v.policies[name]; ok {
				out = append(out, source{role, name, p.value.GetModifyIndex()})
			}
		}
	}
	add("", token.GetPolicies())
	for _, name := range token.GetRoles() {
		if r, ok := v.roles[name]; ok {
			add(name, r.GetPolicies())
		}
	}
	return out
}

// Refresh returns what became of an authorizer: itself while nothing changed, else its successor,
// or an Unauthenticated fault when its token is gone or has expired.
func (v *View) Refresh(a *Authorizer) (*Authorizer, error) {
	if a.entry == nil {
		return a, nil
	}
	v.mu.RLock()
	e, generation := v.byID[a.Accessor()], v.generation
	v.mu.RUnlock()
	if e == nil || !slices.Equal(e.token.GetSecretHash(), a.token.GetSecretHash()) {
		return nil, fault.New(fault.Unauthenticated, ReasonTokenUnknown, "token %s was revoked", a.Accessor()).WithRemedy("ask for a new token")
	}
	return v.authorizer(e, generation)
}

// Exists reports whether there is a token of this accessor id.
func (v *View) Exists(accessor string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.byID[accessor] != nil
}

// Local reports whether an accessor is that of a token which only this datacenter knows.
func (v *View) Local(accessor string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e := v.byID[accessor]
	return e != nil && e.token.GetLocal()
}

// Expired returns the rows of tokens whose time is over; global ones only when asked for.
func (v *View) Expired(now time.Time, global bool) []*registryv1.Record {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var out []*registryv1.Record
	for _, e := range v.byID {
		if e.expires != 0 && now.UnixNano() >= e.expires && (global || e.token.GetLocal()) {
			out = append(out, e.row)
		}
	}
	return out
}
