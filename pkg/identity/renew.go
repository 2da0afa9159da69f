package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/obs"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
)

const (
	renewRetryMin = time.Second
	renewRetryMax = time.Minute
)

// Run renews the certificate at two thirds of its life, for as long as ctx lasts. It never fails:
// a ca that is away is asked again, and an expired certificate is replaced by enrolling anew.
func (e *Enrolled) Run(ctx context.Context) error {
	if e.lacksNode() {
		if err := e.renew(ctx); err != nil {
			e.cfg.Log.Warn("certificate does not name the node yet; the old one stays in use", obs.KeyNode, e.cfg.Node, obs.KeyError, err)
		}
	}
	retry := backoff.New(renewRetryMin, renewRetryMax)
	for {
		leaf := e.Material().Chain[0]
		timer := time.NewTimer(time.Until(RenewAt(leaf)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err := e.renew(ctx)
		if err != nil {
			e.cfg.Log.Warn("certificate not renewed; the old one stays in use", obs.KeyError, err, "expires", leaf.NotAfter)
		}
		// A certificate cut short by its issuer's end is due at birth: asking again at once would
		// drown the ca.
		if err == nil && time.Now().Before(RenewAt(e.Material().Chain[0])) {
			retry.Reset()
			continue
		}
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
}

// RenewAt returns when a certificate is due for renewal: after two thirds of its life.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

// lacksNode reports whether the certificate in use was made by a ca of an earlier version, which
// names no nodes.
func (e *Enrolled) lacksNode() bool {
	id, err := leafID(e.Material().Chain[0])
	return err == nil && id.Node != e.cfg.Node
}

func (e *Enrolled) renew(ctx context.Context) error {
	material, err := e.next(ctx)
	if err != nil {
		return err
	}
	if err := e.Set(material); err != nil {
		return err
	}
	e.expiry.WithLabelValues(e.cfg.Service).Set(float64(material.Chain[0].NotAfter.Unix()))
	e.cfg.Log.Info("certificate renewed", "expires", material.Chain[0].NotAfter)
	return save(e.cfg.Dir, material)
}

// next gets a new certificate. With an expired one no ca takes the call, and with one that names no
// node it gives no better one; then the key still proves who we are.
func (e *Enrolled) next(ctx context.Context) (Material, error) {
	material, err := e.renewed(ctx)
	usable := err == nil || time.Now().Before(e.Material().Chain[0].NotAfter)
	if usable && !e.lacksNode() {
		return material, err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	enrolled, enrollErr := e.enroll(ctx)
	if enrollErr != nil && usable {
		return material, err
	}
	return enrolled, enrollErr
}

func (e *Enrolled) renewed(ctx context.Context) (Material, error) {
	key, csr, err := e.request()
	if err != nil {
		return Material{}, err
	}
	var errs []error
	for _, addr := range e.cfg.CAAddrs {
		resp, err := e.askRenewal(ctx, addr, csr)
		if err == nil {
			return parseMaterial(key, resp.GetCertificateChain(), resp.GetRoots())
		}
		errs = append(errs, err)
	}
	return Material{}, errors.Join(errs...)
}

func (e *Enrolled) askRenewal(ctx context.Context, addr string, csr []byte) (*cav1.RenewResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(credentials.NewTLS(e.ClientTLS(Want{Service: componentCA}, ""))))
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return cav1.NewCertificateServiceClient(conn).Renew(ctx, &cav1.RenewRequest{Csr: csr})
}
