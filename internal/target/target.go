// Package target is where releases run. A target only makes instances of a release exist and stop existing; traffic
// belongs to the gateway.
package target

import (
	"context"
	"errors"

	"github.com/school-sms/sms/internal/migration"
)

// Tracks of a service. Each runs at most one release.
const (
	Stable = "stable"
	Canary = "canary"
)

// ErrFenced refuses a write that is older than the last one: its writer was thought dead and replaced.
var ErrFenced = errors.New("refused: a newer operation has taken over this service")

// ErrNotFound says that the target knows no such service or release.
var ErrNotFound = errors.New("not found on the target")

// ErrMigration says that a migration failed in a way that another try does not mend.
var ErrMigration = errors.New("the migration failed")

// Deployment is what should run on one track of a service.
type Deployment struct {
	Environment string `json:"environment"`
	Service     string `json:"service"`
	Track       string `json:"track"`
	// Release is the digest of what runs, for example sha256:….
	Release  string `json:"release"`
	Replicas int    `json:"replicas"`
	// Fence orders the writers of one service: a lower one than the last is refused.
	Fence int64 `json:"fence"`
}

// Instance is one running, or failing, copy of a release.
type Instance struct {
	Name    string `json:"name"`
	Release string `json:"release"`
	Ready   bool   `json:"ready"`
	// Address is host:port of what answers as this instance alone, while it is ready.
	Address string `json:"address,omitempty"`
	// Restarts counts how often it has ended by itself.
	Restarts int `json:"restarts"`
	// Failure says why it is not ready, or else why it ended last by itself; empty when it never did.
	Failure string `json:"failure,omitempty"`
}

// Observed is what runs now.
type Observed struct {
	Tracks    map[string]Deployment `json:"tracks"`
	Instances []Instance            `json:"instances"`
}

// Ready counts the ready instances of a release.
func (o Observed) Ready(release string) int {
	n := 0
	for _, i := range o.Instances {
		if i.Release == release && i.Ready {
			n++
		}
	}
	return n
}

// Of lists the instances of a release.
func (o Observed) Of(release string) []Instance {
	var of []Instance
	for _, i := range o.Instances {
		if i.Release == release {
			of = append(of, i)
		}
	}
	return of
}

// Release is something that a target can run.
type Release struct {
	Digest string `json:"digest"`
	// Version is what the release says of itself, for people.
	Version string `json:"version,omitempty"`
}

// Migration asks a release to run those of its migrations that are pending and of a kind.
type Migration struct {
	Environment string         `json:"environment"`
	Service     string         `json:"service"`
	Release     string         `json:"release"`
	Kind        migration.Kind `json:"kind"`
	// Fence is that of Deployment.
	Fence int64 `json:"fence"`
}

// Target runs releases. Every call may be repeated: it states what should be, and changes nothing that is so already.
type Target interface {
	// Import makes a release known by its content: ref is a path to an executable or an image reference.
	Import(ctx context.Context, service, ref string) (Release, error)
	// Ensure asks for a deployment and returns when it is accepted, before it is ready. It returns ErrFenced or ErrNotFound.
	Ensure(ctx context.Context, d Deployment) error
	// Status reads what runs.
	Status(ctx context.Context, environment, service string) (Observed, error)
	// Remove ends a track; its instances drain first. A track that is not there is no error. It returns ErrFenced.
	Remove(ctx context.Context, environment, service, track string, fence int64) error
	// Migrations asks a release where its service's database stands, and what of its migrations is pending. It returns ErrNotFound.
	Migrations(ctx context.Context, environment, service, release string) (migration.Plan, error)
	// Migrate runs migrations beside the traffic of the database, and returns where it stands then. When ctx ends, what has not
	// been committed is undone. It returns ErrFenced, ErrNotFound or ErrMigration.
	Migrate(ctx context.Context, m Migration) (migration.Plan, error)
}
