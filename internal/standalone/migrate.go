package standalone

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/target"
)

const (
	// planWithin bounds the look into a release's migrations. Pending ones are looked into with a grammar that is compiled first: two
	// seconds of one core, which a busy machine spreads out. One that says nothing is taken for one that does not know the command: if
	// it does need migrations, its instances will not become ready.
	planWithin = 30 * time.Second
	// mostSaid bounds what is kept of a release's answer, and of its complaints.
	mostSaid, mostComplained = 1 << 20, 300
	// endWithin is how long a release that has answered may keep its output open.
	endWithin = 5 * time.Second
)

// Migrations implements target.Target.
func (f *fleet) Migrations(ctx context.Context, environment, service, release string) (migration.Plan, error) {
	bounded, cancel := context.WithTimeout(ctx, planWithin)
	defer cancel()
	plan, err := f.migrate(bounded, environment, service, release, migration.PlanFlag)
	if bounded.Err() != nil && ctx.Err() == nil {
		return migration.Plan{Untold: fmt.Sprintf("it does not answer %s %s within %s", migration.Command, migration.PlanFlag, planWithin)}, nil
	}
	return plan, err
}

// Migrate implements target.Target.
func (f *fleet) Migrate(ctx context.Context, m target.Migration) (migration.Plan, error) {
	if err := f.desired.write(m.Environment, m.Service, m.Fence, func(*desiredService) {}); err != nil {
		return migration.Plan{}, err
	}
	plan, err := f.migrate(ctx, m.Environment, m.Service, m.Release, migration.Flag(m.Kind))
	if err == nil && plan.Untold != "" {
		err = fmt.Errorf("%w: %s", target.ErrMigration, plan.Untold)
	}
	return plan, err
}

// migrate runs a release with the settings of its database, and no others: one that does not know the command cannot begin to serve.
func (f *fleet) migrate(ctx context.Context, environment, service, release, flag string) (migration.Plan, error) {
	if _, err := f.desired.tracks(environment, service); err != nil {
		return migration.Plan{}, err
	}
	db, ok := serviceDatabase(environment, service)
	if !ok {
		return migration.Plan{}, nil
	}
	p := f.platform
	if !p.layout.hasRelease(service, release) {
		return migration.Plan{}, fmt.Errorf("%w: release %s of %s was not imported", target.ErrNotFound, release, service)
	}
	given, err := p.layout.serviceSettings(service)
	if err != nil {
		return migration.Plan{}, err
	}
	out, complaints := &limited{most: mostSaid}, &limited{most: mostComplained}
	cmd := p.program(service, release)
	cmd.Args = append(cmd.Args, migration.Command, flag)
	cmd.Env = append(append(onlyDatabase(given), p.childEnv()...), p.databaseEnv(db)...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, complaints, endWithin
	ended := child.Start(cmd, syscall.SIGKILL)
	if ended == nil {
		stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		ended = cmd.Wait()
		stop()
	}
	if ctx.Err() != nil {
		return migration.Plan{}, fmt.Errorf("%s of %s was ended: %w", migration.Command, service, ctx.Err())
	}
	var answer migration.Answer
	if err := json.Unmarshal(out.kept, &answer); err != nil || answer.Plan == nil && answer.Error == "" {
		said := cmp.Or(string(bytes.TrimSpace(complaints.kept)), "nothing")
		return migration.Plan{Untold: fmt.Sprintf("it does not answer %s %s (%v), and says %s", migration.Command, flag, ended, said)}, nil
	}
	switch {
	case answer.Unavailable:
		return migration.Plan{}, errors.New(answer.Error)
	case answer.Error != "":
		return migration.Plan{}, fmt.Errorf("%w: %s", target.ErrMigration, answer.Error)
	}
	return *answer.Plan, nil
}

// onlyDatabase are those of an operator's settings that a migration goes by.
func onlyDatabase(given []string) []string {
	return slices.DeleteFunc(given, func(setting string) bool {
		return !strings.HasPrefix(setting, "DATABASE_") && !strings.HasPrefix(setting, "MIGRATE_")
	})
}

// limited keeps the beginning of what is written to it.
type limited struct {
	kept []byte
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p[:min(len(p), l.most-len(l.kept))]...)
	return len(p), nil
}
