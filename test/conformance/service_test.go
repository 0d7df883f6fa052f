package conformance

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/configuration"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/student"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// product is a service as it is put together.
type product struct {
	name       string
	migrations func() fs.FS
	mount      func(*server.Server, *postgres.DB)
}

var products = []product{
	{"student-service", migrations.Student, func(srv *server.Server, db *postgres.DB) {
		store := student.NewStore(db)
		student.Mount(srv, store, student.DefaultSchool, time.Now)
		student.NewCSV(store, student.CSVConfig{MaxBytes: maxBodyBytes, Wait: 5 * time.Second, MaxDeactivationPercent: 10, Keep: time.Hour,
			Lease: time.Minute, StatementTimeout: time.Minute, MaxExports: 2 * callers, WriteTimeout: time.Minute},
			student.DefaultSchool, time.Now, slog.New(slog.DiscardHandler)).Mount(srv)
	}},
	{"configuration-service", migrations.Configuration, func(srv *server.Server, db *postgres.DB) {
		configuration.Mount(srv, configuration.NewStore(db), configuration.Config{WatchWait: time.Second, WatchInterval: 50 * time.Millisecond})
	}},
}

const maxBodyBytes = 64 << 10

// service is a running service with a database of its own. Every answer of it is checked.
type service struct {
	*document
	base     string
	database string
	client   *http.Client
	// tokens by role, and those that must be refused by what is wrong with them.
	tokens map[string]string
	seen   *coverage
	number atomic.Int64 // makes values that must be unique
}

// coverage counts the answers by operation and status.
type coverage struct {
	mu    sync.Mutex
	count map[string]map[int]int
}

func (c *coverage) add(operation string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[operation] == nil {
		c.count[operation] = map[int]int{}
	}
	c.count[operation][status]++
}

func (c *coverage) has(operation string, status int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[operation][status] > 0
}

func newCoverage() *coverage { return &coverage{count: map[string]map[int]int{}} }

// start runs a service on a real listener and a real database.
func start(t *testing.T, p product, seen *coverage) *service {
	t.Helper()
	database := pgtest.New(t, p.migrations())
	db, err := postgres.OpenDB(context.Background(), database, p.name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	verifier, tokens := makeTokens(t)
	srv := server.New(server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", MaxHeaderBytes: 32 << 10, MaxBodyBytes: maxBodyBytes,
		BodyIdleTimeout: time.Second, ShutdownTimeout: 10 * time.Second}, server.Info{Service: p.name, Version: "1"}, verifier, slog.New(slog.DiscardHandler))
	srv.UseDatabase(db)
	p.mount(srv, db)
	if err := srv.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	host, port := srv.Addr()
	s := &service{base: fmt.Sprintf("http://%s:%d", host, port), database: db.Config().ConnConfig.Database, tokens: tokens, seen: seen}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := srv.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	res, err := http.Get(s.base + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if s.document, err = readDocument(content); err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{Transport: &checked{s, transport}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

// patience is how long a test waits for an answer.
const patience = 60 * time.Second

// makeTokens makes a token for each role, and one for each thing that can be wrong with a token.
func makeTokens(t *testing.T) (*identity.Verifier, map[string]string) {
	t.Helper()
	private, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: string(public)})
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{"none": "", "garbage": "x.y.z"}
	for _, role := range identity.Roles() {
		if tokens[string(role)], err = signer.Sign(string(role), role, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	key, err := jwt.ParseEdPrivateKeyFromPEM(private)
	if err != nil {
		t.Fatal(err)
	}
	_, foreign, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key any, expires time.Time) string {
		token, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA,
			jwt.MapClaims{"iss": "sms", "aud": "sms", "sub": "eve", "role": "admin", "exp": expires.Unix()}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	tokens["expired"] = sign(key, time.Now().Add(-time.Hour))
	tokens["forged"] = sign(foreign, time.Now().Add(time.Hour))
	return verifier, tokens
}

// checked holds every answer against the document, counts it, and makes an error of what departs.
type checked struct {
	service *service
	next    http.RoundTripper
}

func (c *checked) RoundTrip(r *http.Request) (*http.Response, error) {
	next := c.next
	if how, cut := r.Context().Value(cutShort("")).(cutShort); cut {
		next = how
	}
	res, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	op, _ := c.service.match(r.Method, r.URL.Path)
	if op != nil {
		c.service.seen.add(op.ID, res.StatusCode)
	}
	faults := c.service.faults(answer{op: op, method: r.Method, url: r.URL, status: res.StatusCode, header: res.Header, body: body})
	if len(faults) > 0 {
		return nil, fmt.Errorf("answered %d: %s\n%.2000q", res.StatusCode, strings.Join(faults, "; "), body)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// execute runs SQL as the superuser.
func (s *service) execute(t *testing.T, database, sql string) {
	t.Helper()
	cluster, password := pgtest.Cluster(t)
	conn, err := cluster.Connect(context.Background(), password, database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// lock keeps everybody from writing a table until the test ends.
func (s *service) lock(t *testing.T, table string) {
	t.Helper()
	cluster, password := pgtest.Cluster(t)
	conn, err := cluster.Connect(context.Background(), password, s.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(context.Background(), "begin; lock table "+table+" in exclusive mode", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// unreachable takes the database away until the returned function is called.
func (s *service) unreachable(t *testing.T) (back func()) {
	t.Helper()
	s.execute(t, "postgres", fmt.Sprintf(`alter database %s allow_connections false`, s.database))
	s.execute(t, "postgres", fmt.Sprintf(`select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '%s'`, s.database))
	return func() { s.execute(t, "postgres", fmt.Sprintf(`alter database %s allow_connections true`, s.database)) }
}

// broken makes every table of the database unknown until the returned function is called.
func (s *service) broken(t *testing.T) (whole func()) {
	t.Helper()
	s.execute(t, s.database, `alter schema public rename to elsewhere`)
	return func() { s.execute(t, s.database, `alter schema elsewhere rename to public`) }
}

// send sends a request and returns the answer, which agrees with the document; if it does not, the test fails.
func (s *service) send(t *testing.T, r *request) (status int, header http.Header, body []byte) {
	t.Helper()
	if r.at != nil {
		s = r.at
	}
	res, err := r.send(s)
	if err != nil {
		t.Fatalf("%v\n%s", err, r)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%v\n%s", err, r)
	}
	return res.StatusCode, res.Header, body
}

// fieldOf sends a request that must succeed and returns a field of the answer.
func (s *service) fieldOf(t *testing.T, r *request, field string) string {
	t.Helper()
	status, _, body := s.send(t, r)
	var answered map[string]any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&answered); err != nil || status > 299 || answered[field] == nil {
		t.Fatalf("%d %s\n%s", status, body, r)
	}
	return fmt.Sprint(answered[field])
}

// create makes something and returns a field of the answer.
func (s *service) create(t *testing.T, operation, field string) string {
	t.Helper()
	return s.fieldOf(t, s.valid(t, s.named(operation)), field)
}
