package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestRotation has a new key used before anybody has heard of it, by many at once.
func TestRotation(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	first, second := newEd(t, "first"), newEC(t, "second")
	p.publish(first)
	cfg := p.config(nil)
	cfg.Retry = time.Nanosecond // a fetch may follow at once
	v := newVerifier(t, cfg)
	old := p.token(first, nil)
	if got := reason(t, v, old); got != "" {
		t.Fatal(got)
	}
	p.publish(first, second)
	hold := make(chan struct{})
	p.set(func() { p.hold = hold })
	before := p.count()
	var wg sync.WaitGroup
	for i := range 20 { // all wait for one fetch, none is refused
		token := p.token(second, func(_ *jwt.Token, c jwt.MapClaims) { c["sub"] = fmt.Sprint("user", i) })
		wg.Go(func() {
			if got := reason(t, v, token); got != "" {
				t.Errorf("refused while the new key was fetched: %s", got)
			}
		})
	}
	waitUntil(t, func() bool { return v.issuers[0].waiting.Load() == 20 })
	close(hold)
	wg.Wait()
	if n := p.count() - before; n != 1 {
		t.Errorf("%d fetches for one new key", n)
	}
	if got := reason(t, v, old); got != "" {
		t.Errorf("the old key was dropped: %s", got)
	}
}

// TestARemovedKeyHoldsNoLonger also for tokens that are remembered.
func TestARemovedKeyHoldsNoLonger(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	stays, goes := newEd(t, "stays"), newEd(t, "goes")
	p.publish(stays, goes)
	cfg := p.config(nil)
	cfg.Refresh, cfg.Retry = 50*time.Millisecond, time.Millisecond
	v := newVerifier(t, cfg)
	v.Start()
	kept, lost := p.token(stays, nil), p.token(goes, nil)
	for _, token := range []string{kept, lost} {
		if got := reason(t, v, token); got != "" {
			t.Fatal(got)
		}
	}
	replaced := newEd(t, "goes") // another key under the same id
	p.publish(stays, replaced)
	waitUntil(t, func() bool { _, known := v.Known(lost); return !known })
	if got := reason(t, v, lost); got != BadSignature {
		t.Errorf("a token of a replaced key: %q", got)
	}
	if got := reason(t, v, p.token(replaced, nil)); got != "" {
		t.Errorf("a token of its successor: %q", got)
	}
	if _, known := v.Known(kept); !known {
		t.Error("a token of a key that stayed was forgotten")
	}
	p.publish(stays)
	waitUntil(t, func() bool { return v.Issuers()[0].Keys == 1 })
	if got := reason(t, v, lost); got != UnknownKey {
		t.Errorf("a token of a removed key: %q", got)
	}
}

// TestUnknownKeysDoNotHammerTheIssuer floods a verifier with tokens that name keys nobody has.
func TestUnknownKeysDoNotHammerTheIssuer(t *testing.T) {
	t.Parallel()
	const retry, flood = 100 * time.Millisecond, 2000
	p := newProvider(t)
	known := newEd(t, "known")
	p.publish(known)
	cfg := p.config(nil)
	cfg.Retry = retry
	v := newVerifier(t, cfg)
	if got := reason(t, v, p.token(known, nil)); got != "" {
		t.Fatal(got)
	}
	forged := p.token(newEd(t, "forged"), nil)
	_, rest, _ := strings.Cut(forged, ".")
	start := time.Now()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range flood / 8 {
				token := segment(map[string]any{"alg": "EdDSA", "kid": fmt.Sprint(worker, i)}) + "." + rest
				if got := reason(t, v, token); got != UnknownKey {
					t.Errorf("%q", got)
				}
			}
		})
	}
	wg.Wait()
	if n, most := p.count(), 2+int(time.Since(start)/retry); n > most {
		t.Errorf("%d fetches in %s, at most %d wanted", n, time.Since(start), most)
	}
}

// TestFewWaitForASlowIssuer keeps requests from piling up behind an issuer that does not answer.
func TestFewWaitForASlowIssuer(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	key, hold := newEd(t, "key"), make(chan struct{})
	p.publish(key)
	p.set(func() { p.hold = hold })
	cfg := p.config(nil)
	cfg.Waiting = 3
	v := newVerifier(t, cfg)
	var wg sync.WaitGroup
	for i := range 3 {
		token := p.token(key, func(_ *jwt.Token, c jwt.MapClaims) { c["sub"] = fmt.Sprint("user", i) })
		wg.Go(func() {
			if got := reason(t, v, token); got != "" {
				t.Errorf("one that waited: %s", got)
			}
		})
	}
	waitUntil(t, func() bool { return v.issuers[0].waiting.Load() == 3 })
	_, err := v.Verify(t.Context(), p.token(key, nil))
	if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Reason != TooManyWaiting || !refusal.Temporary {
		t.Errorf("one too many: %v", err)
	}
	close(hold)
	wg.Wait()
}

