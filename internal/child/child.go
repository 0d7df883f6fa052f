// Package child starts processes that do not outlive their parent, not even when it is killed.
package child

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

var (
	once  sync.Once
	calls chan func()
)

// Start starts cmd in a process group of its own, so that a terminal's Ctrl-C reaches only the parent, and has the
// kernel send it onParentDeath when this process dies (prctl(2), PR_SET_PDEATHSIG).
func Start(cmd *exec.Cmd, onParentDeath syscall.Signal) error {
	// The kernel sends the signal when the *thread* that forked ends, so all children come from one that never does.
	once.Do(func() {
		calls = make(chan func())
		go func() {
			runtime.LockOSThread()
			for call := range calls {
				call()
			}
		}()
	})
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = onParentDeath
	started := make(chan error)
	calls <- func() { started <- cmd.Start() }
	return <-started
}
