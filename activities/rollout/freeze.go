package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/school-sms/sms/internal/rollout"
)

// FreezesFile lists the freezes of the platform: YAML, a list of rollout.Freeze. It is read at each look, so that it may be edited while
// the platform runs. Empty: there are none.
type FreezesFile string

// Read names every fault of the file.
func (f FreezesFile) Read() ([]rollout.Freeze, error) {
	if f == "" {
		return nil, nil
	}
	content, err := os.ReadFile(string(f))
	if err != nil {
		return nil, fmt.Errorf("read the freezes: %w", err)
	}
	var freezes []rollout.Freeze
	if err := yaml.NewDecoder(bytes.NewReader(content), yaml.DisallowUnknownField()).Decode(&freezes); err != nil && len(bytes.TrimSpace(content)) > 0 {
		return nil, fmt.Errorf("the freezes in %s are no list of {from, until, zone, reason, environments}: %w", f, err)
	}
	var faults []error
	for _, fault := range rollout.FreezeFaults(freezes) {
		faults = append(faults, fmt.Errorf("%s: %w", f, fault))
	}
	return freezes, errors.Join(faults...)
}

// FreezeInput asks whether something may begin in an environment.
type FreezeInput struct {
	Environment string
	// Freezes besides the platform's.
	Freezes []rollout.Freeze
	// At is the time by Temporal's clock: a worker's own may be wrong.
	At time.Time
}

// Frozen is what holds: nothing when Until is zero.
type Frozen struct {
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// String says it.
func (f Frozen) String() string {
	return fmt.Sprintf("nothing new until %s: %s", f.Until.Format("Mon 2006-01-02 15:04 MST"), f.Reason)
}

// FindFreeze returns the freeze that holds.
func (a *Activities) FindFreeze(_ context.Context, in FreezeInput) (Frozen, error) {
	freezes, err := a.Freezes.Read()
	if err != nil {
		return Frozen{}, err
	}
	until, reason := rollout.Frozen(append(freezes, in.Freezes...), in.Environment, in.At)
	return Frozen{Until: until, Reason: reason}, nil
}
