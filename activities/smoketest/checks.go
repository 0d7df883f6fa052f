package smoketest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"
)

const (
	students   = "/api/v1/students"
	statistics = students + "/statistics"
	settings   = "/api/v1/configurations/settings/category/GENERAL"

	studentService       = "student-service"
	configurationService = "configuration-service"
	opsService           = "ops-service"

	production = "production"
)

// all makes every check, in an order in which each stands on those before.
func (r *run) all(ctx context.Context) {
	if !r.health(ctx) {
		return // what follows would only say the same again
	}
	r.check("a request without a token is refused", func() (expected, found string) {
		answer := r.request(ctx, call{method: http.MethodGet, path: statistics, anonymous: true})
		return answer.status(http.StatusUnauthorized)
	})
	r.check("the statistics can be read", func() (expected, found string) {
		return r.statistics(ctx, nil)
	})
	r.student(ctx)
	r.check("the settings can be read", func() (expected, found string) {
		var list []map[string]any
		return r.request(ctx, call{service: configurationService, method: http.MethodGet, path: settings}).json(http.StatusOK, &list)
	})
}

// Health is asked again while a service restarts, for this long in all.
const (
	healthTries = 5
	healthPause = 2 * time.Second
)

// health asks the gateway what it knows of itself and its services.
func (r *run) health(ctx context.Context) bool {
	want := []string{studentService, configurationService}
	if r.input.Environment == production {
		want = append(want, opsService)
	}
	before := len(r.checks)
	for try := 1; ; try++ {
		r.checks = r.checks[:before]
		r.healthOnce(ctx, want)
		if r.passed() || try == healthTries {
			return r.passed()
		}
		select {
		case <-time.After(healthPause):
		case <-ctx.Done():
			return false
		}
	}
}

func (r *run) healthOnce(ctx context.Context, want []string) {
	var health struct {
		Status     string `json:"status"`
		Components map[string]struct {
			Status  string `json:"status"`
			Details struct {
				Instances int `json:"instances"`
			} `json:"details"`
		} `json:"components"`
	}
	ok := r.check("the gateway is up", func() (expected, found string) {
		answer := r.request(ctx, call{method: http.MethodGet, path: "/actuator/health", anonymous: true})
		if expected, found := answer.json(http.StatusOK, &health); expected != "" {
			return expected, found
		}
		return equal("UP", health.Status)
	})
	if !ok {
		return
	}
	for _, service := range want {
		r.check(service+" is up", func() (expected, found string) {
			c := health.Components[service]
			if c.Status == "UP" && c.Details.Instances >= 1 {
				return "", ""
			}
			return "UP with an instance or more", fmt.Sprintf("%q with %d", c.Status, c.Details.Instances)
		})
	}
}

// student lets a marked student come and go.
func (r *run) student(ctx context.Context) {
	marker := "smoke-" + letters(12)
	wanted := syntheticStudent(marker)
	var read map[string]any
	var path, etag string
	made := r.check("a student can be created", func() (expected, found string) {
		answer := r.request(ctx, call{service: studentService, method: http.MethodPost, path: students, body: wanted, synthetic: true})
		path = answer.studentPath()
		if expected, found := answer.status(http.StatusCreated); expected != "" {
			return expected, found
		}
		if path == "" {
			return "a student id", "none"
		}
		return "", ""
	})
	if path != "" { // to be removed even when another release than the wanted one has made it
		r.created(path)
		defer r.removeUnlessGone(ctx, path)
	}
	if !made {
		return
	}

	r.check("the student can be read back", func() (expected, found string) {
		answer := r.request(ctx, call{service: studentService, method: http.MethodGet, path: path})
		etag = answer.header.Get("ETag")
		if expected, found := answer.json(http.StatusOK, &read); expected != "" {
			return expected, found
		}
		return same(wanted, read)
	})
	r.check("the student is in no statistic", func() (expected, found string) { return r.statistics(ctx, &marker) })
	r.check("the student can be deactivated", func() (expected, found string) {
		answer := r.request(ctx, call{service: studentService, method: http.MethodPatch, path: path + "/status",
			body: map[string]any{"status": "INACTIVE"}, ifMatch: etag})
		etag = answer.header.Get("ETag")
		if expected, found := answer.json(http.StatusOK, &read); expected != "" {
			return expected, found
		}
		return equal("INACTIVE", fmt.Sprint(read["status"]))
	})
	if !r.check("the student can be removed", func() (expected, found string) {
		answer := r.request(ctx, call{service: studentService, method: http.MethodDelete, path: path, ifMatch: etag})
		return answer.status(http.StatusOK, http.StatusNoContent)
	}) {
		return
	}
	r.check("the student is gone", func() (expected, found string) {
		return r.request(ctx, call{service: studentService, method: http.MethodGet, path: path}).status(http.StatusNotFound)
	})
	r.check("the student has left no trace in the statistics", func() (expected, found string) { return r.statistics(ctx, &marker) })
}

