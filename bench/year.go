package bench

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// makeYear are the tables of a school that keeps attendance, marks and fees: many narrow rows with keys between them, which is what
// most of a school's data is. The platform's own student database has few wide ones instead, mostly JSON.
const makeYear = `
create table class (class_id integer primary key, name text not null unique, teacher text not null);
create table pupil (pupil_id text primary key, class_id integer not null references class, name text not null, born date not null, guardian text not null, phone text not null);
create table attendance (attendance_id bigint generated always as identity primary key, pupil_id text not null references pupil, day date not null,
    half smallint not null check (half in (1, 2)), status text not null check (status in ('PRESENT', 'ABSENT', 'LATE', 'EXCUSED')), late_minutes smallint, note text,
    recorded_by text not null, recorded_at timestamptz not null, unique (pupil_id, day, half));
create index attendance_day on attendance (day, status);
create table mark (mark_id bigint generated always as identity primary key, pupil_id text not null references pupil, subject text not null, exam text not null,
    points numeric(5,2) not null, out_of smallint not null, remark text, graded_by text not null, graded_at timestamptz not null, unique (pupil_id, subject, exam));
create table payment (payment_id uuid primary key, pupil_id text not null references pupil, amount numeric(10,2) not null, purpose text not null, method text not null,
    reference text not null unique, paid_at timestamptz not null);
create index payment_pupil on payment (pupil_id, paid_at);`

// fillYear fills them for $1 pupils: 110 days of two halves, 8 subjects in 5 exams, 12 fees.
var fillYear = []string{
	`insert into class select n, (n - 1) / 4 + 1 || chr((64 + (n - 1) % 4 + 1)::int), 'teacher.' || ` + draw(1) + ` % 60 + 1 from generate_series(1, greatest(1, $1::bigint / 40)) as n`,
	`insert into pupil select 'STU-2026-' || lpad(n::text, greatest(5, length(n::text)), '0'), n % greatest(1, $1::bigint / 40) + 1,
    (array['Priya', 'Anjali', 'Rahul', 'Amit', 'Neha', 'Sanjay', 'Meera', 'Arjun', 'Kavita', 'Vikram', 'Divya', 'Rohan'])[` + draw(2) + ` % 12 + 1] || ' ' ||
    (array['Sharma', 'Patil', 'Kulkarni', 'Joshi', 'Deshmukh', 'Pawar', 'Shah', 'Iyer', 'Khan', 'Fernandes', 'Singh', 'Das', 'Gupta'])[` + draw(3) + ` % 13 + 1],
    date '2009-01-01' + (` + draw(4) + ` % 5000)::int, 'guardian ' || ` + draw(5) + `, (6000000000 + n * 2654435761 % 3999999979)::text from generate_series(1, $1::bigint) as n`,
	`insert into attendance (pupil_id, day, half, status, late_minutes, note, recorded_by, recorded_at)
select 'STU-2026-' || lpad(pupil::text, greatest(5, length(pupil::text)), '0'), day, half, status, case when status = 'LATE' then ` + draw(6) + ` % 50 + 1 end,
    case when status = 'EXCUSED' then (array['fever', 'family function', 'dentist', 'travel', 'letter no. '])[` + draw(7) + ` % 5 + 1] || ' ' || ` + draw(8) + ` % 1000 end,
    'teacher.' || (pupil % greatest(1, $1::bigint / 40) * 7919 % 60 + 1), day + interval '8 hours' + half * interval '4 hours' + ` + draw(9) + ` % 3000000000 * interval '1 microsecond'
from generate_series(date '2026-06-15', date '2026-06-15' + 109, '1 day') as days (day)
cross join generate_series(1, 2) as half
cross join generate_series(1, $1::bigint) as pupil
cross join lateral (select (day::date - date '2026-01-01')::bigint * 1000000 + half * 400000 + pupil as n) as numbered
cross join lateral (select case ` + draw(10) + ` % 40 when 0 then 'ABSENT' when 1 then 'EXCUSED' when 2 then 'LATE' when 3 then 'LATE' else 'PRESENT' end as status) as drawn`,
	`insert into mark (pupil_id, subject, exam, points, out_of, remark, graded_by, graded_at)
select 'STU-2026-' || lpad(pupil::text, greatest(5, length(pupil::text)), '0'), subject, exam, (` + draw(11) + ` % 7001 + 3000) / 100.0, 100,
    case when ` + draw(12) + ` % 9 = 0 then (array['good', 'careless', 'needs practice', 'excellent', 'see me', 'handwriting'])[` + draw(13) + ` % 6 + 1] end,
    'teacher.' || ` + draw(14) + ` % 60 + 1, timestamptz '2026-06-20 10:00Z' + place * interval '40 days' + ` + draw(15) + ` % 1000000000 * interval '1 millisecond' / 1000
from generate_series(1, $1::bigint) as pupil
cross join unnest(array['Mathematics', 'Science', 'English', 'Hindi', 'Marathi', 'History', 'Geography', 'Computers']) with ordinality as subjects (subject, column_no)
cross join unnest(array['Unit 1', 'Terminal 1', 'Unit 2', 'Unit 3', 'Final']) with ordinality as exams (exam, place)
cross join lateral (select pupil * 64 + column_no * 8 + place as n) as numbered`,
	`insert into payment
select md5('payment ' || n)::uuid, 'STU-2026-' || lpad(pupil::text, greatest(5, length(pupil::text)), '0'), (array[1200, 850.5, 2400, 300])[month % 4 + 1], (array['tuition', 'transport', 'tuition', 'exam'])[month % 4 + 1],
    (array['UPI', 'UPI', 'CASH', 'CARD', 'CHEQUE'])[` + draw(16) + ` % 5 + 1], 'R' || lpad((` + draw(17) + ` % 10000 * 100000000 + n)::text, 12, '0'),
    timestamptz '2026-06-01 09:00Z' + month * interval '1 month' + ` + draw(18) + ` * interval '1 millisecond'
from generate_series(1, $1::bigint) as pupil cross join generate_series(0, 11) as month cross join lateral (select pupil * 12 + month as n) as numbered`,
}

// FillYear makes and fills the tables of a school year of so many pupils in an empty database. It is the same for the same number.
func FillYear(ctx context.Context, pool *pgxpool.Pool, pupils int) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "set statement_timeout = 0; "+makeYear); err != nil {
		return fmt.Errorf("make the tables of a school year: %w", err)
	}
	for _, statement := range fillYear {
		if _, err := conn.Exec(ctx, statement, pupils); err != nil {
			return fmt.Errorf("fill the school year: %w: %.80s", err, statement)
		}
	}
	return nil
}
