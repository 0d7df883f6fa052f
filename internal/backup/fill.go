package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/storage"
)

// Fill restores an archive into a database that is there and empty, a drill's or that of an operator's restore, with owners
// and grants. It returns ErrRejected when the archive is at fault, ErrDamaged when it is cut off, what ReadyToRestore returns
// before it touches anything, and other errors when the server or a program was at fault.
//
// An archive that is encrypted cannot be sought in, which pg_restore's own --jobs asks for. So definitions and rows come in one
// stream, and then several processes, which need no more than the archive's table of contents, make the indexes.
func (t Tools) Fill(ctx context.Context, store storage.Store, m Manifest, source Source, database string, meter *Meter) error {
	return t.fill(ctx, store, m, source, database, meter, func(context.Context) error { return nil })
}

// fill is Fill that calls beside when all rows and keys are there, and goes on with indexes meanwhile.
func (t Tools) fill(ctx context.Context, store storage.Store, m Manifest, source Source, database string, meter *Meter, beside func(context.Context) error) error {
	p, err := t.pouring(ctx, store, m, source, database)
	if err != nil {
		return err
	}
	if err := p.pour(ctx, meter, nil, "--section=pre-data", "--section=data"); err != nil {
		return err
	}
	entries, err := p.list(ctx, "--section=post-data")
	if err != nil {
		return err
	}
	keys, indexes, rest := ordered(entries)
	if err := p.takeAtOnce(ctx, keys, func(context.Context) error { return nil }); err != nil {
		return err
	}
	if err := p.takeAtOnce(ctx, slices.Collect(slices.Chunk(indexes, max(1, len(indexes)/(shares*t.jobs())))), beside); err != nil {
		return err
	}
	return p.take(ctx, rest)
}

// shares is into how many parts each process's share of the indexes is cut: one index may take longer than all others.
const shares = 4

// ordered splits entries of a table of contents that come after the rows. Keys come first, by table, because adding one to a table
// waits for every index that is being made on it, and for every reader. Indexes need only rows. The rest may need both: foreign
// keys, partitions' indexes that join their parents', triggers, comments.
func ordered(entries []string) (keys [][]string, indexes, rest []string) {
	place := map[string]int{}
	for _, entry := range entries {
		fields := strings.Fields(entry) // 3456; 2606 16789 CONSTRAINT public student student_pkey student_service
		switch {
		case len(fields) > 5 && fields[3] == "CONSTRAINT":
			table := fields[4] + "." + fields[5]
			if _, known := place[table]; !known {
				place[table] = len(keys)
				keys = append(keys, nil)
			}
			keys[place[table]] = append(keys[place[table]], entry)
		case len(fields) > 4 && fields[3] == "INDEX" && fields[4] != "ATTACH":
			indexes = append(indexes, entry)
		default:
			rest = append(rest, entry)
		}
	}
	return keys, indexes, rest
}

// pouring sends an archive through pg_restore into a database, once or several times.
type pouring struct {
	store    storage.Store
	manifest Manifest
	keys     Keys
	program  installed
	target   string // the database's URL
	jobs     int
}

func (t Tools) pouring(ctx context.Context, store storage.Store, m Manifest, source Source, database string) (p pouring, err error) {
	p = pouring{store: store, manifest: m, jobs: t.jobs()}
	if p.keys, err = t.Keys.Read(); err != nil && m.Encryption == Encrypted {
		return p, err
	}
	conn, err := administer(ctx, source, "sms-restore")
	if err != nil {
		return p, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if p.program, err = t.restorer(ctx, m, conn); err != nil {
		return p, err
	}
	p.target, err = source.restoring(database)
	return p, err
}

// list reads the archive's table of contents, a line each.
func (p pouring) list(ctx context.Context, options ...string) (entries []string, err error) {
	var out bytes.Buffer
	err = p.pour(ctx, nil, func(cmd *exec.Cmd) { cmd.Stdout = &out }, append(options, "--list")...)
	if err != nil && !errors.Is(err, errStoppedReading) {
		return nil, err
	}
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSpace(line); line != "" && line[0] != ';' {
			entries = append(entries, line)
		}
	}
	return entries, nil
}

