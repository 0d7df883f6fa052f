// Package identity says who a caller is and what they may do: roles, the platform's own tokens, and those of the OpenID
// Connect issuers that are configured.
//
// The platform's tokens are JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037). Only `sms` holds the private key;
// every service holds the public one.
package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Role is what a caller may do.
type Role string

// The roles of the public interface.
const (
	Admin    Role = "admin"    // everything
	Clerk    Role = "clerk"    // students read and write, settings read
	Operator Role = "operator" // operations
	Viewer   Role = "viewer"   // read
)

// Roles lists every role, most powerful first.
func Roles() []Role { return []Role{Admin, Clerk, Operator, Viewer} }

// Valid reports whether the role is one of the platform's.
func (r Role) Valid() bool { return slices.Contains(Roles(), r) }

// Principal is a caller whose token was verified.
type Principal struct {
	User string
	Role Role
}

// Is reports whether the principal has one of the roles. Admin has all.
func (p Principal) Is(roles ...Role) bool {
	return p.Role == Admin || slices.Contains(roles, p.Role)
}

type contextKey struct{}

// NewContext returns a context that carries the principal.
func NewContext(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// FromContext returns the caller; the zero Principal when nobody was verified.
func FromContext(ctx context.Context) Principal {
	p, _ := ctx.Value(contextKey{}).(Principal)
	return p
}

const (
	issuer   = "sms"
	audience = "sms"
	// leeway is the clock skew that is forgiven between the signer and a verifier.
	leeway = 60 * time.Second
)

type claims struct {
	Role Role `json:"role"`
	jwt.RegisteredClaims
}

// Signer makes tokens.
type Signer struct{ key ed25519.PrivateKey }

// NewSigner reads a PKCS #8 PEM private key.
func NewSigner(pemKey []byte) (*Signer, error) {
	block, _ := pem.Decode(pemKey)
	if block == nil {
		return nil, errors.New("token signing key: not a PEM file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("token signing key: not a PKCS #8 private key")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("token signing key: not an Ed25519 key")
	}
	return &Signer{key: key}, nil
}

// Sign makes a token for a user that is valid for ttl from now.
func (s *Signer) Sign(user string, role Role, ttl time.Duration) (string, error) {
	if user == "" {
		return "", errors.New("a token needs a user")
	}
	if !role.Valid() {
		return "", fmt.Errorf("role %q is none of %v", role, Roles())
	}
	if ttl <= 0 {
		return "", errors.New("a token's lifetime must be above zero")
	}
	id := make([]byte, 12)
	if _, err := rand.Read(id); err != nil {
		return "", fmt.Errorf("make a token id: %w", err)
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{Role: role, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: user, ID: hex.EncodeToString(id),
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}})
	return token.SignedString(s.key)
}

// NewKeyPair makes a key pair in PEM: PKCS #8 private, PKIX public.
func NewKeyPair() (private, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a token key: %w", err)
	}
	privDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the token key: %w", err)
	}
	pubDER, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the token key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privDER}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pubDER}), nil
}
