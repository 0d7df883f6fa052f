package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/standalone"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/internal/target/process"
	"github.com/school-sms/sms/internal/temporalclient"
	flow "github.com/school-sms/sms/workflows/rollout"
)

const (
	// crowd is how many rollouts of dummy services run at once, crowds how often that is done.
	crowd  = 100
	crowds = 10
	// soak of every weight.
	soak = time.Second
)

// BenchmarkRollout measures what rollouts cost beyond soaks and the start of instances: one after the other of a real service, then a
// thousand of dummy services, a hundred at once, and what the worker holds meanwhile.
func BenchmarkRollout(b *testing.B) {
	for b.Loop() {
		p := startPlatform(b)
		var alone overheads
		var lags []time.Duration
		for i := range runs {
			done, late := p.roll(b, fmt.Sprintf("run %d", i))
			alone.add(done)
			lags = append(lags, late...)
		}
		alone.report(b, "alone")
		fmt.Printf("%-34s %9.2f s p50 %9.2f s most, of %d steps\n", "sms rollout watch is late by", percentile(lags, 50).Seconds(), slices.Max(lags).Seconds(), len(lags))
		b.ReportMetric(slices.Max(lags).Seconds(), "watch-lag-s")

		d := p.startDummies(b)
		var together overheads
		var resident []float64
		began := time.Now()
		for i := range crowds {
			together.add(d.roll(b, i)...)
			resident = append(resident, resident1(d.worker))
		}
		fmt.Printf("%-34s %9.1f s, worker holds %.0f MB after the first %d and %.0f MB after all\n", fmt.Sprintf("%d rollouts, %d at once", crowd*crowds, crowd),
			time.Since(began).Seconds(), resident[0], crowd, resident[len(resident)-1])
		together.report(b, "together")
		b.ReportMetric(resident[len(resident)-1]/resident[0], "memory-ratio")
	}
}

// overheads are what steps took beyond what they were told to take.
type overheads map[string][]time.Duration

func (o *overheads) add(operations ...ops.Operation) {
	if *o == nil {
		*o = overheads{}
	}
	for _, operation := range operations {
		for _, step := range operation.Steps {
			took := step.EndedAt.Sub(step.StartedAt)
			kind, _, _ := strings.Cut(step.Name, " ")
			switch kind {
			case "Start": // start-up
				continue
			case "Give":
				took -= soak
			}
			(*o)[kind] = append((*o)[kind], took)
		}
	}
}

func (o overheads) report(b *testing.B, how string) {
	var all []time.Duration
	for kind, of := range o {
		all = append(all, of...)
		fmt.Printf("%-34s %9.2f s p50 %9.2f s p95\n", how+", step "+kind+" …", percentile(of, 50).Seconds(), percentile(of, 95).Seconds())
	}
	fmt.Printf("%-34s %9.2f s p50 %9.2f s p95, of %d steps\n", how+", every step", percentile(all, 50).Seconds(), percentile(all, 95).Seconds(), len(all))
	b.ReportMetric(percentile(all, 95).Seconds(), how+"-p95-s")
}

// rolledPlatform is a platform that runs for as long as the benchmark.
type rolledPlatform struct {
	dir    string
	pid    int
	status standalone.Status
}

func startPlatform(b *testing.B) *rolledPlatform {
	b.Helper()
	dir, err := os.MkdirTemp("", "sms-bench-")
	check(b, err)
	check(b, os.Chmod(dir, 0o711))
	args := []string{"up", "--data-dir", dir}
	for _, port := range []string{"GATEWAY", "STAGING_GATEWAY", "STUDENT", "CONFIGURATION", "OPS", "WORKER", "REGISTRY", "TEMPORAL", "TEMPORAL_UI", "POSTGRES", "POSTGRES_REPLICA"} {
		args = append(args, "--set", "SMS_"+port+"_PORT=0")
	}
	cmd := exec.Command("../bin/sms", args...)
	out, err := cmd.StdoutPipe()
	check(b, err)
	check(b, child.Start(cmd, syscall.SIGTERM))
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "all healthy") {
	}
	go io.Copy(io.Discard, out)
	p := &rolledPlatform{dir: dir, pid: cmd.Process.Pid}
	p.status, err = standalone.Dial(standalone.Layout{Root: dir}.Socket()).PlatformStatus(b.Context())
	check(b, err)
	return p
}

