// Package sqlcheck looks into migrations with PostgreSQL's own grammar and finds what is not expand-only: what older releases cannot
// live with, and what holds up their traffic. What it does not know is a finding too.
//
// The grammar is that of libpg_query, compiled to WebAssembly. The first use in a process compiles that to machine code, which takes some
// seconds of one core and about 240 MB: look into migrations in a short process, and only into those that are pending.
package sqlcheck

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/wasilibs/go-pgquery/parser"
)

// WithoutTx reports whether tern runs a migration without a transaction.
func WithoutTx(sql string) bool { return withoutTx.MatchString(sql) }

var withoutTx = regexp.MustCompile(`(?m)^---- tern: disable-tx ----$`)

// oneGrammar is held while a grammar is in use: for each that is in use at once, the library compiles another.
var oneGrammar sync.Mutex

// Checker looks into the migrations of one database, one after the other.
type Checker struct {
	// notNull are the checks that a column is not null, by table and name of the constraint; checked are the columns, by table and
	// name, of which the rows were found to keep to such a check by an earlier migration.
	notNull map[string]string
	checked map[string]bool
}

// New is a checker of an empty database.
func New() *Checker { return &Checker{notNull: map[string]string{}, checked: map[string]bool{}} }

// Check says what in the next migration is not expand-only.
func (c *Checker) Check(sql string) []string {
	oneGrammar.Lock()
	parsed, err := parser.ParseToJSON(sql)
	oneGrammar.Unlock()
	if err != nil {
		return []string{"it cannot be read: " + err.Error()}
	}
	var tree struct {
		Stmts []struct {
			Stmt     map[string]json.RawMessage
			Location int `json:"stmt_location"`
		}
	}
	if err := json.Unmarshal([]byte(parsed), &tree); err != nil {
		return []string{"it cannot be read: " + err.Error()}
	}
	m := &migration{Checker: c, made: map[string]bool{}, dropped: map[string]int{}, withoutTx: WithoutTx(sql)}
	for _, s := range tree.Stmts {
		m.line = line(sql, s.Location)
		for kind, raw := range s.Stmt {
			m.statement(kind, raw)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.dropped)) {
		m.line = m.dropped[name]
		m.find("drops index %s", name)
	}
	for _, column := range m.proven {
		c.checked[column] = true
	}
	return m.findings
}

// line is the number of the line in which a statement begins, behind blanks and comments.
func line(sql string, at int) int {
	n := 1 + strings.Count(sql[:at], "\n")
	for text := range strings.Lines(sql[at:]) {
		if text = strings.TrimSpace(text); text != "" && !strings.HasPrefix(text, "--") {
			break
		}
		n++
	}
	return n
}

// migration is one under scrutiny.
type migration struct {
	*Checker
	withoutTx bool
	line      int
	findings  []string
	// made are the tables and indexes that it makes itself: nobody uses them yet.
	made map[string]bool
	// dropped are the indexes that it drops and has not made again, and in which line.
	dropped map[string]int
	// locked is the table whose traffic waits from here to the end of the transaction, once there is one.
	locked string
	// proven are the columns of which it finds the rows not null.
	proven []string
}

func (m *migration) find(format string, args ...any) {
	m.findings = append(m.findings, fmt.Sprintf("line %d: ", m.line)+fmt.Sprintf(format, args...))
}

type relation struct {
	Schema string `json:"schemaname"`
	Name   string `json:"relname"`
}

func (r relation) String() string {
	if r.Schema == "" || r.Schema == "public" {
		return r.Name
	}
	return r.Schema + "." + r.Name
}

// statement is of every kind of statement what matters here (parsenodes.h of PostgreSQL).
type statement struct {
	Relation    relation
	Into        struct{ Rel relation }
	RemoveType  string
	Objects     []json.RawMessage
	Cmds        []struct{ AlterTableCmd command }
	Inherits    []json.RawMessage `json:"inhRelations"`
	Partition   json.RawMessage   `json:"partbound"`
	Index       string            `json:"idxname"`
	Concurrent  bool
	IfNotExists bool                    `json:"if_not_exists"`
	MissingOK   bool                    `json:"missing_ok"`
	Replace     bool                    `json:"replace"`
	IsGrant     bool                    `json:"is_grant"`
	OldValue    string                  `json:"oldVal"`
	With        json.RawMessage         `json:"withClause"`
	OnConflict  struct{ Action string } `json:"onConflictClause"`
	Select      struct {
		SelectStmt *struct {
			Values []json.RawMessage `json:"valuesLists"`
		}
	} `json:"selectStmt"`
}

// harmless only add what nobody knows yet.
var harmless = map[string]bool{"CommentStmt": true, "CreateExtensionStmt": true, "CreateEnumStmt": true, "CompositeTypeStmt": true, "CreateSeqStmt": true,
	"CreateStatsStmt": true, "CreateSchemaStmt": true}

// known says what else is wrong with statements that are never expand-only.
var known = map[string]string{
	"TruncateStmt": "empties a table", "UpdateStmt": "changes rows", "DeleteStmt": "deletes rows", "MergeStmt": "changes rows",
	"RenameStmt": "renames what older releases know by its name", "AlterObjectSchemaStmt": "moves what older releases know by its name",
	"LockStmt": "locks a table", "VacuumStmt": "takes as long as its tables, maybe with a lock on them", "ClusterStmt": "rewrites a table with a lock on it",
	"ReindexStmt": "rebuilds indexes", "DoStmt": "runs code that is not looked into", "SelectStmt": "calls functions that are not looked into",
	"CallStmt": "calls a procedure that is not looked into", "VariableSetStmt": "changes settings, such as how long is waited for a lock",
	"TransactionStmt": "begins or ends a transaction", "CopyStmt": "copies rows", "RefreshMatViewStmt": "locks a view while it is filled",
}

