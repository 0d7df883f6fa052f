package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load sends requests of a school's day through the gateway until it is stopped, and counts those that fail: reads on
// kept connections, reads on new connections, and writes.
type load struct {
	t        testing.TB
	sent     atomic.Int64
	mu       sync.Mutex
	failures []string
	stop     chan struct{}
	done     sync.WaitGroup
}

const (
	loadClients = 6
	// Each client pauses this long between requests: about 100 requests a second together.
	loadPause = 50 * time.Millisecond
)

// mobiles counts the mobile numbers that loads have given to students.
var mobiles atomic.Int64

func startLoad(p *platform, studentPath string) *load {
	l := &load{t: p.t, stop: make(chan struct{})}
	gateway, token := p.status.URLs["gateway"], p.token()
	for n := range loadClients {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: n%3 == 1}, Timeout: 30 * time.Second}
		l.done.Go(func() {
			tick := time.NewTicker(loadPause)
			defer tick.Stop()
			for i := 0; ; i++ {
				if n%3 == 2 && i%10 == 0 {
					l.count(client, http.MethodPost, gateway+"/api/v1/students", http.StatusCreated, student(fmt.Sprintf("8%09d", mobiles.Add(1))), token)
				} else {
					l.count(client, http.MethodGet, gateway+studentPath, http.StatusOK, nil, token)
				}
				select {
				case <-tick.C:
				case <-l.stop:
					return
				}
			}
		})
	}
	return l
}

func (l *load) count(client *http.Client, method, url string, want int, body any, token string) {
	a, err := send(client, method, url, body, "Authorization", "Bearer "+token)
	l.sent.Add(1)
	if err == nil && a.Status == want {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, fmt.Sprintf("%s %s: %d %s %v", time.Now().Format("15:04:05.000"), method, a.Status, a.Body, err))
}

// end stops the load and fails the test for every request that failed.
func (l *load) end() { l.t.Helper(); l.endWithin(l.t, 0) }

// endWithin stops the load and fails the test when more than a share of the requests failed.
func (l *load) endWithin(t testing.TB, share float64) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	sent := l.sent.Load()
	if sent < 50 {
		t.Errorf("only %d requests were sent: the load shows nothing", sent)
	}
	if float64(len(l.failures)) > share*float64(sent) {
		t.Errorf("%d of %d requests failed:\n%s", len(l.failures), sent, l.failures[:min(10, len(l.failures))])
	}
	t.Logf("%d requests, %d failed", sent, len(l.failures))
}

// student is a valid body of a new student.
func student(mobile string) map[string]any {
	return map[string]any{
		"firstName": "Asha", "lastName": "Verma", "dateOfBirth": time.Now().AddDate(-10, 0, 0).Format(time.DateOnly),
		"address": map[string]any{"street": "12 MG Road", "city": "Pune", "state": "Maharashtra", "pinCode": "411001", "country": "India"},
		"mobile":  mobile, "fatherNameOrGuardian": "Ravi Verma", "motherName": "Sunita Verma", "caste": "General",
	}
}
