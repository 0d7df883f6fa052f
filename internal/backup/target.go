package backup

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The ways in which a restore is refused for good.
var (
	// ErrTaken says that a database of the name that is to be restored into is there already.
	ErrTaken = errors.New("there is a database of this name already")
	// ErrOwnerMissing says that the role that is to own a restored database is not on the server.
	ErrOwnerMissing = errors.New("the role that owned the database is missing on this server")
	// ErrInUse says that sessions stand in the way that the restoring role may not end.
	ErrInUse = errors.New("the database is in use")
)

// restoreApplication is what the sessions of a restore are called on the server.
const restoreApplication = "sms-restore"

// BesideName is the database that a restore works in, beside the one that the backup is of. Nobody else knows it, so
// that what it holds is proven before it gets a name that anybody uses.
func BesideName(database, restoreID string) string { return database + "_restore_" + restoreID }

// BeforeName is what an in-place restore calls the database that it replaces.
func BeforeName(database, restoreID string) string { return database + "_before_" + restoreID }

// DatabaseName is what a database that is restored into may be called: PostgreSQL's limit, and nothing that needs quotes.
var DatabaseName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// platformDatabases are those that the platform itself runs on while it restores.
var platformDatabases = []string{"ops_db", "temporal", "temporal_visibility"}

// HoldsRestores reports whether the platform keeps its running restores in a database: such a one cannot be replaced while
// they run.
func HoldsRestores(database string) bool {
	for _, name := range platformDatabases {
		if database == name || strings.HasPrefix(database, name+"_staging") {
			return true
		}
	}
	return false
}

// Administrator is a connection to a server as the role that restores, to none of the databases of the platform.
type Administrator struct {
	source Source
	conn   *pgx.Conn
}

// Administer connects to the server of a source.
func Administer(ctx context.Context, source Source) (*Administrator, error) {
	conn, err := administer(ctx, source, restoreApplication)
	return &Administrator{source, conn}, err
}

// Close ends the connection.
func (a *Administrator) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	_ = a.conn.Close(ctx)
}

// Placed is a database that is there.
type Placed struct {
	// OID stays the same when the database gets another name.
	OID   uint32 `db:"oid"`
	Name  string `db:"datname"`
	Owner string `db:"owner"`
}

const (
	databaseByName = `
select oid, datname, pg_get_userbyid(datdba) as owner
  from pg_database
 where datname = $1`
	databaseByOID = `
select oid, datname, pg_get_userbyid(datdba) as owner
  from pg_database
 where oid = $1`
)

// Find returns a database by its name; nil when there is none.
func (a *Administrator) Find(ctx context.Context, name string) (*Placed, error) {
	return a.placed(ctx, databaseByName, name)
}

// FindOID returns a database by what stays when it is renamed; nil when there is none.
func (a *Administrator) FindOID(ctx context.Context, oid uint32) (*Placed, error) {
	return a.placed(ctx, databaseByOID, oid)
}

func (a *Administrator) placed(ctx context.Context, query string, argument any) (*Placed, error) {
	rows, _ := a.conn.Query(ctx, query, argument) // the error comes with the row
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[Placed])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for database %v: %w", argument, err)
	}
	return found, nil
}

// Create makes an empty database anew, with the encoding and collation of the backup, owned by a role. Only the owner and
// the role that backs up may connect; where like is not nil, whoever may do what in that database may do it here too.
func (a *Administrator) Create(ctx context.Context, m Manifest, name, owner string, like *Placed) (Placed, error) {
	if err := a.DropBeside(ctx, name); err != nil {
		return Placed{}, err
	}
	m.Owner = owner
	if err := CreateDatabase(ctx, m, a.source, name); err != nil {
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42704" { // undefined_object
			return Placed{}, fmt.Errorf("%w: %s; make it, or restore the backup's roles, which lie beside it", ErrOwnerMissing, owner)
		}
		return Placed{}, err
	}
	statements := []string{
		"grant connect on database " + ident(name) + " to " + ident(a.source.user()),
	}
	if like != nil {
		alike, err := a.alike(ctx, *like, name)
		if err != nil {
			return Placed{}, err
		}
		statements = append(statements, alike...)
	}
	for _, statement := range statements {
		if err := a.exec(ctx, statement); err != nil {
			return Placed{}, err
		}
	}
	made, err := a.Find(ctx, name)
	if err == nil && made == nil {
		err = fmt.Errorf("the database %s, made a moment ago, is gone", name)
	}
	if err != nil {
		return Placed{}, err
	}
	return *made, nil
}

