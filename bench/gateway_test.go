package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

// BenchmarkGateway measures what the gateway costs, with token check, metrics, request ids and access log, against nginx and Caddy
// as Debian packages them, before the same services: one that answers a kilobyte, and the student service.
func BenchmarkGateway(b *testing.B) {
	g := startGateway(b)
	for b.Loop() {
		for _, connections := range []int{16, 64} {
			name := "1KB-" + strconv.Itoa(connections)
			get := func(address string) measure {
				return measure{run: func() float64 { return g.kilobyte(b, address, connections, 0).perSecond }}
			}
			perSecond := against(b, name, "/s", get(g.gateway).run, measure{"nginx", get(g.nginx).run}, measure{"nginx-no-log", get(g.quietNginx).run},
				measure{"caddy", get(g.caddy).run}, measure{"direct", get(g.upstream).run})
			half := int(perSecond[0] / 2)
			p99 := func(address string) func() float64 {
				return func() float64 { return milliseconds(g.kilobyte(b, address, connections, half).p99) }
			}
			against(b, name+"-p99-half-load", "ms", p99(g.gateway), measure{"nginx", p99(g.nginx)}, measure{"caddy", p99(g.caddy)},
				measure{"direct", p99(g.upstream)})

			student := func(address string) func() float64 {
				return func() float64 { return g.student(b, address, connections).perSecond }
			}
			against(b, "student-"+strconv.Itoa(connections), "/s", student(g.gateway), measure{"nginx", student(g.studentNginx)},
				measure{"direct", student(g.address)})
		}
	}
	rss, _ := memory(g.gatewayPID)
	b.ReportMetric(rss, "RSS-MB")
}

// gatewayBench is a gateway with its registry and services, and the peers before the same services. The values are addresses.
type gatewayBench struct {
	studentService
	upstream, gateway, nginx, quietNginx, studentNginx, caddy string
	gatewayPID                                                int
}

func startGateway(b *testing.B) *gatewayBench {
	b.Helper()
	g := &gatewayBench{}
	g.startDatabase(b)
	keys := newKeys(b)
	g.token = keys.token
	service := func(program string, env ...string) (string, int) {
		address, pid, end := run(b, program, append(env, "IDENTITY_PUBLIC_KEY_FILE="+keys.file)...)
		b.Cleanup(end)
		return address, pid
	}
	registry, _ := service("../bin/eureka-server", databaseEnv(b, createDatabase(b, g.Cluster, "registry_db"))...)
	find := "DISCOVERY_URL=http://" + registry + "/eureka"
	g.address, g.pid = service("../bin/student-service", append(databaseEnv(b, g.database), find)...)

	upstream := filepath.Join(b.TempDir(), "upstream")
	build := exec.Command("go", "build", "-o", upstream, "./upstream")
	build.Stderr = os.Stderr
	check(b, build.Run())
	g.upstream, _ = service(upstream)
	g.register(b, find, "configuration-service")
	// The limit of a user is counted, but beyond what is measured.
	g.gateway, g.gatewayPID = service("../bin/api-gateway", find, "GATEWAY_USER_RATE=1000000", "GATEWAY_USER_BURST=1000000")
	g.nginx = startNginx(b, g.upstream, true)
	g.quietNginx = startNginx(b, g.upstream, false)
	g.studentNginx = startNginx(b, g.address, true)
	g.caddy = startCaddy(b, g.upstream)
	g.awaitRoute(b)
	return g
}

