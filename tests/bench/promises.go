package bench

import "konsul.dev/tests/bench/report"

// Names of series.
const (
	ours         = "konsul"
	theirs       = "etcd"
	limit        = "limit"
	oursStale    = "konsul stale"
	oursDefault  = "konsul default"
	oursLinear   = "konsul linearizable"
	theirsSerial = "etcd serializable"
	theirsLinear = "etcd linearizable"
	plaintext    = " plaintext"
	rival        = " rival"
)

// promises are the registry's floors, beside etcd with the same mutual TLS as ours in the same run.
func promises() []report.Promise {
	all := []report.Promise{
		{Line: "puts", Metric: report.Rate, Series: ours, Over: theirs, Floor: 1.2},
		{Line: "puts", Metric: report.Memory, Series: ours, Over: theirs, Floor: 1.6},

		{Line: "gets", Metric: report.Rate, Series: oursLinear, Over: theirsLinear, Floor: 1.2},
		{Line: "gets", Metric: report.Rate, Series: oursStale, Over: theirsSerial, Floor: 1.1},
		{Line: "gets", Metric: report.Rate, Series: oursDefault, Over: oursStale, Floor: 0.85},
		{Line: "gets", Metric: report.Memory, Series: oursStale, Over: theirsSerial, Floor: 1.6},

		{Line: "sdk-puts", Metric: report.Rate, Series: ours, Over: theirs, Floor: 1.7},
		{Line: "sdk-gets", Metric: report.Rate, Series: ours, Over: theirs, Floor: 3},

		{Line: "register", Clients: []int{1}, Metric: report.Rate, Series: ours, Over: theirs, Floor: 1.1},
		{Line: "register", Clients: []int{16, 64, 256}, Metric: report.Rate, Series: ours, Over: theirs, Floor: 1.3},
		{Line: "watch", Metric: report.P99, Series: ours, Over: theirs, Floor: 1},
		{Line: "failover", Metric: report.Seconds, Series: ours, Floor: 1},
		{Line: "start", Metric: report.Seconds, Series: ours, Floor: 1},
		{Line: scaleKeys + restarted, Metric: report.Seconds, Series: ours, Floor: 5},
		{Line: scaleInstances + restarted, Metric: report.Seconds, Series: ours, Floor: 5},
	}
	for _, line := range []string{"health-100", "health-1000"} {
		all = append(all,
			report.Promise{Line: line, Metric: report.Rate, Series: oursStale, Over: theirsSerial, Floor: 1.5},
			report.Promise{Line: line, Metric: report.Rate, Series: oursDefault, Over: theirsLinear, Floor: 1.5})
	}
	return all
}
