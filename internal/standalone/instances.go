package standalone

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/target"
)

const loopback = "127.0.0.1"

// registryService runs in production, for both environments.
const registryService = "eureka-server"

// instance is one process of a release.
type instance struct {
	*process
	environment, service, release string
	number                        int
	port                          atomic.Int32
}

// fleet runs the instances of the services that rollouts act on, so that they are what desired says.
type fleet struct {
	platform *Platform
	desired  *desired

	mu        sync.Mutex
	instances []*instance
	closed    bool
}

var _ target.Target = (*fleet)(nil)

// Import implements target.Target; ref is the path of an executable on this machine.
func (f *fleet) Import(_ context.Context, service, ref string) (target.Release, error) {
	if !filepath.IsAbs(ref) {
		return target.Release{}, fmt.Errorf("%w: %q is not an absolute path", target.ErrNotFound, ref)
	}
	if !slices.Contains(programs, service) {
		return target.Release{}, fmt.Errorf("%w: service %q", target.ErrNotFound, service)
	}
	return f.platform.layout.importRelease(service, ref)
}

// Ensure implements target.Target.
func (f *fleet) Ensure(_ context.Context, d target.Deployment) error {
	if !f.platform.layout.hasRelease(d.Service, d.Release) {
		return fmt.Errorf("%w: release %s of %s was not imported", target.ErrNotFound, d.Release, d.Service)
	}
	if err := f.desired.ensure(d); err != nil {
		return err
	}
	return f.converge(d.Environment, d.Service)
}

// Remove implements target.Target.
func (f *fleet) Remove(_ context.Context, environment, service, track string, fence int64) error {
	if err := f.desired.remove(environment, service, track, fence); err != nil {
		return err
	}
	return f.converge(environment, service)
}

// Status implements target.Target.
func (f *fleet) Status(_ context.Context, environment, service string) (target.Observed, error) {
	tracks, err := f.desired.tracks(environment, service)
	if err != nil {
		return target.Observed{}, err
	}
	observed := target.Observed{Tracks: tracks}
	for _, i := range f.of(environment, service) {
		s := i.snapshot()
		of := target.Instance{Name: i.name, Release: i.release, Ready: s.State == Ready, Restarts: s.Restarts, Failure: cmp.Or(s.Failure, s.Ended)}
		if of.Ready {
			of.Address = address(int(i.port.Load()))
		}
		observed.Instances = append(observed.Instances, of)
	}
	return observed, nil
}

func (f *fleet) of(environment, service string) []*instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	var of []*instance
	for _, i := range f.instances {
		if i.environment == environment && i.service == service {
			of = append(of, i)
		}
	}
	return of
}

func (f *fleet) all() []*instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.instances)
}

// converge starts what is missing and begins to stop what is too much. It does not wait.
func (f *fleet) converge(environment, service string) error {
	tracks, err := f.desired.tracks(environment, service)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errors.New("the platform is stopping")
	}
	want := wanted(tracks)
	for _, i := range slices.Clone(f.instances) {
		if i.environment != environment || i.service != service || i.stopping() {
			continue
		}
		if want[i.release] > 0 {
			want[i.release]--
			continue
		}
		i.askToStop()
		go f.forget(i)
	}
	for release, missing := range want {
		for range missing {
			i := f.newInstance(environment, service, release)
			f.instances = append(f.instances, i)
			i.start()
		}
	}
	return nil
}

func (f *fleet) forget(i *instance) {
	<-i.done
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instances = slices.DeleteFunc(f.instances, func(other *instance) bool { return other == i })
}

// close lets nothing new begin, and returns the instances of the services in all environments.
func (f *fleet) close(services []string) (of []*process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, i := range f.instances {
		if slices.Contains(services, i.service) {
			of = append(of, i.process)
		}
	}
	return of
}

// newInstance is called with mu held.
func (f *fleet) newInstance(environment, service, release string) *instance {
	number := 1
	for slices.ContainsFunc(f.instances, func(i *instance) bool {
		return i.environment == environment && i.service == service && i.number == number
	}) {
		number++
	}
	i := &instance{environment: environment, service: service, release: release, number: number}
	name := fmt.Sprintf("%s/%s-%d", environment, service, number)
	p := f.platform
	i.process = p.httpChild(name, service, &i.port, func() (*exec.Cmd, *net.TCPListener, error) {
		listener, err := p.options.listenPreferring(p.preferredPort(i))
		cmd := p.program(service, release)
		cmd.Env = append(p.serviceEnv(environment, service), "SMS_RELEASE="+release)
		return cmd, listener, err
	}, p.doors[serviceKey(environment, service)])
	return i
}