// register puts the upstream into the registry, with a lease that outlives the measurement.
func (g *gatewayBench) register(b *testing.B, find, app string) {
	b.Helper()
	host, port, _ := strings.Cut(g.upstream, ":")
	number, err := strconv.Atoi(port)
	check(b, err)
	registrar := discovery.NewRegistrar(discovery.Config{URL: strings.TrimPrefix(find, "DISCOVERY_URL="), RenewInterval: 4 * time.Minute,
		LeaseDuration: 10 * time.Minute, Timeout: 3 * time.Second, Wait: time.Second},
		discovery.Instance{App: app, Host: host, Port: number, Release: "sha256:bench"}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	registrar.Start()
	b.Cleanup(func() { _ = registrar.Stop(context.Background()) })
	<-registrar.Registered()
}

// awaitRoute waits until the gateway answers for both services.
func (g *gatewayBench) awaitRoute(b *testing.B) {
	b.Helper()
	for _, path := range []string{kilobytePath, fmt.Sprintf("/api/v1/students/STU-2026-%d", firstStudent)} {
		for deadline := time.Now().Add(10 * time.Second); ; {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+g.gateway+path, nil)
			check(b, err)
			req.Header.Set("Authorization", "Bearer "+g.token)
			answer, err := http.DefaultClient.Do(req)
			check(b, err)
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
			if time.Now().After(deadline) {
				b.Fatalf("the gateway answers %d for %s: %s", answer.StatusCode, path, body)
			}
		}
	}
}

const kilobytePath = "/api/v1/configurations/school-profile"

func (g *gatewayBench) kilobyte(b *testing.B, address string, connections, rate int) load {
	b.Helper()
	text := request(http.MethodGet, kilobytePath, g.token, "")
	got, err := generator{address: address, connections: connections, duration: short(), rate: rate, status: http.StatusOK,
		next: func() ([]byte, []byte) { return text, []byte(`{"schoolName":"aaaa`) }}.run()
	check(b, err)
	return got
}

func (g *gatewayBench) student(b *testing.B, address string, connections int) load {
	b.Helper()
	s := g.studentService
	s.address = address
	return s.read(b, connections, 0)
}

// startNginx puts nginx before a service, with keep-alive on both sides, and its access log as the package has it or none.
func startNginx(b *testing.B, upstream string, log bool) (address string) {
	b.Helper()
	access := "off"
	if log {
		access = "access.log"
	}
	return startPeer(b, "nginx", "nginx.conf", func(dir, address string) string {
		return fmt.Sprintf(`daemon off; worker_processes auto; pid nginx.pid; error_log error.log;
events { worker_connections 1024; }
http {
  access_log %s; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 100000000;
  upstream service { server %s; keepalive 256; keepalive_requests 100000000; }
  server {
    listen %s;
    location / { proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`, access, upstream, address)
	}, func(dir, conf string) []string { return []string{"-p", dir, "-e", "error.log", "-c", conf} })
}

// startCaddy puts Caddy before a service, without an access log, as the package has it.
func startCaddy(b *testing.B, upstream string) (address string) {
	b.Helper()
	return startPeer(b, "caddy", "Caddyfile", func(_, address string) string {
		return fmt.Sprintf(`{
	admin off
	auto_https off
}
http://:%s {
	bind 127.0.0.1
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host 256
		}
	}
}
`, address[strings.LastIndex(address, ":")+1:], upstream)
	}, func(_, conf string) []string { return []string{"run", "--adapter", "caddyfile", "--config", conf} })
}

// startPeer runs a proxy with a configuration file in a directory of its own until it answers.
func startPeer(b *testing.B, program, file string, configuration func(dir, address string) string, args func(dir, conf string) []string) string {
	b.Helper()
	path, err := filepath.Abs("../bin/" + program)
	check(b, err)
	if _, err := os.Stat(path); err != nil {
		b.Fatalf("%s is missing: run bench/install", program)
	}
	dir := b.TempDir()
	port, err := pgtest.FreePort()
	check(b, err)
	address := "127.0.0.1:" + strconv.Itoa(port)
	conf := filepath.Join(dir, file)
	check(b, os.WriteFile(conf, []byte(configuration(dir, address)), 0o600))
	cmd := exec.Command(path, args(dir, conf)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	check(b, child.Start(cmd, syscall.SIGKILL))
	b.Cleanup(func() { stop(cmd, syscall.SIGTERM) })
	awaitAnswer(b, "http://"+address+"/actuator/health/readiness", conf)
	return address
}
