package storage

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// partBytes is the size of the first parts of an upload. A writer has two in memory: one that fills, one that is sent.
	// S3 wants at least 5 MiB, and bigger ones do not make it faster.
	partBytes = 8 << 20
	// Every growParts parts the size doubles, because S3 takes no more than maxParts: 496 GB fit.
	growParts = 2000
	maxParts  = 10_000
	// smallBytes is what a writer takes memory for at first: most objects are manifests.
	smallBytes = 64 << 10
	// abortLimit bounds how long a writer that gives up waits for the storage, so that a cancelled backup is gone at once.
	abortLimit = 3 * time.Second
	// writerKey is the metadata by which a writer knows its own object again when an answer was lost.
	writerKey = "Sms-Writer"
)

// sizeOfPart is how many bytes the part of a number, from 1, has; the last has fewer.
func sizeOfPart(number int) int { return partBytes << ((number - 1) / growParts) }

// part is one part that was sent.
type part struct {
	bytes    int64
	md5      [md5.Size]byte
	sha256   [sha256.Size]byte
	etag     string
	attempts int
}

// upload is an unfinished object. A small one is sent whole by Commit, a big one as a multipart upload that Commit
// completes.
type upload struct {
	s         *S3
	ctx       context.Context
	cancel    context.CancelFunc
	name, key string
	// token tells this writer's object from another's.
	token string
	// id is that of the multipart upload; empty before the first part is sent.
	id      string
	filling []byte
	spare   []byte
	// sending is the part that is under way; nil when none is.
	sending chan error
	parts   []part
	// failed is why the object cannot be finished any more.
	failed  error
	flushed bool
	done    bool
}

