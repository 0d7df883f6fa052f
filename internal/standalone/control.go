package standalone

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	processtarget "github.com/school-sms/sms/internal/target/process"
)

// Status is what `sms status` shows.
type Status struct {
	DataDir   string            `json:"dataDir"`
	PID       int               `json:"pid"`
	Since     time.Time         `json:"since"`
	Healthy   bool              `json:"healthy"`
	URLs      map[string]string `json:"urls"`
	Ports     map[string]int    `json:"ports"`
	Processes []ProcessStatus   `json:"processes"`
}

// control serves the Unix socket: who may open it, which is the account of the services and root, may do everything.
func (p *Platform) control() (*http.Server, net.Listener, error) {
	if err := os.Remove(p.layout.Socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("replace the socket of an earlier start: %w", err)
	}
	l, err := net.Listen("unix", p.layout.Socket())
	if err != nil {
		return nil, nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	if err := errors.Join(os.Chmod(p.layout.Socket(), 0o600), p.layout.share(p.layout.Socket())); err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { processtarget.Answer(w, p.status(), nil) })
	mux.Handle("/v1/", processtarget.Handler(p.fleet))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, l, nil
}

func (p *Platform) status() Status {
	s := Status{DataDir: p.layout.Root, PID: os.Getpid(), Since: p.since, Healthy: p.up.Load(), URLs: p.urls(), Ports: map[string]int{}}
	for _, port := range p.options.ports() {
		s.Ports[port.name] = *port.value
	}
	fixed := map[string]int{"postgres": p.options.PostgresPort, replicaProcess: p.options.PostgresReplicaPort, "temporal-server": p.options.TemporalPort,
		"ops-service": p.options.OpsPort, "ops-worker": p.options.WorkerPort}
	for _, fixedProcess := range p.fixedProcesses() {
		ps := fixedProcess.snapshot()
		ps.Port = fixed[ps.Name]
		s.Processes = append(s.Processes, ps)
	}
	for _, i := range p.fleet.all() {
		ps := i.snapshot()
		ps.Port, ps.Release = int(i.port.Load()), i.release
		s.Processes = append(s.Processes, ps)
	}
	for _, ps := range s.Processes {
		s.Healthy = s.Healthy && (ps.State == Ready || ps.Name == replicaProcess) // reads go to the primary while it is away
	}
	return s
}
