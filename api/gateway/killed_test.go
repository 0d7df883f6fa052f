package gateway

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

// instanceKeyVariable makes the test's own program an instance of a service; it holds the public key.
const instanceKeyVariable = "GATEWAY_TEST_INSTANCE_KEY"

func TestMain(m *testing.M) {
	if key := os.Getenv(instanceKeyVariable); key != "" {
		beInstance(key)
		return
	}
	os.Exit(m.Run())
}

// beInstance serves students until the process is killed, or its input ends with the test.
func beInstance(key string) {
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: key})
	if err != nil {
		panic(err)
	}
	cfg := server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", MaxBodyBytes: 1 << 20, BodyIdleTimeout: 20 * time.Second,
		DrainDelay: time.Second, ShutdownTimeout: 10 * time.Second}
	s := server.New(cfg, server.Info{Service: "student-service", Release: "r", Environment: "production"}, verifier, quiet)
	s.Engine.GET("/api/v1/students", func(c *gin.Context) { c.String(http.StatusOK, strings.Repeat("x", 1000)) })
	s.Engine.GET("/api/v1/students/slow", func(c *gin.Context) {
		select {
		case <-time.After(5 * time.Second):
			c.String(http.StatusOK, "slow")
		case <-c.Request.Context().Done():
		}
	})
	if err := s.Start(context.Background()); err != nil {
		panic(err)
	}
	host, port := s.Addr()
	fmt.Printf("%s:%d\n", host, port)
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// process is an instance in a process of its own.
type process struct {
	*exec.Cmd
	discovery.Instance
}

func (p *platform) process(id string) *process {
	p.t.Helper()
	program, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), instanceKeyVariable+"="+p.publicKey)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil { // closed when this process ends, however it does
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	return &process{cmd, instanceAt(id, "r", strings.TrimSpace(line))}
}

// TestKilledInstance kills one of two processes with SIGKILL under more than 200 requests a second, of callers who keep
// their connections, who open a new one each time, and who wait 5 s for their answers: at most one request of a
// thousand may fail. The registry goes on showing the killed one.
func TestKilledInstance(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, realTimes(), "production")
	killed, stays := p.process("killed"), p.process("stays")
	p.set("student-service", nil, killed.Instance, stays.Instance)
	p.await("student-service", 2)

	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var sent, failed, slow atomic.Int64
	answered := make(chan struct{}, 1)
	ask := func(path string, newConnections bool, pause time.Duration, asked *atomic.Int64) {
		c := p.caller("somebody")
		c.http.Transport.(*http.Transport).DisableKeepAlives = newConnections
		callers.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for ctx.Err() == nil {
				got, err := c.get(t.Context(), path)
				asked.Add(1)
				if err != nil || got.status != http.StatusOK {
					failed.Add(1)
					t.Logf("%s failed: %v %d %s", path, err, got.status, got.body)
				}
				select {
				case answered <- struct{}{}:
				default:
				}
				<-tick.C
			}
		})
	}
	for range 8 {
		ask("", false, 25*time.Millisecond, &sent) // 320/s
	}
	for range 2 {
		ask("", true, 25*time.Millisecond, &sent) // 80/s
	}
	for range 10 {
		ask("/slow", false, time.Millisecond, &slow)
	}
	f := p.gateway.fleets["student-service"]
	const slowOnes = 3
	running := func() bool { // so many slow requests run there, among others
		u := f.current.Load().instances[0]
		return u.ID == "killed" && u.outstanding.Load() >= slowOnes && sent.Load() > 400
	}
	for !running() {
		select {
		case <-answered:
		case <-t.Context().Done():
			t.Fatal("the slow requests do not get there")
		}
	}
	if err := killed.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.until("out", func(states map[string]int) bool { return states["unready"] == 1 })
	took := time.Since(began)
	for before := sent.Load(); sent.Load() < before+2_000; {
		<-answered
	}
	cancel()
	callers.Wait()
	all := sent.Load() + slow.Load()
	t.Logf("out after %s; %d requests, %d of them slow, %d failed", took, all, slow.Load(), failed.Load())
	if took > time.Second {
		t.Errorf("it was out after %s", took)
	}
	if failed.Load()*1000 > all {
		t.Errorf("%d of %d requests failed", failed.Load(), all)
	}
}
