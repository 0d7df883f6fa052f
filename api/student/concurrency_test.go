package student

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

func TestOneOfManyWritersWins(t *testing.T) {
	t.Parallel()
	const writers = 50
	f := newFixture(t)
	student, etag := f.create(t, nil)
	statuses := make([]int, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			statuses[i] = f.Do(t, identity.Clerk, http.MethodPatch, collection+"/"+student.StudentID,
				fmt.Sprintf(`{"caste":"c%d"}`, i), "If-Match", etag).Status
		})
	}
	wg.Wait()
	got := map[int]int{}
	for _, status := range statuses {
		got[status]++
	}
	if want := map[int]int{http.StatusOK: 1, http.StatusPreconditionFailed: writers - 1}; !maps.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
	if n := f.count(t, "select count(*) from student_audit"); n != 2 {
		t.Errorf("%d audit rows, want 2", n)
	}
}

func TestOneOfManyEqualPostsCreates(t *testing.T) {
	t.Parallel()
	const senders = 50
	f := newFixture(t)
	bodies := make(chan string, senders)
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for { // as a client does: in flight means wait and send again
				answer := f.Do(t, identity.Clerk, http.MethodPost, collection, validInput(), "Idempotency-Key", "one and the same")
				if answer.Status == http.StatusConflict && strings.Contains(string(answer.Body), "problems/conflict") {
					continue
				}
				bodies <- string(answer.Want(http.StatusCreated).Body)
				return
			}
		})
	}
	wg.Wait()
	close(bodies)
	first := <-bodies
	for body := range bodies {
		if body != first {
			t.Errorf("two answers:\n%s\n%s", first, body)
		}
	}
	if n := f.count(t, "select count(*) from student"); n != 1 {
		t.Errorf("%d students, want 1", n)
	}
	var created Student
	if err := json.Unmarshal([]byte(first), &created); err != nil {
		t.Fatal(err)
	}
	f.Do(t, identity.Clerk, http.MethodPatch, collection+"/"+created.StudentID, `{"caste":"Other"}`, "If-Match", `"1"`).Want(http.StatusOK)
	if again := f.Do(t, identity.Clerk, http.MethodPost, collection, validInput(), "Idempotency-Key", "one and the same"); string(again.Body) != first ||
		again.Header.Get("ETag") != `"1"` || again.Header.Get("Location") != collection+"/"+created.StudentID {
		t.Errorf("after a change the answer is %v %s", again.Header, again.Body)
	}
	f.erase(t, created.StudentID, "asked for")
	f.Do(t, identity.Clerk, http.MethodPost, collection, validInput(), "Idempotency-Key", "one and the same").Problem(http.StatusGone, "not-found")
	f.Do(t, identity.Clerk, http.MethodPost, collection, `{}`, "Idempotency-Key", "one and the same").Want(http.StatusUnprocessableEntity)
}

func TestIDsAndMobilesOfManyCreators(t *testing.T) {
	t.Parallel()
	const creators = 40
	f := newFixture(t)
	ids, conflicts := sync.Map{}, make(chan int, creators)
	var wg sync.WaitGroup
	for i := range creators {
		wg.Go(func() {
			in := validInput()
			in.Mobile = fmt.Sprintf("98765432%02d", i/2) // two want each number
			answer := f.Do(t, identity.Clerk, http.MethodPost, collection, in)
			if answer.Status == http.StatusConflict {
				conflicts <- 1
				return
			}
			var created Student
			if err := json.Unmarshal(answer.Body, &created); err != nil || answer.Status != http.StatusCreated {
				t.Errorf("%d %s", answer.Status, answer.Body)
			}
			if _, twice := ids.LoadOrStore(created.StudentID, true); twice {
				t.Errorf("%s was given out twice", created.StudentID)
			}
		})
	}
	wg.Wait()
	if len(conflicts) != creators/2 {
		t.Errorf("%d conflicts, want %d", len(conflicts), creators/2)
	}
}
