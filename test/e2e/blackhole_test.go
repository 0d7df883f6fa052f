package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// blackHole is for how long the target is black-holed at each step, such as 10m, or at those that match, such as "10m@WatchRelease|AwaitGone".
// 0s: until the rollout says so. Unset: at one step, another each day.
const blackHole = "SMS_BLACK_HOLE"

// asksTarget are the activities at which the target is black-holed. AnalyseRelease comes in the hole of WatchRelease.
var asksTarget = []string{"ImportRelease", "ObserveTarget", "ReadMigrations", "EnsureDeployment", "AwaitReady", "WatchRelease", "RemoveTrack", "AwaitGone"}

// underWay is a rollout that runs.
type underWay struct {
	operationRecord
	Activity *struct {
		Name, LastFailure string
		Progress          json.RawMessage
	}
}

// throughProxy makes the workers reach their target through a proxy.
func throughProxy(t *testing.T, target **proxy) func(dataDir string) string {
	return func(dataDir string) string {
		*target = newProxy(t, "unix", filepath.Join(dataDir, "target"), filepath.Join(dataDir, "run", "sms.sock"))
		return "TEST_TARGET_SOCKET=" + (*target).address
	}
}

// TestBlackHoledTarget lets nothing pass between worker and target at each step of a rollout and of its rollback. Meanwhile nothing is
// decided and the rollout says who does not answer; afterwards it goes on, and nothing was done twice.
func TestBlackHoledTarget(t *testing.T) {
	t.Parallel()
	within, at, _ := strings.Cut(os.Getenv(blackHole), "@")
	long, err := time.ParseDuration(within)
	if err != nil && within != "" {
		t.Fatalf("%s: %v", blackHole, err)
	}
	matching, err := regexp.Compile(at)
	if err != nil {
		t.Fatalf("%s: %v", blackHole, err)
	}
	b := buildAll(t)
	for name, bad := range map[string]bool{"forward": false, "rollback": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var target *proxy
			k := newKilling(t, b, throughProxy(t, &target))
			steps := slices.DeleteFunc(k.undisturbed(bad), func(s step) bool {
				return !slices.Contains(asksTarget, s.activity) || !matching.MatchString(fmt.Sprint(s.activity, " ", s.nth))
			})
			if len(steps) == 0 {
				t.Fatal("the target is asked at no step")
			}
			if within == "" {
				today := time.Now().YearDay() % len(steps)
				steps = steps[today : today+1]
			}
			r := k.ask(bad)
			caught := k.stepBegins(steps[0])
			began := time.Now()
			id := k.start(r)
			for n, s := range steps {
				now := await(t, operationWithin, s.activity, caught)
				target.swallow(true)
				if n+1 < len(steps) {
					caught = k.stepBegins(steps[n+1])
				}
				now.goOn()
				over := time.After(long)
				said := k.saysWhoIsAway(id)
				<-over
				if now := k.underWay(id); now.EndedAt != nil || len(k.living(now.Outcome.To)) > k.replicas {
					t.Errorf("in the hole it is %s with %d instances: %s", now.State, len(k.living(now.Outcome.To)), now.Summary)
				}
				target.swallow(false)
				t.Logf("%s %d after %.0f s: %s", s.activity, s.nth, time.Since(began).Seconds(), said)
			}
			end := k.ended("rollouts", id)
			if (end.State == "succeeded") == bad || bad && !strings.Contains(end.Summary, "error rate") {
				t.Errorf("%s: %s", end.State, end.Summary)
			}
			k.wholly(r, end, k.replicas)
			t.Logf("%s after %.0f s: %s", end.State, time.Since(began).Seconds(), end.Summary)
		})
	}
}

// stepBegins catches the moment before the first attempt of a step.
func (k *killing) stepBegins(s step) <-chan moment {
	return k.catch(func(m moment) bool {
		return m.Activity == s.activity && m.nth == s.nth && m.At == "before" && m.Attempt == 1
	})
}

func (p *platform) underWay(id string) (now underWay) {
	p.t.Helper()
	p.call(http.MethodGet, "/api/v1/ops/rollouts/"+id, nil).into(p.t, &now)
	return now
}

// saysWhoIsAway waits until a rollout says that the target does not answer, and returns its words.
func (p *platform) saysWhoIsAway(id string) (said string) {
	p.t.Helper()
	eventually(p.t, operationWithin, "it says who is away", func() (bool, string) {
		now := p.underWay(id)
		if now.EndedAt != nil {
			p.t.Fatalf("in the hole it has ended as %s: %s", now.State, now.Summary)
		}
		if now.Activity == nil {
			return false, now.Summary
		}
		said = fmt.Sprintf("%s: %s %s", now.Activity.Name, now.Activity.LastFailure, now.Activity.Progress)
		return strings.Contains(said, "no answer within"), said
	})
	return said
}
