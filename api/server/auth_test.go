package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
)

func withRoute(t *testing.T) *servertest.Service {
	t.Helper()
	s := servertest.New(t, "test", server.Config{})
	s.Engine.GET("/api/v1/me", func(c *gin.Context) { c.String(http.StatusOK, identity.FromContext(c.Request.Context()).User) })
	return s
}

// logged is what a service has logged.
type logged []byte

// refusals are its lines on tokens.
func (l logged) refusals() (lines []map[string]any) {
	for line := range bytes.SplitSeq(l, []byte("\n")) {
		var read map[string]any
		if json.Unmarshal(line, &read) == nil && read["msg"] == "a token was refused" {
			lines = append(lines, read)
		}
	}
	return lines
}

// TestRefusalsAreLoggedWithoutTheToken and say why, from where, and in which request.
func TestRefusalsAreLoggedWithoutTheToken(t *testing.T) {
	t.Parallel()
	s := withRoute(t)
	good := s.Token(t, identity.Viewer)
	forged := good[:strings.LastIndexByte(good, '.')+1] + strings.Repeat("A", 86)
	for token, reason := range map[string]string{forged: "bad-signature", "": "missing", "secret-words": "malformed", "Basic c2VjcmV0": "missing"} {
		s.Log.Reset()
		authorization := "Bearer " + token
		if strings.HasPrefix(token, "Basic") {
			authorization = token
		}
		s.Do(t, "", http.MethodGet, "/api/v1/me", nil, "Authorization", authorization, "X-Request-ID", "refused-one").Problem(http.StatusUnauthorized, "unauthorized")
		lines := logged(s.Log.Bytes()).refusals()
		if len(lines) != 1 || lines[0]["event.reason"] != reason || lines[0]["client.address"] != "192.0.2.1" || lines[0]["http.request.id"] != "refused-one" ||
			lines[0]["level"] != "WARN" {
			t.Errorf("%s: %v", reason, lines)
		}
		for _, part := range append(strings.Split(token, "."), "secret", "c2VjcmV0") {
			if part != "" && strings.Contains(s.Log.String(), part) {
				t.Errorf("%s: the log holds %q of the token", reason, part)
			}
		}
	}
	metrics := s.Do(t, "", http.MethodGet, "/actuator/prometheus", nil).Body
	for _, want := range []string{`http_server_tokens_refused_total{reason="missing"} 2`, `{reason="bad-signature"} 1`, `{reason="malformed"} 1`} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if got := s.Do(t, identity.Viewer, http.MethodGet, "/api/v1/me", nil).Want(http.StatusOK); string(got.Body) != "viewer" {
		t.Errorf("%s", got.Body)
	}
}

// TestAFloodOfRefusalsFillsNoDisk counts all, and logs few with how many were not.
func TestAFloodOfRefusalsFillsNoDisk(t *testing.T) {
	t.Parallel()
	const flood = 500
	s := withRoute(t)
	start := time.Now()
	for range flood {
		s.Do(t, "", http.MethodGet, "/api/v1/me", nil).Want(http.StatusUnauthorized)
	}
	lines, most := logged(s.Log.Bytes()).refusals(), 21+int(time.Since(start).Seconds())
	if len(lines) < 20 || len(lines) > most {
		t.Errorf("%d lines for %d refusals, at most %d wanted", len(lines), flood, most)
	}
	if metrics := s.Do(t, "", http.MethodGet, "/actuator/prometheus", nil).Body; !strings.Contains(string(metrics), `{reason="missing"} 500`) {
		t.Error("not all are counted")
	}
}