// takeAtOnce takes parts of the table of contents by several processes, and calls beside meanwhile.
func (p pouring) takeAtOnce(ctx context.Context, parts [][]string, beside func(context.Context) error) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return beside(ctx) })
	next := make(chan []string)
	for range p.jobs {
		work.Go(func() error {
			for part := range next {
				if err := p.take(ctx, part); err != nil {
					return err
				}
			}
			return nil
		})
	}
	work.Go(func() error {
		defer close(next)
		for _, part := range parts {
			select {
			case next <- part:
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	})
	return work.Wait()
}

// take restores entries of the table of contents that need none of the archive's rows, in their order.
func (p pouring) take(ctx context.Context, entries []string) error {
	if len(entries) == 0 {
		return nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start pg_restore: %w", err)
	}
	defer read.Close()
	go func() {
		_, _ = io.WriteString(write, strings.Join(entries, "\n")+"\n") // fails only when pg_restore has ended
		_ = write.Close()
	}()
	const list = "/dev/fd/3" // the first of ExtraFiles
	err = p.pour(ctx, nil, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{read} }, "--use-list="+list)
	if errors.Is(err, errStoppedReading) {
		return nil
	}
	return err
}

// pour sends the archive through pg_restore, as far as that reads it: errStoppedReading says that it ended well before the archive
// did. meter is moved by what is read; adapt changes the command before it starts. Both may be nil.
func (p pouring) pour(ctx context.Context, meter *Meter, adapt func(*exec.Cmd), options ...string) error {
	stored, err := p.store.Open(ctx, p.manifest.Archive)
	if err != nil {
		return err
	}
	defer stored.Close()
	var from io.Reader = reader{ctx, stored}
	if meter != nil {
		from = io.TeeReader(from, meter)
	}
	unpacked, err := unpack(from, p.keys, p.manifest.Encryption, p.manifest.Recipients)
	if err != nil {
		return err
	}
	defer unpacked.Close()
	outer := ctx
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	cmd, words := p.program.command(ctx, append(options, "--exit-on-error", "--no-password", "--dbname="+p.target)...)
	if adapt != nil {
		adapt(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := start(cmd); err != nil {
		return err
	}
	archive := &noting{Reader: unpacked}
	_, copyErr := io.Copy(in, archive)
	if archive.err != nil {
		kill() // before its input ends, which it might take for the end of the archive
	}
	_ = in.Close()
	waitErr := cmd.Wait()
	switch {
	case archive.err == nil:
		return rejected(words, words.failure("pg_restore", waitErr), copyErr)
	case outer.Err() != nil:
		return context.Cause(outer)
	case errors.Is(archive.err, ErrDamaged):
		return archive.err
	default:
		return fmt.Errorf("%w: %w", ErrDamaged, archive.err)
	}
}

// noting remembers why reading failed, to tell that from a failure to write.
type noting struct {
	io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	read, err := n.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return read, err
}

// serverAway are words of pg_restore that mean that the server, not the archive, was at fault.
var serverAway = []string{"server closed the connection", "connection to server", "terminating connection", "no connection to the server",
	"the database system is", "SSL connection has been closed", "No space left on device"}

// errStoppedReading says that pg_restore ended well before the archive did.
var errStoppedReading = errors.New("pg_restore stopped reading")

// rejected tells an archive that is at fault from a server that went away.
func rejected(words *lastWords, failure, copyErr error) error {
	if failure == nil && copyErr != nil {
		return fmt.Errorf("%w: %w", errStoppedReading, copyErr)
	}
	if failure == nil || len(words.errors()) == 0 {
		return failure // killed, for example
	}
	for _, away := range serverAway {
		if strings.Contains(failure.Error(), away) {
			return failure
		}
	}
	return fmt.Errorf("%w: %w", ErrRejected, failure)
}
