package storage

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7"
)

const (
	// resumes is how often a download that broke off goes on where it was, without having got resumeBytes further.
	resumes     = 5
	resumeBytes = 1 << 20
)

// download reads an object. It goes on when a connection breaks, ends with io.EOF only after the last byte, and never
// mixes two objects.
type download struct {
	s    *S3
	ctx  context.Context
	key  string
	body io.ReadCloser
	etag string
	// size is that of the object, offset how much was read.
	size, offset int64
	// breaks were met since the offset was mark.
	breaks int
	mark   int64
}

// connect asks for the object from offset on.
func (d *download) connect() error {
	var o minio.GetObjectOptions
	if d.offset > 0 {
		if err := errors.Join(o.SetRange(d.offset, 0), o.SetMatchETag(d.etag)); err != nil {
			return err
		}
	}
	return d.s.retry(d.ctx, func() error {
		body, info, _, err := d.s.core.GetObject(d.ctx, d.s.bucket.Name, d.key, o)
		if err != nil {
			return err
		}
		d.body = body
		if info.Size < 0 {
			body.Close()
			return fmt.Errorf("%w: it does not say how long the object is", ErrCorrupt)
		}
		if d.offset == 0 {
			d.size, d.etag = info.Size, info.ETag
		} else if info.ETag != d.etag || info.Size != d.size-d.offset {
			body.Close()
			return fmt.Errorf("%w: it changed while it was read", ErrCorrupt)
		}
		return nil
	})
}

func (d *download) Read(p []byte) (int, error) {
	for {
		if d.offset == d.size {
			return 0, io.EOF
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, err := d.body.Read(p[:min(int64(len(p)), d.size-d.offset)])
		d.offset += int64(n)
		if n > 0 {
			return n, nil // an error comes again at the next read
		}
		if err == nil {
			continue
		}
		if err := d.resume(err); err != nil {
			return 0, fmt.Errorf("read %s at byte %d of %d: %w", d.s.name(d.key), d.offset, d.size, err)
		}
	}
}

// resume goes on where the connection broke.
func (d *download) resume(why error) error {
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	if errors.Is(why, io.EOF) {
		why = io.ErrUnexpectedEOF
	}
	if d.offset-d.mark >= resumeBytes {
		d.breaks, d.mark = 0, d.offset
	}
	if d.breaks++; d.breaks > resumes {
		return fmt.Errorf("%w: %w", ErrUnreachable, why)
	}
	d.body.Close()
	err := d.connect()
	if errors.Is(err, ErrExists) { // If-Match does not
		err = fmt.Errorf("%w: it changed while it was read", ErrCorrupt)
	}
	return err
}

func (d *download) Close() error { return d.body.Close() }
