package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// provider is a real OpenID Connect issuer, as far as its keys go.
type provider struct {
	*httptest.Server
	t      testing.TB
	caFile string

	mu      sync.Mutex
	jwks    []json.RawMessage
	away    bool
	fetches int
	// fetched is told of every answer with keys, or of every refusal while away.
	fetched chan struct{}
	// hold, when set, keeps answers back until it is closed.
	hold chan struct{}
	// speaksFor is the issuer that the discovery document names; empty: itself.
	speaksFor string
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{t: t, fetched: make(chan struct{}, 1000)}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		speaksFor := p.speaksFor
		if speaksFor == "" {
			speaksFor = p.URL
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": speaksFor, "jwks_uri": p.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		p.fetches++
		hold, away, jwks := p.hold, p.away, p.jwks
		p.mu.Unlock()
		if hold != nil {
			<-hold
		}
		defer func() { p.fetched <- struct{}{} }()
		if away {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": jwks})
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	p.caFile = filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	if err := os.WriteFile(p.caFile, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *provider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

// pair is a key of the provider's.
type pair struct {
	id      string
	private crypto.Signer
	method  jwt.SigningMethod
}

// jwk is the public half as the provider tells it.
func (k pair) jwk(t testing.TB, metadata jwkset.JWKMetadataOptions) json.RawMessage {
	t.Helper()
	metadata.KID = k.id
	key, err := jwkset.NewJWKFromKey(k.private.Public(), jwkset.JWKOptions{Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(key.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// publish makes keys those that the provider tells.
func (p *provider) publish(keys ...pair) {
	p.t.Helper()
	var jwks []json.RawMessage
	for _, k := range keys {
		jwks = append(jwks, k.jwk(p.t, jwkset.JWKMetadataOptions{USE: jwkset.UseSig}))
	}
	p.set(func() { p.jwks = jwks })
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newRSA(id string) pair { return pair{id, rsaKey(), jwt.SigningMethodRS256} }

func newEC(t testing.TB, id string) pair {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair{id, key, jwt.SigningMethodES256}
}

func newEd(t testing.TB, id string) pair {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair{id, key, jwt.SigningMethodEdDSA}
}

// claimsOf are what a good token of the provider says.
func (p *provider) claims() jwt.MapClaims {
	now := time.Now().Unix()
	return jwt.MapClaims{"iss": p.URL, "aud": []string{"other", "sms"}, "sub": "meera", "iat": now, "nbf": now, "exp": now + 3600,
		"realm_access": map[string]any{"roles": []string{"unknown", "office"}}}
}

// token is a good one, but for what change does to it.
func (p *provider) token(k pair, change func(*jwt.Token, jwt.MapClaims)) string {
	p.t.Helper()
	claims := p.claims()
	token := jwt.NewWithClaims(k.method, claims)
	token.Header["kid"] = k.id
	if change != nil {
		change(token, claims)
	}
	signed, err := token.SignedString(k.private)
	if err != nil {
		p.t.Fatal(err)
	}
	return signed
}

// config trusts the provider.
func (p *provider) config(change func(*Issuer)) Config {
	p.t.Helper()
	issuer := Issuer{Name: "school", Issuer: p.URL, Audience: "sms", CAFile: p.caFile, RolesClaim: "realm_access.roles",
		Roles: map[string]Role{"office": Clerk, "it": Operator, "head": Admin}}
	if change != nil {
		change(&issuer)
	}
	encoded, err := json.Marshal([]Issuer{issuer})
	if err != nil {
		p.t.Fatal(err)
	}
	_, public, err := NewKeyPair()
	if err != nil {
		p.t.Fatal(err)
	}
	return Config{PublicKey: string(public), TokenCache: 100, Issuers: string(encoded), Refresh: time.Hour, Retry: time.Hour,
		Timeout: 10 * time.Second, Waiting: 64, Keep: 24 * time.Hour}
}

func newVerifier(t testing.TB, cfg Config) *Verifier {
	t.Helper()
	v, err := NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Stop)
	return v
}

// reason verifies a token and says why it is refused; empty when it is not.
func reason(t testing.TB, v *Verifier, token string) Reason {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	if err == nil {
		return ""
	}
	return ReasonOf(err)
}

func (p *provider) awaitFetch(ctx context.Context) {
	p.t.Helper()
	select {
	case <-p.fetched:
	case <-ctx.Done():
		p.t.Fatal("no fetch")
	}
}
