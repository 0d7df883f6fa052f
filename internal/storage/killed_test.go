package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/storage/storagetest"
)

func TestMain(m *testing.M) {
	storagetest.RunProcess()
	os.Exit(m.Run())
}

// killedAt uses a storage that is killed when so many bytes were sent to it; 0: never.
func killedAt(t *testing.T, p *storagetest.Process, killAt int64) storage.Store {
	t.Helper()
	at := storage.Bucket{Name: storagetest.BucketName, Endpoint: "http://" + p.Address, Region: "us-east-1", PathStyle: true}
	options := storage.S3Options{CredentialsFile: storagetest.CredentialsFile(t), Stall: 5 * time.Second, Patience: 300 * time.Millisecond}
	if killAt > 0 {
		sent := new(atomic.Int64)
		options.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return counted{c, sent, killAt, p.Kill}, err
		}
	}
	s, err := storage.NewS3(at, options)
	if err != nil {
		t.Fatal(err)
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
			p := storagetest.StartProcess(t)
			old := storagetest.Content(100_000)
			storagetest.Put(t, killedAt(t, p, 0), "db/old", old)
			for i := range times {
				if err := tryToPut(t, killedAt(t, p, int64(len(content))*percent/100), len(content)); !errors.Is(err, storage.ErrUnreachable) {
					t.Fatalf("upload %d: %v, want unreachable", i, err)
				}
				p.Killed()
				p.Start()
				s := killedAt(t, p, 0)
				if names := storagetest.Names(t, s, ""); !slices.Equal(names, []string{"db/old"}) {
					t.Fatalf("after death %d there are %v", i, names)
				}
				if !bytes.Equal(storagetest.Get(t, s, "db/old"), old) {
					t.Fatalf("death %d changed another object", i)
				}
			}
			s := killedAt(t, p, 0)
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
