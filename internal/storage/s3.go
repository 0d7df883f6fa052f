package storage

import (
	"errors"
	"time"
)

// S3Options are what a bucket is used with.
type S3Options struct {
	CredentialsFile string
	Stall           time.Duration
	Attempts        int
}

// NewS3 uses a bucket.
func NewS3(Bucket, S3Options) (Store, error) {
	return nil, errors.New("buckets cannot be used yet")
}
