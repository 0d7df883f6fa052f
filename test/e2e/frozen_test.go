package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/school-sms/sms/internal/child"
)

// TestFrozenWorkerIsFenced freezes a worker (SIGSTOP) whose write is on its way, until another worker has taken the rollout over and
// ended it. The late write is then refused, and changes nothing.
func TestFrozenWorkerIsFenced(t *testing.T) {
	t.Parallel()
	var target, registry *proxy
	k := newKilling(t, buildAll(t), throughProxy(t, &target), func(string) string {
		registry = newProxy(t, "tcp", "127.0.0.1:0", "")
		return "TEST_DISCOVERY_URL=http://" + registry.address + "/eureka"
	})
	registry.at(fmt.Sprintf("127.0.0.1:%d", k.process("eureka-server").Port))
	k.secondWorker()
	writes := []struct {
		activity, request string
		via               *proxy
	}{
		{"EnsureDeployment", "PUT /v1/deployments", target},
		{"SetTraffic", "PUT /api/v1/registry/splits/", registry},
		{"RemoveTrack", "DELETE /v1/deployments/", target},
	}
	if os.Getenv(rolloutKills) == "" {
		writes = writes[:1]
	}
	for _, w := range writes {
		k.platform.run(t, w.activity, func(t *testing.T, p *platform) {
			r := k.ask(false)
			w.via.holdNext(w.request)
			id := k.start(r)
			write := await(t, operationWithin, w.request, w.via.held)
			frozen := k.last(w.activity).PID
			if frozen == 0 {
				t.Fatalf("no worker has said that it is in %s", w.activity)
			}
			if err := syscall.Kill(frozen, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			end := k.ended("rollouts", id)
			before := k.wanted()
			close(write.deliver)
			answer := await(t, operationWithin, "the answer to the late write", write.answer)
			if !strings.Contains(answer, " 409 ") {
				t.Errorf("the late write was answered: %s", answer)
			}
			if now := k.wanted(); !bytes.Equal(before, now) {
				t.Errorf("the late write has changed something:\n%s\nwas\n%s", now, before)
			}
			if err := syscall.Kill(frozen, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			k.wholly(r, end, k.replicas)
			if end.State != "succeeded" {
				t.Errorf("%s: %s", end.State, end.Summary)
			}
			k.took(end, false)
			t.Logf("worker %d was frozen in %s, and its write refused: %s; the rollout has %s", frozen, w.activity, answer, end.State)
		})
	}
}

// wanted is what should run, as the target has stored it.
func (p *platform) wanted() []byte {
	p.t.Helper()
	content, err := os.ReadFile(filepath.Join(p.dataDir, "desired.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	return content
}

// secondWorker starts another worker like that of the platform.
func (k *killing) secondWorker() {
	t := k.t
	t.Helper()
	first := fmt.Sprintf("/proc/%d/", k.process("ops-worker").PID)
	environ, err := os.ReadFile(first + "environ")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(first + "exe")
	for env := range strings.SplitSeq(string(environ), "\x00") {
		if name, _, _ := strings.Cut(env, "="); !strings.HasSuffix(name, "_FD") && name != child.NotifySocket && name != "" {
			cmd.Env = append(cmd.Env, env)
		}
	}
	cmd.Env = append(cmd.Env, "SERVER_ADDRESS=127.0.0.1:0")
	if err := child.Start(cmd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
