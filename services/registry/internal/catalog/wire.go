package catalog

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/wire"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Rows are kept as they are stored and decoded for whoever asks: most instances are only ever answered
// encoded, and a decoded one is several times as large. What is kept was checked to be decodable when it came.

// Numbers of the fields that are read or added without decoding the message.
const (
	nameOfNode      protowire.Number = 1
	addressOfNode   protowire.Number = 2
	createdNode     protowire.Number = 4
	modifiedNode    protowire.Number = 5
	livenessOfNode  protowire.Number = 6
	metaOfNode      protowire.Number = 3
	implicitNode    protowire.Number = 7
	idOfService     protowire.Number = 1
	nameOfService   protowire.Number = 2
	nodeOfService   protowire.Number = 3
	addressOf       protowire.Number = 4
	portOfService   protowire.Number = 5
	tagsOfService   protowire.Number = 6
	metaOfService   protowire.Number = 7
	createdService  protowire.Number = 8
	modifiedService protowire.Number = 9

	weightsOfService  protowire.Number = 10
	ownerOfService    protowire.Number = 11
	passingOfWeights  protowire.Number = 1
	warningOfWeights  protowire.Number = 2
	keyOfEntry        protowire.Number = 1
	valueOfEntry      protowire.Number = 2
	secondsOfDuration protowire.Number = 1
	nanosOfDuration   protowire.Number = 2

	statusOfCheck protowire.Number = 4
	modifiedCheck protowire.Number = 6
	ttlOfCheck    protowire.Number = 8

	// Those of QueryServiceResponse and ServiceInstance.
	instancesField  protowire.Number = 1
	nodeField       protowire.Number = 1
	serviceField    protowire.Number = 2
	checksField     protowire.Number = 3
	statusField     protowire.Number = 4
	datacenterField protowire.Number = 5
	nodeChecksField protowire.Number = 6
	uncheckedField  protowire.Number = 7
)

// shape says which fields of a message are text and which are messages of text and numbers.
type shape struct{ texts, messages uint64 }

func numbers(fields ...protowire.Number) (set uint64) {
	for _, n := range fields {
		set |= 1 << n
	}
	return set
}

func nodeShape() shape    { return shape{texts: numbers(1, 2), messages: numbers(3, 6)} }
func serviceShape() shape { return shape{texts: numbers(1, 2, 3, 4, 6, 11), messages: numbers(7, 10)} }
func checkShape() shape   { return shape{texts: numbers(1, 2, 3, 5, 9), messages: numbers(7, 8)} }
func innerShape() shape   { return shape{texts: numbers(1, 2)} }

var errShape = errors.New("value cannot be decoded")

// visitor takes a field of an encoded message: its number, and its content if it has a length.
type visitor func(field protowire.Number, number uint64, content []byte)

// read checks an encoded message and calls visit, unless it is nil, for every field that is a number or has a length.
func (s shape) read(raw []byte, visit visitor) error { return s.readAfter(nil, raw, visit) }

// readAfter is read of a message that takes the place of one that was checked: a field that stands as it stood is not checked again. Most of what
// is registered again has but one field that is new.
func (s shape) readAfter(before, raw []byte, visit visitor) error {
	for len(raw) > 0 {
		f, n := wire.Next(raw)
		if n < 0 {
			return errShape
		}
		if bytes.HasPrefix(before, raw[:n]) {
			before = before[n:]
		} else {
			if !s.fits(f) {
				return errShape
			}
			_, was := wire.Next(before)
			before = before[max(0, was):]
		}
		raw = raw[n:]
		if visit != nil && (f.Type == protowire.VarintType || f.Type == protowire.BytesType) {
			visit(f.Number, f.Varint, f.Content)
		}
	}
	return nil
}

// fits says whether the content of a field can be decoded.
func (s shape) fits(f wire.Field) bool {
	switch {
	case f.Content == nil || f.Number >= 64:
		return true
	case s.texts&(1<<f.Number) != 0:
		return utf8.Valid(f.Content)
	case s.messages&(1<<f.Number) != 0:
		return innerShape().read(f.Content, nil) == nil
	}
	return true
}

// decode reads what was checked before.
func decode(raw []byte, m proto.Message) { must(proto.Unmarshal(raw, m)) }

// must is about rows that were checked when they came.
func must(err error) {
	if err != nil {
		panic("catalog: decode a row that was checked: " + err.Error())
	}
}

// check is a check's row.
type check struct {
	id       string
	raw      []byte
	modified uint64
	status   registryv1.HealthStatus
	// ttl is nil unless reports are expected.
	ttl *durationpb.Duration
}

func newCheck(id string, row *registryv1.Record) (*check, error) {
	c := &check{id: id, raw: row.GetValue(), modified: row.GetModifyIndex()}
	err := checkShape().read(c.raw, func(field protowire.Number, number uint64, content []byte) {
		switch {
		case field == statusOfCheck && content == nil:
			c.status = registryv1.HealthStatus(number) //nolint:gosec // as protobuf reads it
		case field == ttlOfCheck && content != nil:
			c.ttl = &durationpb.Duration{}
			decode(content, c.ttl)
		}
	})
	return c, err
}

// value answers the check as it is answered; nil for nil.
func (c *check) value() *registryv1.Check {
	if c == nil {
		return nil
	}
	out := &registryv1.Check{}
	decode(c.raw, out)
	out.ModifyIndex = c.modified
	return out
}

