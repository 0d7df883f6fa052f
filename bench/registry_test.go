package bench

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/migrations"
)

// registered is how many instances the registry holds, in so many applications.
const (
	registered   = 10_000
	applications = 100
)

// registryServer is a registry process on a PostgreSQL server of its own.
type registryServer struct {
	address string
	pid     int
}

// BenchmarkRegistry measures the registry with 10,000 instances: full and delta fetches, heartbeats, and its memory.
func BenchmarkRegistry(b *testing.B) {
	for b.Loop() {
		s := startRegistry(b)
		began := time.Now()
		s.register(b)
		fmt.Printf("%-34s %9.1f s\n", "register 10,000 instances", time.Since(began).Seconds())
		for _, f := range []struct{ name, path, accept, encoding string }{
			{"full fetch, JSON", "/eureka/apps", "application/json", "identity"},
			{"full fetch, JSON, gzip", "/eureka/apps", "application/json", "gzip"},
			{"full fetch, XML", "/eureka/apps", "application/xml", "identity"},
			{"full fetch, XML, gzip", "/eureka/apps", "application/xml", "gzip"},
			{"watch, full snapshot", "/registry/v1/snapshot", "application/json", "identity"},
		} {
			s.fetches(b, f.name, f.path, f.accept, f.encoding)
		}
		s.heartbeats(b)
		s.change(b)
		s.fetches(b, "delta of 100 changes, JSON", "/eureka/apps/delta", "application/json", "identity")
		s.fetches(b, "delta of 100 changes, JSON, gzip", "/eureka/apps/delta", "application/json", "gzip")
		fmt.Printf("%-34s %9d MB, highest %d MB\n", "resident memory", s.memory(b, "VmRSS")>>10, s.memory(b, "VmHWM")>>10)
		b.ReportMetric(float64(s.memory(b, "VmHWM"))/1024, "MB-highest")
	}
}

func startRegistry(b *testing.B) *registryServer {
	b.Helper()
	database := createDatabase(b, startCluster(b), "registry_db")
	_, err := postgres.Migrate(b.Context(), database, migrations.Registry())
	check(b, err)
	// The delta forgets the registrations while the heartbeats run; connections of the generator may wait for their first use.
	address, pid, end := run(b, "../bin/eureka-server", append(databaseEnv(b, database), "REGISTRY_DELTA_RETENTION=20s",
		"SERVER_READ_HEADER_TIMEOUT=5m", "IDENTITY_PUBLIC_KEY_FILE="+newKeys(b).file)...)
	b.Cleanup(end)
	return &registryServer{address, pid}
}

func instancePath(i int) string {
	return fmt.Sprintf("/eureka/apps/SERVICE-%02d/host-%05d:service-%02d:8080", i%applications, i, i%applications)
}

