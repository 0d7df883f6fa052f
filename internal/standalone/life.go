package standalone

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/school-sms/sms/internal/child"
)

// mostFormer is how many lives of a process may end beside the present one: a child that breaks down and says in order that it
// stops, again and again, must not fill the machine.
const mostFormer = 3

// life is one run of a process's program.
type life struct {
	cmd     *exec.Cmd
	began   int64         // where its log begins
	leaving chan struct{} // closed when it says that it stops
	over    chan struct{} // closed when it has ended, as err says
	err     error
	barrier child.Notice // what it waits for before it leaves; guarded by the process's mu
}

// launch begins the next life, and makes it the present one.
func (p *process) launch() (*life, error) {
	cmd, release, err := p.command()
	if err != nil {
		return nil, err
	}
	log, err := openLog(p.logFile)
	if err != nil {
		release()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	l := &life{cmd: cmd, leaving: make(chan struct{}), over: make(chan struct{})}
	l.began, _ = log.Seek(0, io.SeekEnd)
	err = child.Start(cmd, cmp.Or(p.hurrySignal, p.stopSignal))
	release()
	log.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot start: %w", err)
	}
	p.mu.Lock()
	p.present = l
	p.change(Starting, cmd.Process.Pid, p.failure)
	p.mu.Unlock()
	go func() {
		l.err = cmd.Wait()
		close(l.over)
	}()
	return l, nil
}

// heard takes in what a child says. It reports whether the child is a life of this process.
func (p *process) heard(notice child.Notice) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.present; l != nil && p.pid == notice.PID {
		// One that was never ready is not succeeded: that would be one failure after the other, without a pause.
		if notice.Stopping && (p.state == Ready || p.state == NotReady) && len(p.former) < mostFormer {
			close(l.leaving)
			p.present, p.former[l] = nil, true
		}
		notice.Release() // nobody comes after one that was told to stop, or was never ready
		return true
	}
	for l := range p.former {
		if l.cmd.Process.Pid != notice.PID {
			continue
		}
		l.barrier.Release()
		l.barrier = notice
		if p.stopping() || p.state == Ready && p.pid != notice.PID {
			p.releaseFormer()
		}
		return true
	}
	return false
}

// releaseFormer lets the former lives leave. It is called with mu held.
func (p *process) releaseFormer() {
	for l := range p.former {
		l.barrier.Release()
		l.barrier = child.Notice{}
	}
}

// outlive waits for the end of a life that has a successor. A bad end counts.
func (p *process) outlive(l *life) {
	p.awaitEnd(l)
	p.bury(l)
	p.mu.Lock()
	defer p.mu.Unlock()
	l.barrier.Release()
	delete(p.former, l)
	if l.err != nil && !p.stopping() {
		p.restarts++
		p.ended = l.err.Error()
	}
	p.change(p.state, p.pid, p.failure) // to be seen
}

// awaitEnd waits for the end of a life that has begun to stop, hurries it when the process has to, and kills it when it takes
// too long.
func (p *process) awaitEnd(l *life) {
	late, hurry := time.After(p.stopTimeout), p.hurry
	for {
		select {
		case <-l.over:
			return
		case <-hurry:
			hurry = nil
			if p.hurrySignal != 0 {
				_ = l.cmd.Process.Signal(p.hurrySignal)
			}
		case <-late:
			_ = l.cmd.Process.Kill()
		}
	}
}

// bury ends what a life has left behind in its group.
func (p *process) bury(l *life) { _ = syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL) }

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
