package robustness_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/robustness/arena"
	"konsul.dev/tests/robustness/history"
)

const (
	callers = 6
	// A key is written for so long, then another takes its place: short histories are judged
	// quickly.
	keyLife = 500 * time.Millisecond
	keys    = 4
	// callLimit bounds an attempt, attempts the tries of one operation.
	callLimit = time.Second
	attempts  = 3
	// pause is how long a client thinks at most.
	pause = 4 * time.Millisecond
	// padding makes entries large enough for snapshots to come often.
	padding = 1 << 10
)

// traffic is the clients of a run.
type traffic struct {
	cluster  *arena.Cluster
	recorder *history.Recorder
	seed     uint64
	// lives are the servers' processes now, by place: what a read says of a server holds for one
	// process.
	lives [8]atomic.Int64
	ids   [8]atomic.Value
}

// run makes clients work until ctx ends.
func (t *traffic) run(ctx context.Context) {
	var group sync.WaitGroup
	for client := range callers {
		c := &caller{traffic: t, number: client, chance: rand.New(rand.NewPCG(t.seed, uint64(client)))}
		group.Go(func() { c.run(ctx) })
	}
	for place := range t.cluster.Servers {
		group.Go(func() { t.watch(ctx, place) })
	}
	for number := range lockers {
		c := &caller{traffic: t, number: callers + 1 + number, chance: rand.New(rand.NewPCG(t.seed, uint64(callers+1+number)))}
		group.Go(func() { c.contend(ctx) })
	}
	group.Wait()
}

// caller is one client. It belongs to one goroutine.
type caller struct {
	*traffic
	number int
	count  int
	chance *rand.Rand
	// read is what it last knew of a key; values, of a pair.
	read   map[string]uint64
	values map[string]string
}

func (c *caller) run(ctx context.Context) {
	c.read, c.values = map[string]uint64{}, map[string]string{}
	for ctx.Err() == nil {
		c.one(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(pause)): // not the seed's business
		}
	}
}

func (c *caller) key() string {
	epoch := int(c.recorder.Now() / keyLife)
	return fmt.Sprintf("k%d-%d", epoch, c.chance.IntN(keys))
}

// one does one operation. Calls that run when the run ends are cut short: their fate is unknown.
func (c *caller) one(ctx context.Context) {
	key := c.key()
	switch dice := c.chance.IntN(100); {
	case dice < 8:
		c.setPair(ctx, c.pair())
	case dice < 11:
		c.removePair(ctx, c.pair())
	case dice < 17:
		c.getPair(ctx, c.place(), c.pair())
	case dice < 23:
		c.registerNode(ctx, c.node())
	case dice < 25:
		c.deregisterNode(ctx, c.node())
	case dice < 32:
		c.getNode(ctx, c.place(), c.node(), c.mode())
	case dice < 45:
		c.set(ctx, key, nil)
	case dice < 53:
		index := c.read[key]
		c.set(ctx, key, &index)
	case dice < 58:
		c.remove(ctx, key)
	case dice < 63:
		c.get(ctx, key, history.Default, c.read[key])
	default:
		c.get(ctx, key, c.mode(), 0)
	}
}

func (c *caller) mode() history.Mode {
	modes := history.Modes()
	return modes[c.chance.IntN(len(modes))]
}

func (c *caller) place() int { return c.chance.IntN(len(c.cluster.Servers)) }

func (c *caller) set(ctx context.Context, key string, cas *uint64) {
	c.count++
	o := history.Operation{Client: c.number, Kind: history.Set, Key: key, Value: fmt.Sprintf("%d.%d", c.number, c.count), CAS: cas, Call: c.recorder.Now()}
	req := &registryv1.SetRequest{Key: "local/" + key, Value: pad(o.Value), Cas: cas, RequestId: uuid.NewString()}
	c.write(ctx, &o, func(ctx context.Context, to *arena.Client) error {
		resp, err := to.KV.Set(ctx, req)
		if err == nil {
			o.Modify = resp.GetMeta().GetIndex()
			if got := resp.GetEntry().GetModifyIndex(); got != o.Modify {
				err = fmt.Errorf("the entry's index is %d, the write's %d", got, o.Modify)
			}
		}
		return err
	})
}

