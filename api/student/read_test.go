package student

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

func TestStudentIsWrittenAsEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	text := rapid.OneOf(rapid.String(), rapid.StringMatching("[A-Za-z .'-]*"), rapid.SampledFrom([]string{"", "<&>", "\u2028", "\u2029x", "\"\\\x00\n", "क्\u200dष", "\xff"}))
	at := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(0, 1<<34).Draw(t, "seconds"), 1000*rapid.Int64Range(0, 999_999).Draw(t, "µs")).UTC()
	})
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.MakeCustom[Student](rapid.MakeConfig{}).Draw(t, "numbers")
		for _, field := range []*string{&s.StudentID, &s.FirstName, &s.LastName, &s.Address.Street, &s.Address.City, &s.Address.State,
			&s.Address.PinCode, &s.Address.Country, &s.Mobile, &s.Email, &s.FatherNameOrGuardian, &s.MotherName, &s.Caste, &s.Moles,
			&s.AadhaarNumber, &s.CreatedBy, &s.UpdatedBy} {
			*field = text.Draw(t, "text")
		}
		s.Status = Status(text.Draw(t, "status"))
		s.DateOfBirth = Date{rapid.IntRange(1, 9999).Draw(t, "year"), time.Month(rapid.IntRange(1, 12).Draw(t, "month")), rapid.IntRange(1, 31).Draw(t, "day")}
		s.CreatedAt, s.UpdatedAt = at.Draw(t, "created"), at.Draw(t, "updated")
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(s); err != nil {
			t.Fatal(err)
		}
		if got := string(appendStudent(nil, s)) + "\n"; got != want.String() {
			t.Fatalf("got\n%swant\n%s", got, want.String())
		}
	})
}

// A query string sends a request the ordinary way.
func TestFastAndOrdinaryReadAnswerTheSame(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	full, _ := f.create(t, func(in *Input) {
		in.FirstName, in.AadhaarNumber, in.Email, in.Moles = "O'Neil\u200d क्", pointer("123412341234"), pointer("a@example.com"), pointer("<left> \"eye\" \u2028")
	})
	bare, _ := f.create(t, func(in *Input) { in.Mobile = "9876543211" })
	for _, id := range []string{full.StudentID, bare.StudentID, "STU-2026-99999", "STU-1", "%00", "a%20b", "STU-2026-00001%2F"} {
		for _, role := range append(identity.Roles(), "") {
			headers := []string{"X-Request-ID", "same", "Accept", "application/json"}
			fast := f.Do(t, role, http.MethodGet, collection+"/"+id, nil, headers...)
			ordinary := f.Do(t, role, http.MethodGet, collection+"/"+id+"?", nil, headers...)
			fast.Header.Del("Content-Length") // net/http adds it to the other
			if fast.Status != ordinary.Status || !bytes.Equal(fast.Body, ordinary.Body) || !maps.EqualFunc(fast.Header, ordinary.Header, slices.Equal) {
				t.Errorf("%s reads %s:\n%d %v %s\n%d %v %s", role, id, fast.Status, fast.Header, fast.Body, ordinary.Status, ordinary.Header, ordinary.Body)
			}
		}
	}
	f.Do(t, identity.Clerk, http.MethodGet, collection+"/"+full.StudentID+"?nope=1", nil).Problem(http.StatusUnprocessableEntity, "validation-error")
}

func TestReadsSeeTheWritesBeforeThem(t *testing.T) {
	t.Parallel()
	const students, readers, versions = 8, 3, 25
	f := newFixture(t)
	store := NewStore(postgres.NewDB(f.pool))
	var wg sync.WaitGroup
	for i := range students {
		created, _ := f.create(t, func(in *Input) { in.Mobile = fmt.Sprintf("987654%04d", i) })
		wg.Go(func() {
			current, err := store.Get(t.Context(), created.StudentID)
			for n := range versions {
				if err != nil {
					t.Error(err)
					return
				}
				details := current.Details
				details.Caste = fmt.Sprint("caste ", n)
				current, err = store.Update(t.Context(), current, details, Active, Updated, Author{"clerk", "request"})
				var all sync.WaitGroup
				for range readers {
					all.Go(func() {
						if read, err := store.Read(t.Context(), created.StudentID); err != nil || read != current {
							t.Errorf("read %+v, %v after %+v was written", read, err, current)
						}
					})
				}
				_, missing := store.Read(t.Context(), fmt.Sprintf("STU-2025-%05d", n))
				if problem, ok := errors.AsType[*server.Problem](missing); !ok || problem.Status != http.StatusNotFound {
					t.Errorf("one who is not there: %v", missing)
				}
				all.Wait()
			}
		})
	}
	wg.Wait()
}

func TestReadsEndWithTheirPool(t *testing.T) {
	t.Parallel()
	cfg := pgtest.New(t, migrations.Student())
	cfg.StatementTimeout = 50 * time.Millisecond
	pool, err := postgres.Open(t.Context(), cfg, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	store := NewStore(postgres.NewDB(pool))
	readAll := func(what string, expected func(error) bool) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if _, err := store.Read(t.Context(), fmt.Sprintf("STU-2026-%05d", i)); !expected(err) {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		wg.Wait()
	}
	locker, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locker.Exec(t.Context(), "lock table student in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	readAll("statement timeout", postgres.Unavailable)
	if err := locker.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
	pool.Close()
	readAll("closed pool", func(err error) bool { return err != nil && strings.Contains(err.Error(), "closed pool") })
	store.reads.Range(func(_, of any) bool {
		of.(*reads).idle(t)
		return true
	})
}
