package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// The pause before a request is tried again doubles from the first to the last of these.
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// retry tries a request again while the storage does not answer, for as long as the patience lasts. Its errors have a
// class.
func (s *S3) retry(ctx context.Context, request func() error) error {
	began, pause := time.Now(), firstPause
	for {
		err := classify(request())
		if ctx.Err() != nil && err != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, ErrUnreachable) || time.Since(began)+pause > s.opts.Patience {
			return err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)): // apart from others that failed at the same time
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastPause)
	}
}

// classes of S3's error codes ("Error responses"); those of MinIO among them.
var classes = map[string]error{
	"NoSuchKey": ErrNotFound, "NoSuchUpload": ErrNotFound, "NoSuchVersion": ErrNotFound, "NoSuchBucket": ErrNoBucket,
	"PreconditionFailed": ErrExists,
	"QuotaExceeded":      ErrFull, "InsufficientCapacity": ErrFull, "XMinioStorageFull": ErrFull, "XMinioAdminBucketQuotaExceeded": ErrFull,
	// broken on the way: another attempt may come through whole
	"BadDigest": ErrUnreachable, "XAmzContentSHA256Mismatch": ErrUnreachable, "IncompleteBody": ErrUnreachable, "RequestTimeout": ErrUnreachable,
	"ConditionalRequestConflict": ErrUnreachable, "OperationAborted": ErrUnreachable, "SlowDown": ErrUnreachable,
}

// classify adds what a store may answer to an error of the client.
func classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, ErrCorrupt) {
		return err
	}
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		if untrusted(err) {
			return fmt.Errorf("%w: %w", ErrUntrusted, err)
		}
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	class := classes[answer.Code]
	if class == nil {
		class = classOfStatus(answer.StatusCode)
	}
	if class == nil {
		return fmt.Errorf("the storage answered %s (%d): %w", answer.Code, answer.StatusCode, err)
	}
	return fmt.Errorf("%w: %w", class, err)
}

func classOfStatus(status int) error {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return ErrDenied
	case status == http.StatusPreconditionFailed:
		return ErrExists
	case status == http.StatusInsufficientStorage:
		return ErrFull
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 && status != http.StatusNotImplemented:
		return ErrUnreachable
	}
	return nil
}

// untrusted reports whether the other end did not prove to be the storage.
func untrusted(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	return plain || errors.Is(err, http.ErrSchemeMismatch)
}

// unsupported reports whether a storage does not know the condition of a request.
func unsupported(err error) bool {
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	return ok && (answer.StatusCode == http.StatusNotImplemented || answer.Code == "NotImplemented")
}
