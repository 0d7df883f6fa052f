package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Options are what a bucket is used with.
type S3Options struct {
	// CredentialsFile holds the access key; empty: see Config.
	CredentialsFile string
	// Stall ends an attempt at a request in which not one byte has moved for so long.
	Stall time.Duration
	// Patience is how long a request is tried again before it fails.
	Patience time.Duration
	// Dial opens connections; nil: as usual.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// abandoned is the age from which on an unfinished upload has no writer any more, by the storage's own clock: the steps
// that write may take 12 hours.
const abandoned = 24 * time.Hour

// S3 is a Store in a bucket of an S3-compatible storage. What is unfinished is an uncompleted multipart upload, which no
// listing of objects shows.
type S3 struct {
	client *minio.Client
	core   minio.Core
	bucket Bucket
	opts   S3Options
	// clock is the storage's own, as its last answer told.
	clock *atomic.Pointer[time.Time]
}

// NewS3 uses a bucket, which must be there when it is written to. The error names every fault and no secret.
func NewS3(b Bucket, o S3Options) (*S3, error) {
	endpoint := b.Endpoint
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com" // the client goes to the region's own
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, errors.New("endpoint is not https://host[:port]")
	}
	s := &S3{bucket: b, opts: o, clock: new(atomic.Pointer[time.Time])}
	transport, transportErr := newTransport(b.CAFile, o, s.clock)
	creds, credsErr := credentialsOf(o.CredentialsFile, u.Hostname())
	if err := errors.Join(transportErr, credsErr); err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupDNS
	if b.PathStyle {
		lookup = minio.BucketLookupPath
	}
	s.client, err = minio.New(u.Host, &minio.Options{Creds: creds, Secure: u.Scheme == "https", Transport: transport, Region: b.Region,
		BucketLookup: lookup, MaxRetries: 1}) // retry tries again, each time with a body of its own
	if err != nil {
		return nil, fmt.Errorf("use %s: %w", Location{S3: &b}, err)
	}
	s.core = minio.Core{Client: s.client}
	return s, nil
}

// credentialsOf reads the file; without one, the environment, and at Amazon the role of the machine.
func credentialsOf(file, host string) (*credentials.Credentials, error) {
	if file != "" {
		if _, err := os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("the credentials file: %w", err)
		}
		creds := credentials.NewFileAWSCredentials(file, "default")
		if v, err := creds.GetWithContext(nil); err != nil || v.AccessKeyID == "" { // whose text may repeat lines of the file
			return nil, errors.New("the credentials file has no section [default] with aws_access_key_id and aws_secret_access_key")
		}
		return creds, nil
	}
	environment := &credentials.EnvAWS{}
	if v, err := environment.Retrieve(); err == nil && v.AccessKeyID != "" {
		return credentials.New(environment), nil
	}
	if !atAmazon(host) {
		return nil, errors.New("no credentials: name a file that has them by BACKUP_S3_CREDENTIALS_FILE")
	}
	return credentials.NewIAM(""), nil
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	key, err := s.key(name)
	if err != nil {
		return nil, err
	}
	d := &download{s: s, ctx: ctx, key: key}
	if err := d.connect(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return d, nil
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, name string) (Object, error) {
	key, err := s.key(name)
	if err != nil {
		return Object{}, err
	}
	info, err := s.stat(ctx, key)
	if err != nil {
		return Object{}, fmt.Errorf("look for %s: %w", name, err)
	}
	return Object{Name: name, Bytes: info.Size, Modified: info.LastModified}, nil
}

func (s *S3) stat(ctx context.Context, key string) (info minio.ObjectInfo, err error) {
	err = s.retry(ctx, func() error {
		info, err = s.client.StatObject(ctx, s.bucket.Name, key, minio.StatObjectOptions{})
		return err
	})
	return info, err
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix string) ([]Object, error) {
	var objects []Object
	err := s.retry(ctx, func() error {
		objects = nil
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the listing's goroutine when an error ends the loop
		for info := range s.client.ListObjects(ctx, s.bucket.Name, minio.ListObjectsOptions{Prefix: s.prefixed(prefix), Recursive: true}) {
			if info.Err != nil {
				return info.Err
			}
			if name := s.name(info.Key); checkName(name) == nil { // others have keys that end in a slash for folders
				objects = append(objects, Object{Name: name, Bytes: info.Size, Modified: info.LastModified})
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list the storage: %w", err)
	}
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
	return objects, nil
}

// lock is the object lock (Amazon S3 User Guide, "Locking objects with Object Lock").
func (s *S3) lock() time.Duration { return s.bucket.Lock }

// Remove implements Store. In a bucket that keeps versions the name is gone, and the version left to the bucket's own rules.
func (s *S3) Remove(ctx context.Context, name string) error {
	key, err := s.key(name)
	if err != nil {
		return err
	}
	err = s.retry(ctx, func() error {
		return s.client.RemoveObject(ctx, s.bucket.Name, key, minio.RemoveObjectOptions{})
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// Sweep implements Store: an upload has no writer when it is older than any may be, or when dead says so.
func (s *S3) Sweep(ctx context.Context, dead func(name string) bool) (int, error) {
	removed := 0
	var keyMarker, idMarker string
	for {
		var page minio.ListMultipartUploadsResult
		err := s.retry(ctx, func() (err error) {
			page, err = s.core.ListMultipartUploads(ctx, s.bucket.Name, s.prefixed(""), keyMarker, idMarker, "", 1000)
			return err
		})
		if err != nil {
			return removed, fmt.Errorf("list unfinished uploads: %w", err)
		}
		now := s.now()
		for _, u := range page.Uploads {
			old := !now.IsZero() && now.Sub(u.Initiated) > abandoned
			if !old && (dead == nil || !dead(s.name(u.Key))) {
				continue
			}
			if err := s.abort(ctx, u.Key, u.UploadID); err != nil {
				return removed, fmt.Errorf("abort the unfinished upload of %s: %w", s.name(u.Key), err)
			}
			removed++
		}
		if !page.IsTruncated || len(page.Uploads) == 0 {
			return removed, nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

func (s *S3) abort(ctx context.Context, key, id string) error {
	err := s.retry(ctx, func() error { return s.core.AbortMultipartUpload(ctx, s.bucket.Name, key, id) })
	if errors.Is(err, ErrNotFound) {
		return nil // finished or aborted meanwhile
	}
	return err
}

// now is the storage's time; zero when it has not told it.
func (s *S3) now() time.Time {
	if t := s.clock.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// key is where the object of a name is in the bucket.
func (s *S3) key(name string) (string, error) { return s.prefixed(name), checkName(name) }

func (s *S3) prefixed(name string) string {
	if s.bucket.Prefix == "" {
		return name
	}
	return s.bucket.Prefix + "/" + name
}

func (s *S3) name(key string) string {
	return strings.TrimPrefix(strings.TrimPrefix(key, s.bucket.Prefix), "/")
}
