package storage_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/storage/storagetest"
)

// selfSigned writes a certificate that vouches for nobody here.
func selfSigned(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// network is a storage behind a proxy that can be made bad.
type network struct {
	*toxiproxy.Proxy
	storagetest.Server
	// good is the way to the same storage that stays good.
	good storagetest.Server
}

func newNetwork(t *testing.T) network {
	t.Helper()
	server := storagetest.Serve(t, nil)
	control := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(control, "storage", "127.0.0.1:0", strings.TrimPrefix(server.Endpoint, "https://"))
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { go proxy.Stop() }) // which may wait for a link that a toxic has stopped
	bad := server
	bad.Endpoint = "https://" + proxy.Listen
	return network{Proxy: proxy, Server: bad, good: server}
}

// toxic makes the network bad, in the words of toxiproxy.
func (n network) toxic(t *testing.T, kind, stream, attributes string) {
	t.Helper()
	text := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":{%s}}`, kind+stream, kind, stream, attributes)
	if _, err := n.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

// TestABucketConformsThoughConnectionsBreak: every connection is cut after some megabytes, in both directions.
func TestABucketConformsThoughConnectionsBreak(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.toxic(t, "limit_data", "upstream", `"bytes":12000000`)
	n.toxic(t, "limit_data", "downstream", `"bytes":3000000`)
	storagetest.Conform(t, func(t *testing.T) storage.Store { return n.Store(t, strings.ReplaceAll(t.Name(), "/", "-")) })
}

func TestConnectionsThatAreResetAreOpenedAgain(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	s := n.Store(t, "x")
	n.toxic(t, "reset_peer", "upstream", `"timeout":0`)
	failed := make(chan error, 1)
	go func() { failed <- tryToPut(t, s, part+1) }()
	if err := <-failed; !errors.Is(err, storage.ErrUnreachable) {
		t.Errorf("while every connection is reset: %v, want unreachable", err)
	}
	s = n.good.Store(t, "x")
	storagetest.Put(t, s, "x", storagetest.Content(part+1))
	if !bytes.Equal(storagetest.Get(t, s, "x"), storagetest.Content(part+1)) {
		t.Error("the content is not what was written")
	}
}

// freezer is a way to a storage on which, once it is frozen, nothing moves any more, though no connection ends.
type freezer struct {
	storagetest.Server
	frozen chan struct{} // closed to freeze
}

func newFreezer(t *testing.T, server storagetest.Server) freezer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := freezer{Server: server, frozen: make(chan struct{})}
	f.Endpoint = "https://" + l.Addr().String()
	ctx, thaw := context.WithCancel(context.Background())
	var links sync.WaitGroup
	t.Cleanup(func() { thaw(); l.Close(); links.Wait() })
	links.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", strings.TrimPrefix(server.Endpoint, "https://"))
			if err != nil {
				client.Close()
				continue
			}
			context.AfterFunc(ctx, func() { client.Close(); behind.Close() })
			links.Go(func() { f.carry(ctx, behind, client) })
			links.Go(func() { f.carry(ctx, client, behind) })
		}
	})
	return f
}

// carry brings bytes from one end to the other until the way is frozen.
func (f freezer) carry(ctx context.Context, to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-f.frozen:
			<-ctx.Done()
			return
		default:
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// TestAStalledStorageIsAnErrorInTime: it takes and gives nothing any more, and does not hang up.
func TestAStalledStorageIsAnErrorInTime(t *testing.T) {
	t.Parallel()
	good := storagetest.Serve(t, nil)
	n := newFreezer(t, good)
	options := n.Options()
	limit := options.Stall + options.Patience + 20*time.Second // for a busy machine
	s := n.Store(t, "x")
	storagetest.Put(t, s, "old", storagetest.Content(3*part))
	reading, err := s.Open(t.Context(), "old")
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	if _, err := io.CopyN(io.Discard, reading, 1000); err != nil {
		t.Fatal(err)
	}
	writing := storagetest.Create(t, s, "new", storagetest.Content(part+1)) // its first part is under way
	close(n.frozen)

	began := time.Now()
	if err := writing.Flush(t.Context()); !errors.Is(err, storage.ErrUnreachable) {
		t.Errorf("write: %v, want unreachable", err)
	}
	if err := writing.Commit(t.Context()); err == nil {
		t.Error("what could not be written was committed")
	}
	if took := time.Since(began); took > limit {
		t.Errorf("writing failed after %s, more than %s", took, limit)
	}
	began = time.Now()
	writing.Abort()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("abort took %s", took)
	}
	began = time.Now()
	if _, err := io.Copy(io.Discard, reading); !errors.Is(err, storage.ErrUnreachable) {
		t.Errorf("read: %v, want unreachable", err)
	}
	if took := time.Since(began); took > limit {
		t.Errorf("reading failed after %s, more than %s", took, limit)
	}

	s = good.Store(t, "x")
	if names := storagetest.Names(t, s, ""); len(names) != 1 {
		t.Errorf("there are %v", names)
	}
	if swept, err := s.Sweep(t.Context(), func(name string) bool { return name == "new" }); swept > 1 || err != nil {
		t.Errorf("swept %d, %v", swept, err)
	}
	storagetest.Put(t, s, "new", storagetest.Content(part+1))
}

// TestASlowStorageIsNotAStalledOne: a part takes longer than a stall may, but it moves.
func TestASlowStorageIsNotAStalledOne(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.toxic(t, "bandwidth", "upstream", `"rate":3000`)
	at, err := storage.ParseLocation(n.URL("x"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.NewS3(*at.S3, storage.S3Options{CredentialsFile: n.CredentialsFile, Stall: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	storagetest.Put(t, s, "x", storagetest.Content(part))
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("it took %s: the storage was not slow", took)
	}
}