// indexOf answers when the check last changed; 0 for nil.
func (c *check) indexOf() uint64 {
	if c == nil {
		return 0
	}
	return c.modified
}

func values(checks []*check) []*registryv1.Check {
	if len(checks) == 0 {
		return nil
	}
	out := make([]*registryv1.Check, len(checks))
	for i, c := range checks {
		out[i] = c.value()
	}
	return out
}

// appendNumber appends a field that is left out when it is zero.
func appendNumber(out []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return out
	}
	return protowire.AppendVarint(protowire.AppendTag(out, field, protowire.VarintType), n)
}

func appendText(out []byte, field protowire.Number, text string) []byte {
	if text == "" {
		return out
	}
	return protowire.AppendString(protowire.AppendTag(out, field, protowire.BytesType), text)
}

// appendMessage appends a field whose content body appends: its length is not known before, so the content
// is moved when the length takes more than a byte.
func appendMessage(out []byte, field protowire.Number, body func([]byte) []byte) []byte {
	out = append(protowire.AppendTag(out, field, protowire.BytesType), 0)
	start := len(out)
	out = body(out)
	size := uint64(len(out) - start) //nolint:gosec // a length
	if extra := protowire.SizeVarint(size) - 1; extra > 0 {
		out = append(out, make([]byte, extra)...)
		copy(out[start+extra:], out[start:len(out)-extra])
	}
	protowire.AppendVarint(out[:start-1], size)
	return out
}

func (c *check) append(out []byte) []byte {
	return appendNumber(append(out, c.raw...), modifiedCheck, c.modified)
}

func (n *node) append(out []byte) []byte {
	if !n.exists {
		return appendText(out, nameOfNode, n.name)
	}
	return appendNumber(appendNumber(append(out, n.raw...), createdNode, n.created), modifiedNode, n.modified)
}

func (i *instance) appendService(out []byte) []byte {
	out = append(out, i.raw...)
	if i.inherits {
		out = appendText(out, addressOf, i.node.address)
	}
	return appendNumber(appendNumber(out, createdService, i.created), modifiedService, i.modified)
}

// append appends the instance as it is answered, encoded.
func (i *instance) append(out []byte, datacenter string) []byte {
	out = appendMessage(out, nodeField, i.node.append)
	out = appendMessage(out, serviceField, i.appendService)
	for _, c := range i.checks {
		out = appendMessage(out, checksField, c.append)
	}
	out = appendNumber(out, statusField, uint64(i.status)) //nolint:gosec // statuses are small
	out = appendText(out, datacenterField, datacenter)
	for _, c := range i.node.checks {
		out = appendMessage(out, nodeChecksField, c.append)
	}
	if i.unchecked() {
		out = appendNumber(out, uncheckedField, 1)
	}
	return out
}

// appendNode appends a node's row, its meta in order: the same bytes for the same node.
func appendNode(out []byte, n *registryv1.Node) []byte {
	out = slices.Grow(out, n.SizeVT())
	out = appendText(out, nameOfNode, n.GetName())
	out = appendText(out, addressOfNode, n.GetAddress())
	out = appendTexts(out, metaOfNode, n.GetMeta())
	if ttl := n.GetLivenessTtl(); ttl != nil {
		out = appendMessage(out, livenessOfNode, func(out []byte) []byte {
			out = appendNumber(out, secondsOfDuration, uint64(ttl.GetSeconds())) //nolint:gosec // as protobuf writes it
			return appendNumber(out, nanosOfDuration, uint64(ttl.GetNanos()))    //nolint:gosec // as protobuf writes it
		})
	}
	if n.GetImplicit() {
		out = appendNumber(out, implicitNode, 1)
	}
	return append(out, n.ProtoReflect().GetUnknown()...)
}

// appendService appends the row of an instance that somebody registered, its meta in order: the same bytes for the same
// instance.
func appendService(out []byte, s *registryv1.Service, by string) []byte {
	out = slices.Grow(out, s.SizeVT())
	out = appendText(out, idOfService, s.GetId())
	out = appendText(out, nameOfService, s.GetName())
	out = appendText(out, nodeOfService, s.GetNode())
	out = appendText(out, addressOf, s.GetAddress())
	out = appendNumber(out, portOfService, uint64(s.GetPort()))
	for _, tag := range s.GetTags() {
		out = protowire.AppendString(protowire.AppendTag(out, tagsOfService, protowire.BytesType), tag)
	}
	out = appendTexts(out, metaOfService, s.GetMeta())
	if w := s.GetWeights(); w != nil {
		out = appendMessage(out, weightsOfService, func(out []byte) []byte {
			return appendNumber(appendNumber(out, passingOfWeights, uint64(w.GetPassing())), warningOfWeights, uint64(w.GetWarning()))
		})
	}
	out = appendText(out, ownerOfService, by)
	return append(out, s.ProtoReflect().GetUnknown()...)
}

// appendTexts appends a map of texts, by its keys' order.
func appendTexts(out []byte, field protowire.Number, texts map[string]string) []byte {
	var room [8]string
	keys := slices.AppendSeq(room[:0], maps.Keys(texts))
	slices.Sort(keys)
	for _, key := range keys {
		out = appendMessage(out, field, func(out []byte) []byte {
			// Entries have both, empty or not.
			out = protowire.AppendString(protowire.AppendTag(out, keyOfEntry, protowire.BytesType), key)
			return protowire.AppendString(protowire.AppendTag(out, valueOfEntry, protowire.BytesType), texts[key])
		})
	}
	return out
}
