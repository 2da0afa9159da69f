package restedge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

const (
	mimeJSON = "application/json"
	mimeRaw  = "application/octet-stream"
	mimeGRPC = "application/grpc"
)

// bodies speaks the names of the contracts and refuses fields they do not have.
type bodies struct{ *runtime.JSONPb }

func jsonMarshaler() bodies {
	return bodies{&runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}}}
}

// NewDecoder implements runtime.Marshaler.
func (m bodies) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		text, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read body: %w", err)
		}
		if len(text) == 0 {
			return io.EOF // An empty body is nobody's mistake.
		}
		if value, ok := v.(*[]byte); ok {
			*value, err = valueIn(text)
			return err
		}
		if err = m.JSONPb.NewDecoder(bytes.NewReader(text)).Decode(v); err == nil {
			return nil
		}
		message, ok := v.(proto.Message)
		if !ok {
			return malformedError{"body", "cannot be read", docRemedy}
		}
		if json.Valid(text) { // Which also bounds how deep it goes.
			if err = spelled(message, text); err == nil {
				return nil
			}
		}
		return badBody(message.ProtoReflect().Descriptor(), err)
	})
}

// rawMarshaler carries a KV value as it is; everything else stays JSON.
type rawMarshaler struct{ bodies }

// ContentType implements runtime.Marshaler.
func (m rawMarshaler) ContentType(v any) string {
	if _, ok := v.(*registryv1.GetResponse); ok {
		return mimeRaw
	}
	return m.bodies.ContentType(v)
}

// Marshal implements runtime.Marshaler.
func (m rawMarshaler) Marshal(v any) ([]byte, error) {
	if resp, ok := v.(*registryv1.GetResponse); ok {
		return resp.GetEntry().GetValue(), nil
	}
	return m.bodies.Marshal(v)
}

// NewDecoder implements runtime.Marshaler.
func (m rawMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		value, ok := v.(*[]byte)
		if !ok {
			return m.bodies.NewDecoder(r).Decode(v)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read value: %w", err)
		}
		*value = content
		return nil
	})
}

// mediaType returns the type of a Content-Type header without its parameters.
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
