package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// callTimeout is above all that a request may take.
const callTimeout = 40 * time.Second

// caller is one client with one connection, which it keeps unless it is told that it closes. Unlike Go's own client it repeats
// nothing by itself, and does not look whether the connection was closed: what a server cuts off is seen.
type caller struct {
	address, token string
	fresh          bool                            // a new connection for every request
	take           func(io.Reader) ([]byte, error) // how a body is read; nil: at once
	ctx            context.Context                 // its end ends what is under way
	conn           net.Conn
	cut            func() bool // keeps the end of ctx from closing conn
	reader         *bufio.Reader
}

func (c *caller) close() {
	if c.conn != nil {
		c.cut()
		c.conn.Close()
	}
	c.conn = nil
}

// do sends a request and reads its answer whole. header is name, value, name, value….
func (c *caller) do(method, path string, body io.Reader, header ...string) (answer, error) {
	req, err := http.NewRequest(method, "http://"+c.address+path, body)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Close = c.fresh
	kept := c.conn != nil
	if !kept {
		conn, err := (&net.Dialer{Timeout: callTimeout}).DialContext(c.ctx, "tcp", c.address)
		if err != nil {
			return answer{}, fmt.Errorf("connect: %w", err)
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
		c.cut = context.AfterFunc(c.ctx, func() { conn.Close() })
	}
	a, closes, err := c.exchange(req)
	if err != nil || closes {
		c.close()
	}
	if err != nil && kept {
		err = fmt.Errorf("on a kept connection: %w", err)
	}
	return a, err
}

func (c *caller) exchange(req *http.Request) (a answer, closes bool, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return a, true, err
	}
	if err := req.Write(c.conn); err != nil {
		return a, true, fmt.Errorf("send: %w", err)
	}
	res, err := http.ReadResponse(c.reader, req)
	if err != nil {
		return a, true, fmt.Errorf("receive: %w", err)
	}
	defer res.Body.Close()
	take := io.ReadAll
	if c.take != nil {
		take = c.take
	}
	body, err := take(res.Body)
	if err != nil {
		return a, true, fmt.Errorf("receive the body: %w", err)
	}
	return answer{res.StatusCode, res.Header, body}, res.Close || c.fresh, nil
}

// kind is one sort of request of a school's day.
type kind struct {
	name    string
	clients int
	pause   time.Duration // between the beginnings of two requests of a client
	fresh   bool
	repeats bool // the request is idempotent by its method (RFC 9110, section 9.2.2)
	send    func(c *caller, client, n int) (answer, error)
	want    []int
}

// tally is what has become of the requests of a kind.
type tally struct {
	sent, failed int
	slowest      time.Duration
}

// traffic sends requests of all kinds until it is stopped, and counts those that fail.
type traffic struct {
	kinds []kind
	ctx   context.Context
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu       sync.Mutex
	began    time.Time
	tallies  map[string]*tally
	failures []string
	made     []string // the ids of the students that were registered
}

// startTraffic sends requests to the production gateway.
func startTraffic(p *platform, kinds []kind) *traffic {
	t := &traffic{kinds: kinds, began: time.Now(), tallies: map[string]*tally{}}
	t.ctx, t.stop = context.WithCancel(context.Background())
	address, token := strings.TrimPrefix(p.status.URLs["gateway"], "http://"), p.token()
	for _, k := range t.kinds {
		t.tallies[k.name] = &tally{}
		for client := range k.clients {
			t.done.Go(func() { t.run(k, client, &caller{address: address, token: token, fresh: k.fresh, ctx: t.ctx}) })
		}
	}
	return t
}

func (t *traffic) run(k kind, client int, c *caller) {
	defer c.close()
	next := time.NewTimer(rand.N(k.pause)) // so that clients do not come in step
	defer next.Stop()
	for n := 0; ; n++ {
		select {
		case <-next.C:
		case <-t.ctx.Done():
			return
		}
		began := time.Now()
		a, err := k.send(c, client, n)
		if t.ctx.Err() != nil {
			return // it may have been broken off by us
		}
		t.count(k, began, a, err)
		next.Reset(k.pause - min(time.Since(began), k.pause))
	}
}

func (t *traffic) count(k kind, began time.Time, a answer, err error) {
	took := time.Since(began)
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.tallies[k.name]
	of.sent++
	of.slowest = max(of.slowest, took)
	if err == nil && slices.Contains(k.want, a.Status) {
		var made struct{ StudentID string }
		if a.Status == http.StatusCreated && json.Unmarshal(a.Body, &made) == nil && made.StudentID != "" {
			t.made = append(t.made, made.StudentID)
		}
		return
	}
	of.failed++
	cause := fmt.Sprint(err)
	if err == nil {
		cause = fmt.Sprintf("%d %.300s", a.Status, bytes.TrimSpace(a.Body))
	}
	t.failures = append(t.failures, fmt.Sprintf("%s %s, after %d ms: %s", began.Format("15:04:05.000"), k.name, took.Milliseconds(), cause))
}

