package standalone

import (
	"errors"
	"net"
	"os"

	"github.com/school-sms/sms/internal/child"
)

// hear follows what the children say of themselves, until the platform has stopped.
func (p *Platform) hear() error {
	path := p.layout.notices()
	var err error
	if p.notices, err = child.ListenNotices(path); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(path, 0o600), p.layout.share(path)); err != nil {
		return errors.Join(err, p.notices.Close())
	}
	go func() {
		for {
			notice, err := p.notices.Next()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					p.say("children that stop are succeeded only once they have ended: " + err.Error())
				}
				return
			}
			if notice.PID == 0 || !p.heard(notice) {
				notice.Release()
			}
		}
	}()
	return nil
}

// heard hands a notice to the process whose child it comes from.
func (p *Platform) heard(notice child.Notice) bool {
	for _, process := range p.fixedProcesses() {
		if process.heard(notice) {
			return true
		}
	}
	for _, i := range p.fleet.all() {
		if i.heard(notice) {
			return true
		}
	}
	return false
}
