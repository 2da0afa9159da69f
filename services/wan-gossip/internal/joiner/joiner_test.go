package joiner_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/services/wan-gossip/internal/joiner"
	"konsul.dev/services/wan-gossip/internal/members"
)

// pool is a pool that admits by name.
type pool struct {
	mu        sync.Mutex
	answer    map[string]error // by address; absent: unreachable
	connected []string
	tried     []string
	log       bytes.Buffer // read when all is quiet
}

var errUnreachable = errors.New("unreachable")

func (p *pool) join(address string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = append(p.tried, address)
	err, ok := p.answer[address]
	if !ok {
		return errUnreachable
	}
	if err == nil {
		p.connected = append(p.connected, address)
	}
	return err
}

func (p *pool) up() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{"10.0.0.1:8302"}, p.connected...)
}

func (p *pool) tries() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tried)
}

func (p *pool) set(address string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer[address] = err
}

func run(t *testing.T, p *pool, names map[string]string, seeds, peers []string) *joiner.Joiner {
	t.Helper()
	j := joiner.New(joiner.Params{
		Seeds: seeds, Peers: peers, Join: p.join, Connected: p.up,
		Lookup: func(_ context.Context, host string) ([]string, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if ip, ok := names[host]; ok {
				return []string{ip}, nil
			}
			return nil, errors.New("no such host")
		},
		RetryMin: 100 * time.Millisecond, RetryMax: time.Second, Clock: clock.System(), Log: slog.New(slog.NewTextHandler(&p.log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = j.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return j
}

func TestTriesUntilSeedsAppear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{answer: map[string]error{}}
		names := map[string]string{"self": "10.0.0.1"}
		run(t, p, names, []string{"self:8302", "late.example:8302"}, nil)
		time.Sleep(time.Minute)
		require.Empty(t, p.tries(), "a name without address is not dialled, and self is connected")
		p.mu.Lock()
		names["late.example"] = "10.0.0.2"
		p.mu.Unlock()
		time.Sleep(time.Minute)
		require.Greater(t, len(p.tries()), 10)
		p.set("10.0.0.2:8302", nil)
		time.Sleep(time.Minute)
		before := len(p.tries())
		time.Sleep(time.Minute)
		require.Len(t, p.tries(), before, "what is connected is left alone")
	})
}

func TestPeersOfAnEarlierLifeHelpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{answer: map[string]error{"10.0.0.3:8302": nil}}
		names := map[string]string{"seed": "10.0.0.2", "10.0.0.3": "10.0.0.3", "10.0.0.4": "10.0.0.4"}
		run(t, p, names, []string{"seed:8302"}, []string{"10.0.0.3:8302", "10.0.0.4:8302"})
		time.Sleep(time.Minute)
		require.Contains(t, p.up(), "10.0.0.3:8302")
		count := map[string]int{}
		for _, a := range p.tries() {
			count[a]++
		}
		require.Equal(t, 1, count["10.0.0.4:8302"], "after the first join, gossip itself knows the peers")
		require.Greater(t, count["10.0.0.2:8302"], 10, "seeds are tried for ever")
	})
}

func TestRefusalIsKnownWhileItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := &members.Refusal{Reason: members.ReasonDuplicate, Text: "two", Remedy: "rename"}
		p := &pool{answer: map[string]error{"10.0.0.2:8302": refusal}}
		j := run(t, p, map[string]string{"seed": "10.0.0.2"}, []string{"seed:8302"}, nil)
		time.Sleep(time.Second)
		require.Equal(t, refusal, j.Refusal())
		p.set("10.0.0.2:8302", nil)
		time.Sleep(time.Minute)
		require.Nil(t, j.Refusal())
	})
}

func TestAMemberThatMovedSaysSoUntilItIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{answer: map[string]error{"10.0.0.2:8302": members.ErrOldAddress, "10.0.0.3:8302": members.ErrOldAddress}}
		names := map[string]string{"10.0.0.2": "10.0.0.2", "10.0.0.3": "10.0.0.3"}
		run(t, p, names, []string{"10.0.0.2:8302"}, []string{"10.0.0.3:8302"})
		synctest.Wait()
		require.Len(t, p.tries(), 2)
		// Gossip works both ways from the first exchange: they are connected, and yet hold the old
		// address.
		p.mu.Lock()
		p.connected = []string{"10.0.0.2:8302", "10.0.0.3:8302"}
		p.mu.Unlock()
		time.Sleep(10 * time.Second)
		count := map[string]int{}
		for _, a := range p.tries() {
			count[a]++
		}
		require.GreaterOrEqual(t, count["10.0.0.2:8302"], 10, "about once a second")
		require.GreaterOrEqual(t, count["10.0.0.3:8302"], 10, "peers of an earlier life, too")
		p.set("10.0.0.2:8302", nil)
		p.set("10.0.0.3:8302", nil)
		time.Sleep(2 * time.Second)
		before := len(p.tries())
		time.Sleep(time.Minute)
		require.Len(t, p.tries(), before, "believed")
	})
}

func TestALastingTroubleIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{answer: map[string]error{}}
		lookups := 0
		j := joiner.New(joiner.Params{
			Seeds: []string{"late.example:8302"}, Join: p.join, Connected: p.up,
			Lookup: func(context.Context, string) ([]string, error) {
				lookups++
				return nil, &net.DNSError{Err: fmt.Sprintf("read udp 192.0.2.1:%d: i/o timeout", lookups), Name: "late.example"}
			},
			RetryMin: 100 * time.Millisecond, RetryMax: time.Second, Clock: clock.System(), Log: slog.New(slog.NewTextHandler(&p.log, nil)),
		})
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
		defer cancel()
		require.NoError(t, j.Run(ctx))
		require.Greater(t, lookups, 1000)
		require.Equal(t, 3, strings.Count(p.log.String(), "cannot be joined"), "at once, after ten minutes, after twenty")
	})
}