// studentPath is where the student of an answer is found; empty when it holds none.
func (a answer) studentPath() string {
	var body struct {
		StudentID string `json:"studentId"`
	}
	if a.code != http.StatusCreated || json.Unmarshal(a.body, &body) != nil || body.StudentID == "" {
		return ""
	}
	return students + "/" + body.StudentID
}

// statistics reads the statistics. A marker must not be among their groups: totals would change under real writers, a
// group of its own can only be the marked student's.
func (r *run) statistics(ctx context.Context, marker *string) (expected, found string) {
	var body struct {
		ByCaste map[string]int64 `json:"byCaste"`
	}
	answer := r.request(ctx, call{service: studentService, method: http.MethodGet, path: statistics})
	if expected, found := answer.json(http.StatusOK, &body); expected != "" {
		return expected, found
	}
	if body.ByCaste == nil {
		return "counts of students by group", "none"
	}
	if marker != nil && body.ByCaste[*marker] > 0 {
		return "no student of the group of its own", fmt.Sprintf("%d", body.ByCaste[*marker])
	}
	return "", ""
}

// removeUnlessGone cleans up after checks that failed, or that were cut short.
func (r *run) removeUnlessGone(ctx context.Context, path string) {
	if r.passed() && ctx.Err() == nil {
		return
	}
	r.remove(ctx, path)
}

// remove deletes a student if it is there.
func (r *run) remove(ctx context.Context, path string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	answer := r.request(ctx, call{service: studentService, method: http.MethodGet, path: path})
	if answer.code == http.StatusOK {
		r.request(ctx, call{service: studentService, method: http.MethodDelete, path: path, ifMatch: answer.header.Get("ETag")})
	}
}

func syntheticStudent(marker string) map[string]any {
	return map[string]any{
		"firstName": "Smoke", "lastName": "Test" + letters(8), "dateOfBirth": time.Now().AddDate(-10, 0, -1).Format(time.DateOnly),
		"address": map[string]any{"street": "1 Test Road", "city": "Pune", "state": "Maharashtra", "pinCode": "411001", "country": "India"},
		"mobile":  "00" + digits(8), "fatherNameOrGuardian": "Smoke Guardian", "motherName": "Smoke Mother", "caste": marker,
	}
}

func letters(n int) string { return random("abcdefghijklmnopqrstuvwxyz", n) }
func digits(n int) string  { return random("0123456789", n) }

func random(alphabet string, n int) string {
	var b strings.Builder
	for range n {
		i, _ := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet)))) // crypto/rand never fails
		b.WriteByte(alphabet[i.Int64()])
	}
	return b.String()
}

// same compares what was written with what is read. It names the field, not the value.
func same(wanted, read map[string]any) (expected, found string) {
	for name, value := range wanted {
		if fmt.Sprint(value) != fmt.Sprint(read[name]) {
			return name + " as it was written", "another value"
		}
	}
	return "", ""
}
