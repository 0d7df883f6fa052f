package ops

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	activities "github.com/school-sms/sms/activities/backup"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
	flow "github.com/school-sms/sms/workflows/backup"
)

// night is a watchdog over student_db with a clock of its own.
type night struct {
	*Watchdog
	t    *testing.T
	pool *pgxpool.Pool
	log  *bytes.Buffer
	at   time.Time
}

func newNight(t *testing.T) *night {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.New(t, migrations.Ops()), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	n := &night{t: t, pool: pool, at: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)}
	n.restart()
	return n
}

// restart is what a new process does.
func (n *night) restart() {
	n.log = &bytes.Buffer{}
	n.Watchdog = NewWatchdog(operation.NewStore(n.pool), Config{Databases: backup.Sources{{Database: "student_db"}}, Promise: 26 * time.Hour},
		slog.New(slog.NewJSONHandler(n.log, nil)))
	n.now = func() time.Time { return n.at }
}

// later looks after some time.
func (n *night) later(d time.Duration) {
	n.at = n.at.Add(d)
	n.Look(n.t.Context())
}

// ended records a backup that began a minute ago and has just ended.
func (n *night) ended(id, state string) {
	n.t.Helper()
	result := func(outcome any) json.RawMessage {
		raw, err := json.Marshal(outcome)
		if err != nil {
			n.t.Fatal(err)
		}
		raw, err = json.Marshal(operation.Result{Outcome: raw})
		if err != nil {
			n.t.Fatal(err)
		}
		return raw
	}
	record := operation.Record{ID: id, Kind: operation.Backup, WorkflowID: id, RunID: id, Subject: "student_db", State: state, Summary: "The disk is full.",
		StartedAt: n.at.Add(-time.Minute), EndedAt: &n.at, Revision: 1,
		Result: result(flow.Outcome{Stored: &activities.Stored{Bytes: 95e6, DumpBytes: 400e6, Seconds: 5}})}
	drill := record
	drill.ID, drill.Kind, drill.State, drill.Result = id+"-drill", operation.RestoreDrill, operation.Succeeded, result(flow.DrillOutcome{RestoreSeconds: 9.5})
	for _, r := range []operation.Record{record, drill} {
		if r.Kind == operation.RestoreDrill && state != flow.StateVerified {
			continue
		}
		if err := n.store.Record(n.t.Context(), r); err != nil {
			n.t.Fatal(err)
		}
	}
}

// scraped are the metrics' values, by name.
func (n *night) scraped() map[string]float64 {
	n.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(n.Watchdog)
	families, err := registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			values[strings.TrimPrefix(family.GetName(), "sms_backup_")] = metric.GetGauge().GetValue()
		}
	}
	return values
}

// expect demands health, what its detail says, and metrics.
func (n *night) expect(status, says string, metrics map[string]float64) {
	n.t.Helper()
	health := n.Check(n.t.Context())
	if detail, _ := health.Details["student_db"].(string); health.Status != status || !strings.Contains(detail, says) {
		n.t.Errorf("%s: health %+v, want %s: %s", n.at, health, status, says)
	}
	scraped := n.scraped()
	for name, want := range metrics {
		if got, ok := scraped[name]; !ok || got != want {
			n.t.Errorf("%s: %s is %v, want %v", n.at, name, got, want)
		}
	}
}

func (n *night) logged(words string) int { return strings.Count(n.log.String(), words) }

func TestWatchdogGivesANewDatabaseTimeAndThenBarks(t *testing.T) {
	t.Parallel()
	n := newNight(t)
	n.later(0)
	n.expect(server.Up, "awaited: no verified backup is on record yet; the first is due by 2026-11-24T04:00:00Z", map[string]float64{"overdue": 0, "catalogue_readable": 1})
	n.later(25 * time.Hour)
	n.restart() // does not begin the time anew
	n.later(59 * time.Minute)
	n.expect(server.Up, "awaited", nil)
	n.ended("b1", operation.Failed)
	n.later(2 * time.Minute)
	n.expect(server.Down, "overdue: no verified backup is on record; the last try, b1, is failed: The disk is full.",
		map[string]float64{"overdue": 1, "last_run_failed": 1})
	for range 59 {
		n.later(time.Minute)
	}
	if n.logged("backup overdue") != 1 {
		t.Errorf("within an hour: %s", n.log)
	}
	n.later(time.Minute)
	if n.logged("backup overdue") != 2 {
		t.Errorf("after an hour: %s", n.log)
	}
	n.ended("b2", flow.StateVerified)
	n.later(0)
	n.expect(server.Up, "in-time: the newest verified backup is 1m old", map[string]float64{"overdue": 0, "last_run_failed": 0})
	if n.logged("backup in time again") != 1 {
		t.Errorf("recovered: %s", n.log)
	}
}

func TestWatchdogBarksAtAgeAndRecoversByItself(t *testing.T) {
	t.Parallel()
	n := newNight(t)
	n.ended("b1", flow.StateVerified)
	n.later(time.Hour)
	figures := map[string]float64{"overdue": 0, "newest_verified_age_seconds": 3660, "last_success_timestamp_seconds": float64(n.at.Add(-time.Hour).Unix()),
		"size_bytes": 95e6, "dump_size_bytes": 400e6, "duration_seconds": 60, "dump_duration_seconds": 5, "throughput_bytes_per_second": 80e6,
		"drill_restore_seconds": 9.5, "promise_seconds": 93600}
	n.expect(server.Up, "1h 1m", figures)
	n.restart()
	n.later(0)
	n.expect(server.Up, "1h 1m", figures)

	n.later(25 * time.Hour)
	n.expect(server.Down, "the newest verified backup is 1d 2h old, promised are at most 1d 2h", map[string]float64{"overdue": 1})
	n.ended("b2", flow.StateVerified)
	n.later(0)
	n.expect(server.Up, "1m old", map[string]float64{"overdue": 0})

	if err := n.store.Amend(t.Context(), "b2", operation.Failed, "No longer good: the archive is missing."); err != nil {
		t.Fatal(err)
	}
	n.later(0) // what a drill has disproved does not count
	n.expect(server.Down, "the last try, b2, is failed: No longer good", map[string]float64{"overdue": 1})
	if _, err := n.pool.Exec(t.Context(), "delete from operation"); err != nil {
		t.Fatal(err)
	}
	n.later(2 * time.Hour) // it has been watched for longer than the promise
	n.expect(server.Down, "overdue: no verified backup is on record", map[string]float64{"overdue": 1})
}

func TestWatchdogGoesOnWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	n := newNight(t)
	n.ended("b1", flow.StateVerified)
	n.later(0)
	n.pool.Close()
	n.later(time.Hour)
	n.expect(server.Down, "in-time: the newest verified backup is 1h 1m old", map[string]float64{"catalogue_readable": 0, "overdue": 0})
	n.later(26 * time.Hour)
	n.expect(server.Down, "overdue", map[string]float64{"catalogue_readable": 0, "overdue": 1})
	if n.logged("cannot be read") != 1 || n.logged("backup overdue") != 1 {
		t.Errorf("logged %s", n.log)
	}
	n.restart() // and knows nothing
	n.at = time.Now()
	n.later(time.Hour)
	n.expect(server.Down, "awaited", map[string]float64{"catalogue_readable": 0})
	n.later(26 * time.Hour)
	n.expect(server.Down, "overdue: no verified backup is on record", map[string]float64{"overdue": 1})
}
