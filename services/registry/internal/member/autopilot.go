package member

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// autopilotKey is the row of the autopilot's settings.
const autopilotKey = "autopilot"

// ReasonSettingChanged says that a setting is not as it was at the index the caller gave.
const ReasonSettingChanged = "SETTING_CHANGED"

// DefaultAutopilot is in force until an operator changes it. Dead servers are given the time of a
// repair, and a cluster of three is never made smaller by itself.
func DefaultAutopilot() *registryv1.AutopilotConfig {
	return &registryv1.AutopilotConfig{
		CleanupDeadServers: proto.Bool(true), DeadServerAfter: durationpb.New(10 * time.Minute), MinQuorum: proto.Uint32(3),
		LastContactThreshold: durationpb.New(time.Second), MaxTrailingLogs: proto.Uint64(4096),
		ServerStabilizationTime: durationpb.New(10 * time.Second),
	}
}

// merge returns base with what is present in change.
func merge(base, change *registryv1.AutopilotConfig) *registryv1.AutopilotConfig {
	merged := proto.CloneOf(base)
	// Messages are replaced, not merged: half a duration would be none.
	if change.GetDeadServerAfter() != nil {
		merged.DeadServerAfter = nil
	}
	if change.GetLastContactThreshold() != nil {
		merged.LastContactThreshold = nil
	}
	if change.GetServerStabilizationTime() != nil {
		merged.ServerStabilizationTime = nil
	}
	proto.Merge(merged, change)
	return merged
}

// SetAutopilot is the command that changes the settings present in change, on the condition that
// they are still those of the view, and the settings after it.
func (v *View) SetAutopilot(change *registryv1.AutopilotConfig, cas *uint64, datacenter string) (*registryv1.Command, *registryv1.AutopilotConfig, error) {
	current, modified := v.Autopilot()
	if cas != nil && *cas != modified {
		return nil, nil, fault.New(fault.Aborted, ReasonSettingChanged, "the autopilot's settings were changed at index %d, not %d", modified, *cas).
			WithRemedy("read them again, then repeat the change")
	}
	if change == nil {
		return nil, nil, fault.Invalid("config", "is missing").WithRemedy("name at least one setting")
	}
	settings := merge(current, change)
	if err := checkAutopilot(settings); err != nil {
		return nil, nil, err
	}
	const settingsTable = registryv1.Table_TABLE_SETTING
	put, err := record.Put(settingsTable, autopilotKey, datacenter, settings)
	return &registryv1.Command{
		Operations: []*registryv1.Operation{put},
		Conditions: []*registryv1.Condition{record.When(settingsTable, autopilotKey, modified, ReasonSettingChanged)},
	}, settings, err
}

func checkAutopilot(c *registryv1.AutopilotConfig) error {
	const longest = 365 * 24 * time.Hour
	span := func(field string, d *durationpb.Duration, least time.Duration) error {
		if v := d.AsDuration(); !d.IsValid() || v < least || v > longest {
			return fault.Invalid("config."+field, "%v is not between %v and %v", v, least, longest)
		}
		return nil
	}
	errs := []error{
		span("dead_server_after", c.GetDeadServerAfter(), time.Second),
		span("last_contact_threshold", c.GetLastContactThreshold(), 100*time.Millisecond),
		span("server_stabilization_time", c.GetServerStabilizationTime(), 0),
	}
	if q := c.GetMinQuorum(); q < 1 || q > 7 {
		errs = append(errs, fault.Invalid("config.min_quorum", "%d is not between 1 and 7", q).
			WithRemedy("use the number of servers the datacenter should have at least, such as 3"))
	}
	if c.GetMaxTrailingLogs() == 0 {
		errs = append(errs, fault.Invalid("config.max_trailing_logs", "is 0: no server would ever be healthy under load"))
	}
	return errors.Join(errs...)
}
