package sqlcheck

import (
	"encoding/json"
	"slices"
)

// command is one of the changes of an ALTER TABLE.
type command struct {
	Subtype string
	// Name is the column or constraint, where there is one.
	Name string
	Def  *struct {
		ColumnDef  *column
		Constraint *constraint
	}
}

type column struct {
	Name string `json:"colname"`
	Type struct {
		Names []struct{ String struct{ Sval string } }
	} `json:"typeName"`
	Constraints []struct{ Constraint constraint }
}

type constraint struct {
	Type           string `json:"contype"`
	Name           string `json:"conname"`
	Index          string `json:"indexname"`
	SkipValidation bool   `json:"skip_validation"`
	// Expr is a default or a check.
	Expr json.RawMessage `json:"raw_expr"`
}

// alter judges a change of a table that is in use.
func (m *migration) alter(table string, c command) {
	switch c.Subtype {
	case "AT_AddColumn":
		m.addColumn(table, *c.Def.ColumnDef)
	case "AT_AddConstraint":
		m.addConstraint(table, *c.Def.Constraint)
	case "AT_ValidateConstraint":
		m.takesLong("looks through " + table)
		if col, ok := m.notNull[table+"."+c.Name]; ok {
			m.proven = append(m.proven, table+"."+col)
		}
		return // it keeps nobody waiting
	case "AT_SetStatistics", "AT_SetOptions", "AT_ResetOptions", "AT_SetRelOptions", "AT_ResetRelOptions":
		return
	case "AT_ColumnDefault":
		if c.Def == nil {
			m.find("takes the default of %s.%s away, which older releases may rely on", table, c.Name)
		}
	case "AT_SetNotNull":
		if !m.checked[table+"."+c.Name] {
			m.find("makes %s.%s not null, which looks through the table with a lock on it: add a check (%s is not null) not valid, and validate it, in earlier migrations",
				table, c.Name, c.Name)
		}
	case "AT_DropNotNull":
		m.find("lets %s.%s be null, which older releases may not expect", table, c.Name)
	case "AT_DropColumn":
		m.find("drops column %s.%s", table, c.Name)
	case "AT_DropConstraint":
		m.find("drops constraint %s of %s", c.Name, table)
	case "AT_AlterColumnType":
		m.find("changes the type of %s.%s, which may rewrite the table", table, c.Name)
	default:
		m.find("alters %s in a way that is not known to be expand-only (%s)", table, c.Subtype)
	}
	m.locked = table
}

// types are those that hold no condition, as a domain would, and make no sequence, as serial does.
var types = []string{"bool", "int2", "int4", "int8", "numeric", "float4", "float8", "text", "varchar", "bpchar", "bytea", "date", "time", "timetz", "timestamp",
	"timestamptz", "interval", "uuid", "json", "jsonb", "inet", "cidr", "tsvector"}

func (m *migration) addColumn(table string, c column) {
	name := table + "." + c.Name
	var notNull, byDefault bool
	for _, of := range c.Constraints {
		switch of.Constraint.Type {
		case "CONSTR_NULL":
		case "CONSTR_NOTNULL":
			notNull = true
		case "CONSTR_DEFAULT":
			if byDefault = steady(of.Constraint.Expr); !byDefault {
				m.find("adds column %s with a default that may be another in each row, which rewrites the table", name)
				byDefault = true
			}
		case "CONSTR_IDENTITY", "CONSTR_GENERATED":
			m.find("adds column %s with a value of its own in each row, which rewrites the table", name)
		case "CONSTR_CHECK", "CONSTR_FOREIGN", "CONSTR_PRIMARY", "CONSTR_UNIQUE":
			m.find("adds column %s with a constraint, for which the table is looked through with a lock on it: add the constraint not valid, or by an index, later", name)
		default:
			m.find("adds column %s in a way that is not known to be expand-only (%s)", name, of.Constraint.Type)
		}
	}
	if notNull && !byDefault {
		m.find("adds column %s not null without a default: older releases give it no value", name)
	}
	if n := len(c.Type.Names); n == 0 || !slices.Contains(types, c.Type.Names[n-1].String.Sval) {
		m.find("adds column %s of a type that may have conditions or a sequence of its own", name)
	}
}

func (m *migration) addConstraint(table string, c constraint) {
	switch {
	case c.Type == "CONSTR_CHECK" && c.SkipValidation:
		if col := isNotNull(c.Expr); col != "" && c.Name != "" {
			m.notNull[table+"."+c.Name] = col
		}
	case c.Type == "CONSTR_FOREIGN" && c.SkipValidation, c.Type == "CONSTR_UNIQUE" && c.Index != "":
	case c.Type == "CONSTR_CHECK", c.Type == "CONSTR_FOREIGN":
		m.find("adds a constraint to %s, for which it is looked through with a lock on it: add it not valid, and validate it in a later migration", table)
	case c.Type == "CONSTR_UNIQUE", c.Type == "CONSTR_PRIMARY":
		m.find("adds a key to %s, for which it is looked through with a lock on it: create a unique index concurrently, then add the constraint using it", table)
	default:
		m.find("adds a constraint to %s that is not known to be expand-only (%s)", table, c.Type)
	}
}

// isNotNull is the column that a check (column is not null) is about.
func isNotNull(expr json.RawMessage) string {
	var check struct {
		NullTest struct {
			Arg struct {
				ColumnRef struct {
					Fields []struct{ String struct{ Sval string } }
				}
			}
			Type string `json:"nulltesttype"`
		}
	}
	if json.Unmarshal(expr, &check) != nil || check.NullTest.Type != "IS_NOT_NULL" || len(check.NullTest.Arg.ColumnRef.Fields) != 1 {
		return ""
	}
	return check.NullTest.Arg.ColumnRef.Fields[0].String.Sval
}

// stable are functions that give all rows of one statement the same value.
var stable = []string{"now", "transaction_timestamp", "statement_timestamp"}

// steady reports whether a default is one value for all rows, and not null, so that PostgreSQL keeps it once.
func steady(expr json.RawMessage) bool {
	var e struct {
		Const *struct {
			IsNull bool `json:"isnull"`
		} `json:"A_Const"`
		Cast *struct{ Arg json.RawMessage } `json:"TypeCast"`
		Call *struct {
			Name []json.RawMessage `json:"funcname"`
		} `json:"FuncCall"`
		Value json.RawMessage `json:"SQLValueFunction"`
	}
	if json.Unmarshal(expr, &e) != nil {
		return false
	}
	switch {
	case e.Const != nil:
		return !e.Const.IsNull
	case e.Cast != nil:
		return steady(e.Cast.Arg)
	case e.Call != nil:
		return len(e.Call.Name) == 1 && slices.Contains(stable, objectName(e.Call.Name[0]))
	default:
		return len(e.Value) > 0 // such as current_date
	}
}
