package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

func TestIssuersTokensAreTaken(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	one, two, three := newRSA("rsa"), newEC(t, "ec"), newEd(t, "ed")
	p.publish(one, two, three)
	v := newVerifier(t, p.config(nil))
	pss := pair{one.id, one.private, jwt.SigningMethodPS256}
	for _, k := range []pair{one, pss, two, three} {
		token := p.token(k, nil)
		for range 2 { // fetched, and remembered
			if got, err := v.Verify(t.Context(), token); err != nil || got != (Principal{"school/meera", Clerk}) {
				t.Errorf("%s: %v %v", k.id, got, errors.Unwrap(err))
			}
		}
		if got, known := v.Known(token); !known || got.User != "school/meera" {
			t.Errorf("%s is not remembered: %v", k.id, got)
		}
	}
	if n := p.count(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestRolesAndUsersOfAnIssuer(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	key := newEd(t, "k")
	p.publish(key)
	for name, c := range map[string]struct {
		path  string
		claim any
		user  string
		want  Principal
	}{
		"nested list":             {"realm_access.roles", map[string]any{"roles": []string{"office"}}, "sub", Principal{"school/meera", Clerk}},
		"the most powerful first": {"realm_access.roles", map[string]any{"roles": []string{"it", "office", "head"}}, "sub", Principal{"school/meera", Admin}},
		"words":                   {"scope", "openid it", "sub", Principal{"school/meera", Operator}},
		"a name with dots":        {"https://sms.example/roles", []string{"it"}, "sub", Principal{"school/meera", Operator}},
		"another user claim":      {"roles", []string{"it"}, "email", Principal{"school/meera@school.example", Operator}},
		"ours are not theirs":     {"roles", []string{"admin", "clerk"}, "sub", Principal{}},
		"another case":            {"roles", []string{"Office"}, "sub", Principal{}},
		"no list":                 {"roles", map[string]any{"office": true}, "sub", Principal{}},
		"numbers":                 {"roles", []int{1}, "sub", Principal{}},
		"no user":                 {"roles", []string{"it"}, "name", Principal{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, p.config(func(i *Issuer) { i.RolesClaim, i.UserClaim = c.path, c.user }))
			token := p.token(key, func(_ *jwt.Token, claims jwt.MapClaims) {
				delete(claims, "realm_access")
				claims["email"] = "meera@school.example"
				name, _, nested := strings.Cut(c.path, ".")
				if !nested || strings.Contains(c.path, "/") {
					name = c.path
				}
				claims[name] = c.claim
			})
			got, err := v.Verify(t.Context(), token)
			if got != c.want || (err == nil) != (c.want.User != "") || err != nil && ReasonOf(err) != MissingClaims {
				t.Errorf("%v %v, want %v", got, err, c.want)
			}
		})
	}
}

// TestAttacks sends every token that must not be taken, and with each a good one that must.
func TestAttacks(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	rsaPair, ec, ed, stranger := newRSA("rsa"), newEC(t, "ec"), newEd(t, "ed"), newEd(t, "ed")
	p.set(func() {
		p.jwks = []json.RawMessage{
			rsaPair.jwk(t, jwkset.JWKMetadataOptions{ALG: jwkset.AlgRS256, USE: jwkset.UseSig}), ec.jwk(t, jwkset.JWKMetadataOptions{}),
			ed.jwk(t, jwkset.JWKMetadataOptions{}),
			newEd(t, "enc").jwk(t, jwkset.JWKMetadataOptions{USE: jwkset.UseEnc}),
			json.RawMessage(`{"kty":"oct","kid":"secret","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA","alg":"HS256"}`),
			json.RawMessage(`{"kty":"??"}`), json.RawMessage(`7`),
		}
	})
	cfg := p.config(nil)
	private, public, err := NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	cfg.PublicKey = string(public)
	own, err := NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, cfg)

	claim := func(name string, value any) func(*jwt.Token, jwt.MapClaims) {
		return func(_ *jwt.Token, c jwt.MapClaims) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	head := func(name string, value any) func(*jwt.Token, jwt.MapClaims) {
		return func(token *jwt.Token, _ jwt.MapClaims) { token.Header[name] = value }
	}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := p.token(ed, nil)
	parts := strings.Split(good, ".")
	der, err := x509.MarshalPKIXPublicKey(rsaPair.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})

	for name, c := range map[string]struct {
		token string
		want  Reason
	}{
		"alg none":                   {unsigned(p, map[string]any{"alg": "none", "kid": "ed"}), BadAlgorithm},
		"alg None":                   {unsigned(p, map[string]any{"alg": "None", "kid": "ed"}), BadAlgorithm},
		"no alg":                     {unsigned(p, map[string]any{"kid": "ed"}), BadAlgorithm},
		"no signature":               {parts[0] + "." + parts[1] + ".", BadSignature},
		"HS256 with the public key":  {shared(p, "rsa", publicPEM), BadAlgorithm},
		"HS256 with the DER":         {shared(p, "rsa", der), BadAlgorithm},
		"HS256 with the issuer's":    {shared(p, "secret", []byte("secret-secret-secret-secret-secret")), BadAlgorithm},
		"ES256 on the RSA key":       {p.token(pair{"rsa", ec.private, ec.method}, nil), UnknownKey},
		"RS256 on the EC key":        {p.token(pair{"ec", rsaPair.private, rsaPair.method}, nil), UnknownKey},
		"EdDSA on the EC key":        {p.token(pair{"ec", ed.private, ed.method}, nil), UnknownKey},
		"PS256 on a key for RS256":   {p.token(pair{"rsa", rsaPair.private, jwt.SigningMethodPS256}, nil), UnknownKey},
		"RS512, which is not listed": {p.token(pair{"rsa", rsaPair.private, jwt.SigningMethodRS512}, nil), BadAlgorithm},
		"a key for encryption":       {p.token(pair{"enc", ed.private, ed.method}, nil), UnknownKey},
		"a stranger's key":           {p.token(stranger, nil), BadSignature},
		"no kid":                     {p.token(ed, head("kid", "")), UnknownKey},
		"a kid that is a path":       {p.token(ed, head("kid", "../../dev/null")), UnknownKey},
		"a kid that is SQL":          {p.token(ed, head("kid", "' or 1=1 --")), UnknownKey},
		"a kid that is no text":      {p.token(ed, head("kid", []int{1})), UnknownKey},
		"a huge kid":                 {p.token(ed, head("kid", strings.Repeat("k", 8<<10))), UnknownKey},
		"its own key in jwk":         {p.token(stranger, head("jwk", stranger.jwk(t, jwkset.JWKMetadataOptions{}))), BadSignature},
		"its own key at jku":         {p.token(stranger, head("jku", "https://127.0.0.1:1/keys")), BadSignature},
		"its own key at x5u":         {p.token(stranger, head("x5u", "https://127.0.0.1:1/cert")), BadSignature},
		"crit":                       {p.token(ed, head("crit", []string{"b64"})), Malformed},
		"another issuer":             {p.token(ed, claim("iss", "https://evil.example")), UnknownIssuer},
		"an issuer with a slash":     {p.token(ed, claim("iss", p.URL+"/")), UnknownIssuer},
		"no issuer":                  {p.token(ed, claim("iss", nil)), UnknownIssuer},
		"issuers":                    {p.token(ed, claim("iss", []string{p.URL})), UnknownIssuer},
		"the platform's name":        {p.token(ed, claim("iss", "sms")), BadSignature},
		"another audience":           {p.token(ed, claim("aud", "other")), WrongAudience},
		"an audience that is longer": {p.token(ed, claim("aud", "sms2")), WrongAudience},
		"an audience in capitals":    {p.token(ed, claim("aud", "SMS")), WrongAudience},
		"no audience":                {p.token(ed, claim("aud", nil)), MissingClaims},
		"expired":                    {p.token(ed, claim("exp", in(-leeway-2*time.Second))), Expired},
		"no end":                     {p.token(ed, claim("exp", nil)), MissingClaims},
		"an end that is no time":     {p.token(ed, claim("exp", "never")), Malformed},
		"not yet":                    {p.token(ed, claim("nbf", in(leeway+30*time.Second))), NotYetValid},
		"made in the future":         {p.token(ed, claim("iat", in(leeway+30*time.Second))), NotYetValid},
		"no role":                    {p.token(ed, claim("realm_access", nil)), MissingClaims},
		"no user":                    {p.token(ed, claim("sub", nil)), MissingClaims},
		"a user with a line end":     {p.token(ed, claim("sub", "meera\nadmin")), MissingClaims},
		"a long user":                {p.token(ed, claim("sub", strings.Repeat("m", 201))), MissingClaims},
		"other claims":               {parts[0] + "." + p.payload(claim("sub", "root")) + "." + parts[2], BadSignature},
		"another head":               {segment(map[string]any{"alg": "EdDSA", "kid": "ed", "x": 1}) + "." + parts[1] + "." + parts[2], BadSignature},
		"two parts":                  {parts[0] + "." + parts[1], Malformed},
		"five parts":                 {good + ".x.y", Malformed},
		"no token":                   {"meera", Malformed},
		"huge":                       {p.token(ed, claim("x", strings.Repeat("x", maxToken))), Malformed},
		"deep":                       {segment(map[string]any{"alg": "EdDSA"}) + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("[", 5000))) + ".x", Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), c.token)
			if err == nil || got != (Principal{}) || ReasonOf(err) != c.want {
				t.Errorf("%v %v (%v), want %s", got, ReasonOf(err), errors.Unwrap(err), c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "meera") || strings.Contains(fmt.Sprint(errors.Unwrap(err)), "meera")) {
				t.Errorf("the refusal tells of the token: %v, %v", err, errors.Unwrap(err))
			}
			if got := reason(t, v, good); got != "" {
				t.Fatalf("a good token is refused: %s", got)
			}
		})
	}
	for name, change := range map[string]func(*jwt.Token, jwt.MapClaims){
		"just expired": claim("exp", in(-leeway+10*time.Second)), "nearly valid": claim("nbf", in(leeway-10*time.Second)),
		"one audience": claim("aud", "sms"), "no iat": claim("iat", nil), "jku is not followed": head("jku", "https://127.0.0.1:1/keys"),
	} {
		if got := reason(t, v, p.token(ed, change)); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if token, err := own.Sign("asha", Viewer, time.Hour); err != nil || reason(t, v, token) != "" {
		t.Errorf("the platform's own token is refused: %v", err)
	}
	if n := p.count(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// TestPlatformTokensAttacked sends what the platform's own key must not be talked into.
func TestPlatformTokensAttacked(t *testing.T) {
	t.Parallel()
	signer, v := newPair(t, 10)
	now := time.Now()
	claims := func() jwt.MapClaims {
		return jwt.MapClaims{"iss": issuer, "aud": audience, "sub": "asha", "role": "admin", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	}
	signed := func(change func(*jwt.Token, jwt.MapClaims)) string {
		c := claims()
		token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
		change(token, c)
		text, err := token.SignedString(signer.key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	public := signer.key.Public()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	hs, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims()).SignedString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	rs, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims()).SignedString(rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		want  Reason
	}{
		"HS256":           {hs, BadAlgorithm},
		"RS256":           {rs, BadAlgorithm},
		"no end":          {signed(func(_ *jwt.Token, c jwt.MapClaims) { delete(c, "exp") }), MissingClaims},
		"other audience":  {signed(func(_ *jwt.Token, c jwt.MapClaims) { c["aud"] = "x" }), WrongAudience},
		"other issuer":    {signed(func(_ *jwt.Token, c jwt.MapClaims) { c["iss"] = "x" }), UnknownIssuer},
		"a new role":      {signed(func(_ *jwt.Token, c jwt.MapClaims) { c["role"] = "root" }), MissingClaims},
		"from the future": {signed(func(_ *jwt.Token, c jwt.MapClaims) { c["iat"] = now.Add(leeway + time.Minute).Unix() }), NotYetValid},
	} {
		if got := reason(t, v, c.token); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := reason(t, v, signed(func(*jwt.Token, jwt.MapClaims) {})); got != "" {
		t.Errorf("a good token: %s", got)
	}
}

func segment(v any) string {
	encoded, _ := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(encoded)
}

func (p *provider) payload(change func(*jwt.Token, jwt.MapClaims)) string {
	claims := p.claims()
	change(&jwt.Token{}, claims)
	return segment(claims)
}

func unsigned(p *provider, head map[string]any) string {
	return segment(head) + "." + segment(p.claims()) + "."
}

// shared signs with a secret that a verifier might take for one.
func shared(p *provider, id string, secret []byte) string {
	text := segment(map[string]any{"alg": "HS256", "typ": "JWT", "kid": id}) + "." + segment(p.claims())
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
