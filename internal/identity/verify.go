package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxToken bounds what is looked at, in bytes: far above what issuers make, far below what would cost something.
const maxToken = 16 << 10

// authority signs tokens: the platform itself, or an OIDC issuer.
type authority struct {
	algorithms []string
	// parser checks everything about a token of this authority but its key: algorithm, issuer, audience, times.
	parser *jwt.Parser
	// key finds the key that a token names by its id. It fails with a *Refusal.
	key func(ctx context.Context, id, algorithm string) (*publicKey, error)
	// principal says who verified claims speak for; false when they name no user or no role.
	principal func(claims map[string]any) (Principal, bool)
}

// Verifier checks tokens. It may be used by several goroutines at once. Without issuers there is nothing to Start.
type Verifier struct {
	authorities map[string]*authority // by the claim iss
	issuers     []*issuerKeys
	unverified  *jwt.Parser
	verified    *cache
	now         func() time.Time
}

// NewVerifier reads the public key and the issuers of the configuration.
func NewVerifier(cfg Config) (*Verifier, error) {
	key, err := readPublicKey(cfg.PublicKey)
	if err != nil {
		return nil, err
	}
	issuers, err := ParseIssuers(cfg.Issuers)
	if err != nil {
		return nil, err
	}
	v := &Verifier{authorities: map[string]*authority{}, unverified: jwt.NewParser(), verified: newCache(cfg.TokenCache), now: time.Now}
	own := &publicKey{key: key}
	v.authorities[issuer] = v.authority(issuer, audience, []string{"EdDSA"}, ownPrincipal,
		func(context.Context, string, string) (*publicKey, error) { return own, nil })
	for _, one := range issuers {
		keys, err := newIssuerKeys(one, cfg)
		if err != nil {
			return nil, err
		}
		v.issuers = append(v.issuers, keys)
		v.authorities[one.Issuer] = v.authority(one.Issuer, one.Audience, one.Algorithms, one.principal, keys.find)
	}
	return v, nil
}

func readPublicKey(text string) (ed25519.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("IDENTITY_PUBLIC_KEY_FILE: not a PEM file")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("IDENTITY_PUBLIC_KEY_FILE: not a public key")
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("IDENTITY_PUBLIC_KEY_FILE: not an Ed25519 key")
	}
	return key, nil
}

func (v *Verifier) authority(issuer, audience string, algorithms []string, principal func(map[string]any) (Principal, bool),
	key func(context.Context, string, string) (*publicKey, error)) *authority {
	return &authority{algorithms: algorithms, key: key, principal: principal, parser: jwt.NewParser(jwt.WithValidMethods(algorithms),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway),
		jwt.WithTimeFunc(func() time.Time { return v.now() }))}
}

// ownPrincipal reads the platform's own claims.
func ownPrincipal(claims map[string]any) (Principal, bool) {
	user, _ := claims["sub"].(string)
	role, _ := claims["role"].(string)
	return Principal{User: user, Role: Role(role)}, user != "" && Role(role).Valid()
}

// Start fetches the issuers' keys in the background, and again from time to time, until Stop. Nothing waits for them but
// tokens that need them.
func (v *Verifier) Start() {
	for _, i := range v.issuers {
		i.running.Go(i.follow)
	}
}

// Stop ends what Start began.
func (v *Verifier) Stop() {
	for _, i := range v.issuers {
		i.stop()
		i.running.Wait()
	}
}

// Issuers says how the configured issuers are doing.
func (v *Verifier) Issuers() []IssuerState {
	states := make([]IssuerState, len(v.issuers))
	for i, keys := range v.issuers {
		states[i] = keys.state()
	}
	return states
}

// Known returns who a token speaks for if it was verified before and still holds.
func (v *Verifier) Known(token string) (Principal, bool) {
	if len(token) > maxToken {
		return Principal{}, false
	}
	return v.verified.get(keyOf(token), v.now())
}

// Verify returns who the token speaks for. It may wait for the keys of an issuer. The error is a *Refusal; it says what is
// wrong with the token, never what it holds.
func (v *Verifier) Verify(ctx context.Context, token string) (Principal, error) {
	if len(token) > maxToken {
		return Principal{}, refuse(Malformed, "it is longer than %d bytes", maxToken)
	}
	hash := keyOf(token)
	if principal, ok := v.verified.get(hash, v.now()); ok {
		return principal, nil
	}
	good, err := v.verify(ctx, token)
	if err != nil {
		return Principal{}, err
	}
	v.verified.put(hash, good)
	return good.principal, nil
}

func (v *Verifier) verify(ctx context.Context, token string) (verified, error) {
	said := jwt.MapClaims{} // by whoever sent it
	head, _, err := v.unverified.ParseUnverified(token, said)
	switch {
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return verified{}, refuse(BadAlgorithm, "its algorithm is unknown")
	case err != nil:
		return verified{}, refuse(Malformed, "it cannot be read")
	case head.Header["crit"] != nil: // RFC 7515, section 4.1.11: none of them is understood here
		return verified{}, refuse(Malformed, "its header asks for extensions")
	}
	from, _ := said["iss"].(string)
	by, known := v.authorities[from]
	if !known {
		return verified{}, refuse(UnknownIssuer, "its issuer is not configured")
	}
	algorithm := head.Method.Alg()
	if !slices.Contains(by.algorithms, algorithm) {
		return verified{}, refuse(BadAlgorithm, "its issuer does not sign with %s", algorithm)
	}
	id, _ := head.Header["kid"].(string)
	key, err := by.key(ctx, id, algorithm)
	if err != nil {
		return verified{}, err
	}
	claims := jwt.MapClaims{}
	if _, err = by.parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key.key, nil }); err != nil {
		return verified{}, refusalOf(err)
	}
	principal, ok := by.principal(claims)
	if !ok {
		return verified{}, refuse(MissingClaims, "no user or no role that counts here")
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return verified{}, refuse(MissingClaims, "it has no end")
	}
	return verified{principal: principal, expires: expires.Add(leeway), key: key}, nil
}

// refusalOf names what the parser has found. What comes first was found first: nothing is said of claims that nobody vouches
// for.
func refusalOf(err error) *Refusal {
	for _, known := range []struct {
		err    error
		reason Reason
	}{
		{jwt.ErrTokenSignatureInvalid, BadSignature},
		{jwt.ErrTokenUnverifiable, BadSignature},
		{jwt.ErrTokenExpired, Expired},
		{jwt.ErrTokenNotValidYet, NotYetValid},
		{jwt.ErrTokenUsedBeforeIssued, NotYetValid},
		{jwt.ErrTokenInvalidAudience, WrongAudience},
		{jwt.ErrTokenInvalidIssuer, UnknownIssuer},
		{jwt.ErrTokenRequiredClaimMissing, MissingClaims},
	} {
		if errors.Is(err, known.err) {
			return refuse(known.reason, "%w", known.err)
		}
	}
	return refuse(Malformed, "its claims cannot be read")
}

// IssuerState is how an issuer is doing.
type IssuerState struct {
	Name string
	Keys int
	// Confirmed is when its keys were last fetched; zero: not yet.
	Confirmed time.Time
	// Err is why the last fetch failed; nil when it did not.
	Err error
}

// ReasonOf says why an error of Verify refuses.
func ReasonOf(err error) Reason {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal.Reason
	}
	return Malformed
}

// String says how it is doing in words.
func (s IssuerState) String() string {
	if s.Err != nil {
		return fmt.Sprintf("%d keys; the last fetch failed: %v", s.Keys, s.Err)
	}
	return fmt.Sprintf("%d keys", s.Keys)
}
