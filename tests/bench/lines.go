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

// LineNames returns what can be measured, and what is unless somebody chooses.
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
			{ours, secure(target.Konsul), load.Put},
			{theirs, secure(target.Etcd), load.Put},
			{limit, secure(target.Limit), load.Put},
			{theirs + plaintext, plain(target.Etcd), load.Put},
			{limit + plaintext, plain(target.Limit), load.Put},
		}},
		{name: "gets", series: []series{
			{oursStale, secure(target.Konsul), load.GetStale},
			{theirsSerial, secure(target.Etcd), load.GetStale},
			{limit, secure(target.Limit), load.GetStale},
			{oursDefault, secure(target.Konsul), load.GetDefault},
			{oursLinear, secure(target.Konsul), load.GetLinearizable},
			{theirsLinear, secure(target.Etcd), load.GetLinearizable},
			{theirsSerial + plaintext, plain(target.Etcd), load.GetStale},
			{theirsLinear + plaintext, plain(target.Etcd), load.GetLinearizable},
			{limit + plaintext, plain(target.Limit), load.GetStale},
		}},
		{name: "sdk-puts", clients: many, series: []series{
			{ours, secure(target.Konsul), load.SDKPut},
			{theirs, secure(target.Etcd), load.Put},
			{theirs + plaintext, plain(target.Etcd), load.Put},
		}},
		{name: "sdk-gets", clients: many, series: []series{
			{ours, secure(target.Konsul), load.SDKGet},
			{theirs, secure(target.Etcd), load.GetLinearizable},
			{theirs + plaintext, plain(target.Etcd), load.GetLinearizable},
		}},
		healthLine(100), healthLine(1000),
		{name: "register", clients: []int{1, 16, 64}, series: []series{
			{ours, secure(target.Konsul), load.RegisterNode},
			{theirs, secure(target.Etcd), load.RegisterNode},
			{theirs + plaintext, plain(target.Etcd), load.RegisterNode},
		}},
	}
}

// healthLine asks for all instances of a service, etcd for as many records of the same size.
func healthLine(instances int) rates {
	return rates{name: fmt.Sprintf("health-%d", instances), clients: []int{1, 16, 64}, instances: instances, series: []series{
		{oursStale, secure(target.Konsul), load.HealthStale},
		{theirsSerial, secure(target.Etcd), load.HealthStale},
		{oursDefault, secure(target.Konsul), load.HealthDefault},
		{theirsLinear, secure(target.Etcd), load.HealthLinearizable},
		{theirsSerial + plaintext, plain(target.Etcd), load.HealthStale},
		{theirsLinear + plaintext, plain(target.Etcd), load.HealthLinearizable},
	}}
}