// roll replaces the student service of staging by a copy of itself that is another release. lags are how long after the end of each step a
// watcher was told of it.
func (p *rolledPlatform) roll(b *testing.B, mark string) (done ops.Operation, lags []time.Duration) {
	b.Helper()
	content, err := os.ReadFile("../bin/student-service")
	check(b, err)
	release := filepath.Join(b.TempDir(), "student-service")
	check(b, os.WriteFile(release, append(content, mark...), 0o700))
	var begun ops.Operation
	p.sms(b, &begun, "start", "student-service="+release, "--env", "staging", "--soak", soak.String(), "--min-requests", "10")

	watch := exec.Command("../bin/sms", "--data-dir", p.dir, "rollout", "watch", begun.ID)
	out, err := watch.StdoutPipe()
	check(b, err)
	watch.Stderr = watch.Stdout
	check(b, watch.Start())
	shown := map[string]time.Time{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		name, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "✔ "), " (")
		shown[name] = time.Now()
	}
	check(b, watch.Wait())
	p.sms(b, &done, "show", begun.ID)
	for _, step := range done.Steps {
		at, ok := shown[step.Name]
		if !ok {
			b.Fatalf("%q was not shown", step.Name)
		}
		lags = append(lags, at.Sub(*step.EndedAt))
	}
	return done, lags
}

// sms runs a command about rollouts, and decodes what it prints.
func (p *rolledPlatform) sms(b *testing.B, into any, args ...string) {
	b.Helper()
	out, err := exec.Command("../bin/sms", append([]string{"--data-dir", p.dir, "-o", "json", "rollout"}, args...)...).Output()
	check(b, err)
	check(b, json.Unmarshal(out, into))
}

// dummies are services that only a target and the registry know, and a worker that rolls them out.
type dummies struct {
	*rolledPlatform
	client client.Client
	worker int

	registry discovery.Config
	host     string
	port     int
	mu       sync.Mutex
	services map[string]*dummy
}

type dummy struct {
	tracks map[string]target.Deployment
	fence  int64
	// instances by release.
	instances map[string]*discovery.Registrar
}

// startDummies starts a second worker like the platform's own, on another target and in a namespace of its own.
func (p *rolledPlatform) startDummies(b *testing.B) *dummies {
	b.Helper()
	d := &dummies{rolledPlatform: p, services: map[string]*dummy{}}
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "process_resident_memory_bytes 1e7\nprocess_start_time_seconds 1")
	}))
	b.Cleanup(instance.Close)
	at, err := url.Parse(instance.URL)
	check(b, err)
	d.host = at.Hostname()
	d.port, err = strconv.Atoi(at.Port())
	check(b, err)

	i := slices.IndexFunc(p.status.Processes, func(s standalone.ProcessStatus) bool { return s.Name == "ops-worker" })
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.status.Processes[i].PID))
	check(b, err)
	socket := filepath.Join(b.TempDir(), "target.sock")
	const namespace = "dummies"
	env := map[string]string{"TARGET_SOCKET": socket, "TEMPORAL_NAMESPACE": namespace, "SERVER_ADDRESS": "127.0.0.1:0", "SERVER_LISTEN_FD": "", "SERVER_SHARED_FD": "",
		child.NotifySocket: ""}
	var settings []string
	for _, item := range strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00") {
		name, value, _ := strings.Cut(item, "=")
		if given, ours := env[name]; !ours {
			settings = append(settings, item)
		} else if value = given; value != "" {
			settings = append(settings, name+"="+value)
		}
		switch name {
		case "DISCOVERY_URL":
			d.registry.URL = value
		case "TEMPORAL_ADDRESS":
			d.client, err = temporalclient.New(temporalclient.Config{Address: value, Namespace: namespace}, slog.New(slog.DiscardHandler))
			check(b, err)
		}
	}
	settings = append(settings, "SERVER_ADDRESS=127.0.0.1:0")
	b.Cleanup(d.client.Close)
	d.registry.RenewInterval, d.registry.LeaseDuration, d.registry.Timeout = 30*time.Second, 90*time.Second, 3*time.Second
	_, err = d.client.WorkflowService().RegisterNamespace(b.Context(), &workflowservice.RegisterNamespaceRequest{Namespace: namespace,
		WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour)})
	check(b, err)

	listener, err := net.Listen("unix", socket)
	check(b, err)
	go http.Serve(listener, process.Handler(d))
	b.Cleanup(func() { listener.Close() })
	worker := exec.Command("../bin/ops-worker")
	worker.Env = settings
	var log bytes.Buffer
	worker.Stderr, worker.Stdout = &log, &log
	check(b, child.Start(worker, syscall.SIGKILL))
	d.worker = worker.Process.Pid
	b.Cleanup(func() {
		_ = worker.Process.Kill()
		_ = worker.Wait()
		if b.Failed() {
			b.Log(log.String())
		}
	})
	return d
}

