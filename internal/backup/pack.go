package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/school-sms/sms/internal/storage"
)

// ErrStalled says that storage has taken nothing for longer than the limit. It may pass with time.
var ErrStalled = errors.New("the storage takes nothing any more")

// pack is what an archive passes through on its way to storage: compression, then encryption. unpack is the way back.
// After an error the writer must not be closed.
func pack(w io.Writer, keys Keys) (io.WriteCloser, error) {
	sealed, err := keys.Seal(w)
	if err != nil {
		return nil, err
	}
	packed, err := zstd.NewWriter(sealed, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	return &packer{packed, sealed}, nil
}

type packer struct {
	*zstd.Encoder
	sealed io.Closer
}

func (p *packer) Close() error {
	if err := p.Encoder.Close(); err != nil {
		return err
	}
	return p.sealed.Close()
}

func unpack(r io.Reader, keys Keys, encryption string, recipients []string) (io.ReadCloser, error) {
	opened, err := keys.Open(r, encryption, recipients)
	if err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(opened, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// stamp counts and hashes what passes on its way to w.
type stamp struct {
	io.Writer
	hash  hash.Hash
	bytes int64
}

func newStamp(w io.Writer) *stamp { return &stamp{Writer: w, hash: sha256.New()} }

func (s *stamp) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	s.hash.Write(p[:n])
	s.bytes += int64(n)
	return n, err
}

func (s *stamp) sum() (bytes int64, sha string) { return s.bytes, hex.EncodeToString(s.hash.Sum(nil)) }

// create starts an object whose storage must not stall.
func (t Tools) create(ctx context.Context, store storage.Store, name string) (storage.Writer, error) {
	w, err := store.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &impatient{ctx: ctx, w: w, limit: t.stallLimit()}, nil
}

// impatient returns from a call into storage when that takes longer than the limit, or when ctx ends. What hangs is left
// behind, and so is the object under its temporary name, until the storage moves again.
type impatient struct {
	ctx   context.Context
	w     storage.Writer
	limit time.Duration
	hangs bool
}

func (i *impatient) Write(p []byte) (n int, err error) {
	type result struct {
		n   int
		err error
	}
	r, err := within(i, i.ctx, func() result {
		n, err := i.w.Write(p)
		return result{n, err}
	})
	if err != nil {
		return 0, err
	}
	return r.n, r.err
}

func (i *impatient) Flush(ctx context.Context) error {
	failed, err := within(i, ctx, func() error { return i.w.Flush(ctx) })
	return errors.Join(err, failed)
}

func (i *impatient) Commit(ctx context.Context) error {
	// Whether a commit that was left behind succeeds is not known, so only a stall ends the wait.
	failed, err := within(i, context.WithoutCancel(ctx), func() error { return i.w.Commit(ctx) })
	return errors.Join(err, failed)
}

// abortPatience is how long storage that hangs has to drop an object.
const abortPatience = time.Second

func (i *impatient) Abort() {
	if !i.hangs {
		i.w.Abort()
		return
	}
	done := make(chan struct{})
	go func() {
		i.w.Abort()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(abortPatience):
	}
}

func within[T any](i *impatient, ctx context.Context, call func() T) (T, error) {
	var none T
	if i.hangs {
		return none, ErrStalled
	}
	done := make(chan T, 1)
	go func() { done <- call() }()
	limit := time.NewTimer(i.limit)
	defer limit.Stop()
	select {
	case result := <-done:
		return result, nil
	case <-limit.C:
		i.hangs = true
		return none, fmt.Errorf("%w: %s passed", ErrStalled, i.limit)
	case <-ctx.Done():
		i.hangs = true
		return none, context.Cause(ctx)
	}
}
