package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/rollout"
)

// rolloutsVariable asks TestZeroLoss for every service, and so many runs one after the other; `make soak-zero-loss` does.
const rolloutsVariable = "SMS_E2E_ROLLOUTS"

const (
	// archived students make a file of more than all buffers between their service and a caller hold.
	archived = 10_000
	// requestsHeld are answered in the middle of a rollout before it is aborted.
	requestsHeld = 400
)

// TestZeroLoss rolls out a good release, aborts a rollout in the middle, and rolls back, under the traffic of a school's day and of callers
// who take their answers slowly: no request fails, and nothing that was answered as written is lost. Without rolloutsVariable only the
// registry is rolled out, which every other process talks to; releases of the others are under load in other tests.
func TestZeroLoss(t *testing.T) {
	t.Parallel()
	runs, services := 1, []string{rollout.Registry}
	if n, err := strconv.Atoi(os.Getenv(rolloutsVariable)); err == nil {
		runs, services = n, rollout.Services()
	}
	dir := newDataDir(t)
	writeSettings(t, dir, "configuration-service", "CONFIGURATION_WATCH_WAIT=5s")
	p := up(t, dir, "--no-staging")
	p.importArchive()
	var made struct{ StudentID string }
	p.call(http.MethodPost, "/api/v1/students", student("9000000005")).into(t, &made)

	tenth, ok := 100*time.Millisecond, []int{http.StatusOK}
	l := startTraffic(p, append(schoolDay("/api/v1/students/"+made.StudentID),
		kind{"take a file of students over 5 s", 2, tenth, false, true, takeSlowly, ok},
		kind{"change the school's profile, new connection", 1, tenth, true, true, changeProfile(), ok}))
	defer l.end()
	good, aborted := map[string]string{}, map[string]string{}
	for _, service := range services {
		good[service], aborted[service] = releaseOf(t, service, "good"), releaseOf(t, service, "aborted")
	}
	for run := range runs {
		for _, service := range services {
			p.run(t, fmt.Sprintf("%s %d", service, run+1), func(t *testing.T, p *platform) {
				p.rollOutAndBack(l, service, good[service], aborted[service])
				table, all, _, failures := l.reset()
				t.Logf("run %d, %s\n%s", run+1, service, table)
				if all.failed > 0 || all.sent == 0 {
					t.Errorf("%d of %d requests failed:\n%s", all.failed, all.sent, strings.Join(failures, "\n"))
				}
			})
		}
		p.keeps(t, l)
	}
}

// rollOutAndBack ends where it began.
func (p *platform) rollOutAndBack(l *traffic, service, good, aborted string) {
	p.t.Helper()
	before := p.releases(service)
	start := func(release, soak string) []string {
		args := []string{"rollout", "start", service + "=" + release, "--env", "production", "--min-requests", "10", "--max-latency", "10s", "--soak", soak}
		if !rollout.SharesDoor(service) {
			args = append(args, "--weights", "50,100")
		}
		return args
	}
	p.mustSMS(append(start(good, "1s"), "--wait")...)
	rolled := p.releases(service)

	id := p.begin(start(aborted, "10m")...)
	eventually(p.t, operationWithin, "the middle of a rollout", func() (bool, string) {
		out := p.mustSMS("rollout", "show", id)
		return strings.Contains(out, "50 % of the traffic for") || strings.Contains(out, "share of the traffic for"), out
	})
	held := l.sent()
	eventually(p.t, operationWithin, "requests in the middle of a rollout", func() (bool, string) {
		n := l.sent() - held
		return n >= requestsHeld, strconv.Itoa(n)
	})
	if now := p.releases(service); len(now) != 2 {
		p.t.Errorf("%v run in the middle of a rollout", now)
	}
	if out := p.mustSMS("rollout", "abort", id, "--reason", "a test", "--wait"); !strings.Contains(out, "aborted by admin") {
		p.t.Errorf("abort:\n%s", out)
	}
	if now := p.releases(service); len(now) != 1 || now[0] != rolled[0] {
		p.t.Errorf("%v runs after the abort, want %v", now, rolled)
	}

	p.mustSMS("rollout", "rollback", service, "--wait")
	if now := p.releases(service); len(rolled) != 1 || rolled[0] == before[0] || len(now) != 1 || now[0] != before[0] {
		p.t.Errorf("ran %v, then %v, and after the rollback %v", before, rolled, now)
	}
}

