package hostile

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// mint makes tokens of every kind.
type mint struct {
	t      *testing.T
	key    ed25519.PrivateKey // the platform's
	public []byte             // the same in PEM, as anybody may have it
	good   string
	parts  []string // of the good one
}

func newMint(t *testing.T, p *platform, good string) mint {
	t.Helper()
	block, _ := pem.Decode(p.registry.Private)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	public, err := os.ReadFile(p.registry.PublicKey)
	must(t, err)
	return mint{t, key.(ed25519.PrivateKey), public, good, strings.Split(good, ".")}
}

// claims are good ones with some of them changed; nil takes one away.
func (m mint) claims(change ...any) jwt.MapClaims {
	now := time.Now()
	c := jwt.MapClaims{"iss": "sms", "aud": "sms", "sub": "meera", "role": "admin", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
	for i := 0; i < len(change); i += 2 {
		if c[change[i].(string)] = change[i+1]; change[i+1] == nil {
			delete(c, change[i].(string))
		}
	}
	return c
}

func (m mint) sign(method jwt.SigningMethod, key any, claims jwt.MapClaims, header ...any) string {
	m.t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i].(string)] = header[i+1]
	}
	signed, err := token.SignedString(key)
	must(m.t, err)
	return signed
}

// own is a token of the platform with some claims changed.
func (m mint) own(change ...any) string {
	return m.sign(jwt.SigningMethodEdDSA, m.key, m.claims(change...))
}

func (m mint) encode(v any) string {
	m.t.Helper()
	raw, err := json.Marshal(v)
	must(m.t, err)
	return base64.RawURLEncoding.EncodeToString(raw)
}

func (m mint) unsigned(alg string) string {
	return m.encode(map[string]string{"alg": alg, "typ": "JWT"}) + "." + m.encode(m.claims()) + "."
}

func after(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// fine are good tokens that look odd.
func (m mint) fine() map[string]string {
	return map[string]string{
		"as it is":                m.good,
		"expired within the skew": m.own("exp", after(-30*time.Second)),
		"valid within the skew":   m.own("nbf", after(30*time.Second)),
		"one audience of two":     m.own("aud", []string{"other", "sms"}),
	}
}

// badClaims are well signed, and say what must not be believed.
func (m mint) badClaims() map[string]string {
	return map[string]string{
		"expired beyond the skew": m.own("exp", after(-65*time.Second)),
		"no end":                  m.own("exp", nil),
		"end in words":            m.own("exp", "tomorrow"),
		"end at zero":             m.own("exp", 0),
		"not valid yet":           m.own("nbf", after(90*time.Second)),
		"wrong audience":          m.own("aud", "other"),
		"wrong audiences":         m.own("aud", []string{"a", "b"}),
		"no audience":             m.own("aud", nil),
		"wrong issuer":            m.own("iss", "other"),
		"no issuer":               m.own("iss", nil),
		"no subject":              m.own("sub", nil),
		"no role":                 m.own("role", nil),
		"unknown role":            m.own("role", "root"),
		"roles as a list":         m.own("role", []string{"admin"}),
	}
}

// badSignatures are not signed by the platform's key, whatever they say.
func (m mint) badSignatures(keys string) map[string]string {
	m.t.Helper()
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	must(m.t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(m.t, err)
	strangers := func(header ...any) string { return m.sign(jwt.SigningMethodEdDSA, stranger, m.claims(), header...) }
	jwk := map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(stranger.Public().(ed25519.PublicKey))}
	return map[string]string{
		"alg none":                  m.unsigned("none"),
		"alg None":                  m.unsigned("None"),
		"alg NONE":                  m.unsigned("NONE"),
		"alg empty":                 m.unsigned(""),
		"alg EdDSA, unsigned":       m.unsigned("EdDSA"),
		"empty signature":           m.parts[0] + "." + m.parts[1] + ".",
		"no signature":              m.parts[0] + "." + m.parts[1],
		"signature of another":      m.parts[0] + "." + m.parts[1] + "." + signature(m.own("sub", "other")),
		"claims of another":         m.parts[0] + "." + m.encode(m.claims("sub", "root")) + "." + m.parts[2],
		"HS256 with public key":     m.sign(jwt.SigningMethodHS256, m.public, m.claims()),
		"HS512 with public key":     m.sign(jwt.SigningMethodHS512, m.public, m.claims()),
		"HS256 with raw public key": m.sign(jwt.SigningMethodHS256, []byte(m.key.Public().(ed25519.PublicKey)), m.claims()),
		"HS256 with nothing":        m.sign(jwt.SigningMethodHS256, []byte{}, m.claims()),
		"RS256":                     m.sign(jwt.SigningMethodRS256, rsaKey, m.claims()),
		"signed by a stranger":      strangers(),
		"kid of a file":             strangers("kid", "../../../../dev/null"),
		"kid in SQL":                strangers("kid", "' or 1=1 --"),
		"jku":                       strangers("jku", keys),
		"x5u":                       strangers("x5u", keys),
		"jwk":                       strangers("jwk", jwk),
		"x5c":                       strangers("x5c", []string{"MIIB"}),
	}
}

// broken are no tokens at all.
func (m mint) broken() map[string]string {
	return map[string]string{
		"truncated":  m.good[:len(m.good)-4],
		"half":       m.good[:len(m.good)/2],
		"four parts": m.good + ".x",
		"padded":     m.good + "==",
		"doubled":    m.good + m.good,
		"not base64": "ey*." + m.parts[1] + "." + m.parts[2],
		"long":       m.good + strings.Repeat("A", 20<<10),
		"zero bytes": "ey" + strings.Repeat("AA", 40),
		"words":      "let me in",
		"dots":       "..",
		"null":       "null",
	}
}

// badHeaders hold good tokens where none must be looked for, or more than one.
func (m mint) badHeaders() map[string][]string {
	const bearer = "Authorization: Bearer "
	return map[string][]string{
		"none":              nil,
		"two headers":       {bearer + m.good, bearer + m.own("sub", "other")},
		"good and bad":      {bearer + m.good, bearer + "x"},
		"bad and good":      {bearer + "x", bearer + m.good},
		"two in one":        {bearer + m.good + ", Bearer " + m.good},
		"two in one scheme": {bearer + m.good + " " + m.good},
		"basic":             {"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("meera:"+m.good))},
		"no scheme":         {"Authorization: " + m.good},
		"other scheme":      {"Authorization: Token " + m.good},
		"no token":          {bearer},
		"only the scheme":   {"Authorization: Bearer"},
		"other headers":     {"X-Authorization: Bearer " + m.good, "Proxy-Authorization: Bearer " + m.good, "Authorization_: Bearer " + m.good},
	}
}
