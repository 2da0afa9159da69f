package fault_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
)

func TestWithMethodsLeaveTheOriginalAlone(t *testing.T) {
	base := fault.New(fault.Aborted, "CAS_MISMATCH", "key moved on")
	full := base.WithField("cas").WithRemedy("read again").WithMeta("index", "7").WithRetryAfter(time.Second)
	more := full.WithMeta("dc", "us-east")

	require.Empty(t, base.Field())
	require.Empty(t, base.Meta())
	require.Equal(t, map[string]string{"index": "7"}, full.Meta())
	require.Equal(t, map[string]string{"index": "7", "dc": "us-east"}, more.Meta())
	require.Equal(t, time.Second, more.RetryAfter())
}

func TestCodeAndReasonAreFoundThroughWrapping(t *testing.T) {
	cause := errors.New("disk on fire")
	err := fmt.Errorf("set key: %w", fault.New(fault.Unavailable, fault.ReasonNoLeader, "no leader").Wrap(cause))

	require.Equal(t, fault.Unavailable, fault.CodeOf(err))
	require.Equal(t, fault.ReasonNoLeader, fault.ReasonOf(err))
	require.ErrorIs(t, err, cause)
	require.Equal(t, fault.Internal, fault.CodeOf(cause))
}

func TestInvalidNamesTheField(t *testing.T) {
	require.EqualError(t, fault.Invalid("service.port", "must be 1 to 65535, is %d", 0), "service.port: must be 1 to 65535, is 0")
}
