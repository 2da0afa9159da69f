package federation

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Copies says how far this datacenter has copied its primary, and how old that makes its global
// records.
type Copies struct {
	// Cursor is the stored one; it has no index while nothing has been copied.
	Cursor *federationv1.ReplicationCursor
	// Age is the time since this datacenter was last known to have everything of the primary, never
	// negative. While it never had, it counts from when the datacenter began.
	Age time.Duration
}

// Copies returns what is copied of the primary; false in the primary itself. It is computed from
// the stored cursor, so it grows while nobody copies, whatever the reason.
func (v *View) Copies(now time.Time) (Copies, bool) {
	primary := v.Primary()
	if primary == v.own.Datacenter || primary == "" {
		return Copies{}, false
	}
	c := (*v.cursors.Load())[primary]
	if c == nil {
		c = &federationv1.ReplicationCursor{SourceDatacenter: primary}
	}
	return Copies{Cursor: c, Age: max(0, now.Sub(v.currentAt(c)))}, true
}

func (v *View) currentAt(c *federationv1.ReplicationCursor) time.Time {
	switch history := v.current.Load().GetHistory(); {
	case c.GetCurrentAt() != nil:
		return c.GetCurrentAt().AsTime()
	case c.GetSourceTime() != nil: // a cursor of an older version
		return c.GetSourceTime().AsTime()
	case len(history) > 0:
		return history[len(history)-1].GetBeganAt().AsTime()
	}
	return v.own.Started
}

// Apply follows a batch: it notes moved cursors, of which there may be many a second.
func (v *View) Apply(rows []*registryv1.Record) error {
	for _, row := range rows {
		if row.GetTable() != cursors {
			continue
		}
		moved := maps.Clone(*v.cursors.Load())
		delete(moved, row.GetKey())
		if record.Live(row) {
			c := &federationv1.ReplicationCursor{}
			if err := record.Decode(row, c); err != nil {
				return err
			}
			moved[row.GetKey()] = c
		}
		v.cursors.Store(&moved)
	}
	return nil
}

// loadCursors reads every cursor anew.
func (v *View) loadCursors(r record.Reader) error {
	fresh := map[string]*federationv1.ReplicationCursor{}
	err := record.Each(r, cursors, record.ScanOptions{}, func(row *registryv1.Record) error {
		c := &federationv1.ReplicationCursor{}
		fresh[row.GetKey()] = c
		return record.Decode(row, c)
	})
	v.cursors.Store(&fresh)
	return err
}

// collector computes its metrics from the view when scraped: they grow when nobody moves the
// cursor.
type collector struct {
	view          *View
	now           func() time.Time
	lag, fullSync *prometheus.Desc
}

// NewCollector returns the metrics of what is copied into this datacenter.
func NewCollector(view *View, now func() time.Time) prometheus.Collector {
	return &collector{
		view: view, now: now,
		lag: prometheus.NewDesc("konsul_federation_replication_lag_seconds",
			"Time since the target datacenter was last known to have everything of the source.",
			[]string{"source_dc", "target_dc"}, nil),
		fullSync: prometheus.NewDesc("konsul_federation_full_sync_timestamp_seconds",
			"When everything was last copied over copies that were there, because the source could no longer tell what it had deleted: "+
				"records deleted at the source before may still be in the target. 0: never.",
			[]string{"source_dc", "target_dc"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.lag
	ch <- c.fullSync
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	copies, ok := c.view.Copies(c.now())
	if !ok {
		return
	}
	labels := []string{copies.Cursor.GetSourceDatacenter(), c.view.Datacenter()}
	ch <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, copies.Age.Seconds(), labels...)
	fullSync := 0.0
	if at := copies.Cursor.GetFullSyncAt(); at != nil {
		fullSync = float64(at.AsTime().UnixNano()) / float64(time.Second)
	}
	ch <- prometheus.MustNewConstMetric(c.fullSync, prometheus.GaugeValue, fullSync, labels...)
}
