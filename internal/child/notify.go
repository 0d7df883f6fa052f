package child

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// What a process says of itself by the protocol of sd_notify(3), which systemd and `sms up` understand.
const (
	ReadyNotice    = "READY=1"
	StoppingNotice = "STOPPING=1"
	barrierNotice  = "BARRIER=1"
)

// NotifySocket is the variable that names the supervisor's socket to a child.
const NotifySocket = "NOTIFY_SOCKET"

// Notify tells the supervisor how this process stands. Without a supervisor that wants to know it does nothing.
func Notify(notice string) error { return notify(notice, nil) }

func notify(notice string, rights []byte) error {
	socket := os.Getenv(NotifySocket)
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn() // WriteMsgUnix refuses a connected datagram socket
	if err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = syscall.Sendmsg(int(fd), []byte(notice), rights, nil, 0)
		return !errors.Is(sent, syscall.EAGAIN)
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	return nil
}

// Barrier returns once the supervisor has dealt with the notices before it (sd_notify_barrier(3)): it gets the end of a pipe, and
// closes it. `sms up` does so when the successor of a process that stops is ready. Without a supervisor it returns at once, and
// when ctx ends with its error.
func Barrier(ctx context.Context) error {
	if os.Getenv(NotifySocket) == "" {
		return nil
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("wait for the supervisor: %w", err)
	}
	defer ours.Close()
	err = notify(barrierNotice, syscall.UnixRights(int(theirs.Fd())))
	theirs.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = ours.SetReadDeadline(time.Unix(1, 0)) })()
	if _, err := ours.Read(make([]byte, 1)); ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return nil // nothing is ever written: it was closed
}

// Notice is what a child has said of itself.
type Notice struct {
	// PID of the child, as the kernel knows it.
	PID int
	// Stopping says that it has begun to stop.
	Stopping bool
	// Barrier, unless nil, holds the child up until it is closed.
	Barrier *os.File
}

// Notices is the socket on which children say how they stand.
type Notices struct{ conn *net.UnixConn }

// ListenNotices makes the socket.
func ListenNotices(path string) (*Notices, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the socket of an earlier start: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for notices: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		control := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1) })
		err = errors.Join(err, control)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen for notices: %w", err)
	}
	return &Notices{conn}, nil
}

// Close ends Next.
func (n *Notices) Close() error { return n.conn.Close() }

// Next waits for a notice. It returns net.ErrClosed once the socket is closed.
func (n *Notices) Next() (Notice, error) {
	text, control := make([]byte, 4096), make([]byte, 256)
	size, controlSize, _, _, err := n.conn.ReadMsgUnix(text, control)
	if err != nil {
		return Notice{}, fmt.Errorf("read a notice: %w", err)
	}
	messages, err := syscall.ParseSocketControlMessage(control[:controlSize])
	if err != nil {
		return Notice{}, nil // says nothing that can be trusted
	}
	var notice Notice
	for _, m := range messages {
		if sender, err := syscall.ParseUnixCredentials(&m); err == nil {
			notice.PID = int(sender.Pid)
		}
		files, _ := syscall.ParseUnixRights(&m) // which no child inherits: the net package sees to that
		for _, fd := range files {
			notice.hold(fd)
		}
	}
	for line := range strings.SplitSeq(string(text[:size]), "\n") {
		notice.Stopping = notice.Stopping || line == StoppingNotice
	}
	return notice, nil
}

// hold keeps one descriptor, as the protocol has it, and closes what else was sent.
func (n *Notice) hold(fd int) {
	if n.Barrier == nil {
		n.Barrier = os.NewFile(uintptr(fd), "barrier")
		return
	}
	_ = syscall.Close(fd)
}

// Release lets the child go on.
func (n Notice) Release() {
	if n.Barrier != nil {
		_ = n.Barrier.Close()
	}
}
