package server_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

type keyedNote struct {
	server.Repeatable
	Body struct {
		Text string `json:"text"`
	}
}

type keyedNoteAnswer struct {
	Body struct {
		ID int64 `json:"id"`
	}
}

type notes struct {
	*servertest.Service
	db *postgres.DB
	// entered and leave hold a request in the middle of its work, when they are set.
	entered, leave chan struct{}
}

// newNotes serves an operation that adds a row each time that it really runs.
func newNotes(t *testing.T, hold bool) *notes {
	t.Helper()
	ddl, err := fs.ReadFile(migrations.Student(), "002_idempotency.sql")
	if err != nil {
		t.Fatal(err)
	}
	own := fstest.MapFS{
		"001_keys.sql":  {Data: ddl},
		"002_notes.sql": {Data: []byte("create table note (id bigint generated always as identity primary key, text text unique);")},
	}
	pool, err := postgres.Open(t.Context(), pgtest.New(t, own), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	n := &notes{Service: servertest.New(t, "notes", server.Config{}), db: postgres.NewDB(pool)}
	if hold {
		n.entered, n.leave = make(chan struct{}), make(chan struct{})
	}
	server.Register(n.Server, server.Operation{ID: "add-note", Method: http.MethodPost, Path: "/api/v1/notes", Status: http.StatusCreated},
		func(ctx context.Context, in *keyedNote) (*keyedNoteAnswer, error) {
			out := &keyedNoteAnswer{}
			var err error
			out.Body.ID, err = server.Once(ctx, n.db, in.Repeatable, "add-note", func(tx postgres.Conn) (id int64, err error) {
				if n.entered != nil {
					n.entered <- struct{}{}
					<-n.leave
				}
				err = tx.QueryRow(ctx, "insert into note (text) values ($1) returning id", in.Body.Text).Scan(&id)
				if postgres.ViolatedConstraint(err) != "" {
					err = server.Conflict("there is such a note")
				}
				return id, err
			})
			return out, err
		})
	return n
}

func (n *notes) post(t *testing.T, role identity.Role, key, text string) servertest.Answer {
	t.Helper()
	return n.Do(t, role, http.MethodPost, "/api/v1/notes", fmt.Sprintf(`{"text":%q}`, text), "Idempotency-Key", key)
}

func (n *notes) rows(t *testing.T, sql string) (count int) {
	t.Helper()
	if err := n.db.QueryRow(t.Context(), sql).Scan(&count); err != nil {
		t.Fatal(err)
	}
	return count
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	n := newNotes(t, false)
	first := n.post(t, identity.Clerk, "k1", "a").Want(http.StatusCreated)
	if again := n.post(t, identity.Clerk, "k1", "a").Want(http.StatusCreated); string(again.Body) != string(first.Body) {
		t.Errorf("answered %s, first %s", again.Body, first.Body)
	}
	faults := n.post(t, identity.Clerk, "k1", "b").Faults(http.StatusUnprocessableEntity, "validation-error")
	if faults["Idempotency-Key"] != "reused" {
		t.Errorf("faults %v", faults)
	}
	n.post(t, identity.Admin, "k1", "b").Want(http.StatusCreated) // another caller's key is another key
	n.post(t, identity.Clerk, "k2", "a").Problem(http.StatusConflict, "conflict")
	n.post(t, identity.Clerk, "k2", "c").Want(http.StatusCreated) // a failure is not remembered
	n.post(t, identity.Clerk, "", "d").Want(http.StatusCreated)
	n.post(t, identity.Clerk, "", "d").Problem(http.StatusConflict, "conflict")
	if got := n.rows(t, "select count(*) from note"); got != 4 {
		t.Errorf("%d notes, want 4", got)
	}
	for _, late := range []string{"update idempotency_key set created_at = now() - interval '24 hours 1 second'", "delete from note"} {
		if _, err := n.db.Exec(t.Context(), late); err != nil {
			t.Fatal(err)
		}
	}
	n.post(t, identity.Clerk, "k1", "b").Want(http.StatusCreated) // a day later the key is new
	if got := n.rows(t, "select count(*) from idempotency_key"); got != 1 {
		t.Errorf("%d keys are kept, want the one that is in force", got)
	}
}

func TestIdempotencyKeyInFlight(t *testing.T) {
	t.Parallel()
	n := newNotes(t, true)
	var first servertest.Answer
	var wg sync.WaitGroup
	wg.Go(func() { first = n.post(t, identity.Clerk, "k", "a") })
	<-n.entered
	n.post(t, identity.Clerk, "k", "a").Problem(http.StatusConflict, "conflict")
	close(n.leave)
	wg.Wait()
	first.Want(http.StatusCreated)
	if again := n.post(t, identity.Clerk, "k", "a").Want(http.StatusCreated); string(again.Body) != string(first.Body) {
		t.Errorf("answered %s, first %s", again.Body, first.Body)
	}
}