// onOwn are statements that change nothing for others when they act on what the migration has made.
var onOwn = map[string]bool{"AlterTableStmt": true, "UpdateStmt": true, "DeleteStmt": true, "RenameStmt": true, "IndexStmt": true, "CreateTrigStmt": true, "ClusterStmt": true}

func (m *migration) statement(kind string, raw json.RawMessage) {
	var s statement
	if err := json.Unmarshal(raw, &s); err != nil {
		m.find("%s cannot be read: %v", kind, err)
		return
	}
	if m.withoutTx && (kind != "IndexStmt" && kind != "DropStmt" || !s.Concurrent) {
		m.find("without a transaction only indexes may be made and dropped, and only concurrently, so that it can be tried again from its beginning")
		return
	}
	if onOwn[kind] && m.made[s.Relation.String()] {
		if kind == "IndexStmt" {
			m.made[s.Index] = true
		}
		return
	}
	switch kind {
	case "CreateStmt":
		m.createTable(s, raw)
	case "CreateTableAsStmt":
		m.takesLong("fills table " + s.Into.Rel.String())
		m.made[s.Into.Rel.String()] = true
	case "IndexStmt":
		m.createIndex(s)
	case "DropStmt":
		m.drop(s)
	case "AlterTableStmt":
		for _, cmd := range s.Cmds {
			m.alter(s.Relation.String(), cmd.AlterTableCmd)
		}
	case "CreateFunctionStmt", "ViewStmt":
		if s.Replace {
			m.find("replaces what older releases use: make one with a new name")
		}
	case "CreateTrigStmt":
		m.locked = s.Relation.String()
		if s.Replace {
			m.find("replaces a trigger")
		}
	case "GrantStmt":
		if !s.IsGrant {
			m.find("takes a right away")
		}
	case "AlterEnumStmt":
		if s.OldValue != "" {
			m.find("renames the value %s", s.OldValue)
		}
	case "InsertStmt":
		m.insert(s)
	default:
		switch {
		case harmless[kind]:
		case known[kind] != "":
			m.find("%s", known[kind])
		default:
			m.find("%s is not known to be expand-only", kind)
		}
	}
}

func (m *migration) createTable(s statement, raw json.RawMessage) {
	name := s.Relation.String()
	switch {
	case len(s.Inherits) > 0 || s.Partition != nil:
		m.find("makes %s part of another table, which is not known to be expand-only", name)
	case s.IfNotExists:
		m.find("makes %s unless it is there: what the schema is afterwards is not known", name)
	}
	m.made[name] = true
	if strings.Contains(string(raw), `"pktable"`) { // SHARE ROW EXCLUSIVE on what it refers to
		m.locked = "the table that " + name + " refers to"
	}
}

func (m *migration) createIndex(s statement) {
	_, again := m.dropped[s.Index]
	delete(m.dropped, s.Index)
	switch {
	case !s.Concurrent:
		m.find("creates an index on %s, which keeps its writers waiting: create it concurrently", s.Relation)
	case !m.withoutTx:
		m.find("creates an index concurrently, which no transaction may: put it into a migration of its own with the line `---- tern: disable-tx ----`")
	case !again || s.IfNotExists:
		m.find("creates index %s concurrently: drop it first, concurrently and if it exists, because one that fails leaves an invalid index", s.Index)
	}
}

func (m *migration) drop(s statement) {
	for _, object := range s.Objects {
		name := objectName(object)
		switch index := s.RemoveType == "OBJECT_INDEX"; {
		case m.made[name] && (index || s.RemoveType == "OBJECT_TABLE"):
			delete(m.made, name)
		case index && s.Concurrent && s.MissingOK && m.withoutTx:
			m.dropped[name] = m.line
		default:
			m.find("drops %s %s", strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s.RemoveType, "OBJECT_"), "_", " ")), name)
		}
	}
}

var words = regexp.MustCompile(`"sval": ?"([^"]*)"`)

// objectName joins the words of a name, whatever kind of object has it.
func objectName(raw json.RawMessage) string {
	var parts []string
	for _, match := range words.FindAllStringSubmatch(string(raw), -1) {
		parts = append(parts, match[1])
	}
	return strings.TrimPrefix(strings.Join(parts, "."), "public.")
}

func (m *migration) insert(s statement) {
	if len(s.With) > 0 {
		m.find("has a WITH, which may change rows")
	}
	if s.OnConflict.Action == "ONCONFLICT_UPDATE" && !m.made[s.Relation.String()] {
		m.find("changes rows of %s that are there", s.Relation)
	}
	if s.Select.SelectStmt != nil && s.Select.SelectStmt.Values == nil {
		m.takesLong("copies rows into " + s.Relation.String())
	}
}

// takesLong notes what takes as long as there is data: traffic must not wait for that.
func (m *migration) takesLong(what string) {
	if m.locked != "" {
		m.find("%s while %s is locked: put it into a migration of its own", what, m.locked)
	}
}
