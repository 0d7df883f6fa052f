package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

// publicKey verifies tokens, of one algorithm if its issuer says so.
type publicKey struct {
	algorithm jwkset.ALG
	key       any
	// gone says that the issuer has taken it back, for tokens that were verified with it before.
	gone atomic.Bool
}

// fits reports whether the key is of the kind that an algorithm takes: the token does not choose how a key is used.
func (k *publicKey) fits(algorithm string) bool {
	if k.algorithm != "" && string(k.algorithm) != algorithm {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		const leastBits = 2048 // RFC 7518, section 3.3
		return (strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")) && key.N.BitLen() >= leastBits
	case *ecdsa.PublicKey:
		curves := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}
		return curves[algorithm] == key.Curve
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// same reports whether two keys are one.
func (k *publicKey) same(other *publicKey) bool {
	if k.algorithm != other.algorithm {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		theirs, ok := other.key.(*rsa.PublicKey)
		return ok && key.Equal(theirs)
	case *ecdsa.PublicKey:
		theirs, ok := other.key.(*ecdsa.PublicKey)
		return ok && key.Equal(theirs)
	case ed25519.PublicKey:
		theirs, ok := other.key.(ed25519.PublicKey)
		return ok && key.Equal(theirs)
	}
	return false
}

// issuerKeys are the keys of one issuer, as it last told them. They are fetched again from time to time, and when a token names one
// that is not there, but never more often than the configuration says.
type issuerKeys struct {
	Issuer
	cfg     Config
	client  *http.Client
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	keys    atomic.Pointer[map[string]*publicKey] // by id
	waiting atomic.Int64

	mu        sync.Mutex
	fetching  chan struct{} // closed when the fetch under way ends; nil when there is none
	began     time.Time     // of the last fetch
	confirmed time.Time
	err       error // of the last fetch
}

func newIssuerKeys(issuer Issuer, cfg Config) (*issuerKeys, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSHandshakeTimeout: cfg.Timeout}
	if issuer.CAFile != "" {
		authorities, err := os.ReadFile(issuer.CAFile)
		if err != nil {
			return nil, fmt.Errorf("IDENTITY_OIDC_ISSUERS_FILE: issuer %q: caFile: %w", issuer.Name, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("IDENTITY_OIDC_ISSUERS_FILE: issuer %q: caFile: holds no certificate", issuer.Name)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	i := &issuerKeys{Issuer: issuer, cfg: cfg, client: &http.Client{
		Timeout: cfg.Timeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // could lead off https
	}}
	i.ctx, i.stop = context.WithCancel(context.Background())
	i.keys.Store(&map[string]*publicKey{})
	return i, nil
}

// find returns the key of an id. One that is not known may be new: then it waits for a fetch, if one may be made.
func (i *issuerKeys) find(ctx context.Context, id, algorithm string) (*publicKey, error) {
	key := (*i.keys.Load())[id]
	if key == nil {
		if done := i.fetch(); done != nil {
			if err := i.wait(ctx, done); err != nil {
				return nil, err
			}
			key = (*i.keys.Load())[id]
		}
	}
	switch {
	case key == nil && len(*i.keys.Load()) == 0:
		return nil, refuse(KeysAway, "no key of issuer %s could be had", i.Name)
	case key == nil:
		return nil, refuse(UnknownKey, "issuer %s has no key of that id", i.Name)
	case !key.fits(algorithm):
		return nil, refuse(UnknownKey, "the key of issuer %s is not one for %s", i.Name, algorithm)
	}
	return key, nil
}

func (i *issuerKeys) wait(ctx context.Context, done <-chan struct{}) error {
	defer i.waiting.Add(-1)
	if i.waiting.Add(1) > int64(i.cfg.Waiting) {
		return refuse(TooManyWaiting, "%d requests wait for keys of issuer %s", i.cfg.Waiting, i.Name)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return refuse(KeysAway, "the caller has gone: %w", ctx.Err())
	}
}

// fetch has the keys fetched in the background and returns what is closed at the end of that; nil when the last fetch is too
// recent.
func (i *issuerKeys) fetch() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fetching != nil {
		return i.fetching
	}
	if !i.began.IsZero() && time.Since(i.began) < i.cfg.Retry || i.ctx.Err() != nil {
		return nil
	}
	done := make(chan struct{})
	i.fetching, i.began = done, time.Now()
	go func() {
		fresh, err := i.ask(i.ctx)
		i.take(fresh, err)
		close(done)
	}()
	return done
}

// take puts the outcome of a fetch in force. A key that is no longer told is gone, and so are all when there was no answer for
// too long.
func (i *issuerKeys) take(fresh map[string]*publicKey, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetching = nil
	before := *i.keys.Load()
	switch {
	case err == nil:
		i.confirmed = time.Now()
	case len(before) > 0 && time.Since(i.confirmed) >= i.cfg.Keep:
		fresh = map[string]*publicKey{}
	default:
		fresh = before
	}
	i.report(err, len(fresh))
	for id, key := range fresh {
		if old := before[id]; old != nil && old.same(key) {
			fresh[id] = old
		}
	}
	i.keys.Store(&fresh)
	for id, old := range before {
		if fresh[id] != old {
			old.gone.Store(true)
		}
	}
}

// report logs when the issuer goes away and when it comes back.
func (i *issuerKeys) report(err error, keys int) {
	switch {
	case i.ctx.Err() != nil: // the process stops
	case err != nil && i.err == nil:
		slog.Warn("an issuer's keys cannot be fetched", "issuer", i.Name, "keys", keys, "error", err.Error())
	case err == nil && (i.err != nil || len(*i.keys.Load()) != keys):
		slog.Info("an issuer's keys were fetched", "issuer", i.Name, "keys", keys)
	}
	i.err = err
}

// follow fetches the keys now, and again and again until the end.
func (i *issuerKeys) follow() {
	for {
		if done := i.fetch(); done != nil {
			<-done
		}
		pause := i.cfg.Refresh * 8 / 10 // leaves time for the fetch itself
		if i.state().Err != nil {
			pause = i.cfg.Retry
		}
		select {
		case <-time.After(pause + rand.N(pause/10+1)): // not all processes at once
		case <-i.ctx.Done():
			return
		}
	}
}

func (i *issuerKeys) state() IssuerState {
	i.mu.Lock()
	defer i.mu.Unlock()
	return IssuerState{Name: i.Name, Keys: len(*i.keys.Load()), Confirmed: i.confirmed, Err: i.err}
}

// ask fetches the keys that may sign. One that cannot be used does not spoil the others.
func (i *issuerKeys) ask(ctx context.Context) (map[string]*publicKey, error) {
	address := i.JWKS
	if address == "" {
		var err error
		if address, err = i.discover(ctx); err != nil {
			return nil, err
		}
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := i.get(ctx, address, &set); err != nil {
		return nil, err
	}
	if set.Keys == nil {
		return nil, fmt.Errorf("%s is no set of keys", address)
	}
	keys := map[string]*publicKey{}
	for _, raw := range set.Keys {
		read, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		about := read.Marshal()
		maySign := about.USE == "" || about.USE == jwkset.UseSig
		if len(about.KEYOPS) > 0 && !slices.Contains(about.KEYOPS, jwkset.KeyOpsVerify) {
			maySign = false
		}
		key := &publicKey{algorithm: about.ALG, key: read.Key()}
		if maySign && about.KID != "" && slices.ContainsFunc(i.Algorithms, key.fits) {
			keys[about.KID] = key
		}
	}
	return keys, nil
}

// discover asks the issuer where its keys are (OpenID Connect Discovery 1.0, section 4).
func (i *issuerKeys) discover(ctx context.Context) (string, error) {
	var about struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	address := strings.TrimSuffix(i.Issuer.Issuer, "/") + "/.well-known/openid-configuration"
	if err := i.get(ctx, address, &about); err != nil {
		return "", err
	}
	if about.Issuer != i.Issuer.Issuer {
		return "", fmt.Errorf("%s speaks for another issuer", address)
	}
	if err := trustworthy(about.JWKS); err != nil {
		return "", fmt.Errorf("the jwks_uri of %s: %w", address, err)
	}
	return about.JWKS, nil
}

func (i *issuerKeys) get(ctx context.Context, address string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	res, err := i.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", address, res.StatusCode)
	}
	const longest = 1 << 20
	content, err := io.ReadAll(io.LimitReader(res.Body, longest+1))
	if err == nil && len(content) > longest {
		err = errors.New("too long")
	}
	if err == nil {
		err = json.Unmarshal(content, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", address, err)
	}
	return nil
}
