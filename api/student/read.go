package student

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/api/server"
)

// Reads by id that arrive while others are on their way to the database go there together, in one statement. Each read still
// starts after its request came in, so that it sees every write that was answered before.
const (
	// batchSize is the most reads in one statement.
	batchSize = 64
	// batchesAtOnce is how many statements of one pool run at a time. More would be smaller ones, which cost more in all.
	batchesAtOnce = 1
	// batchTimeout bounds a statement on a connection whose other end is silently gone; the database's own statement timeout
	// ends it where the database still answers.
	batchTimeout = 20 * time.Second
)

// The subselect hides the ids from the planner. It would plan anew for each number of them, which takes as long as to read them.
const selectStudents = `select ` + recordColumns + ` from student where student_id = any((select $1::text[])::text[])`

// read is one caller's wait for one student.
type read struct {
	ctx    context.Context
	id     string
	record Record
	err    error
	done   chan struct{}
}

// reads gathers the reads of one pool.
type reads struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	waiting []*read
	running int
}

// Read gets one student for a caller who only looks, synthetic ones too. Errors: not-found.
func (s *Store) Read(ctx context.Context, id string) (Record, error) {
	pool := s.db.Reader(ctx)
	of, there := s.reads.Load(pool)
	if !there {
		of, _ = s.reads.LoadOrStore(pool, &reads{pool: pool})
	}
	return of.(*reads).get(ctx, id)
}

func (r *reads) get(ctx context.Context, id string) (Record, error) {
	one := &read{ctx: ctx, id: id, done: make(chan struct{})}
	r.mu.Lock()
	r.waiting = append(r.waiting, one)
	start := r.running < batchesAtOnce
	if start {
		r.running++
	}
	r.mu.Unlock()
	if start {
		go r.run()
	}
	select {
	case <-one.done:
		return one.record, one.err
	case <-ctx.Done():
		return Record{}, fmt.Errorf("read a student: %w", ctx.Err())
	}
}

// run answers batches until nobody waits.
func (r *reads) run() {
	for batch := r.next(); len(batch) > 0; batch = r.next() {
		err := r.answer(batch)
		for _, one := range batch {
			switch {
			case err != nil:
				one.err = fmt.Errorf("read a student: %w", err)
			case one.record.StudentID == "":
				one.err = notFound()
			}
			close(one.done)
		}
	}
}

// next takes the reads that go together, without those whose callers have gone.
func (r *reads) next() []*read {
	r.mu.Lock()
	defer r.mu.Unlock()
	var batch []*read
	taken := 0
	for _, one := range r.waiting {
		if len(batch) == batchSize {
			break
		}
		if taken++; one.ctx.Err() == nil {
			batch = append(batch, one)
		}
	}
	r.waiting = append(r.waiting[:0], r.waiting[taken:]...)
	if len(batch) == 0 {
		r.running--
	}
	return batch
}

func (r *reads) answer(batch []*read) error {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	ids := make([]string, len(batch))
	for i, one := range batch {
		ids[i] = one.id
	}
	rows, err := r.pool.Query(ctx, selectStudents, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	var record Record
	for fields := record.fields(); rows.Next(); {
		if err := rows.Scan(fields...); err != nil {
			return err
		}
		for _, one := range batch {
			if one.id == record.StudentID {
				one.record = record
			}
		}
	}
	return rows.Err()
}

// getFast is get without what huma costs.
func (s *service) getFast(c *gin.Context) error {
	record, err := s.readBy(c.Request.Context(), c.Param("studentId"), s.store.Read)
	if err != nil {
		return err
	}
	buffer := answers.Get().(*[]byte)
	defer answers.Put(buffer)
	*buffer = append(appendStudent((*buffer)[:0], present(record, s.today())), '\n')
	c.Header("Content-Type", "application/json")
	c.Header("Content-Length", strconv.Itoa(len(*buffer)))
	c.Header("Etag", server.ETag(record.Version))
	c.Status(http.StatusOK)
	_, _ = c.Writer.Write(*buffer) // fails when the caller has gone
	return nil
}

var answers = sync.Pool{New: func() any { return new([]byte) }}
