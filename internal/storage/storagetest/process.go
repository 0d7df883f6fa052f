package storagetest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3bolt"

	"github.com/school-sms/sms/internal/child"
)

// asProcess makes the test binary a storage on disk. It holds the file and the address.
const asProcess = "STORAGE_TEST_SERVER"

// RunProcess is called first by TestMain of a binary whose tests start a Process: there it serves, and does not return.
func RunProcess() {
	if file, address, ok := strings.Cut(os.Getenv(asProcess), " "); ok {
		fmt.Fprintln(os.Stderr, serve(file, address))
		os.Exit(1)
	}
}

func serve(file, address string) error {
	backend, err := s3bolt.NewFile(file)
	if err != nil {
		return err
	}
	if err := backend.CreateBucket(BucketName); err != nil && !gofakes3.HasErrorCode(err, gofakes3.ErrBucketAlreadyExists) {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, gofakes3.New(backend).Server())
}

// Process is an S3-compatible storage on disk in a process of its own, with one bucket, which can be killed, and started again
// where it was.
type Process struct {
	// Address is host:port.
	Address string

	t    testing.TB
	file string
	cmd  *exec.Cmd
}

// StartProcess starts a storage that lives until the end of the test.
func StartProcess(t testing.TB) *Process {
	t.Helper()
	p := &Process{t: t, file: filepath.Join(t.TempDir(), "objects"), Address: "127.0.0.1:0"}
	p.Start()
	t.Cleanup(func() { p.Kill(); _ = p.cmd.Wait() })
	return p
}

// Start starts one that was killed.
func (p *Process) Start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = []string{asProcess + "=" + p.file + " " + p.Address}
	var said bytes.Buffer
	p.cmd.Stderr = &said
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := child.Start(p.cmd, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n') // it listens
	if err != nil {
		p.t.Fatalf("%v; the storage said: %s", err, said.String())
	}
	p.Address = strings.TrimSpace(line)
}

// Kill kills it as a crash would; it does not wait for its end.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Killed waits for its end, which must have been a kill.
func (p *Process) Killed() {
	p.t.Helper()
	if _ = p.cmd.Wait(); p.cmd.ProcessState.Exited() {
		p.t.Fatalf("the storage was not killed: %s", p.cmd.ProcessState)
	}
}

// URL is the setting that names a prefix of the bucket.
func (p *Process) URL(prefix string) string {
	return "s3://" + BucketName + "/" + prefix + "?" + url.Values{"endpoint": {"http://" + p.Address}, "pathStyle": {"true"}}.Encode()
}
