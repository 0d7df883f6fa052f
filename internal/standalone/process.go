package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/school-sms/sms/internal/child"
)

// States of a process.
const (
	Starting   = "starting"
	Ready      = "ready"
	NotReady   = "not ready"
	Restarting = "restarting"
	Stopping   = "stopping"
	Stopped    = "stopped"
)

const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 10 * time.Second
	// steadyAfter is how long a process must have run for its next failure to count as the first again.
	steadyAfter = 30 * time.Second
	// Probes are quick until a process is ready, then slower.
	probeStarting = 100 * time.Millisecond
	probeReady    = 2 * time.Second
	probeTimeout  = 2 * time.Second
)

// spec is how one process is run.
type spec struct {
	name string
	// command makes the next life of the process; release frees what the parent held for it once it has started.
	command func() (cmd *exec.Cmd, release func(), err error)
	// probe fails while the process is not ready.
	probe       func(ctx context.Context) error
	stopSignal  syscall.Signal
	stopTimeout time.Duration
	logFile     string
}

// process keeps one child alive until it is told to stop.
type process struct {
	spec
	changed chan struct{} // closed and replaced at each change of state

	mu       sync.Mutex
	state    string
	pid      int
	restarts int
	failure  string
	since    time.Time

	stop chan struct{}
	once sync.Once
	done chan struct{}
}

func newProcess(s spec) *process {
	return &process{spec: s, state: Starting, since: time.Now(), changed: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
}

func (p *process) start() { go p.run() }

// run starts the child again each time it ends, with a growing pause, until stop.
func (p *process) run() {
	defer close(p.done)
	backoff := firstBackoff
	for {
		began := time.Now()
		err := p.live()
		if p.stopping() {
			p.set(Stopped, 0, "")
			return
		}
		if time.Since(began) > steadyAfter {
			backoff = firstBackoff
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
		p.set(Restarting, 0, err.Error())
		select {
		case <-time.After(backoff):
		case <-p.stop:
			p.set(Stopped, 0, "")
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// live runs the child once. The error says how it ended.
func (p *process) live() error {
	cmd, release, err := p.command()
	if err != nil {
		return err
	}
	log, err := openLog(p.logFile)
	if err != nil {
		release()
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	began, _ := log.Seek(0, io.SeekEnd)
	err = child.Start(cmd, p.stopSignal)
	release()
	log.Close()
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	p.set(Starting, cmd.Process.Pid, p.lastFailure())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	probing, cancel := context.WithCancel(context.Background())
	defer cancel()
	go p.watch(probing, cmd.Process.Pid)
	select {
	case err = <-ended:
	case <-p.stop:
		p.set(Stopping, cmd.Process.Pid, "")
		err = p.end(cmd, ended)
	}
	// What it left behind in its group goes too.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return endedBecause(err, lastWords(p.logFile, began))
}

// end asks the child to stop and kills it when it does not.
func (p *process) end(cmd *exec.Cmd, ended <-chan error) error {
	_ = cmd.Process.Signal(p.stopSignal)
	select {
	case err := <-ended:
		return err
	case <-time.After(p.stopTimeout):
		_ = cmd.Process.Kill()
		return <-ended
	}
}

// watch keeps the state in step with the probe.
func (p *process) watch(ctx context.Context, pid int) {
	wait := probeStarting
	for {
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		err := p.probe(probe)
		cancel()
		if ctx.Err() != nil || p.stopping() {
			return
		}
		p.probed(pid, err)
		if wait = probeReady; err != nil {
			wait = probeStarting
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// probed takes in what a probe of the life with this pid has found.
func (p *process) probed(pid int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.pid != pid: // that life has ended
	case err == nil && p.state != Ready:
		p.change(Ready, pid, "")
	case err != nil && p.state == Ready:
		p.change(NotReady, pid, err.Error())
	}
}

// askToStop begins the stop; done is closed when the child is gone.
func (p *process) askToStop() { p.once.Do(func() { close(p.stop) }) }

func (p *process) stopping() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

func (p *process) set(state string, pid int, failure string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(state, pid, failure)
}

// change is called with mu held.
func (p *process) change(state string, pid int, failure string) {
	if p.state != state {
		p.since = time.Now()
	}
	p.state, p.pid, p.failure = state, pid, failure
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *process) lastFailure() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// waitReady returns when the process is ready; the error says why it is not when ctx ends.
func (p *process) waitReady(ctx context.Context) error {
	for {
		p.mu.Lock()
		state, failure, changed := p.state, p.failure, p.changed
		p.mu.Unlock()
		if state == Ready {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			return fmt.Errorf("%s was stopped", p.name)
		case <-ctx.Done():
			if failure == "" {
				failure = "it runs, but does not report ready"
			}
			return fmt.Errorf("%s is not ready: %s; its log is %s", p.name, failure, p.logFile)
		}
	}
}

// ProcessStatus is what `sms status` shows of one process.
type ProcessStatus struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	PID      int       `json:"pid,omitempty"`
	Port     int       `json:"port,omitempty"`
	Release  string    `json:"release,omitempty"`
	Restarts int       `json:"restarts"`
	Failure  string    `json:"failure,omitempty"`
	Since    time.Time `json:"since"`
}

func (p *process) snapshot() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ProcessStatus{Name: p.name, State: p.state, PID: p.pid, Restarts: p.restarts, Failure: p.failure, Since: p.since.UTC()}
}

func endedBecause(err error, words string) error {
	how := "ended with status 0"
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		how = exit.String()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Exited() {
			how = fmt.Sprintf("ended with status %d", status.ExitStatus())
		}
	} else if err != nil {
		how = err.Error()
	}
	if words != "" {
		how += ": " + words
	}
	return errors.New(how)
}
