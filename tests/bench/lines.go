package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"konsul.dev/tests/bench/load"
	"konsul.dev/tests/bench/target"
)

// line is something to measure.
type line struct {
	name string
	// long ones are run only when they are named.
	long bool
	run  func(context.Context, *bench) error
}

// lines are all there are, in the order they are run.
func lines() []line {
	var all []line
	for _, l := range rateLines() {
		all = append(all, line{name: l.name, run: l.run})
	}
	all = append(all,
		line{name: "watch", run: watch},
		line{name: "failover", run: failover},
		line{name: "start", run: start},
		line{name: "elections", long: true, run: elections},
	)
	return append(all, scaleLines()...)
}

// LineNames answers what can be measured, and what is unless somebody chooses.
func LineNames() (all, usual []string) {
	for _, l := range lines() {
		all = append(all, l.name)
		if !l.long {
			usual = append(usual, l.name)
		}
	}
	return all, usual
}

func choose(names []string) ([]line, error) {
	known, _ := LineNames()
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no line %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(lines(), func(l line) bool { return !slices.Contains(names, l.name) }), nil
}

func rateLines() []rates {
	// Fewer callers have little to send together.
	many := []int{64, 256}
	return []rates{
		{name: "puts", series: []series{
			{ours, target.Konsul, false, load.Put},
			{theirs, target.Etcd, false, load.Put},
			{limit, target.Limit, false, load.Put},
			{theirs + plaintext, target.Etcd, true, load.Put},
			{limit + plaintext, target.Limit, true, load.Put},
		}},
		{name: "gets", series: []series{
			{oursStale, target.Konsul, false, load.GetStale},
			{theirsSerial, target.Etcd, false, load.GetStale},
			{limit, target.Limit, false, load.GetStale},
			{oursDefault, target.Konsul, false, load.GetDefault},
			{oursLinear, target.Konsul, false, load.GetLinearizable},
			{theirsLinear, target.Etcd, false, load.GetLinearizable},
			{theirsSerial + plaintext, target.Etcd, true, load.GetStale},
			{theirsLinear + plaintext, target.Etcd, true, load.GetLinearizable},
			{limit + plaintext, target.Limit, true, load.GetStale},
		}},
		{name: "sdk-puts", clients: many, series: []series{
			{ours, target.Konsul, false, load.SDKPut},
			{theirs, target.Etcd, false, load.Put},
			{theirs + plaintext, target.Etcd, true, load.Put},
		}},
		{name: "sdk-gets", clients: many, series: []series{
			{ours, target.Konsul, false, load.SDKGet},
			{theirs, target.Etcd, false, load.GetLinearizable},
			{theirs + plaintext, target.Etcd, true, load.GetLinearizable},
		}},
		healthLine(100), healthLine(1000),
		{name: "register", clients: []int{1, 16, 64}, series: []series{
			{ours, target.Konsul, false, load.RegisterNode},
			{theirs, target.Etcd, false, load.RegisterNode},
			{theirs + plaintext, target.Etcd, true, load.RegisterNode},
		}},
	}
}

// healthLine asks for all instances of a service, etcd for as many records of the same size.
func healthLine(instances int) rates {
	return rates{name: fmt.Sprintf("health-%d", instances), clients: []int{1, 16, 64}, instances: instances, series: []series{
		{oursStale, target.Konsul, false, load.HealthStale},
		{theirsSerial, target.Etcd, false, load.HealthStale},
		{oursDefault, target.Konsul, false, load.HealthDefault},
		{theirsLinear, target.Etcd, false, load.HealthLinearizable},
		{theirsSerial + plaintext, target.Etcd, true, load.HealthStale},
		{theirsLinear + plaintext, target.Etcd, true, load.HealthLinearizable},
	}}
}
