package obs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"konsul.dev/pkg/obs"
)

func TestLogLinesCarryDatacenterServiceAndTrace(t *testing.T) {
	var out bytes.Buffer
	telemetry := obs.New(obs.DefaultConfig(), "konsul-test", "us-east", &out, nil)
	provider := sdktrace.NewTracerProvider()
	ctx, span := provider.Tracer("test").Start(context.Background(), "op")
	defer span.End()

	telemetry.For("registry").Log.InfoContext(ctx, "hello")

	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, "us-east", line[obs.KeyDatacenter])
	require.Equal(t, "registry", line[obs.KeyService])
	require.Equal(t, span.SpanContext().TraceID().String(), line[obs.KeyTraceID])
}

func TestValidateReportsEveryProblem(t *testing.T) {
	err := obs.Config{LogLevel: "loud", LogFormat: "xml"}.Validate()
	require.ErrorContains(t, err, "telemetry.log_level")
	require.ErrorContains(t, err, "telemetry.log_format")
}