// httpChild is a process of one of our HTTP services. Each of its lives has a socket of its own, on a port by which it is told from
// the others; what has a door accepts there too, beside its predecessor and its successor. next makes the next life's program
// and own socket; port is where the present one is asked how it is.
func (p *Platform) httpChild(name, service string, port *atomic.Int32, next func() (*exec.Cmd, *net.TCPListener, error), door *net.TCPListener) *process {
	return newProcess(spec{
		name: name, stopSignal: syscall.SIGTERM, hurrySignal: syscall.SIGINT, stopTimeout: p.options.StopTimeout, logFile: p.layout.log(name),
		command: func() (*exec.Cmd, func(), error) {
			given, err := p.layout.serviceSettings(service)
			if err != nil {
				return nil, nil, err
			}
			cmd, listener, err := next()
			if err != nil {
				return nil, nil, err
			}
			port.Store(int32(listener.Addr().(*net.TCPAddr).Port))
			cmd.Env = append(append(given, cmd.Env...), child.NotifySocket+"="+p.layout.notices()) // the last of a name counts: ours
			release, err := handOver(cmd, listener, door)
			if err != nil {
				listener.Close()
				return nil, nil, err
			}
			return cmd, func() { release(); listener.Close() }, nil
		},
		probe: func(ctx context.Context) error { return probeReadiness(ctx, int(port.Load())) },
	})
}

// program runs a release under the account of the services.
func (p *Platform) program(name, digest string) *exec.Cmd {
	cmd := exec.Command(p.layout.releaseProgram(name, digest))
	cmd.Dir = "/"
	if p.layout.services != nil {
		p.layout.services.Credential(cmd)
	}
	return cmd
}

// preferredPort is the well-known port of the first production instance of a service, and 0 for others.
func (p *Platform) preferredPort(i *instance) int {
	if i.environment != Production || i.number != 1 {
		return 0
	}
	switch i.service {
	case "student-service":
		return p.options.StudentPort
	case "configuration-service":
		return p.options.ConfigurationPort
	default:
		return 0
	}
}

// listenPreferring listens on the port, or on a free one while another instance still drains on it.
func (o *Options) listenPreferring(port int) (*net.TCPListener, error) {
	if port != 0 {
		l, err := listenLoopback(port)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
	return o.listenFree(listenLoopback)
}

// listenFree listens on a free port that is none of those that somebody else will listen on: they were free too when they were
// picked.
func (o *Options) listenFree(listen func(port int) (*net.TCPListener, error)) (*net.TCPListener, error) {
	for {
		l, err := listen(0)
		if err != nil || !o.reserves(portOf(l)) {
			return l, err
		}
		defer l.Close() // not before, or it would be picked again
	}
}

func portOf(l *net.TCPListener) int { return l.Addr().(*net.TCPAddr).Port }

func listenLoopback(port int) (*net.TCPListener, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(loopback), Port: port})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// handOver passes sockets to the child: its own, and, unless it is nil, the one that it shares with others. release closes the
// copies made for it.
func handOver(cmd *exec.Cmd, own, shared *net.TCPListener) (release func(), err error) {
	const firstExtraFile = 3
	settings := []string{"SERVER_LISTEN_FD", "SERVER_SHARED_FD"}
	release = func() {
		for _, file := range cmd.ExtraFiles {
			// os/exec has made the socket block, for every process that holds it: the sharers want it as it was.
			_ = syscall.SetNonblock(int(file.Fd()), true)
			file.Close()
		}
	}
	for n, socket := range []*net.TCPListener{own, shared} {
		if socket == nil {
			continue
		}
		file, err := socket.File()
		if err != nil {
			release()
			return nil, fmt.Errorf("hand over a socket: %w", err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", settings[n], firstExtraFile+n))
	}
	return release, nil
}

var probeClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func probeReadiness(ctx context.Context, port int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/actuator/health/readiness", loopback, port), nil)
	if err != nil {
		return err
	}
	res, err := probeClient.Do(req)
	if err != nil {
		return errors.New("it does not answer on its port")
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("its readiness answers %d%s", res.StatusCode, unwell(res.Body))
	}
	return nil
}

// unwell says which components of an answer of a readiness are not up, and what they say of it.
func unwell(body io.Reader) string {
	var health struct {
		Components map[string]struct {
			Status  string
			Details map[string]any
		}
	}
	if json.NewDecoder(io.LimitReader(body, mostSaid)).Decode(&health) != nil {
		return ""
	}
	var all string
	for _, name := range slices.Sorted(maps.Keys(health.Components)) {
		if c := health.Components[name]; c.Status != "UP" {
			all += fmt.Sprintf("; %s is %s", name, c.Status)
			for _, detail := range slices.Sorted(maps.Keys(c.Details)) {
				all += fmt.Sprintf(", %s %v", detail, c.Details[detail])
			}
		}
	}
	return all
}

// childEnv is what every child is given. Nothing else of this process's environment is passed on.
func (p *Platform) childEnv() []string {
	env := []string{supervisedBy + "=" + p.layout.Root, "LOG_LEVEL=" + p.options.LogLevel, "GOMAXPROCS=" + os.Getenv("GOMAXPROCS")}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG", "ZONEINFO"} {
		if value := os.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return slices.DeleteFunc(env, func(e string) bool { return strings.HasSuffix(e, "=") })
}
