package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// idleTimeout is how long a connection is kept for the next request.
	idleTimeout = 20 * time.Second
	// bufferBytes is what is handed to the system at once.
	bufferBytes = 64 << 10
)

// newTransport ends a connection on which nothing moves for o.Stall, trusts the certificates in caFile, if named, and notes
// the storage's time. It speaks HTTP/1.1, so that a connection is one request's.
func newTransport(caFile string, o S3Options, clock *atomic.Pointer[time.Time]) (http.RoundTripper, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("ca: the file holds no certificate in PEM")
		}
	}
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	return clocked{clock: clock, next: &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return moving{c, o.Stall}, nil
		},
		TLSClientConfig: config, TLSHandshakeTimeout: dialTimeout, IdleConnTimeout: idleTimeout, DisableCompression: true,
		WriteBufferSize: bufferBytes, ReadBufferSize: bufferBytes,
	}}, nil
}

// moving is a connection that fails when no byte moves, in either direction, for stall.
type moving struct {
	net.Conn
	stall time.Duration
}

func (c moving) Read(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	return n, c.sentence(err)
}

// Write sends piece by piece, because each piece that is taken is a move.
func (c moving) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if err := c.extend(); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[:min(len(p), bufferBytes)])
		written += n
		if err != nil {
			return written, c.sentence(err)
		}
		p = p[n:]
	}
	return written, c.extend()
}

// extend lets a read that waits for the answer go on while the request is still being sent.
func (c moving) extend() error { return c.SetDeadline(time.Now().Add(c.stall)) }

func (c moving) sentence(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("nothing has moved for %s: %w", c.stall, err)
	}
	return err
}

// clocked notes what time the storage says it is.
type clocked struct {
	clock *atomic.Pointer[time.Time]
	next  http.RoundTripper
}

func (c clocked) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.next.RoundTrip(r)
	if err == nil {
		if t, dateErr := http.ParseTime(answer.Header.Get("Date")); dateErr == nil {
			c.clock.Store(&t)
		}
	}
	return answer, err
}
