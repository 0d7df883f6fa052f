package storage_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/storage/storagetest"
)

func TestADirectoryConforms(t *testing.T) {
	t.Parallel()
	storagetest.Conform(t, func(t *testing.T) storage.Store {
		s, err := storage.NewDirectory(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestABucketConforms(t *testing.T) {
	t.Parallel()
	server := storagetest.Serve(t, nil)
	storagetest.Conform(t, func(t *testing.T) storage.Store {
		return server.Store(t, "school/"+strings.ReplaceAll(t.Name(), "/", "-"))
	})
}

func TestABucketThatIsPartOfTheHostsNameConforms(t *testing.T) {
	t.Parallel()
	server := storagetest.Serve(t, nil)
	u, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	options := server.Options()
	options.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != storagetest.BucketName+".example.com:443" {
			return nil, fmt.Errorf("asked for %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, u.Host)
	}
	storagetest.Conform(t, func(t *testing.T) storage.Store {
		s, err := storage.NewS3(storage.Bucket{Name: storagetest.BucketName, Prefix: strings.ReplaceAll(t.Name(), "/", "-"),
			Endpoint: "https://example.com", Region: "eu-west-1", CAFile: server.CAFile}, options)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