func (c *caller) remove(ctx context.Context, key string) {
	o := history.Operation{Client: c.number, Kind: history.Delete, Key: key, Call: c.recorder.Now()}
	req := &registryv1.DeleteRequest{Key: "local/" + key, RequestId: uuid.NewString()}
	c.write(ctx, &o, func(ctx context.Context, to *arena.Client) error {
		resp, err := to.KV.Delete(ctx, req)
		if err == nil && resp.GetDeleted() > 0 {
			o.Modify = resp.GetMeta().GetIndex()
		}
		return err
	})
}

// write calls until the outcome is known, with the same request id and any server, or gives up.
func (c *caller) write(ctx context.Context, o *history.Operation, call func(context.Context, *arena.Client) error) {
	unsure := false
	for try := range attempts {
		place := c.place()
		// Nothing is sent where there is no connection; what fails later may have arrived.
		o.Fate, o.Why = history.Refused, "no connection"
		if conn := c.cluster.Client(place).Conn; conn.GetState() != connectivity.TransientFailure {
			limited, cancel := context.WithTimeout(arena.Authorize(ctx), callLimit)
			o.Fate, o.Why = judge(call(limited, c.cluster.Client(place)))
			cancel()
		}
		if o.Fate == history.Conflict && o.CAS == nil {
			o.Fate = history.Refused // It lost too many races about what it was planned on.
		}
		o.Server = c.cluster.Servers[place].Dir[strings.LastIndex(c.cluster.Servers[place].Dir, "/")+1:]
		switch {
		case o.Fate == history.OK || o.Fate == history.Conflict:
			if o.Fate == history.OK {
				c.read[o.Key] = o.Modify
			}
			c.recorder.Done(*o)
			return
		case o.Fate == history.Unknown:
			unsure = true
		}
		// Some clients give up at once, so that there are writes of unknown fate.
		if ctx.Err() != nil || c.chance.IntN(3) == 0 || try == attempts-1 {
			break
		}
	}
	if unsure {
		o.Fate = history.Unknown
	}
	c.recorder.Done(*o)
}

// judge tells how a call ended. Refused is what our own reasons promise: nothing was proposed.
func judge(err error) (history.Fate, string) {
	if err == nil {
		return history.OK, ""
	}
	if errors.Is(err, errConflict) {
		return history.Conflict, err.Error()
	}
	f, ok := fault.As(err)
	if !ok || f.Reason() == "" {
		return history.Unknown, err.Error()
	}
	why := fmt.Sprintf("%v %s: %s", f.Code(), f.Reason(), f.Message())
	switch f.Code() {
	case fault.Aborted:
		return history.Conflict, why
	case fault.Unavailable, fault.ResourceExhausted, fault.InvalidArgument, fault.NotFound, fault.FailedPrecondition, fault.PermissionDenied, fault.Unauthenticated:
		return history.Refused, why
	}
	return history.Unknown, why
}

func mode(m history.Mode) registryv1.ReadMode {
	switch m {
	case history.Stale:
		return registryv1.ReadMode_READ_MODE_STALE
	case history.Linearizable:
		return registryv1.ReadMode_READ_MODE_LINEARIZABLE
	}
	return registryv1.ReadMode_READ_MODE_DEFAULT
}

// get reads a key; since makes it block until the key moves on.
func (c *caller) get(ctx context.Context, key string, m history.Mode, since uint64) {
	c.getAt(ctx, c.place(), key, m, since)
}

func (c *caller) getAt(ctx context.Context, place int, key string, m history.Mode, since uint64) {
	req := &registryv1.GetRequest{Key: "local/" + key, ReadMode: mode(m), Index: since}
	if since > 0 {
		req.Wait = durationpb.New(callLimit / 4)
	}
	c.observe(ctx, place, history.Operation{Key: key, Mode: m}, func(ctx context.Context, to *arena.Client, o *history.Operation) error {
		resp, err := to.KV.Get(ctx, req)
		if err == nil {
			o.Found, o.Value, o.Modify, o.Index = true, bare(resp.GetEntry().GetValue()), resp.GetEntry().GetModifyIndex(), resp.GetMeta().GetIndex()
		}
		return err
	})
}

