package standalone

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/migrations"
)

// Environments.
const (
	Production = discovery.Production
	Staging    = "staging"
)

// backupRole reads every database, and changes none. What restores is backup.RestoreRole.
const backupRole = "sms_backup"

// database is one database of the platform, owned by the role of the one service that uses it.
type database struct {
	name, role string
	migrations fs.FS // nil where the owner migrates itself
}

func suffix(environment string) string {
	if environment == Production {
		return ""
	}
	return "_" + environment
}

func studentDatabase(environment string) database {
	return database{"student_db" + suffix(environment), "student_service" + suffix(environment), migrations.Student()}
}

func configurationDatabase(environment string) database {
	return database{"configuration_db" + suffix(environment), "configuration_service" + suffix(environment), migrations.Configuration()}
}

// serviceDatabase is the database of a service that rollouts act on; ok is false when it has none.
func serviceDatabase(environment, service string) (db database, ok bool) {
	switch service {
	case "student-service":
		return studentDatabase(environment), true
	case "configuration-service":
		return configurationDatabase(environment), true
	case registryService:
		return registryDatabase, true
	default:
		return database{}, false
	}
}

var (
	registryDatabase   = database{"registry_db", "registry_service", migrations.Registry()}
	opsDatabase        = database{"ops_db", "ops_service", migrations.Ops()}
	temporalDatabase   = database{name: "temporal", role: "temporal"}
	visibilityDatabase = database{name: "temporal_visibility", role: "temporal"}
)

func (o *Options) environments() []string {
	if o.Staging {
		return []string{Production, Staging}
	}
	return []string{Production}
}

func (o *Options) databases() []database {
	all := []database{registryDatabase, opsDatabase, temporalDatabase, visibilityDatabase}
	for _, env := range o.environments() {
		all = append(all, studentDatabase(env), configurationDatabase(env))
	}
	return all
}

// prepareDatabases makes what is missing of roles, databases and grants, and applies pending migrations.
func (p *Platform) prepareDatabases(ctx context.Context) error {
	super, err := p.layout.password(postgres.Superuser)
	if err != nil {
		return err
	}
	conn, err := p.cluster.Connect(ctx, super, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := p.ensureRole(ctx, conn, backupRole, "login in role pg_read_all_data"); err != nil {
		return err
	}
	if err := p.ensureRole(ctx, conn, backup.RestoreRole, "login createdb in role "+backupRole); err != nil {
		return err
	}
	for _, db := range p.options.databases() {
		if err := p.ensureRole(ctx, conn, db.role, "login"); err != nil {
			return err
		}
		if err := grantToRestore(ctx, conn, db.role); err != nil {
			return err
		}
		if err := ensureDatabase(ctx, conn, db); err != nil {
			return err
		}
		if db.migrations == nil {
			continue
		}
		password, err := p.layout.password(db.role)
		if err != nil {
			return err
		}
		if _, err := postgres.Migrate(ctx, p.cluster.Config(db.role, password, db.name), db.migrations); err != nil {
			return err
		}
	}
	if err := p.prepareReplica(ctx, conn); err != nil {
		return err
	}
	return p.writeBackupPasswords()
}

// ensureRole makes a role and sets its password to the one on file, so that a restored data directory fits again.
func (p *Platform) ensureRole(ctx context.Context, conn *pgx.Conn, role, options string) error {
	password, err := p.layout.password(role)
	if err != nil {
		return err
	}
	var there bool
	if err := conn.QueryRow(ctx, `select exists (select from pg_roles where rolname = $1)`, role).Scan(&there); err != nil {
		return fmt.Errorf("look for role %s: %w", role, err)
	}
	name := pgx.Identifier{role}.Sanitize()
	if !there {
		if _, err := conn.Exec(ctx, "create role "+name+" "+options); err != nil {
			return fmt.Errorf("make role %s: %w", role, err)
		}
	}
	// The password is of letters and digits only, and the statement is in no log: see Cluster.Command.
	if _, err := conn.Exec(ctx, "alter role "+name+" password '"+password+"'"); err != nil {
		return fmt.Errorf("set the password of role %s: %w", role, err)
	}
	return nil
}

// grantToRestore lets the restoring role make, own, rename and drop what belongs to a role, and end that role's sessions.
func grantToRestore(ctx context.Context, conn *pgx.Conn, role string) error {
	statement := "grant " + pgx.Identifier{role}.Sanitize() + " to " + backup.RestoreRole
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func ensureDatabase(ctx context.Context, conn *pgx.Conn, db database) error {
	var there bool
	if err := conn.QueryRow(ctx, `select exists (select from pg_database where datname = $1)`, db.name).Scan(&there); err != nil {
		return fmt.Errorf("look for database %s: %w", db.name, err)
	}
	name, role := pgx.Identifier{db.name}.Sanitize(), pgx.Identifier{db.role}.Sanitize()
	statements := []string{
		"revoke connect, temporary on database " + name + " from public",
		"grant connect on database " + name + " to " + backupRole,
	}
	if !there {
		statements = append([]string{"create database " + name + " owner " + role}, statements...)
	}
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// writeBackupPasswords writes the pgpass file (PostgreSQL manual, section 34.16) of the roles that back up and restore.
func (p *Platform) writeBackupPasswords() error {
	var lines strings.Builder
	for _, role := range []string{backupRole, backup.RestoreRole} {
		password, err := p.layout.password(role)
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s:%d:*:%s:%s\n", loopback, p.cluster.Port, role, password)
	}
	return p.layout.writeShared(p.layout.backupPasswords(), lines.String())
}

// backupDatabases is BACKUP_DATABASES of the worker.
func (p *Platform) backupDatabases() string {
	var list []string
	for _, db := range p.options.databases() {
		list = append(list, fmt.Sprintf("%s=%s", db.name, p.cluster.Config(backupRole, "", db.name).URL))
	}
	return strings.Join(list, ",")
}
