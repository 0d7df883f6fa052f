package student

import (
	"fmt"
	"strings"
)

// What an import decides stands in a table of its transaction, a row a staged line.
const createPlan = `
create temporary table import_plan (
    line        bigint  not null,
    student_id  text,
    action      text,
    deactivates boolean not null,
    good        boolean not null,
    faults      jsonb
) on commit drop`

// planImport finds out for each staged line who it is about, what it changes, and what is wrong with it. held is every student that the
// file speaks of, as it is now and, for update, as it stays until the import ends. Named twice counts whatever else is wrong with a line.
var planImport = `
insert into import_plan (line, student_id, action, deactivates, good, faults)
with held as (
    select s.* from student s
    where not s.synthetic and s.student_id in (
        select r.student_id from student_import_row r where r.import_id = @import_id::uuid and r.student_id is not null
        union all
        select m.student_id from student_import_row r join student m on m.mobile = r.mobile and not m.synthetic
        where r.import_id = @import_id::uuid
    )
    %s
), matched as materialized (
    select r.line, r.mobile, r.faulty, s.student_id,
        r.student_id is not null as by_id,
        r.student_id is not null and s.student_id is null as missing,
        r.student_id is null and s.student_id is null and r.mobile is not null as is_new,
        s.student_id is not null and coalesce(m.student_id <> s.student_id, false) as taken,
        r.latin1 and @utf8::boolean as misread,
        known and coalesce(r.date_of_birth <> s.date_of_birth, r.date_of_birth is not null) and not coalesce(
            r.date_of_birth <= registered and extract(year from age(registered, r.date_of_birth)) between @youngest::bigint and @oldest::bigint,
            true) as wrong_age,
        known and left(r.aadhaar_number, 1) = 'X' and r.aadhaar_number is distinct from 'XXXX-XXXX-' || nullif(right(s.aadhaar_number, 4), '') as wrong_mask,
        (` + targets("r", "s") + `) is distinct from (` + sqlColumns("s.") + `) as details_change,
        coalesce(r.status <> s.status, false) as status_changes,
        coalesce(r.status = 'INACTIVE' and s.status = 'ACTIVE', false) as deactivates
    from student_import_row r
    left join held m on m.mobile = r.mobile
    left join held s on s.student_id = coalesce(r.student_id, m.student_id)
    cross join lateral (
        select r.student_id is null or s.student_id is not null as known,
            coalesce((s.created_at at time zone @zone::text)::date, @today::date) as registered
    ) as day
    where r.import_id = @import_id::uuid
), same_student as (
    select student_id, min(line) as first_line from matched where student_id is not null group by student_id having count(*) > 1
), same_mobile as (
    select mobile, min(line) as first_number from matched where mobile is not null group by mobile having count(*) > 1
), judged as (
    select *, coalesce(first_line < line, false) as again, coalesce(first_number < line, false) as number_again
    from matched left join same_student using (student_id) left join same_mobile using (mobile)
), found as (
    select *, case when missing or taken or misread or wrong_age or wrong_mask or again or number_again or is_new and @absent::jsonb <> '[]' then (
        select jsonb_agg(jsonb_build_object('column', "column", 'code', code, 'detail', detail))
        from (values
            (misread, '', 'wrong-encoding', 'is not UTF-8, as other rows of the file are: say which charset the file has'),
            (missing, 'studentId', 'not-found', 'there is no student with this id'),
            (again, case when by_id then 'studentId' else 'mobile' end, 'duplicate', 'line ' || first_line || ' is about the same student'),
            (number_again and not again, 'mobile', 'duplicate', 'line ' || first_number || ' has the same mobile number'),
            (taken and not again and not number_again, 'mobile', 'duplicate', 'another student has this mobile number'),
            (wrong_age, 'dateOfBirth', 'out-of-range',
                'the age on the day of registration must be ' || @youngest::bigint || ' to ' || @oldest::bigint || ' years'),
            (wrong_mask, 'aadhaarNumber', 'wrong-format', 'must be 12 digits, or the masked form of the number that is stored')
        ) as fault (is_so, "column", code, detail)
        where is_so
    ) end as faults
    from judged
), complete as (
    select *, case when is_new and @absent::jsonb <> '[]' then coalesce(faults, '[]') || @absent::jsonb else faults end as all_faults
    from found
)
select line, student_id,
    case when is_new then 'CREATED' when details_change then 'UPDATED' when status_changes then 'STATUS_CHANGED' end,
    deactivates, not faulty and all_faults is null, all_faults
from complete`

// targets are the details that a staged row r makes of a student s: the cells, and what is stored where there is none.
func targets(r, s string) string {
	values := make([]string, len(csvColumns))
	for i, c := range csvColumns {
		values[i] = fmt.Sprintf("coalesce(%s.%s, %s.%s)", r, c.sql, s, c.sql)
		if c.sql == "aadhaar_number" { // the masked form leaves it as it is
			values[i] = fmt.Sprintf("coalesce(case when left(%s.%s, 1) <> 'X' then %[1]s.%[2]s end, %s.%[2]s)", r, c.sql, s)
		}
	}
	return strings.Join(values, ", ")
}