// observe reads what an operation is about, and records what was answered.
func (c *caller) observe(ctx context.Context, place int, o history.Operation, call func(context.Context, *arena.Client, *history.Operation) error) {
	o.Client, o.Kind, o.Life, o.Call = c.number, history.Get, int(c.lives[place].Load()), c.recorder.Now()
	o.Server, _ = c.ids[place].Load().(string)
	ctx, cancel := context.WithTimeout(arena.Authorize(ctx), callLimit)
	defer cancel()
	err := call(ctx, c.cluster.Client(place), &o)
	index, gone := absent(err)
	switch {
	case err == nil:
		o.Fate, c.read[o.Key] = history.OK, o.Modify
	case gone:
		o.Fate, o.Index, c.read[o.Key] = history.OK, index, 0
	default:
		o.Fate, o.Why = history.Refused, err.Error()
	}
	if int64(o.Life) != c.lives[place].Load() {
		return // Which process answered is not known.
	}
	c.recorder.Done(o)
}

// absent returns the index of an answer that something is not there.
func absent(err error) (index uint64, ok bool) {
	f, is := fault.As(err)
	if !is || f.Code() != fault.NotFound {
		return 0, false
	}
	index, err = strconv.ParseUint(f.Meta()["index"], 10, 64)
	return index, err == nil
}

func pad(value string) []byte {
	return append([]byte(value+"|"), bytes.Repeat([]byte{'.'}, padding)...)
}

func bare(stored []byte) string {
	value, _, _ := bytes.Cut(stored, []byte("|"))
	return string(value)
}

// watched is what the keys of entries begin with.
const watched = "k"

// silence is how long a watcher goes without a message before it asks elsewhere.
const silence = 1500 * time.Millisecond

// watch follows all keys, first at one server, and after each failure at the next, from where it
// stood.
func (t *traffic) watch(ctx context.Context, place int) {
	from := uint64(0)
	for ctx.Err() == nil {
		w := history.Watch{Server: t.cluster.Servers[place%len(t.cluster.Servers)].Dir, Prefix: watched, From: from}
		resync := t.stream(ctx, place, &w)
		for _, m := range w.Messages {
			if m.Synced {
				from = m.Index
			}
		}
		if resync {
			from = 0
		}
		t.recorder.Watched(w)
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
		place = (place + 1) % len(t.cluster.Servers)
	}
}

// stream follows one watch to its end, and says whether it has to start again.
func (t *traffic) stream(ctx context.Context, place int, w *history.Watch) bool {
	ctx, cancel := context.WithCancel(arena.Authorize(ctx))
	defer cancel()
	idle := time.AfterFunc(silence, cancel)
	defer idle.Stop()
	stream, err := t.cluster.Client(place).Watch.Watch(ctx, &registryv1.WatchRequest{
		Table: registryv1.Table_TABLE_KV, Prefix: "local/" + watched, Index: w.From, Heartbeat: durationpb.New(200 * time.Millisecond),
	})
	if err != nil {
		return false
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) && status.Code(err) == codes.DataLoss {
				t.recorder.Fault("watch: %v", err)
			}
			return false
		}
		idle.Reset(silence)
		if resp.GetResync() {
			return true
		}
		m := history.Message{Index: resp.GetIndex(), Synced: resp.GetSynced(), At: t.recorder.Now()}
		for _, r := range resp.GetRecords() {
			m.Events = append(m.Events, history.Event{
				Key: strings.TrimPrefix(r.GetKey(), "local/"), Value: bare(r.GetValue()), Deleted: r.GetDeleted(), Modify: r.GetModifyIndex(),
			})
		}
		w.Messages = append(w.Messages, m)
	}
}