func TestAnIssuerThatIsAway(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	key := newEd(t, "key")
	p.publish(key)
	p.set(func() { p.away = true })
	cfg := p.config(nil)
	cfg.Refresh, cfg.Retry = 20*time.Millisecond, 5*time.Millisecond
	v := newVerifier(t, cfg)
	v.Start() // does not fail, and does not wait
	p.awaitFetch(t.Context())
	token := p.token(key, nil)
	_, err := v.Verify(t.Context(), token)
	if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Reason != KeysAway || !refusal.Temporary {
		t.Errorf("away from the start: %v", err)
	}
	p.set(func() { p.away = false })
	waitUntil(t, func() bool { return reason(t, v, token) == "" })

	p.set(func() { p.away = true })
	waitUntil(t, func() bool { return v.Issuers()[0].Err != nil })
	fresh := p.token(key, func(_ *jwt.Token, c jwt.MapClaims) { c["sub"] = "asha" })
	if got := reason(t, v, fresh); got != "" {
		t.Errorf("away later, a new token of a known key: %s", got)
	}
	if state := v.Issuers()[0]; state.Keys != 1 || state.Confirmed.IsZero() {
		t.Errorf("%+v", state)
	}
}

// TestKeysOfAnIssuerThatStaysAwayEnd so that one who silences the issuer does not keep a stolen key in force.
func TestKeysOfAnIssuerThatStaysAwayEnd(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	key := newEd(t, "key")
	p.publish(key)
	cfg := p.config(nil)
	cfg.Refresh, cfg.Retry, cfg.Keep = 10*time.Millisecond, 5*time.Millisecond, 50*time.Millisecond
	v := newVerifier(t, cfg)
	v.Start()
	token := p.token(key, nil)
	if got := reason(t, v, token); got != "" {
		t.Fatal(got)
	}
	p.set(func() { p.away = true })
	waitUntil(t, func() bool { return v.Issuers()[0].Keys == 0 })
	if got := reason(t, v, token); got != KeysAway {
		t.Errorf("a remembered token: %q", got)
	}
}

func TestKeysThatAreNotBelieved(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*provider, *Config){
		"another issuer's document": func(p *provider, _ *Config) { p.speaksFor = "https://evil.example" },
		"not a set": func(p *provider, c *Config) {
			*c = p.config(func(i *Issuer) { i.JWKS = p.URL + "/.well-known/openid-configuration" })
		},
		"a redirect or nothing":       func(p *provider, c *Config) { *c = p.config(func(i *Issuer) { i.JWKS = p.URL + "/elsewhere" }) },
		"a server nobody vouches for": func(p *provider, c *Config) { *c = p.config(func(i *Issuer) { i.CAFile = "" }) },
	} {
		p := newProvider(t)
		key := newEd(t, "key")
		p.publish(key)
		cfg := p.config(nil)
		spoil(p, &cfg)
		v := newVerifier(t, cfg)
		if got := reason(t, v, p.token(key, nil)); got != KeysAway || v.Issuers()[0].Err == nil {
			t.Errorf("%s: %q, %v", name, got, v.Issuers()[0].Err)
		}
	}
}

func TestFaultsOfIssuersAreNamedTogether(t *testing.T) {
	t.Parallel()
	good := `{"name":"a","issuer":"https://a.example","audience":"sms","roles":{"x":"clerk"}}`
	for text, want := range map[string][]string{
		"":                            nil,
		"[" + good + "]":              nil,
		`[` + good + `] x`:            {"after the list"},
		`{}`:                          {"not a list"},
		`[{"nmae":"a"}]`:              {"nmae"},
		"[" + good + "," + good + "]": {"issuer 2 (\"a\"): its name or its address is taken"},
		`[{"name":"A b","issuer":"http://login.example","jwks":"ftp://x","roles":{"x":"king"},` +
			`"algorithms":["HS256","none"]}]`: {"name: ", "issuer: must be https",
			"jwks: must be https", "audience: ", `"king"`, `"HS256"`, `"none"`},
		`[{"name":"a","issuer":"sms","audience":"sms","roles":{}}]`:                                                  {"issuer: not an address", "roles: say", "is taken"},
		`[{"name":"a","issuer":"http://127.0.0.1:1","jwks":"http://[::1]/k","audience":"s","roles":{"x":"viewer"}}]`: nil,
		`[{"name":"a","issuer":"http://127.0.0.1.evil.example","audience":"s","roles":{"x":"viewer"}}]`:              {"must be https"},
		`[{"name":"a","issuer":"https://user:pass@a.example","audience":"s","roles":{"x":"viewer"}}]`:                {"not an address"},
	} {
		_, err := ParseIssuers(text)
		if (err != nil) != (len(want) > 0) {
			t.Errorf("%s: %v", text, err)
		}
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", text, err, part)
			}
		}
	}
	bad := Config{TokenCache: -1, Refresh: time.Hour, Issuers: "{"}
	for _, part := range []string{"IDENTITY_TOKEN_CACHE", "_RETRY", "IDENTITY_OIDC_KEEP", "IDENTITY_OIDC_ISSUERS_FILE"} {
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want %s", err, part)
		}
	}
}

// waitUntil asks again and again, as there is nobody who tells.
func waitUntil(t *testing.T, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it does not come to that")
		}
	}
}
