package restedge

import (
	"fmt"
	"io"
	"mime"
	"net/url"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

const (
	mimeJSON = "application/json"
	mimeRaw  = "application/octet-stream"
	mimeGRPC = "application/grpc"
)

// jsonMarshaler speaks the names of the contracts and refuses fields they do not have.
func jsonMarshaler() *runtime.JSONPb {
	return &runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}}
}

// rawMarshaler carries a KV value as it is; everything else stays JSON.
type rawMarshaler struct{ *runtime.JSONPb }

// ContentType implements runtime.Marshaler.
func (m rawMarshaler) ContentType(v any) string {
	if _, ok := v.(*registryv1.GetResponse); ok {
		return mimeRaw
	}
	return m.JSONPb.ContentType(v)
}

// Marshal implements runtime.Marshaler.
func (m rawMarshaler) Marshal(v any) ([]byte, error) {
	if resp, ok := v.(*registryv1.GetResponse); ok {
		return resp.GetEntry().GetValue(), nil
	}
	return m.JSONPb.Marshal(v)
}

// NewDecoder implements runtime.Marshaler.
func (m rawMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		value, ok := v.(*[]byte)
		if !ok {
			return m.JSONPb.NewDecoder(r).Decode(v)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read value: %w", err)
		}
		*value = content
		return nil
	})
}

// mediaType answers the type of a Content-Type header without its parameters.
func mediaType(header string) string {
	kind, _, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	return kind
}

func accepts(headers []string, want string) bool {
	for _, header := range headers {
		for kind := range strings.SplitSeq(header, ",") {
			if mediaType(kind) == want {
				return true
			}
		}
	}
	return false
}

// queryParser is grpc-gateway's, but refuses parameters that nobody knows, which it would ignore: a
// misspelt cas must not become an unconditional write. A parameter without a value is true.
type queryParser struct{}

// Parse implements runtime.QueryParameterParser.
func (queryParser) Parse(target proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := target.ProtoReflect().Descriptor().Fields()
	checked := make(url.Values, len(values))
	for name, given := range values {
		root, _, _ := strings.Cut(name, ".")
		// An entry of a map is written field[key]=value; the key may hold dots.
		mapped, _, isEntry := strings.Cut(name, "[")
		if isEntry && strings.HasSuffix(name, "]") {
			root = mapped
		}
		field := fields.ByName(protoreflect.Name(root))
		if field == nil {
			field = fields.ByJSONName(root)
		}
		switch {
		case field == nil && name == "raw":
			continue
		case field == nil, isEntry && !field.IsMap():
			return fmt.Errorf("unknown query parameter %q", name)
		case field.Kind() == protoreflect.BoolKind && len(given) == 1 && given[0] == "":
			given = []string{"true"}
		}
		checked[name] = given
	}
	return (&runtime.DefaultQueryParser{}).Parse(target, checked, filter)
}
