package student

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/api/server"
)

// readsTogether is the most reads by id that go to the database in one statement.
const readsTogether = 64

// The subselect hides the ids from the planner. It would plan anew for each number of them, which takes as long as to read them.
const selectStudents = `select ` + recordColumns + ` from student where student_id = any((select $1::text[])::text[])`

// reads of one pool. A nil record means that there is no such student.
type reads = batches[string, *Record]

// Read gets one student for a caller who only looks, synthetic ones too. It sees every write that was answered before it was
// called. Errors: not-found.
func (s *Store) Read(ctx context.Context, id string) (Record, error) {
	pool := s.db.Reader(ctx)
	of, there := s.reads.Load(pool)
	if !there {
		of, _ = s.reads.LoadOrStore(pool, &reads{most: readsTogether, ask: func(ctx context.Context, ids []string) ([]*Record, error) {
			return readStudents(ctx, pool, ids)
		}})
	}
	record, err := of.(*reads).do(ctx, id)
	if err != nil {
		return Record{}, fmt.Errorf("read a student: %w", err)
	}
	if record == nil {
		return Record{}, notFound()
	}
	return *record, nil
}

func readStudents(ctx context.Context, pool *pgxpool.Pool, ids []string) ([]*Record, error) {
	rows, err := pool.Query(ctx, selectStudents, ids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	records := make([]*Record, len(ids))
	var record Record
	for fields := record.fields(); rows.Next(); {
		if err := rows.Scan(fields...); err != nil {
			return nil, err
		}
		found := record
		for i, id := range ids {
			if id == found.StudentID {
				records[i] = &found
			}
		}
	}
	return records, rows.Err()
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
