package restedge

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// TestEveryPublicMethodOfAServiceWithoutTokensSaysWhatItTakes fails when one is added and nobody decided.
func TestEveryPublicMethodOfAServiceWithoutTokensSaysWhatItTakes(t *testing.T) {
	var c Conns
	rules := elsewhere()
	for name, conn := range c.guarded(nil).public() {
		if _, guarded := conn.(authorizing); !guarded {
			continue
		}
		if rule, ok := rules[name]; ok {
			require.NotNil(t, rule.request())
			continue
		}
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		require.NoError(t, err, "%s is neither a service nor a method with a rule", name)
		service, ok := found.(protoreflect.ServiceDescriptor)
		require.True(t, ok)
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			rule, ok := rules["/"+name+"/"+string(m.Name())]
			require.True(t, ok, "elsewhere says nothing of %s", m.FullName())
			request := rule.request()
			require.Equal(t, m.Input().FullName(), request.ProtoReflect().Descriptor().FullName())
			require.NotPanics(t, func() { rule.needs(proto.Clone(request)) })
		}
	}
}
