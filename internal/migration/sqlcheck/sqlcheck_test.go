package sqlcheck_test

import (
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/migration/sqlcheck"
)

const noTx = "---- tern: disable-tx ----\n"

// TestFindings looks at migrations of a database with a table student. An empty want: it is expand-only.
func TestFindings(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		// What older releases and their traffic do not notice.
		"create table note (id bigint primary key, body text not null default 'x' check (body <> ''));":                                                                                              "",
		"create table note (id int); create index note_id on note (id); alter table note add column b uuid default gen_random_uuid(); insert into note select 1; delete from note; drop table note;": "",
		"alter table student add column house text, add column points int not null default 0;":                                                                                                       "",
		"alter table student add column seen timestamptz not null default now(), add column day date default current_date;":                                                                          "",
		"alter table student add column tags text[] not null default '{}'::text[];":                                                                                                                  "",
		"alter table student alter column house set default 'red';":                                                                                                                                  "",
		"alter table student add constraint points_positive check (points >= 0) not valid;":                                                                                                          "",
		"alter table student add constraint student_house foreign key (house) references house not valid;":                                                                                           "",
		"alter table student validate constraint points_positive;":                                                                                                                                   "",
		"alter table student add constraint student_one unique using index student_one;":                                                                                                             "",
		noTx + "drop index concurrently if exists student_house; create index concurrently student_house on student (house);":                                                                        "",
		"comment on column student.house is 'x'; create statistics s on lower(a) from student; create extension if not exists unaccent;":                                                             "",
		"create function f() returns int language sql as 'select 1'; create view v as select 1; create type mood as enum ('a');":                                                                     "",
		"create trigger tr after insert on student for each row execute function f();":                                                                                                               "",
		"grant select on student to reader; alter type mood add value 'b'; insert into house values (1), (2) on conflict do nothing;":                                                                "",
		"alter index student_terms alter column 1 set statistics 0;":                                                                                                                                 "",

		// What older releases cannot live with.
		"create table a (b int);\n\n-- why\ndrop table student;": "line 4: drops table student",
		"drop view v;":                                                           "drops view v",
		"alter table student drop column house;":                                 "drops column student.house",
		"alter table student drop constraint c;":                                 "drops constraint c of student",
		"alter table student rename column a to b;":                              "renames",
		"alter table student rename to pupil;":                                   "renames",
		"alter table student set schema old;":                                    "moves",
		"alter table student alter column house drop default;":                   "takes the default of student.house away",
		"alter table student alter column house drop not null;":                  "lets student.house be null",
		"alter table student add column house text not null;":                    "not null without a default",
		"alter table student add column house int not null default null;":        "may be another in each row",
		"create or replace function f() returns int language sql as 'select 2';": "replaces",
		"create or replace view v as select 2;":                                  "replaces",
		"revoke select on student from reader;":                                  "takes a right away",
		"alter type mood rename value 'a' to 'b';":                               "renames the value a",
		noTx + "drop index concurrently if exists student_house;":                "drops index student_house",
		"alter table only student enable row level security;":                    "not known to be expand-only (AT_EnableRowSecurity)",

		// What changes data, or cannot be looked into.
		"truncate student;":                                                                    "empties",
		"update student set house = 'red';":                                                    "changes rows",
		"delete from student;":                                                                 "deletes rows",
		"merge into a using b on a.x = b.x when matched then delete;":                          "changes rows",
		"insert into house values (1) on conflict (id) do update set id = 2;":                  "changes rows of house",
		"with gone as (delete from student returning *) insert into house select 1 from gone;": "WITH",
		"do $$ begin drop table student; end $$;":                                              "code that is not looked into",
		"select pg_terminate_backend(1);":                                                      "functions that are not looked into",
		"set lock_timeout = 0;":                                                                "changes settings",
		"commit;":                                                                              "begins or ends a transaction",
		"create table if not exists note (id int);":                                            "what the schema is afterwards is not known",
		"create table part partition of student for values in (1);":                            "part of another table",
		"create rule r as on insert to student do instead nothing;":                            "RuleStmt is not known to be expand-only",

		// What keeps traffic waiting.
		"alter table student alter column house type varchar(3);":                                                   "changes the type of student.house",
		"alter table student alter column house set not null;":                                                      "makes student.house not null",
		"alter table student add column code uuid default gen_random_uuid();":                                       "may be another in each row",
		"alter table student add column n bigserial;":                                                               "a sequence of its own",
		"alter table student add column n bigint generated always as identity;":                                     "a value of its own in each row",
		"alter table student add column l int generated always as (length(house)) stored;":                          "a value of its own in each row",
		"alter table student add column h int references house;":                                                    "with a constraint",
		"alter table student add column h mood_domain;":                                                             "may have conditions",
		"alter table student add constraint c check (points > 0);":                                                  "adds a constraint to student",
		"alter table student add constraint f foreign key (h) references house;":                                    "adds a constraint to student",
		"alter table student add primary key (h);":                                                                  "adds a key to student",
		"alter table student add constraint x exclude using gist (h with =);":                                       "CONSTR_EXCLUSION",
		"create index i on student (house);":                                                                        "keeps its writers waiting",
		"create index concurrently i on student (house);":                                                           "which no transaction may",
		noTx + "create index concurrently i on student (house);":                                                    "leaves an invalid index",
		noTx + "drop index concurrently if exists i; create index concurrently if not exists i on student (house);": "leaves an invalid index",
		noTx + "alter table student add column a int;":                                                              "without a transaction only indexes",
		"alter table student add column a int; alter table student validate constraint c;":                          "looks through student while student is locked",
		"create table t (s text references student); insert into t select id from student;":                         "while the table that t refers to is locked",
		"lock table student;":    "locks a table",
		"vacuum full student;":   "takes as long as",
		"cluster student;":       "rewrites a table",
		"reindex table student;": "rebuilds",
		"alter tabel student":    "cannot be read: syntax error",
	} {
		findings := sqlcheck.New().Check(sql)
		if len(findings) == 0 != (want == "") || !strings.Contains(strings.Join(findings, "\n"), want) {
			t.Errorf("%s\nfound %q, want %q", sql, findings, want)
		}
	}
}

func TestEveryFindingIsNamed(t *testing.T) {
	t.Parallel()
	findings := sqlcheck.New().Check("alter table student drop column a, drop column b;\ntruncate house;")
	if len(findings) != 3 || !strings.HasPrefix(findings[2], "line 2: ") {
		t.Errorf("found %q", findings)
	}
}

// TestNotNullAfterAValidatedCheck takes the way in three migrations on which nobody waits.
func TestNotNullAfterAValidatedCheck(t *testing.T) {
	t.Parallel()
	const notNull = "alter table student alter column house set not null;"
	add, validate := "alter table student add constraint house_there check (house is not null) not valid;", "alter table student validate constraint house_there;"
	checker := sqlcheck.New()
	for _, sql := range []string{add, validate, notNull} {
		if findings := checker.Check(sql); len(findings) > 0 {
			t.Errorf("%s: %q", sql, findings)
		}
	}
	checker = sqlcheck.New()
	checker.Check(add)
	if findings := checker.Check(notNull); len(findings) != 1 {
		t.Errorf("the check is not validated: %q", findings)
	}
	if findings := sqlcheck.New().Check(add + validate + notNull); len(findings) != 2 {
		t.Errorf("all in one transaction: %q", findings)
	}
}