// reset begins a new count, and returns the one until now: all kinds together, those that are idempotent, and every failure.
func (t *traffic) reset() (table string, all, idempotent tally, failures []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REQUESTS\tSENT\tFAILED\tSLOWEST ms")
	for _, k := range t.kinds {
		of := t.tallies[k.name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", k.name, of.sent, of.failed, of.slowest.Milliseconds())
		all.sent, all.failed, all.slowest = all.sent+of.sent, all.failed+of.failed, max(all.slowest, of.slowest)
		if k.repeats {
			idempotent.sent, idempotent.failed = idempotent.sent+of.sent, idempotent.failed+of.failed
		}
		t.tallies[k.name] = &tally{}
	}
	fmt.Fprintf(w, "all\t%d\t%d\t%d\n", all.sent, all.failed, all.slowest.Milliseconds())
	w.Flush()
	fmt.Fprintf(&b, "%.0f requests a second", float64(all.sent)/time.Since(t.began).Seconds())
	failures, t.failures, t.began = t.failures, nil, time.Now()
	return b.String(), all, idempotent, failures
}

// sent is how many requests have been answered, or have failed, in the present count.
func (t *traffic) sent() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, of := range t.tallies {
		n += of.sent
	}
	return n
}

// end stops the traffic, and breaks off what is under way.
func (t *traffic) end() {
	t.stop()
	t.done.Wait()
}

// schoolDay is about 200 requests a second: most on kept connections, some after a pause, some on new ones, some that take long.
func schoolDay(studentPath string) []kind {
	get := func(path string) func(*caller, int, int) (answer, error) {
		return func(c *caller, _, _ int) (answer, error) { return c.do(http.MethodGet, path, nil) }
	}
	create := func(series int) func(*caller, int, int) (answer, error) {
		return func(c *caller, client, n int) (answer, error) {
			mobile := fmt.Sprintf("7%02d%02d%05d", series, client, n)
			body, err := json.Marshal(student(mobile))
			if err != nil {
				return answer{}, err
			}
			return c.do(http.MethodPost, "/api/v1/students", bytes.NewReader(body), "Content-Type", "application/json", "Idempotency-Key", mobile)
		}
	}
	const tenth, long = 100 * time.Millisecond, 3 * time.Second
	ok, created := []int{http.StatusOK}, []int{http.StatusCreated}
	return []kind{
		{"read a student, kept connection", 10, tenth, false, true, get(studentPath), ok},
		{"read a student, new connection", 4, tenth, true, true, get(studentPath), ok},
		{"read a student, every 3 s on a kept connection", 15, long, false, true, get(studentPath), ok},
		{"register a student, kept connection", 2, tenth, false, false, create(1), created},
		{"register a student, new connection", 1, tenth, true, false, create(2), created},
		{"register a student, every 3 s on a kept connection", 6, long, false, false, create(3), created},
		{"read settings, kept connection", 2, tenth, false, true, get("/api/v1/configurations/settings"), ok},
		{"list rollouts, kept connection", 1, tenth, false, true, get("/api/v1/ops/rollouts"), ok},
		{"wait 5 s for new settings", 2, tenth, false, true, waitForSettings, ok},
		{"check a file that comes over 5 s", 3, tenth, false, false, trickle, created},
	}
}

// waitForSettings is a long poll: it is held until the settings are newer than those that there are.
func waitForSettings(c *caller, _, _ int) (answer, error) {
	const path = "/api/v1/configurations/settings"
	a, err := c.do(http.MethodGet, path, nil)
	if err != nil || a.Status != http.StatusOK {
		return a, err
	}
	var now struct{ Version int64 }
	if err := json.Unmarshal(a.Body, &now); err != nil {
		return a, err
	}
	return c.do(http.MethodGet, fmt.Sprintf("%s?waitForVersion=%d", path, now.Version), nil)
}

// studentColumns is the first line of a file of students.
const studentColumns = "firstName,lastName,dateOfBirth,street,city,state,pinCode,country,mobile,fatherNameOrGuardian,motherName,caste\n"

func studentRow(lastName, mobile string) string {
	return fmt.Sprintf("Asha,%s,%s,12 MG Road,Pune,Maharashtra,411001,India,%s,Ravi Verma,Sunita Verma,General\n", lastName,
		time.Now().AddDate(-10, 0, 0).Format(time.DateOnly), mobile)
}

// trickle sends a file of students row by row over 5 s.
func trickle(c *caller, client, n int) (answer, error) {
	const rows, each = 50, 100 * time.Millisecond
	body, file := io.Pipe()
	defer body.Close()
	go func() {
		tick := time.NewTicker(each)
		defer tick.Stop()
		_, err := io.WriteString(file, studentColumns)
		for row := 0; row < rows && err == nil; row++ {
			<-tick.C
			_, err = io.WriteString(file, studentRow("Verma", fmt.Sprintf("6%02d%02d%05d", client, row, n)))
		}
		file.Close()
	}()
	return c.do(http.MethodPost, "/api/v1/students/imports?dryRun=true", body, "Content-Type", "text/csv")
}