// planForUpdate is planImport of an import that is going to write, planOnly of a dry run.
var (
	planForUpdate = fmt.Sprintf(planImport, "for update of s")
	planOnly      = fmt.Sprintf(planImport, "")
)

// insertFaults keeps the faults that the plan has found, with the cells of the line, beside those found before.
func insertFaults(h csvHeader) string {
	cells := make([]string, len(h.columns))
	for i, column := range h.columns {
		switch column {
		case ignoredColumn:
			cells[i] = "''"
		case idColumn:
			cells[i] = "coalesce(r.student_id, '')"
		case statusColumn:
			cells[i] = "coalesce(r.status, '')"
		default:
			cells[i] = "coalesce(r." + csvColumns[column].sql + "::text, '')"
		}
	}
	return `
insert into student_import_fault as f (import_id, line, cells, faults)
select r.import_id, r.line, jsonb_build_array(` + strings.Join(cells, ", ") + `), p.faults
from import_plan p join student_import_row r on r.import_id = @import_id::uuid and r.line = p.line
where p.faults is not null
on conflict (import_id, line) do update set faults = f.faults || excluded.faults`
}

const countPlan = `
select count(*) filter (where good and action = 'CREATED') as created,
    count(*) filter (where good and action in ('UPDATED', 'STATUS_CHANGED')) as updated,
    count(*) filter (where good and action is null) as unchanged,
    count(*) filter (where good and deactivates) as deactivated,
    (select count(*) from student_import_fault where import_id = @import_id::uuid and line > 0) as rejected,
    count(*) as staged
from import_plan`

const countActive = `select count(*) from student where not synthetic and status = 'ACTIVE'`

// reserveNumbers gives out as many student numbers and returns the last of them.
const reserveNumbers = `
insert into student_number as n (year, synthetic, last) values ($1, false, $2)
on conflict (year, synthetic) do update set last = n.last + $2
returning last`

// writeCreated and writeUpdated write what the plan says, with audit and change rows as insertStudent and updateStudent do.
var writeCreated = `
with after as (
    insert into student (student_id, ` + sqlColumns("") + `, status, created_at, created_by, updated_at, updated_by)
    select 'STU-' || @year::int || '-' || lpad(n::text, greatest(5, length(n::text)), '0'), ` + newDetails() + `,
        coalesce(r.status, 'ACTIVE'), @at::timestamptz, @user::text, @at::timestamptz, @user::text
    from (
        select line, @first::bigint - 1 + row_number() over (order by line) as n from import_plan where good and action = 'CREATED'
    ) as p join student_import_row r on r.import_id = @import_id::uuid and r.line = p.line
    order by n
    returning ` + recordColumns + `
), audit as (
    insert into student_audit (student_id, version, action, changed_at, changed_by, request_id, after)
    select student_id, version, 'CREATED', @at::timestamptz, @user::text, @request_id::text, to_jsonb(after) from after
), change as (
    insert into student_change (student_id, version, action, changed_at, changed_by, request_id)
    select student_id, version, 'CREATED', @at::timestamptz, @user::text, @request_id::text from after
)
select count(*) from after`

var writeUpdated = `
with before as (
    select ` + recordColumns + ` from student
    where student_id in (select student_id from import_plan where good and action in ('UPDATED', 'STATUS_CHANGED'))
), after as (
    update student s
    set (` + sqlColumns("") + `) = row (` + targets("r", "s") + `), status = coalesce(r.status, s.status),
        version = s.version + 1, updated_at = @at::timestamptz, updated_by = @user::text
    from import_plan p join student_import_row r on r.import_id = @import_id::uuid and r.line = p.line
    where s.student_id = p.student_id and p.good and p.action in ('UPDATED', 'STATUS_CHANGED')
    returning p.action, ` + recordColumnsOf("s") + `
), written as (
    select ` + recordColumns + ` from after
), audit as (
    insert into student_audit (student_id, version, action, changed_at, changed_by, request_id, before, after)
    select student_id, written.version, after.action, @at::timestamptz, @user::text, @request_id::text, to_jsonb(before), to_jsonb(written)
    from written join before using (student_id) join after using (student_id)
), change as (
    insert into student_change (student_id, version, action, changed_at, changed_by, request_id)
    select student_id, version, action, @at::timestamptz, @user::text, @request_id::text from after
)
select count(*) from after`

// newDetails are the details of a staged row r that is about nobody yet.
func newDetails() string {
	values := make([]string, len(csvColumns))
	for i, c := range csvColumns {
		values[i] = "r." + c.sql
		if c.optional {
			values[i] = "coalesce(r." + c.sql + ", '')"
		}
	}
	return strings.Join(values, ", ")
}

// recordColumnsOf are recordColumns of a table that is called so.
func recordColumnsOf(table string) string {
	return table + "." + strings.Join(strings.Fields(recordColumns), " "+table+".")
}
