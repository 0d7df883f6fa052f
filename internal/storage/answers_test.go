package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"

	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/storage/storagetest"
)

const part = storagetest.Part

// refuse answers with an error of S3: every request, or what writes when there is no room.
func refuse(status int, code string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if (r.Method == http.MethodGet || r.Method == http.MethodHead) && (status == http.StatusInsufficientStorage || code == "QuotaExceeded") {
				next.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>refused</Message></Error>`, code)
		})
	}
}

func TestEveryRefusalHasItsClass(t *testing.T) {
	t.Parallel()
	missing := storagetest.Serve(t, nil)
	at, err := storage.ParseLocation(missing.URL("x"))
	if err != nil {
		t.Fatal(err)
	}
	at.S3.Name = "no-such-bucket"
	noBucket, err := storage.NewS3(*at.S3, missing.Options())
	if err != nil {
		t.Fatal(err)
	}
	stranger := storagetest.Serve(t, nil)
	stranger.CAFile = selfSigned(t)
	closed := storagetest.Serve(t, nil)
	closed.Endpoint = "https://127.0.0.1:1"
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	notTLS := storagetest.Serve(t, nil)
	notTLS.Endpoint = strings.Replace(plain.URL, "http:", "https:", 1)
	answering := func(status int, code string) storage.Store {
		return storagetest.Serve(t, refuse(status, code)).Store(t, "x")
	}
	for name, c := range map[string]struct {
		store storage.Store
		want  error
	}{
		"no bucket":       {noBucket, storage.ErrNoBucket},
		"unknown key":     {answering(403, "InvalidAccessKeyId"), storage.ErrDenied},
		"wrong secret":    {answering(403, "SignatureDoesNotMatch"), storage.ErrDenied},
		"not allowed":     {answering(403, "AccessDenied"), storage.ErrDenied},
		"quota":           {answering(403, "QuotaExceeded"), storage.ErrFull},
		"full":            {answering(507, "XMinioStorageFull"), storage.ErrFull},
		"out of order":    {answering(503, "SlowDown"), storage.ErrUnreachable},
		"nobody there":    {closed.Store(t, "x"), storage.ErrUnreachable},
		"unknown CA":      {stranger.Store(t, "x"), storage.ErrUntrusted},
		"speaks no TLS":   {notTLS.Store(t, "x"), storage.ErrUntrusted},
		"gateway is away": {answering(502, ""), storage.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{100, part + 1} {
				err := tryToPut(t, c.store, size)
				if !errors.Is(err, c.want) {
					t.Errorf("put %d bytes: %v, want %v", size, err, c.want)
				}
				if err != nil && strings.Contains(err.Error(), storagetest.SecretKey) {
					t.Errorf("the error holds the secret: %v", err)
				}
			}
			if _, err := c.store.List(t.Context(), ""); !errors.Is(err, c.want) && c.want != storage.ErrFull {
				t.Errorf("list: %v, want %v", err, c.want)
			}
		})
	}
}

func tryToPut(t *testing.T, s storage.Store, size int) error {
	t.Helper()
	w, err := s.Create(t.Context(), "x")
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(storagetest.Content(size)); err != nil {
		return err
	}
	return w.Commit(t.Context())
}

// cut ends answers to reads after a number of bytes, as long as there are cuts left.
type cut struct {
	next  http.Handler
	after int
	left  atomic.Int64
	made  atomic.Int64
}

func (c *cut) around(next http.Handler) http.Handler { c.next = next; return c }

func (c *cut) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "object") || c.left.Add(-1) < 0 {
		c.next.ServeHTTP(w, r)
		return
	}
	c.made.Add(1)
	whole := httptest.NewRecorder()
	c.next.ServeHTTP(whole, r)
	for k, v := range whole.Header() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(whole.Body.Len()))
	w.WriteHeader(whole.Code)
	_, _ = w.Write(whole.Body.Bytes()[:min(c.after, whole.Body.Len())])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestAReadThatBreaksOffGoesOnOrFails(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]int{"at once": 0, "within the first piece": 1000, "late": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cut{after: after}
			s := storagetest.Serve(t, c.around).Store(t, "x")
			content := storagetest.Content(part + 77)
			storagetest.Put(t, s, "object", content)
			c.left.Store(2)
			if got := storagetest.Get(t, s, "object"); !bytes.Equal(got, content) {
				t.Errorf("%d bytes came, or others than were stored", len(got))
			}
			c.made.Store(0)
			c.left.Store(1 << 30)
			r, err := s.Open(t.Context(), "object")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			n, err := io.Copy(io.Discard, r)
			if after < 1<<20 && (!errors.Is(err, storage.ErrUnreachable) || n >= int64(len(content))) {
				t.Errorf("%d bytes and %v, want an error", n, err)
			}
			if after >= 1<<20 && (err != nil || n != int64(len(content))) { // every attempt gets on, so that the end is reached
				t.Errorf("%d bytes and %v", n, err)
			}
			if c.made.Load() < 3 {
				t.Errorf("only %d answers were cut", c.made.Load())
			}
		})
	}
}

func TestAReadNeverMixesTwoObjects(t *testing.T) {
	t.Parallel()
	c := &cut{after: 2 << 20}
	s := storagetest.Serve(t, c.around).Store(t, "x")
	storagetest.Put(t, s, "object", storagetest.Content(part))
	c.left.Store(1)
	r, err := s.Open(t.Context(), "object")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Remove(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	storagetest.Put(t, s, "object", storagetest.Content(part+1)) // as nobody should
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("%v, want that it changed", err)
	}
}

// TestALostAnswerIsNoSecondObject: the storage did it, and nobody heard.
func TestALostAnswerIsNoSecondObject(t *testing.T) {
	t.Parallel()
	var lost sync.Map
	lose := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			finishes := r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") || r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
			if _, again := lost.LoadOrStore(r.URL.Path, true); finishes && !again {
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			if !finishes {
				lost.Delete(r.URL.Path)
			}
			next.ServeHTTP(w, r)
		})
	}
	s := storagetest.Serve(t, lose).Store(t, "x")
	for name, size := range map[string]int{"small": 10, "big": part + 10} {
		storagetest.Put(t, s, name, storagetest.Content(size))
		if err := storagetest.Create(t, s, name, []byte("other")).Commit(t.Context()); !errors.Is(err, storage.ErrExists) {
			t.Errorf("%s: a second object: %v, want refused", name, err)
		}
		if !bytes.Equal(storagetest.Get(t, s, name), storagetest.Content(size)) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestAStorageThatKnowsNoConditionsIsLookedAt(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	s := storagetest.Serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				refused.Add(1)
				refuse(501, "NotImplemented")(nil).ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}).Store(t, "x")
	for name, size := range map[string]int{"small": 10, "big": part + 10} {
		storagetest.Put(t, s, name, storagetest.Content(size))
		if err := storagetest.Create(t, s, name, []byte("other")).Commit(t.Context()); !errors.Is(err, storage.ErrExists) {
			t.Errorf("%s: a second object: %v, want refused", name, err)
		}
	}
	if refused.Load() != 2 {
		t.Errorf("%d conditions were asked for", refused.Load())
	}
}

// TestAStorageThatHoldsSomethingElseIsFoundOut: what is sent is changed on the way, or what was stored is.
func TestAStorageThatHoldsSomethingElseIsFoundOut(t *testing.T) {
	t.Parallel()
	changing := func(match func(*http.Request) bool) storage.Store {
		return storagetest.Serve(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if match(r) {
					if r.Method == http.MethodPut {
						body, _ := io.ReadAll(r.Body)
						body[len(body)/2] ^= 1
						r.Body = io.NopCloser(bytes.NewReader(body))
					} else {
						whole := httptest.NewRecorder()
						next.ServeHTTP(whole, r)
						for k, v := range whole.Header() {
							w.Header()[k] = v
						}
						w.Header().Set("Etag", `"0123"`)
						w.WriteHeader(whole.Code)
						if body := whole.Body.Bytes(); r.Method == http.MethodGet && len(body) > 0 {
							body[len(body)/2] ^= 1
							_, _ = w.Write(body)
						}
						return
					}
				}
				next.ServeHTTP(w, r)
			})
		}).Store(t, "x")
	}
	object := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/x") }
	onTheWay := changing(func(r *http.Request) bool { return r.Method == http.MethodPut && object(r) })
	atRest := changing(func(r *http.Request) bool {
		return (r.Method == http.MethodGet || r.Method == http.MethodHead) && object(r)
	})
	for _, size := range []int{100, part + 100} {
		if err := tryToPut(t, onTheWay, size); err == nil {
			t.Errorf("%d bytes that changed on the way were taken", size)
		}
		if err := tryToPut(t, atRest, size); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%d bytes that changed at rest: %v, want corrupt", size, err)
		}
		for _, s := range []storage.Store{onTheWay, atRest} {
			if names := storagetest.Names(t, s, ""); len(names) != 0 {
				t.Errorf("%d bytes: %v is left under a final name", size, names)
			}
		}
	}
}

// long ago is when a storage says that uploads were begun.
type longAgo struct{ gofakes3.TimeSource }

func (longAgo) Now() time.Time { return time.Now().Add(-25 * time.Hour) }

func TestOnlyUploadsWithoutWritersAreSwept(t *testing.T) {
	t.Parallel()
	young := storagetest.Serve(t, nil)
	s, other := young.Store(t, "ours"), young.Store(t, "others")
	superseded, living := storagetest.Create(t, s, "db/one", storagetest.Content(part+1)), storagetest.Create(t, s, "db/two", storagetest.Content(part+1))
	neighbour := storagetest.Create(t, other, "db/one", storagetest.Content(part+1))
	if n, err := s.Sweep(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("swept %d of living writers (%v)", n, err)
	}
	if n, err := s.Sweep(t.Context(), func(name string) bool { return name == "db/one" }); n != 1 || err != nil {
		t.Errorf("swept %d, %v, want the superseded one", n, err)
	}
	if err := superseded.Commit(t.Context()); err == nil {
		t.Error("a writer whose upload was swept has finished")
	}
	if err := errors.Join(living.Commit(t.Context()), neighbour.Commit(t.Context())); err != nil {
		t.Errorf("living writers: %v", err)
	}

	old := storagetest.Serve(t, nil, gofakes3.WithTimeSource(longAgo{gofakes3.DefaultTimeSource()}), gofakes3.WithTimeSkewLimit(0)).Store(t, "x")
	storagetest.Create(t, old, "db/one", storagetest.Content(part+1))
	storagetest.Create(t, old, "db/two", storagetest.Content(part+1))
	if n, err := old.Sweep(context.Background(), nil); n != 2 || err != nil {
		t.Errorf("swept %d, %v, want both that are older than a day by the storage's clock", n, err)
	}
}

func TestObjectsAreLocked(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	modes := map[string]int{}
	server := storagetest.Serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begins := r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") || r.Method == http.MethodPost && r.URL.Query().Has("uploads")
			if until, err := time.Parse(time.RFC3339, r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date")); begins && err == nil {
				mu.Lock()
				modes[fmt.Sprintf("%s %s %d", r.Method, r.Header.Get("X-Amz-Object-Lock-Mode"), int(time.Until(until).Round(time.Hour).Hours()))]++
				mu.Unlock()
			}
			next.ServeHTTP(w, r)
		})
	})
	for _, parameters := range []string{"&lock=30d", "&lock=7d&lockMode=compliance"} {
		at, err := storage.ParseLocation(server.URL("x"+parameters[6:8]) + parameters)
		if err != nil {
			t.Fatal(err)
		}
		s, err := storage.NewS3(*at.S3, server.Options())
		if err != nil {
			t.Fatal(err)
		}
		storagetest.Put(t, s, "small", []byte("x"))
		storagetest.Put(t, s, "big", storagetest.Content(part+1))
	}
	for _, want := range []string{"PUT GOVERNANCE 720", "POST GOVERNANCE 720", "PUT COMPLIANCE 168", "POST COMPLIANCE 168"} {
		if modes[want] != 1 {
			t.Errorf("%q was asked %d times: %v", want, modes[want], modes)
		}
	}
}
