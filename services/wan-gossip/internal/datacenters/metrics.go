package datacenters

import "github.com/prometheus/client_golang/prometheus"

// collector computes its metrics from the view when scraped, so they are never behind.
type collector struct {
	view                         *View
	connected, health, roundTrip *prometheus.Desc
	rivals                       *prometheus.Desc
}

// NewCollector returns the metrics of a view.
func NewCollector(view *View) prometheus.Collector {
	return &collector{
		view: view,
		connected: prometheus.NewDesc("konsul_federation_connected_datacenters",
			"Datacenters that are alive in gossip, the own one included.", nil, nil),
		health: prometheus.NewDesc("konsul_federation_wan_gossip_health",
			"Share of the known datacenters that are alive in gossip, those that have left not counted: 1 is well.", nil, nil),
		rivals: prometheus.NewDesc("konsul_wan_gossip_rival_members",
			"Gossip members that claim a datacenter's name with another datacenter's id; they are not counted as its own.", []string{"target_dc"}, nil),
		roundTrip: prometheus.NewDesc("konsul_wan_gossip_round_trip_seconds",
			"Measured round trip to the nearest member of another datacenter.", []string{"target_dc"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.connected
	ch <- c.health
	ch <- c.roundTrip
	ch <- c.rivals
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	list, _ := c.view.Current()
	ch <- prometheus.MustNewConstMetric(c.connected, prometheus.GaugeValue, float64(Connected(list)))
	ch <- prometheus.MustNewConstMetric(c.health, prometheus.GaugeValue, Health(list))
	for _, dc := range list {
		ch <- prometheus.MustNewConstMetric(c.rivals, prometheus.GaugeValue, float64(len(dc.Rivals)), dc.Name)
		if dc.Measured && dc.Name != c.view.own {
			ch <- prometheus.MustNewConstMetric(c.roundTrip, prometheus.GaugeValue, dc.RoundTrip.Seconds(), dc.Name)
		}
	}
}
