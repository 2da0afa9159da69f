package wangossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/wan-gossip/internal/keyfile"
)

// keyCallTimeout is how long a ca that does not answer holds up a start.
const keyCallTimeout = 3 * time.Second

// idRetryMin and idRetryMax bound the pauses between questions for the datacenter's id.
const (
	idRetryMin = 200 * time.Millisecond
	idRetryMax = 5 * time.Second
)

// ReasonNoGossipKey is the reason of a pool that waits for a first gossip key.
const ReasonNoGossipKey = "NO_GOSSIP_KEY"

// ReasonNoDatacenterID is the reason of a start without the datacenter's id to be had.
const ReasonNoDatacenterID = "NO_DATACENTER_ID"

// keys gets the federation's gossip keys from the ca and keeps a sealed copy.
type keys struct {
	box     *keyfile.Box
	ca      cav1.CertificateServiceClient
	log     *slog.Logger
	current [][]byte
	// kept is the sealed copy, read once.
	kept func() [][]byte
}

func newKeys(box *keyfile.Box, ca cav1.CertificateServiceClient, log *slog.Logger) *keys {
	return &keys{box: box, ca: ca, log: log, kept: sync.OnceValue(func() [][]byte {
		kept, err := box.Load()
		if err != nil {
			log.Warn("kept gossip keys are of no use; asking the ca", obs.KeyError, err)
		}
		return kept
	})}
}

// obtain returns the ca's keys, and the kept ones while it is away; Unavailable while there are
// none.
func (k *keys) obtain(ctx context.Context) ([][]byte, error) {
	kept := k.kept()
	asked, err := k.ask(ctx)
	switch {
	case err == nil:
		k.keep(asked)
		return asked, nil
	case len(kept) > 0:
		if k.current == nil {
			k.log.Warn("ca is away; gossip starts with the kept keys", obs.KeyError, err)
		}
		k.current = kept
		return kept, nil
	case fault.CodeOf(err) == fault.PermissionDenied:
		return nil, fmt.Errorf("get gossip key from ca: %w", err)
	default:
		return nil, fault.New(fault.Unavailable, ReasonNoGossipKey, "the ca gave no gossip key, and none is kept here").
			WithRemedy("start the datacenter's ca; see endpoints.ca").Wrap(err)
	}
}

// datacenterID returns the id that the ca derives from the datacenter secret, waiting for it until
// ctx ends.
func (k *keys) datacenterID(ctx context.Context) (string, error) {
	for pause := backoff.New(idRetryMin, idRetryMax); ; {
		resp, err := k.call(ctx)
		switch {
		case err == nil && resp.GetDatacenterId() == "":
			return "", fault.New(fault.FailedPrecondition, ReasonNoDatacenterID, "the ca does not tell the datacenter's id: it is of an earlier version").
				WithRemedy("upgrade the ca first")
		case err == nil:
			return resp.GetDatacenterId(), nil
		case fault.CodeOf(err) == fault.PermissionDenied:
			return "", fmt.Errorf("get the datacenter's id from the ca: %w", err)
		}
		k.log.Warn("ca does not tell the datacenter's id yet; waiting", obs.KeyError, err)
		if pause.Wait(ctx) != nil {
			return "", fault.New(fault.Unavailable, ReasonNoDatacenterID, "the ca did not tell the datacenter's id, and it is not kept here").
				WithRemedy("start the datacenter's ca; see endpoints.ca").Wrap(err)
		}
	}
}

func (k *keys) call(ctx context.Context) (*cav1.GetGossipKeyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, keyCallTimeout)
	defer cancel()
	return k.ca.GetGossipKey(ctx, &cav1.GetGossipKeyRequest{})
}

func (k *keys) ask(ctx context.Context) ([][]byte, error) {
	resp, err := k.call(ctx)
	if err != nil {
		return nil, err
	}
	if len(resp.GetKeys()) == 0 {
		return nil, fault.New(fault.FailedPrecondition, ReasonNoGossipKey, "the ca has no gossip key yet")
	}
	return resp.GetKeys(), nil
}

func (k *keys) keep(fresh [][]byte) {
	k.current = fresh
	if err := k.box.Save(fresh); err != nil {
		k.log.Warn("gossip keys cannot be kept; a restart will need the ca", obs.KeyError, err)
	}
}

// refresh asks for new keys every interval and hands them to use, until ctx ends.
func (k *keys) refresh(ctx context.Context, interval time.Duration, use func([][]byte) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		fresh, err := k.ask(ctx)
		if err != nil {
			k.log.Debug("ca is away; gossip goes on with its keys", obs.KeyError, err)
			continue
		}
		if slices.EqualFunc(fresh, k.current, bytes.Equal) {
			continue
		}
		if err := use(fresh); err != nil {
			k.log.Error("new gossip keys cannot be used", obs.KeyError, err)
			continue
		}
		k.keep(fresh)
		k.log.Info("gossip keys changed", "keys", len(fresh))
	}
}