// register adds the instances as real clients describe themselves, from some connections at once.
func (s *registryServer) register(b *testing.B) {
	b.Helper()
	const senders = 16
	now := time.Now().UnixMilli()
	errs := make(chan error, senders)
	for sender := range senders {
		go func() {
			for i := sender; i < registered; i += senders {
				app := fmt.Sprintf("service-%02d", i%applications)
				body := fmt.Sprintf(`{"instance":{"instanceId":"host-%05d:%s:8080","hostName":"10.0.%d.%d","app":"%s","ipAddr":"10.0.%d.%d","status":"UP",`+
					`"port":{"$":8080,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"vipAddress":"%s","secureVipAddress":"%s",`+
					`"homePageUrl":"http://10.0.%d.%d:8080/","statusPageUrl":"http://10.0.%d.%d:8080/actuator/info","healthCheckUrl":"http://10.0.%d.%d:8080/actuator/health",`+
					`"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"lastDirtyTimestamp":"%d",`+
					`"leaseInfo":{"renewalIntervalInSecs":30,"durationInSecs":90},"metadata":{"release":"sha256:%064x","version":"1.2.3","environment":"production"}}}`,
					i, app, i/256, i%256, strings.ToUpper(app), i/256, i%256, app, app, i/256, i%256, i/256, i%256, i/256, i%256, now, i%3)
				if err := s.send(http.MethodPost, "/eureka/apps/"+strings.ToUpper(app), body, http.StatusNoContent); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range senders {
		check(b, <-errs)
	}
}

// change changes some instances, which the delta then tells of.
func (s *registryServer) change(b *testing.B) {
	b.Helper()
	const changes = 100
	for i := range changes {
		check(b, s.send(http.MethodPut, instancePath(i)+"/metadata?zone=b", "", http.StatusOK))
	}
}

func (s *registryServer) send(method, path, body string, status int) error {
	request, err := http.NewRequest(method, "http://"+s.address+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != status {
		return fmt.Errorf("%s %s: status %d", method, path, answer.StatusCode)
	}
	return nil
}

// fetches prints the median time from the request to the last byte. A change before each makes sure that no answer is kept.
func (s *registryServer) fetches(b *testing.B, name, path, accept, encoding string) {
	b.Helper()
	var times []float64
	size := 0
	for i := range runs {
		check(b, s.send(http.MethodPut, instancePath(i)+"/metadata?zone=c", "", http.StatusOK))
		request, err := http.NewRequest(http.MethodGet, "http://"+s.address+path, nil)
		check(b, err)
		request.Header.Set("Accept", accept)
		request.Header.Set("Accept-Encoding", encoding)
		began := time.Now()
		answer, err := http.DefaultClient.Do(request)
		check(b, err)
		body, err := io.ReadAll(answer.Body)
		check(b, err)
		times = append(times, float64(time.Since(began).Microseconds())/1000)
		size = len(body)
		answer.Body.Close()
		if encoding == "gzip" {
			_, err := gzip.NewReader(strings.NewReader(string(body)))
			check(b, err)
		}
	}
	fmt.Printf("%-34s %9.1f ms (first %.1f), %.2f MB\n", name, median(times), times[0], float64(size)/1e6)
	b.ReportMetric(median(times), strings.NewReplacer(",", "", " ", "-").Replace(name)+"-ms")
}

// heartbeats sends 1,000 a second for half a minute and prints what they take.
func (s *registryServer) heartbeats(b *testing.B) {
	b.Helper()
	const rate, lasting = 1000, 32 * time.Second
	var requests [registered][]byte
	for i := range requests {
		requests[i] = []byte("PUT " + instancePath(i) + "?status=UP HTTP/1.1\r\nHost: sms\r\nContent-Length: 0\r\n\r\n")
	}
	n := 0
	before := s.cpu(b)
	began := time.Now()
	got, err := generator{address: s.address, connections: 16, duration: lasting, rate: rate, status: http.StatusOK,
		next: func() (request, holds []byte) { n++; return requests[n%registered], nil }}.run()
	check(b, err) // any other answer than 200 is an error
	share := (s.cpu(b) - before).Seconds() / time.Since(began).Seconds()
	fmt.Printf("%-34s %9.0f a second for %s, p99 %.2f ms, %.0f %% of a core\n", "heartbeats", got.perSecond, lasting,
		float64(got.p99.Microseconds())/1000, 100*share)
	b.ReportMetric(got.perSecond, "heartbeats/s")
	b.ReportMetric(float64(got.p99.Microseconds())/1000, "heartbeat-p99-ms")
}

// memory reads a size of /proc/PID/status in kB.
func (s *registryServer) memory(b *testing.B, field string) int {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	check(b, err)
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, field+":"); found {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			check(b, err)
			return kb
		}
	}
	b.Fatalf("no %s", field)
	return 0
}

// cpu is the time that the registry has worked.
func (s *registryServer) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	check(b, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, err := strconv.Atoi(fields[11])
	check(b, err)
	system, err := strconv.Atoi(fields[12])
	check(b, err)
	const tick = 10 * time.Millisecond // USER_HZ
	return time.Duration(user+system) * tick
}
