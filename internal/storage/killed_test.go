package storage_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3bolt"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/storage/storagetest"
)

// asServer makes the test binary a storage on disk, so that there is a process to kill. It holds the file and the address.
const asServer = "STORAGE_TEST_SERVER"

func TestMain(m *testing.M) {
	if file, address, ok := strings.Cut(os.Getenv(asServer), " "); ok {
		fmt.Fprintln(os.Stderr, serve(file, address))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serve(file, address string) error {
	backend, err := s3bolt.NewFile(file)
	if err != nil {
		return err
	}
	if err := backend.CreateBucket(storagetest.BucketName); err != nil && !gofakes3.HasErrorCode(err, gofakes3.ErrBucketAlreadyExists) {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, gofakes3.New(backend).Server())
}

// process is a storage that can be killed, and started again where it was.
type process struct {
	t             *testing.T
	file, address string
	cmd           *exec.Cmd
}

func (p *process) start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = []string{asServer + "=" + p.file + " " + p.address}
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
	p.address = strings.TrimSpace(line)
}

func (p *process) kill() { _ = p.cmd.Process.Kill() }

// store uses the storage, which is killed when killAt bytes were sent to it; 0: never.
func (p *process) store(killAt int64) storage.Store {
	p.t.Helper()
	at := storage.Bucket{Name: storagetest.BucketName, Endpoint: "http://" + p.address, Region: "us-east-1", PathStyle: true}
	options := storage.S3Options{CredentialsFile: storagetest.CredentialsFile(p.t), Stall: 5 * time.Second, Patience: 300 * time.Millisecond}
	if killAt > 0 {
		sent := new(atomic.Int64)
		options.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return counted{c, sent, killAt, p.kill}, err
		}
	}
	s, err := storage.NewS3(at, options)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// counted is a connection that calls reached when so many bytes were sent.
type counted struct {
	net.Conn
	sent    *atomic.Int64
	at      int64
	reached func()
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if now := c.sent.Add(int64(n)); now >= c.at && now-int64(n) < c.at {
		c.reached()
	}
	return n, err
}

// TestAStorageThatDiesInAnUploadHoldsNoneOfIt: killed at a tenth, half and nine tenths of an upload, 20 times each, it has no
// object under the name, the others as they were, and takes the object at the next attempt.
func TestAStorageThatDiesInAnUploadHoldsNoneOfIt(t *testing.T) {
	t.Parallel()
	const times = 20
	content := storagetest.Content(2*part + 1000)
	for _, percent := range []int64{10, 50, 90} {
		t.Run(fmt.Sprintf("%d percent", percent), func(t *testing.T) {
			t.Parallel()
			p := &process{t: t, file: filepath.Join(t.TempDir(), "objects"), address: "127.0.0.1:0"}
			p.start()
			t.Cleanup(func() { p.kill(); _ = p.cmd.Wait() })
			old := storagetest.Content(100_000)
			storagetest.Put(t, p.store(0), "db/old", old)
			for i := range times {
				if err := tryToPut(t, p.store(int64(len(content))*percent/100), len(content)); !errors.Is(err, storage.ErrUnreachable) {
					t.Fatalf("upload %d: %v, want unreachable", i, err)
				}
				if _ = p.cmd.Wait(); p.cmd.ProcessState.Exited() {
					t.Fatalf("the storage was not killed: %s", p.cmd.ProcessState)
				}
				p.start()
				s := p.store(0)
				if names := storagetest.Names(t, s, ""); !slices.Equal(names, []string{"db/old"}) {
					t.Fatalf("after death %d there are %v", i, names)
				}
				if !bytes.Equal(storagetest.Get(t, s, "db/old"), old) {
					t.Fatalf("death %d changed another object", i)
				}
			}
			s := p.store(0)
			storagetest.Put(t, s, "x", content)
			if !bytes.Equal(storagetest.Get(t, s, "x"), content) {
				t.Error("the next attempt did not come back as it was sent")
			}
			if n, err := s.Sweep(t.Context(), func(string) bool { return true }); n != 0 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
		})
	}
}
