package robustness_test

import (
	"context"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/robustness/arena"
	"konsul.dev/tests/robustness/history"
)

// Nodes are registered with all their instances in one request, which followers pass on undecoded
// and in company. A node stands for itself and them in the history; what its instances say must
// always be what it says.
const (
	nodes         = 2
	nodeInstances = 3
	// told is where a node and its instances say which registration made them.
	told = "told"
)

func (c *caller) node() string {
	return fmt.Sprintf("node%d-%d", int(c.recorder.Now()/keyLife), c.chance.IntN(nodes))
}

func (c *caller) registerNode(ctx context.Context, name string) {
	c.count++
	o := history.Operation{Client: c.number, Kind: history.Set, Key: name, Value: fmt.Sprintf("%d.%d", c.number, c.count), Call: c.recorder.Now()}
	meta := map[string]string{told: o.Value}
	req := &registryv1.RegisterNodeRequest{Node: &registryv1.Node{Name: name, Address: "10.0.0.1", Meta: meta}, RequestId: uuid.NewString()}
	for i := range nodeInstances {
		req.Services = append(req.Services, &registryv1.ServiceRegistration{
			Service: &registryv1.Service{Id: fmt.Sprintf("%s-%d", name, i), Name: "job-" + strconv.Itoa(i), Meta: meta},
		})
	}
	c.write(ctx, &o, func(ctx context.Context, to *arena.Client) error {
		// The index of the answer says nothing: what is registered already, by an earlier try of a
		// client or of a server, changes nothing, and is answered with the index at which it was
		// found.
		_, err := to.Catalog.RegisterNode(ctx, req)
		return err
	})
}

func (c *caller) deregisterNode(ctx context.Context, name string) {
	o := history.Operation{Client: c.number, Kind: history.Delete, Key: name, Call: c.recorder.Now()}
	req := &registryv1.DeregisterNodeRequest{Node: name, RequestId: uuid.NewString()}
	c.write(ctx, &o, func(ctx context.Context, to *arena.Client) error {
		resp, err := to.Catalog.DeregisterNode(ctx, req)
		o.Modify = resp.GetMeta().GetIndex()
		return err
	})
}

func (c *caller) getNode(ctx context.Context, place int, name string, m history.Mode) {
	c.observe(ctx, place, history.Operation{Key: name, Mode: m}, func(ctx context.Context, to *arena.Client, o *history.Operation) error {
		resp, err := to.Catalog.GetNode(ctx, &registryv1.GetNodeRequest{Node: name, ReadMode: mode(m)})
		if err == nil {
			o.Found, o.Value, o.Modify, o.Index = true, resp.GetNode().GetMeta()[told], resp.GetNode().GetModifyIndex(), resp.GetMeta().GetIndex()
			o.Twin = instancesSay(resp.GetInstances())
		}
		return err
	})
}

// instancesSay returns what all instances of a node say, nothing when they do not agree.
func instancesSay(instances []*registryv1.ServiceInstance) *history.Twin {
	if len(instances) != nodeInstances {
		return &history.Twin{}
	}
	say := func(i *registryv1.ServiceInstance) history.Twin {
		return history.Twin{Found: true, Value: i.GetService().GetMeta()[told], Modify: i.GetService().GetModifyIndex()}
	}
	first := say(instances[0])
	for _, i := range instances[1:] {
		if say(i) != first {
			return &history.Twin{}
		}
	}
	return &first
}