// Create implements Store.
func (s *S3) Create(ctx context.Context, name string) (Writer, error) {
	key, err := s.key(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	return &upload{s: s, ctx: ctx, cancel: cancel, name: name, key: key, token: rand.Text(), filling: make([]byte, 0, smallBytes)}, nil
}

func (w *upload) Write(p []byte) (int, error) {
	if w.flushed || w.done {
		return 0, fmt.Errorf("write %s: %w", w.name, errEnded)
	}
	written := 0
	for len(p) > 0 {
		size := sizeOfPart(len(w.parts) + 1)
		if len(w.filling) == size {
			if err := w.send(); err != nil {
				return written, fmt.Errorf("write %s: %w", w.name, err)
			}
			continue
		}
		n := min(len(p), size-len(w.filling))
		w.makeRoom(n, size)
		w.filling = append(w.filling, p[:n]...)
		p, written = p[n:], written+n
	}
	return written, nil
}

// makeRoom takes the memory of a whole part at once when the object turns out not to be small.
func (w *upload) makeRoom(n, size int) {
	if len(w.filling)+n > cap(w.filling) {
		w.filling = append(make([]byte, 0, size), w.filling...)
	}
}

// send begins to send what was filled as the next part, when the one before has arrived.
func (w *upload) send() error {
	if err := w.arrived(); err != nil {
		return err
	}
	if len(w.parts) == maxParts {
		w.failed = fmt.Errorf("%w: S3 takes no more than %d parts an object", ErrFull, maxParts)
		return w.failed
	}
	if w.id == "" {
		w.failed = w.s.retry(w.ctx, func() (err error) {
			w.id, err = w.s.core.NewMultipartUpload(w.ctx, w.s.bucket.Name, w.key, w.options())
			return err
		})
		if w.failed != nil {
			return w.failed
		}
	}
	w.parts = append(w.parts, part{})
	number, content, done := len(w.parts), w.filling, make(chan error, 1)
	w.sending, w.filling, w.spare = done, w.spare[:0], content
	go func() { done <- w.sendPart(number, content, &w.parts[number-1]) }()
	return nil
}

// arrived waits for the part that is under way.
func (w *upload) arrived() error {
	if w.sending != nil {
		w.failed = errors.Join(w.failed, <-w.sending)
		w.sending = nil
		if w.parts[len(w.parts)-1].attempts > 1 {
			w.spare = nil // the client may still read it for the attempt that broke off
		}
	}
	return w.failed
}

func (w *upload) sendPart(number int, content []byte, sent *part) error {
	sent.bytes, sent.md5, sent.sha256 = int64(len(content)), md5.Sum(content), sha256.Sum256(content)
	return w.s.retry(w.ctx, func() error {
		sent.attempts++
		answer, err := w.s.core.PutObjectPart(w.ctx, w.s.bucket.Name, w.key, w.id, number, bytes.NewReader(content), int64(len(content)),
			minio.PutObjectPartOptions{Md5Base64: base64.StdEncoding.EncodeToString(sent.md5[:]), Sha256Hex: hex.EncodeToString(sent.sha256[:]),
				DisableContentSha256: true}) // the whole part's is signed instead of each piece's
		sent.etag = answer.ETag
		return err
	})
}

// Flush implements Writer: everything is in the storage, as parts of an upload that is not complete.
func (w *upload) Flush(context.Context) error {
	if !w.flushed && len(w.filling) > 0 {
		_ = w.send() // arrived tells
	}
	w.flushed = true
	if err := w.arrived(); err != nil {
		return fmt.Errorf("flush %s: %w", w.name, err)
	}
	w.filling, w.spare = nil, nil
	return nil
}

// Commit implements Writer. The storage is asked to refuse a second object of the name (If-None-Match); because not every
// one knows how, it is also looked at first.
func (w *upload) Commit(ctx context.Context) error {
	finish := w.complete
	switch {
	case w.done:
		return fmt.Errorf("finish %s: %w", w.name, errEnded)
	case w.id == "" && w.failed == nil:
		finish = w.put
	default:
		if err := w.Flush(ctx); err != nil {
			return err
		}
	}
	err := w.vacant(ctx)
	if err == nil {
		err = finish(ctx)
	}
	if err == nil {
		err = w.verify(ctx)
	}
	if err != nil {
		return fmt.Errorf("finish %s: %w", w.name, err)
	}
	w.done = true
	w.cancel()
	return nil
}

// vacant returns ErrExists when another's object has the name.
func (w *upload) vacant(ctx context.Context) error {
	_, err := w.mine(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// mine describes the object that has the name. It returns ErrExists when that is another writer's, and ErrNotFound.
func (w *upload) mine(ctx context.Context) (minio.ObjectInfo, error) {
	info, err := w.s.stat(ctx, w.key)
	if err == nil && info.UserMetadata[writerKey] != w.token {
		err = ErrExists
	}
	return info, err
}

// put sends a small object.
func (w *upload) put(ctx context.Context) error {
	sum, sha := md5.Sum(w.filling), sha256.Sum256(w.filling)
	w.flushed, w.parts = true, []part{{bytes: int64(len(w.filling)), md5: sum, sha256: sha}}
	return w.once(ctx, w.options(), func(o minio.PutObjectOptions) error {
		o.DisableContentSha256 = true // as for parts
		_, err := w.s.core.PutObject(ctx, w.s.bucket.Name, w.key, bytes.NewReader(w.filling), int64(len(w.filling)),
			base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(sha[:]), o)
		return err
	})
}

// complete makes the parts an object.
func (w *upload) complete(ctx context.Context) error {
	parts := make([]minio.CompletePart, len(w.parts))
	for i, p := range w.parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.etag}
	}
	return w.once(ctx, minio.PutObjectOptions{}, func(o minio.PutObjectOptions) error {
		_, err := w.s.core.CompleteMultipartUpload(ctx, w.s.bucket.Name, w.key, w.id, parts, o)
		return err
	})
}

// once runs what gives the object its name, where nobody else has the name. When an answer was lost, what is there tells
// how it went.
func (w *upload) once(ctx context.Context, o minio.PutObjectOptions, finish func(minio.PutObjectOptions) error) error {
	plain, conditional := o, o
	conditional.SetMatchETagExcept("*")
	err := w.s.retry(ctx, func() error {
		err := finish(conditional)
		if unsupported(err) {
			err = finish(plain)
		}
		return err
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	if _, there := w.mine(ctx); there == nil || errors.Is(there, ErrExists) {
		return there
	}
	return err
}

// options are those of an object that is begun.
func (w *upload) options() minio.PutObjectOptions {
	o := minio.PutObjectOptions{UserMetadata: map[string]string{writerKey: w.token}}
	if w.s.bucket.Lock > 0 {
		o.Mode, o.RetainUntilDate = minio.Governance, time.Now().Add(w.s.bucket.Lock)
		if w.s.bucket.Compliance {
			o.Mode = minio.Compliance
		}
	}
	return o
}

// verify compares what the storage says to hold with what was sent: size and ETag, which is made of the parts' MD5
// almost everywhere. Where it is not (server-side encryption with KMS, for one), the object is read back. An object that
// is not what was sent is removed.
func (w *upload) verify(ctx context.Context) error {
	info, err := w.mine(ctx)
	if err != nil {
		return err
	}
	var size int64
	for _, p := range w.parts {
		size += p.bytes
	}
	if info.Size == size && info.ETag == w.etag() {
		return nil
	}
	if info.Size == size {
		err = w.readBack(ctx)
	} else {
		err = fmt.Errorf("%w: %d bytes, %d were sent", ErrCorrupt, info.Size, size)
	}
	if errors.Is(err, ErrCorrupt) {
		err = errors.Join(err, w.s.Remove(ctx, w.name))
	}
	return err
}

// etag is what the object's is by the usual rule.
func (w *upload) etag() string {
	if w.id == "" {
		return hex.EncodeToString(w.parts[0].md5[:])
	}
	hash := md5.New()
	for _, p := range w.parts {
		hash.Write(p.md5[:])
	}
	return hex.EncodeToString(hash.Sum(nil)) + "-" + strconv.Itoa(len(w.parts))
}

func (w *upload) readBack(ctx context.Context) error {
	r, err := w.s.Open(ctx, w.name)
	if err != nil {
		return err
	}
	defer r.Close()
	for i, p := range w.parts {
		hash := sha256.New()
		if _, err := io.CopyN(hash, r, p.bytes); err != nil {
			return err
		}
		if [sha256.Size]byte(hash.Sum(nil)) != p.sha256 {
			return fmt.Errorf("%w: part %d has another SHA-256", ErrCorrupt, i+1)
		}
	}
	return nil
}

// Abort implements Writer.
func (w *upload) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.cancel()
	_ = w.arrived() // so that no part comes after the end
	w.filling, w.spare = nil, nil
	if w.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), abortLimit)
	defer cancel()
	_ = w.s.abort(ctx, w.key, w.id)
}
