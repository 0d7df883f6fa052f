package standalone

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
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
	probe func(ctx context.Context) error
	// stopSignal asks for an orderly stop. hurrySignal, unless 0, says to one who stops that it is the end for all: there is
	// nobody to hand over to.
	stopSignal, hurrySignal syscall.Signal
	stopTimeout             time.Duration
	logFile                 string
}

// process keeps one child alive until it is told to stop. A child that says that it stops by itself is succeeded at once: for
// a while both run.
type process struct {
	spec
	changed chan struct{} // closed and replaced at each change of state

	mu       sync.Mutex
	state    string
	pid      int
	restarts int
	ended    string // why it ended last by itself
	failure  string
	since    time.Time
	present  *life
	former   map[*life]bool // those that still end

	stop, hurry         chan struct{}
	stopOnce, hurryOnce sync.Once
	ending              sync.WaitGroup // the former
	done                chan struct{}
}

func newProcess(s spec) *process {
	return &process{spec: s, state: Starting, since: time.Now(), changed: make(chan struct{}), former: map[*life]bool{},
		stop: make(chan struct{}), hurry: make(chan struct{}), done: make(chan struct{})}
}

func (p *process) start() { go p.run() }

// run starts the child again each time it ends, with a growing pause, until stop.
func (p *process) run() {
	defer close(p.done)
	backoff := firstBackoff
	for {
		began := time.Now()
		succeeded, err := p.live()
		if p.stopping() {
			break
		}
		if succeeded || time.Since(began) > steadyAfter {
			backoff = firstBackoff
		}
		if succeeded {
			continue
		}
		p.mu.Lock()
		p.restarts++
		p.ended = err.Error()
		p.mu.Unlock()
		p.set(Restarting, 0, err.Error())
		select {
		case <-time.After(backoff):
		case <-p.stop:
		}
		if p.stopping() {
			break
		}
		backoff = min(2*backoff, maxBackoff)
	}
	p.ending.Wait()
	p.set(Stopped, 0, "")
}

// live runs the child once, until it has ended or wants a successor. The error says how it ended.
func (p *process) live() (succeeded bool, err error) {
	l, err := p.launch()
	if err != nil {
		return false, err
	}
	probing, cancel := context.WithCancel(context.Background())
	defer cancel()
	go p.watch(probing, l.cmd.Process.Pid)
	select {
	case <-l.over:
	case <-l.leaving:
		p.ending.Go(func() { p.outlive(l) })
		return true, nil
	case <-p.stop:
		p.set(Stopping, l.cmd.Process.Pid, "")
		_ = l.cmd.Process.Signal(p.stopSignal)
		p.awaitEnd(l)
	}
	p.bury(l)
	return false, endedBecause(l.err, lastWords(p.logFile, l.began, len(p.snapshot().Draining) > 0))
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
	case err != nil && p.state == Starting && p.restarts == 0 && p.failure != err.Error(): // later, why it ended says more
		p.change(Starting, pid, err.Error())
	}
}

// askToStop begins the stop; done is closed when the child is gone.
func (p *process) askToStop() {
	p.stopOnce.Do(func() { close(p.stop) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseFormer() // nobody comes after them
}

// askToHurry is askToStop for the end of all.
func (p *process) askToHurry() {
	p.hurryOnce.Do(func() { close(p.hurry) })
	p.askToStop()
}

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
	if state == Ready {
		p.releaseFormer()
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// waitReady returns when the process is ready; the error says why it is not when ctx ends. Meanwhile ended is told why the process has
// ended and is started again, once for each reason.
func (p *process) waitReady(ctx context.Context, ended func(why string)) error {
	told := ""
	for {
		p.mu.Lock()
		state, failure, changed := p.state, p.failure, p.changed
		p.mu.Unlock()
		switch {
		case state == Ready:
			return nil
		case state == Restarting && failure != told:
			ended(failure)
			told = failure
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
	Name     string `json:"name"`
	State    string `json:"state"`
	PID      int    `json:"pid,omitempty"`
	Port     int    `json:"port,omitempty"`
	Release  string `json:"release,omitempty"`
	Restarts int    `json:"restarts"`
	// Ended says why it ended last by itself, also when it is well again.
	Ended string `json:"ended,omitempty"`
	// Draining are the pids of former lives, which still finish what they have begun.
	Draining []int     `json:"draining,omitempty"`
	Failure  string    `json:"failure,omitempty"`
	Since    time.Time `json:"since"`
}

func (p *process) snapshot() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := ProcessStatus{Name: p.name, State: p.state, PID: p.pid, Restarts: p.restarts, Ended: p.ended, Failure: p.failure, Since: p.since.UTC()}
	for l := range p.former {
		s.Draining = append(s.Draining, l.cmd.Process.Pid)
	}
	slices.Sort(s.Draining)
	return s
}
