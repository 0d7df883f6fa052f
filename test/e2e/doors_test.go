package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// loginServer is the school's own issuer of tokens.
type loginServer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newLoginServer(t *testing.T) *loginServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "one", USE: jwkset.UseSig}})
	if err != nil {
		t.Fatal(err)
	}
	l := &loginServer{key: key}
	l.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/openid-configuration" {
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": l.URL, "jwks_uri": l.URL + "/keys"})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{jwk.Marshal()}})
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *loginServer) token(t *testing.T, user, group string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": l.URL, "aud": "sms", "sub": user, "exp": time.Now().Add(time.Hour).Unix(),
		"realm_access": map[string]any{"roles": []string{group}}})
	token.Header["kid"] = "one"
	signed, err := token.SignedString(l.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// configure writes the issuers' file where the services can read it, and returns its path.
func (l *loginServer) configure(t *testing.T, dir string) string {
	t.Helper()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := write("login-ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Certificate().Raw}))
	issuers, err := json.Marshal([]map[string]any{{"name": "school", "issuer": l.URL, "audience": "sms", "caFile": ca, "rolesClaim": "realm_access.roles",
		"roles": map[string]string{"office": "clerk", "teachers": "viewer"}}})
	if err != nil {
		t.Fatal(err)
	}
	return write("issuers.json", issuers)
}

// TestPeopleOfTheSchoolsOwnLogin use the platform with tokens of their own issuer, through the door as it is configured.
func TestPeopleOfTheSchoolsOwnLogin(t *testing.T) {
	t.Parallel()
	login, dataDir := newLoginServer(t), newDataDir(t)
	p := up(t, dataDir, "--no-staging", "IDENTITY_OIDC_ISSUERS_FILE="+login.configure(t, dataDir), "SMS_GATEWAY_REPLICAS=1",
		"GATEWAY_CORS_ORIGINS=https://school.example", "GATEWAY_USER_RATE=2", "GATEWAY_USER_BURST=100")
	as := func(token string) []string { return []string{"Authorization", "Bearer " + token} }

	var made struct{ StudentID, CreatedBy string }
	answer := p.call(http.MethodPost, "/api/v1/students", student("9811100001"), as(login.token(t, "meera", "office"))...)
	if answer.Status != http.StatusCreated {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
	if answer.into(t, &made); made.CreatedBy != "school/meera" {
		t.Errorf("created by %q", made.CreatedBy)
	}
	one := "/api/v1/students/" + made.StudentID
	answer = p.call(http.MethodGet, one, nil, append(as(login.token(t, "asha", "teachers")), "Origin", "https://school.example")...)
	if answer.Status != http.StatusOK || answer.Header.Get("Access-Control-Allow-Origin") != "https://school.example" ||
		answer.Header.Get("X-Content-Type-Options") != "nosniff" || answer.Header.Get("RateLimit-Policy") != `"user";q=100;w=50` {
		t.Errorf("%d %v", answer.Status, answer.Header)
	}
	for name, token := range map[string]string{"a group without a role": login.token(t, "ravi", "parents"),
		"another issuer's": newLoginServer(t).token(t, "meera", "office")} {
		if answer := p.call(http.MethodGet, one, nil, as(token)...); answer.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, answer.Status)
		}
	}
	answer = p.call(http.MethodPost, "/api/v1/students", student("9811100002"), as(login.token(t, "asha", "teachers"))...)
	if answer.Status != http.StatusForbidden {
		t.Errorf("a teacher writes: %d", answer.Status)
	}
	// The worker's token is an operator's: a smoke test needs no administrator.
	if out := p.mustSMS("smoke", "run", "--env", "production", "--wait"); !strings.Contains(out, "passed") {
		t.Errorf("sms smoke run:\n%s", out)
	}
	greedy, limited := login.token(t, "greedy", "teachers"), 0
	for range 200 {
		if answer := p.call(http.MethodGet, one, nil, as(greedy)...); answer.Status == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited == 0 {
		t.Error("nobody is limited")
	}
}