// alike returns the statements that give a database the rights, the connection limit and the settings of another.
func (a *Administrator) alike(ctx context.Context, like Placed, name string) ([]string, error) {
	// Settings that are lists are stored as they are written in a statement (pg_dump's makeAlterConfigCommand).
	const statements = `
select format('grant %s on database %I to %s%s', privilege_type, $2::text,
              case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
              case when is_grantable then ' with grant option' else '' end)
  from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
 where oid = $1 and grantee <> datdba
union all
select format('alter database %I connection limit %s', $2::text, datconnlimit)
  from pg_database
 where oid = $1 and datconnlimit <> -1
union all
select format('alter database %I set %I to %s', $2::text, split_part(setting, '=', 1),
              case when split_part(setting, '=', 1) in ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries')
                   then substr(setting, strpos(setting, '=') + 1)
                   else quote_literal(substr(setting, strpos(setting, '=') + 1)) end)
  from pg_db_role_setting, unnest(setconfig) as setting
 where setdatabase = $1 and setrole = 0`
	rows, _ := a.conn.Query(ctx, statements, like.OID, name)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the rights and settings of %s: %w", like.Name, err)
	}
	return all, nil
}

// besideName is what BesideName makes.
var besideName = regexp.MustCompile(`^[a-z][a-z0-9_]*_restore_[0-9a-z]{10}$`)

// DropBeside drops the database that a restore works in, and reads back that it is gone. One that is not there is no error.
func (a *Administrator) DropBeside(ctx context.Context, name string) error {
	if !besideName.MatchString(name) {
		return fmt.Errorf("%s is no database of a restore", name)
	}
	there, err := a.Find(ctx, name)
	if err != nil || there == nil {
		return err
	}
	if err := a.endSessions(ctx, there.OID); err != nil {
		return err
	}
	if err := a.exec(ctx, "drop database if exists "+ident(name)); err != nil {
		return err
	}
	if there, err = a.Find(ctx, name); err == nil && there != nil {
		err = fmt.Errorf("the database %s was dropped and is still there", name)
	}
	return err
}

// Besides lists the databases that restores of a source's backups work in, or have left, as the ids of the restores.
func (a *Administrator) Besides(ctx context.Context) ([]string, error) {
	const listBesides = `
select substr(datname, length($1) + 1)
  from pg_database
 where starts_with(datname, $1) and substr(datname, length($1) + 1) ~ '^[0-9a-z]{10}$'`
	rows, _ := a.conn.Query(ctx, listBesides, BesideName(a.source.Database, ""))
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list the databases of restores: %w", err)
	}
	return ids, nil
}

// endSessions ends the sessions in a database that the restoring role may end: those of the roles that it is a member of,
// but for superusers, whom only superusers can end.
func (a *Administrator) endSessions(ctx context.Context, oid uint32) error {
	const endSessions = `
select pg_terminate_backend(pid)
  from pg_stat_activity
 where datid = $1 and pid <> pg_backend_pid() and usesysid in (
       select oid from pg_roles
        where pg_has_role(oid, 'usage') and (not rolsuper or (select rolsuper from pg_roles where rolname = current_user)))`
	if _, err := a.conn.Exec(ctx, endSessions, oid); err != nil {
		return fmt.Errorf("end the sessions in a database: %w", err)
	}
	return nil
}

// inTheWay names the roles whose sessions in a database are left; empty when none are.
func (a *Administrator) inTheWay(ctx context.Context, oid uint32) (string, error) {
	const sessionsLeft = `
select coalesce(string_agg(format('%s (process %s)', usename, pid), ', ' order by pid), '')
  from pg_stat_activity
 where datid = $1 and usesysid is not null`
	var roles string
	if err := a.conn.QueryRow(ctx, sessionsLeft, oid).Scan(&roles); err != nil {
		return "", fmt.Errorf("list the sessions in a database: %w", err)
	}
	return roles, nil
}

func (a *Administrator) exec(ctx context.Context, statement string) error {
	if _, err := a.conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// Command is what an operator types to run a statement on the server. It holds no password: that is in the file that
// PGPASSFILE names.
func (a *Administrator) Command(statement string) string {
	return a.CommandIn(maintenanceDatabase, statement)
}

// CommandIn is the same for a statement in a database.
func (a *Administrator) CommandIn(database, statement string) string {
	address, err := a.source.restoring(database)
	if err != nil {
		return statement
	}
	return fmt.Sprintf(`psql "%s" -c '%s'`, address, statement)
}

// user is the role of a source's URL.
func (s Source) user() string {
	u, err := url.Parse(s.URL)
	if err != nil {
		return ""
	}
	return u.User.Username()
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// sessionPause is the time between two looks for sessions that came while a rename waits for the last ones to go.
const sessionPause = 20 * time.Millisecond
