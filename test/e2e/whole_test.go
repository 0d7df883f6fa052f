package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/internal/target/process"
)

const (
	rolled = "student-service" // the service that is rolled out here
	// settledWithin is how long what a kill has interrupted may take to settle after the end of a rollout.
	settledWithin = time.Minute
)

// asked is a rollout that is asked for until it has begun, under one Idempotency-Key.
type asked struct {
	key  string
	body map[string]any
}

// ask makes a quick rollout of a release to production.
func ask(release string, soak string) asked {
	return asked{rand.Text(), map[string]any{"environment": "production", "service": rolled, "release": release, "unproven": "a test",
		"weights": []int{50, 100}, "soak": soak, "minRequests": 5, "rules": []any{map[string]any{"metric": "error-rate", "max": 0.01}}}}
}

// errWrong says that it is of no use to ask again.
var errWrong = errors.New("the request is wrong")

// once sends the request, and returns the rollout's id.
func (r asked) once(gateway, token string) (string, error) {
	a, err := send(http.DefaultClient, http.MethodPost, gateway+"/api/v1/ops/rollouts", r.body, "Authorization", "Bearer "+token, "Idempotency-Key", r.key)
	if err != nil {
		return "", err
	}
	var begun struct{ ID string }
	if a.Status == http.StatusUnprocessableEntity {
		return "", fmt.Errorf("%w: %s", errWrong, a.Body)
	}
	if a.Status != http.StatusAccepted || json.Unmarshal(a.Body, &begun) != nil {
		return "", fmt.Errorf("%d %s", a.Status, a.Body)
	}
	return begun.ID, nil
}

// start sends the request until it is accepted.
func (p *platform) start(r asked) (id string) {
	p.t.Helper()
	eventually(p.t, operationWithin, "a rollout begins", func() (bool, string) {
		var err error
		if id, err = r.once(p.status.URLs["gateway"], p.token()); errors.Is(err, errWrong) {
			p.t.Fatal(err)
		}
		return err == nil, fmt.Sprint(err)
	})
	return id
}

// wholly fails the test unless everything is as the record of a rollout says: all of the new release, or all of the stable one.
func (p *platform) wholly(r asked, end operationRecord, replicas int) {
	p.t.Helper()
	p.healthy()
	runs, other := end.Outcome.From, end.Outcome.To
	switch end.State {
	case "succeeded":
		runs, other = other, runs
	case "rolled-back":
	default:
		p.t.Errorf("recorded %s: %s", end.State, end.Summary)
	}
	eventually(p.t, settledWithin, fmt.Sprintf("%d × %s alone, as recorded: %s", replicas, runs, end.Summary), func() (bool, string) {
		found := append(p.found(runs, other, replicas), p.recorded(r, end)...)
		return len(found) == 0, strings.Join(found, "; ")
	})
}

// recorded is what is wrong with the records: there must be one of what was asked, and none of a rollout that does not run.
func (p *platform) recorded(r asked, end operationRecord) (faults []string) {
	p.t.Helper()
	var listed struct {
		Content []struct {
			ID, State string
			EndedAt   *time.Time
			Input     struct{ RequestID string }
		}
	}
	p.call(http.MethodGet, "/api/v1/ops/rollouts?size=100", nil).into(p.t, &listed)
	records := 0
	for _, one := range listed.Content {
		if one.EndedAt == nil {
			faults = append(faults, one.ID+" is recorded as "+one.State)
		}
		if one.Input.RequestID == r.key && one.ID == end.ID && one.State == end.State {
			records++
		} else if one.Input.RequestID == r.key {
			faults = append(faults, fmt.Sprintf("%s is on record as %s too", one.ID, one.State))
		}
	}
	if records != 1 {
		faults = append(faults, fmt.Sprintf("it is on record %d times", records))
	}
	return faults
}

// found is what is not as it should be when all of one release runs, and nothing of the other.
func (p *platform) found(runs, other string, replicas int) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	observed, err := process.NewClient(filepath.Join(p.dataDir, "run", "sms.sock")).Status(ctx, "production", rolled)
	if err != nil {
		fault("the target: %v", err)
	}
	if stable := observed.Tracks[target.Stable]; len(observed.Tracks) != 1 || stable.Release != runs || stable.Replicas != replicas {
		fault("the target's tracks are %v", observed.Tracks)
	}
	if len(observed.Instances) != replicas || observed.Ready(runs) != replicas {
		fault("the target's instances are %v", observed.Instances)
	}

	registry := discovery.NewClient(discovery.Config{URL: strings.TrimSuffix(p.status.URLs["registry"], "/apps"), Timeout: 5 * time.Second, Wait: time.Second})
	snapshot, err := registry.Snapshot(ctx, 0, 0)
	if err != nil {
		fault("the registry: %v", err)
	}
	app, up := snapshot.App(rolled), 0
	if len(app.Split) > 0 {
		fault("a split is in force: %v", app.Split)
	}
	for _, i := range app.Instances {
		if i.Release != runs {
			fault("%s %s of %s is registered", i.Status, i.ID, i.Release)
		} else if i.Status == discovery.StatusUp {
			up++
		}
	}
	if up != replicas {
		fault("%d are registered", up)
	}

	for release, want := range map[string]int{runs: replicas, other: 0} {
		if pids := p.living(release); len(pids) != want {
			fault("%d processes of %s live", len(pids), release)
		}
	}
	return faults
}

// living are the processes of a release, whether the platform knows of them or not.
func (p *platform) living(release string) (pids []string) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		environ, _ := os.ReadFile(path)
		if bytes.Contains(environ, []byte("SMS_SUPERVISED_BY="+p.dataDir+"\x00")) && bytes.Contains(environ, []byte("SMS_RELEASE="+release+"\x00")) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// releasesToGo are two good releases, to be rolled out in turn, and one that answers with errors once it has traffic.
type releasesToGo struct {
	good [2]string
	bad  string
	next int
}

func newReleases(t *testing.T, faulty string) *releasesToGo {
	t.Helper()
	content, err := os.ReadFile(faulty)
	if err != nil {
		t.Fatal(err)
	}
	return &releasesToGo{good: [2]string{releaseOf(t, rolled, "one"), releaseOf(t, rolled, "two")}, bad: writeRelease(t, rolled, string(content)+"\nerrors")}
}

// ask asks for a rollout of a release that does not run: one that goes well, or one that is rolled back from half of the traffic.
func (r *releasesToGo) ask(bad bool) asked {
	if bad {
		return ask(r.bad, "20s")
	}
	return ask(r.good[r.next], "1s")
}

// took tells how a rollout has ended.
func (r *releasesToGo) took(end operationRecord, bad bool) {
	if end.State == "succeeded" && !bad {
		r.next = 1 - r.next
	}
}