// roll replaces every dummy service at once, and returns the records.
func (d *dummies) roll(b *testing.B, round int) []ops.Operation {
	b.Helper()
	done := make([]ops.Operation, crowd)
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() { done[i] = d.rollOne(b, fmt.Sprintf("dummy-%d", i), round) })
	}
	all.Wait()
	return done
}

func (d *dummies) rollOne(b *testing.B, service string, round int) (done ops.Operation) {
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	run, err := d.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: rollout.WorkflowID("production", service), TaskQueue: temporalclient.TaskQueue},
		flow.Rollout, rollout.Request{Environment: "production", Service: service, Release: digestOf(service, round+1), RequestedBy: "bench", Soak: soak,
			Rules: []rollout.Rule{}, Unproven: "a dummy"})
	if err == nil {
		err = run.Get(ctx, nil)
	}
	if err != nil {
		b.Errorf("%s: %v", service, err)
		return done
	}
	value, err := d.client.QueryWorkflow(ctx, run.GetID(), run.GetRunID(), "status")
	var record operation.Record
	if err == nil {
		err = value.Get(&record)
	}
	var result operation.Result
	if err == nil {
		err = json.Unmarshal(record.Result, &result)
	}
	if err != nil {
		b.Errorf("%s: %v", service, err)
	}
	for _, step := range result.Steps {
		done.Steps = append(done.Steps, ops.Step(step))
	}
	return done
}

func digestOf(service string, round int) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(service, round)))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// of is called with mu held.
func (d *dummies) of(environment, service string) (*dummy, error) {
	if environment != "production" || !strings.HasPrefix(service, "dummy-") {
		return nil, fmt.Errorf("%w: %s", target.ErrNotFound, service)
	}
	if d.services[service] == nil {
		first := digestOf(service, 0)
		d.services[service] = &dummy{instances: map[string]*discovery.Registrar{}, tracks: map[string]target.Deployment{
			target.Stable: {Environment: environment, Service: service, Track: target.Stable, Release: first, Replicas: 1}}}
		d.converge(service, d.services[service])
	}
	return d.services[service], nil
}

// converge registers what should run and nothing else.
func (d *dummies) converge(service string, s *dummy) {
	wanted := map[string]bool{}
	for _, track := range s.tracks {
		wanted[track.Release] = true
		if s.instances[track.Release] == nil {
			instance := discovery.Instance{App: service, ID: service + track.Release[len("sha256:"):][:12], Host: d.host, Port: d.port, Release: track.Release}
			s.instances[track.Release] = discovery.NewRegistrar(d.registry, instance, slog.New(slog.DiscardHandler))
			s.instances[track.Release].Start()
		}
	}
	for release, registrar := range s.instances {
		if !wanted[release] {
			delete(s.instances, release)
			go registrar.Stop(context.Background())
		}
	}
}

func (d *dummies) write(environment, service string, fence int64, change func(*dummy)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.of(environment, service)
	if err != nil {
		return err
	}
	if fence <= s.fence {
		return target.ErrFenced
	}
	s.fence = fence
	change(s)
	d.converge(service, s)
	return nil
}

func (d *dummies) Import(_ context.Context, _, ref string) (target.Release, error) {
	return target.Release{Digest: ref}, nil
}

func (d *dummies) Ensure(_ context.Context, wanted target.Deployment) error {
	return d.write(wanted.Environment, wanted.Service, wanted.Fence, func(s *dummy) { s.tracks[wanted.Track] = wanted })
}

func (d *dummies) Remove(_ context.Context, environment, service, track string, fence int64) error {
	return d.write(environment, service, fence, func(s *dummy) { delete(s.tracks, track) })
}

func (d *dummies) Status(_ context.Context, environment, service string) (target.Observed, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.of(environment, service)
	if err != nil {
		return target.Observed{}, err
	}
	observed := target.Observed{Tracks: map[string]target.Deployment{}}
	for name, track := range s.tracks {
		observed.Tracks[name] = track
	}
	for release := range s.instances {
		observed.Instances = append(observed.Instances, target.Instance{Name: service + "-" + release[len("sha256:"):][:12], Release: release, Ready: true})
	}
	return observed, nil
}

func (d *dummies) Migrations(context.Context, string, string, string) (migration.Plan, error) {
	return migration.Plan{}, nil // they have no database
}

func (d *dummies) Migrate(context.Context, target.Migration) (migration.Plan, error) {
	return migration.Plan{}, nil
}

func resident1(pid int) float64 {
	rss, _ := memory(pid)
	return rss
}
