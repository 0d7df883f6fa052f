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

// tokens returns headers with tokens that must be refused, and tokens that are good though they look odd.
func tokens(t *testing.T, p *platform, good string) (bad map[string][]string, fine map[string]string) {
	t.Helper()
	block, _ := pem.Decode(p.registry.Private)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	key := parsed.(ed25519.PrivateKey)
	publicPEM, err := os.ReadFile(p.registry.PublicKey)
	must(t, err)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)

	now := time.Now()
	claims := func(change ...any) jwt.MapClaims {
		c := jwt.MapClaims{"iss": "sms", "aud": "sms", "sub": "meera", "role": "admin", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
		for i := 0; i < len(change); i += 2 {
			if c[change[i].(string)] = change[i+1]; change[i+1] == nil {
				delete(c, change[i].(string))
			}
		}
		return c
	}
	sign := func(method jwt.SigningMethod, with any, c jwt.MapClaims, header ...any) string {
		token := jwt.NewWithClaims(method, c)
		for i := 0; i < len(header); i += 2 {
			token.Header[header[i].(string)] = header[i+1]
		}
		signed, err := token.SignedString(with)
		must(t, err)
		return signed
	}
	own := func(change ...any) string { return sign(jwt.SigningMethodEdDSA, key, claims(change...)) }
	parts := strings.Split(good, ".")
	encode := func(v any) string {
		raw, err := json.Marshal(v)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	unsigned := func(alg string) string {
		return encode(map[string]string{"alg": alg, "typ": "JWT"}) + "." + encode(claims()) + "."
	}
	strangersKey := map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(stranger.Public().(ed25519.PublicKey))}

	bad = map[string][]string{"none": nil, "two headers": {"Authorization: Bearer " + good, "Authorization: Bearer " + own("sub", "other")},
		"good and bad": {"Authorization: Bearer " + good, "Authorization: Bearer x"}, "bad and good": {"Authorization: Bearer x", "Authorization: Bearer " + good},
		"two in one": {"Authorization: Bearer " + good + ", Bearer " + good}, "two in one scheme": {"Authorization: Bearer " + good + " " + good},
		"basic": {"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("meera:"+good))}, "no scheme": {"Authorization: " + good},
		"other scheme": {"Authorization: Token " + good}, "no token": {"Authorization: Bearer "}, "only the scheme": {"Authorization: Bearer"},
		"other header": {"X-Authorization: Bearer " + good, "Proxy-Authorization: Bearer " + good, "Authorization_: Bearer " + good},
	}
	for name, token := range map[string]string{
		"expired beyond the skew": own("exp", now.Add(-65*time.Second).Unix()), "no end": own("exp", nil), "end in words": own("exp", "tomorrow"), "end at zero": own("exp", 0),
		"not valid yet": own("nbf", now.Add(90*time.Second).Unix()),
		"alg none":      unsigned("none"), "alg None": unsigned("None"), "alg NONE": unsigned("NONE"), "alg empty": unsigned(""),
		"empty signature": parts[0] + "." + parts[1] + ".", "no signature": parts[0] + "." + parts[1], "signature of another": parts[0] + "." + parts[1] + "." + signature(own("sub", "other")),
		"claims of another": parts[0] + "." + encode(claims("sub", "root")) + "." + parts[2], "signed by a stranger": sign(jwt.SigningMethodEdDSA, stranger, claims()),
		"wrong audience": own("aud", "other"), "no audience": own("aud", nil), "wrong audiences": own("aud", []string{"a", "b"}),
		"wrong issuer": own("iss", "other"), "no issuer": own("iss", nil), "no subject": own("sub", nil), "no role": own("role", nil), "unknown role": own("role", "root"),
		"roles as a list":       own("role", []string{"admin"}),
		"HS256 with public key": sign(jwt.SigningMethodHS256, publicPEM, claims()), "HS256 with raw public key": sign(jwt.SigningMethodHS256, []byte(key.Public().(ed25519.PublicKey)), claims()),
		"HS512 with public key": sign(jwt.SigningMethodHS512, publicPEM, claims()), "HS256 with nothing": sign(jwt.SigningMethodHS256, []byte{}, claims()), "RS256": sign(jwt.SigningMethodRS256, rsaKey, claims()),
		"kid": sign(jwt.SigningMethodEdDSA, stranger, claims(), "kid", "../../../../dev/null"), "kid in SQL": sign(jwt.SigningMethodEdDSA, stranger, claims(), "kid", "' or 1=1 --"),
		"jku": sign(jwt.SigningMethodEdDSA, stranger, claims(), "jku", "http://"+p.gateway+"/keys"), "x5u": sign(jwt.SigningMethodEdDSA, stranger, claims(), "x5u", "http://"+p.gateway+"/keys"),
		"jwk": sign(jwt.SigningMethodEdDSA, stranger, claims(), "jwk", strangersKey), "x5c": sign(jwt.SigningMethodEdDSA, stranger, claims(), "x5c", []string{"MIIB"}),
		"truncated": good[:len(good)-4], "half": good[:len(good)/2], "four parts": good + ".x", "padded": good + "==", "doubled": good + good, "not base64": "ey*." + parts[1] + "." + parts[2],
		"long": good + strings.Repeat("A", 20<<10), "words": "let me in", "dots": "..", "null": "null", "zero bytes": "ey" + strings.Repeat("AA", 40),
	} {
		bad[name] = []string{"Authorization: Bearer " + token}
	}
	fine = map[string]string{"as it is": good, "expired within the skew": own("exp", now.Add(-30*time.Second).Unix()), "valid within the skew": own("nbf", now.Add(30*time.Second).Unix()),
		"one audience of two": own("aud", []string{"other", "sms"})}
	return bad, fine
}
