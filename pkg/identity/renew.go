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
		// A certificate cut short by its issuer's end is due at birth: asking again at once would drown the ca.
		if err == nil && time.Now().Before(RenewAt(e.Material().Chain[0])) {
			retry.Reset()
			continue
		}
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
}

// RenewAt answers when a certificate is due for renewal: after two thirds of its life.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

func (e *Enrolled) renew(ctx context.Context) error {
	material, err := e.renewed(ctx)
	if err != nil {
		if time.Now().Before(e.Material().Chain[0].NotAfter) {
			return err
		}
		// With an expired certificate no ca takes the call; the secret still proves who we are.
		enrollCtx, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		if material, err = e.enroll(enrollCtx); err != nil {
			return err
		}
	}
	if err := e.Set(material); err != nil {
		return err
	}
	e.expiry.WithLabelValues(e.cfg.Service).Set(float64(material.Chain[0].NotAfter.Unix()))
	e.cfg.Log.Info("certificate renewed", "expires", material.Chain[0].NotAfter)
	return save(e.cfg.Dir, material)
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
