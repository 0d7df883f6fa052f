// Package storagetest gives tests an S3-compatible storage, and tries that a store keeps its promises.
package storagetest

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/school-sms/sms/internal/storage"
)

// AccessKey and SecretKey are what CredentialsFile writes.
const (
	AccessKey = "SMSTESTACCESSKEY"
	SecretKey = "canary-of-the-storage"
)

// BucketName is the bucket that a Server has.
const BucketName = "school-backups"

// Server is an S3-compatible storage in this process, over TLS with a certificate of its own.
type Server struct {
	// Endpoint is https://host:port.
	Endpoint string
	// CAFile vouches for it.
	CAFile          string
	CredentialsFile string
}

// Serve starts a storage with one empty bucket. Around goes around its handler, where a fault is to be injected; nil: nothing.
func Serve(t testing.TB, around func(http.Handler) http.Handler, options ...gofakes3.Option) Server {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket(BucketName); err != nil {
		t.Fatal(err)
	}
	handler := gofakes3.New(backend, append(options, gofakes3.WithHostBucketBase("example.com"))...).Server()
	if around != nil {
		handler = around(handler)
	}
	server := httptest.NewTLSServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that tests break
	t.Cleanup(func() {
		server.CloseClientConnections() // those too on which a request is stuck
		server.Close()
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return Server{Endpoint: server.URL, CAFile: ca, CredentialsFile: CredentialsFile(t)}
}

// CredentialsFile writes a file of credentials.
func CredentialsFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	content := "[default]\naws_access_key_id = " + AccessKey + "\naws_secret_access_key = " + SecretKey + "\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// URL is the setting that names a prefix of the bucket.
func (s Server) URL(prefix string) string {
	query := url.Values{"endpoint": {s.Endpoint}, "pathStyle": {"true"}, "ca": {s.CAFile}}
	return "s3://" + BucketName + "/" + prefix + "?" + query.Encode()
}

// Store uses a prefix of the bucket, with little patience.
func (s Server) Store(t testing.TB, prefix string) *storage.S3 {
	t.Helper()
	at, err := storage.ParseLocation(s.URL(prefix))
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.NewS3(*at.S3, s.Options())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// Options have little patience.
func (s Server) Options() storage.S3Options {
	return storage.S3Options{CredentialsFile: s.CredentialsFile, Stall: 2 * time.Second, Patience: 3 * time.Second}
}