// keeps checks that every student that was registered is there.
func (p *platform) keeps(t *testing.T, l *traffic) {
	t.Helper()
	l.mu.Lock()
	made := l.made[:len(l.made):len(l.made)]
	l.mu.Unlock()
	file := p.call(http.MethodGet, "/api/v1/students/export?lastName=Verma", nil)
	there := map[string]bool{}
	for line := range strings.Lines(string(file.Body)) {
		id, _, _ := strings.Cut(line, ",")
		there[id] = true
	}
	lost := 0
	for _, id := range made {
		if !there[id] {
			lost++
		}
	}
	t.Logf("%d of %d registered students are lost", lost, len(made))
	if lost > 0 || len(made) == 0 {
		t.Errorf("%d of %d registered students are lost, the file is %d %.300s", lost, len(made), file.Status, file.Body)
	}
}

// importArchive writes the students that takeSlowly reads.
func (p *platform) importArchive() {
	p.t.Helper()
	var file bytes.Buffer
	file.WriteString(studentColumns)
	for n := range archived {
		file.WriteString(studentRow("Archive", fmt.Sprintf("5%09d", n)))
	}
	c := &caller{address: strings.TrimPrefix(p.status.URLs["gateway"], "http://"), token: p.token(), ctx: p.t.Context()}
	defer c.close()
	taken, err := c.do(http.MethodPost, "/api/v1/students/imports", &file, "Content-Type", "text/csv")
	if err != nil {
		p.t.Fatal(err)
	}
	var begun struct{ ImportID string }
	taken.into(p.t, &begun)
	eventually(p.t, operationWithin, "the import of the archive", func() (bool, string) {
		a := p.call(http.MethodGet, "/api/v1/students/imports/"+begun.ImportID, nil)
		return strings.Contains(string(a.Body), `"state":"SUCCEEDED"`) && strings.Contains(string(a.Body), fmt.Sprintf(`"rowsCreated":%d`, archived)), string(a.Body)
	})
}

// takeSlowly reads a long file piece by piece, and checks that it is whole.
func takeSlowly(c *caller, _, _ int) (answer, error) {
	const each, piece = 100 * time.Millisecond, 32 << 10
	c.take = func(r io.Reader) ([]byte, error) {
		tick := time.NewTicker(each)
		defer tick.Stop()
		var body bytes.Buffer
		for {
			<-tick.C
			if _, err := io.CopyN(&body, r, piece); err == io.EOF {
				return body.Bytes(), nil
			} else if err != nil {
				return nil, err
			}
		}
	}
	a, err := c.do(http.MethodGet, "/api/v1/students/export?lastName=Archive", nil)
	if rows := bytes.Count(a.Body, []byte("\n")) - 1; err == nil && a.Status == http.StatusOK && rows != archived {
		err = fmt.Errorf("%d of %d rows", rows, archived)
	}
	return a, err
}

// changeProfile gives the school another telephone number, and checks that it still has the one before.
func changeProfile() func(*caller, int, int) (answer, error) {
	written := ""
	return func(c *caller, _, n int) (answer, error) {
		const path = "/api/v1/configurations/school-profile"
		a, err := c.do(http.MethodGet, path, nil)
		if err != nil || a.Status != http.StatusOK {
			return a, err
		}
		var profile struct{ Phone string }
		if err := json.Unmarshal(a.Body, &profile); err != nil {
			return a, err
		}
		if written != "" && profile.Phone != written {
			return a, fmt.Errorf("the telephone number is %s, and %s was written", profile.Phone, written)
		}
		next := strconv.Itoa(100_000 + n)
		body := fmt.Sprintf(`{"schoolName":"Lake View School","schoolCode":"LVS-01","phone":%q}`, next)
		a, err = c.do(http.MethodPut, path, strings.NewReader(body), "Content-Type", "application/json", "If-Match", a.Header.Get("ETag"))
		if err == nil && a.Status == http.StatusOK {
			written = next
		}
		return a, err
	}
}