// TestTokensOfAnIssuerThatIsAway are not called bad: the caller shall keep its token.
func TestTokensOfAnIssuerThatIsAway(t *testing.T) {
	t.Parallel()
	_, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	down := httptest.NewServer(http.NotFoundHandler())
	defer down.Close()
	issuers, _ := json.Marshal([]identity.Issuer{{Name: "school", Issuer: down.URL, Audience: "sms", Roles: map[string]identity.Role{"x": identity.Viewer}}})
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: string(public), Issuers: string(issuers), Refresh: time.Hour, Retry: time.Hour,
		Timeout: 5 * time.Second, Waiting: 10, Keep: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer verifier.Stop()
	s := server.New(server.Config{}, server.Info{}, verifier, slog.New(slog.DiscardHandler))
	payload, _ := json.Marshal(map[string]any{"iss": down.URL, "aud": "sms", "sub": "meera", "exp": time.Now().Add(time.Hour).Unix()})
	request := httptest.NewRequest(http.MethodGet, "/api/v1/me", nil)
	request.Header.Set("Authorization", "Bearer "+encode(`{"alg":"EdDSA","kid":"k"}`)+"."+encode(string(payload))+"."+strings.Repeat("A", 86))
	answer := httptest.NewRecorder()
	s.Engine.ServeHTTP(answer, request)
	if answer.Code != http.StatusServiceUnavailable || answer.Header().Get("Retry-After") == "" || answer.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("%d %v %s", answer.Code, answer.Header(), answer.Body)
	}
	health := httptest.NewRecorder()
	s.Engine.ServeHTTP(health, httptest.NewRequest(http.MethodGet, "/actuator/health", nil))
	if !strings.Contains(health.Body.String(), `"issuer school":{"status":"DOWN"}`) {
		t.Errorf("%s", health.Body)
	}
}

// TestAnswersMayTakeLongButNotStandStill has one caller read slowly and one not at all.
func TestAnswersMayTakeLongButNotStandStill(t *testing.T) {
	t.Parallel()
	const patience = 400 * time.Millisecond
	s := servertest.New(t, "test", server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", WriteIdleTimeout: patience})
	ended := make(chan error, 1)
	s.Engine.GET("/endless", func(c *gin.Context) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := c.Writer.Write(chunk); err != nil {
				ended <- err
				return
			}
		}
	})
	tick := make(chan struct{}, 2)
	s.Engine.GET("/slow", func(c *gin.Context) {
		for range 2 {
			<-tick
			_, _ = io.WriteString(c.Writer, "tick\n")
			c.Writer.Flush()
		}
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(t.Context()) })
	host, port := s.Addr()
	address := net.JoinHostPort(host, strconv.Itoa(port))

	tick <- struct{}{}
	res, err := http.Get("http://" + address + "/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := io.WriteString(conn, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the one that reads nothing still has its answer written")
	}
	tick <- struct{}{} // by now the other has waited for longer than the patience
	if text, err := io.ReadAll(res.Body); err != nil || string(text) != "tick\ntick\n" {
		t.Errorf("a slow answer was cut: %q %v", text, err)
	}
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// TestABodyThatTricklesIsGivenUp though no pause between two of its bytes is long.
func TestABodyThatTricklesIsGivenUp(t *testing.T) {
	t.Parallel()
	const patience = 300 * time.Millisecond
	s := servertest.New(t, "test", server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", BodyIdleTimeout: patience, BodyMinRate: 10_000})
	s.Engine.POST("/body", func(c *gin.Context) {
		if _, err := io.Copy(io.Discard, c.Request.Body); err != nil {
			server.WriteProblem(c, server.UnreadBody(err))
			return
		}
		c.Status(http.StatusOK)
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(t.Context()) })
	host, port := s.Addr()
	conn, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() {
		first := make([]byte, 12)
		_, _ = io.ReadFull(conn, first)
		answered <- string(first)
	}()
	tick := time.NewTicker(patience / 10)
	defer tick.Stop()
	for range 600 { // of 1,000 bytes: it never ends by itself
		select {
		case first := <-answered:
			if first != "HTTP/1.1 408" {
				t.Errorf("%q", first)
			}
			return
		case <-tick.C:
			_, _ = io.WriteString(conn, "x")
		}
	}
	t.Error("the server still waits for the body")
}
