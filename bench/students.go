package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Names from the most to the least frequent. How often each is taken falls with its place, as in a real register, where a few
// names are everywhere and most are rare.
const (
	girls = `Priya Anjali Pooja Neha Asha Kavita Sunita Rani Lakshmi Meera Divya Shreya Aishwarya Sneha Nisha Geeta Rekha Usha Swati Jyoti
		Ananya Aditi Ishita Kiran Radha Sita Savita Manisha Deepa Shalini Vidya Padma Sangeeta Rupa Tara Uma Parvati Nandini Fatima Zoya
		Ayesha Mary Gurpreet Harleen Simran Bhavna Chitra Devika Ekta Gauri Hema Indira Janaki Kamala Leela Mamta Namrata Oviya Pallavi Riya
		Sarika Tanvi Urvashi Vaishnavi Yamini Élodie आशा प्रिया`
	boys = `Rahul Amit Raj Sanjay Vijay Ravi Suresh Ramesh Arjun Rohan Anil Sunil Manoj Rajesh Vikram Ajay Deepak Mohammed Ashok Karan
		Aditya Arun Akash Nikhil Sachin Prakash Ganesh Mahesh Dinesh Naresh Harish Girish Kishore Mohan Gopal Krishna Shiva Vishnu Imran Salman
		Abdul John Thomas Gurdeep Harpreet Jaspal Bharat Chetan Dev Farhan Gaurav Hemant Ishaan Jatin Kunal Lokesh Mukesh Naveen Omkar Pranav
		Raghav Siddharth Tarun Uday Varun Yash José राहुल आकाश`
	families = `Kumar Singh Sharma Patel Devi Khan Patil Gupta Das Yadav Reddy Rao Verma Nair Joshi Shah Mishra Pillai Iyer Jadhav
		Ansari Begum Shaikh Prasad Choudhary Pandey Mehta Kulkarni Deshmukh Pawar Shinde Chavan Naidu Menon Thomas Fernandes D'Souza Gill Kaur Sandhu
		Bose Ghosh Banerjee Mukherjee Chatterjee Sen Roy Dutta Biswas Mondal Sarkar Saha Mahato Oraon Munda Hansda Soren Murmu Rathore Chauhan
		Solanki Parmar Desai Trivedi Bhatt Thakur Rawat Negi Bisht Tiwari Dubey Shukla Srivastava Saxena Agarwal Bansal Goyal Jain Malhotra Kapoor
		Khanna Chopra Bhatia Arora Sethi Hegde Shetty Gowda Swamy Raman Subramanian Venkatesan Murugan Anne-Marie पाटिल शर्मा`
)

// weighted repeats each name, and spellings made of it, as often as its frequency asks for: name k is taken about 1/(k+3) as often
// as the first, and a third of its bearers write it in one of several other ways.
func weighted(names string, endings ...string) []string {
	var out []string
	for k, name := range strings.Fields(names) {
		spellings := []string{strings.Replace(name, "a", "aa", 1), strings.Replace(name, "i", "ee", 1), strings.Replace(name, "sh", "s", 1), name + "h"}
		for _, ending := range endings {
			spellings = append(spellings, name+ending)
		}
		for i := range 3000 / (k + 3) {
			if i%3 == 2 {
				out = append(out, spellings[i/3%len(spellings)])
			} else {
				out = append(out, name)
			}
		}
	}
	return out
}

// draw(n, salt) is a number that depends on nothing else; drawn(n, salt, list) is the place it points to in a list, from 1 on.
func draw(salt int) string { return fmt.Sprintf("(hashint8extended(n, %d) & 2147483647)", salt) }

func drawn(salt int, list string) string { return draw(salt) + " % cardinality(" + list + ") + 1" }

// Names are joined, because reaching into a long array of texts takes as long as the array is. Mobile numbers are distinct because
// the modulus is prime; createdAt has ties, as the rows of one import have.
var insertStudents = `
with girls as (select * from unnest($2::text[]) with ordinality as girls (name, place)),
boys as (select * from unnest($3::text[]) with ordinality as boys (name, place)),
families as (select * from unnest($4::text[]) with ordinality as families (name, place))
insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile, email,
    guardian_name, mother_name, caste, aadhaar_number, status, created_at, created_by, updated_at, updated_by)
select 'STU-' || year || '-' || lpad(number::text, greatest(5, length(number::text)), '0'),
    case when ` + draw(0) + ` % 2 = 0 then girl.name else boy.name end, family.name, date '2009-01-01' + (` + draw(3) + ` % 5000)::int,
    ` + draw(4) + ` % 500 || ' Lake Road', (array['Pune', 'Mumbai', 'Nagpur', 'Nashik', 'Thane'])[` + draw(11) + ` % 5 + 1],
    'Maharashtra', (400001 + ` + draw(5) + ` % 45000)::text, 'India', (6000000000 + n * 2654435761 % 3999999979)::text,
    case when n % 3 = 0 then 'parent' || n || '@example.com' else '' end, father.name || ' ' || family.name, mother.name || ' ' || family.name,
    (array['General', 'General', 'General', 'OBC', 'OBC', 'OBC', 'SC', 'SC', 'ST', 'EWS'])[` + draw(8) + ` % 10 + 1],
    case when n % 2 = 0 then lpad((n * 40503 % 999999999989)::text, 12, '0') else '' end,
    case when ` + draw(9) + ` % 16 = 0 then 'INACTIVE' else 'ACTIVE' end, created_at, 'clerk',
    created_at + case when n % 4 = 0 then interval '1 minute' * (` + draw(10) + ` % 250000) else interval '0' end, 'clerk'
from generate_series(1, $1::bigint) as n
cross join lateral (select 2019 + (n - 1) * 8 / $1 as year, n - ((n - 1) * 8 / $1 * $1 + 7) / 8 as number,
    date_trunc('hour', timestamptz '2019-01-01 00:00Z' + n * interval '8 years' / $1) as created_at) as registered
join girls as girl on girl.place = ` + drawn(1, "$2::text[]") + `
join boys as boy on boy.place = ` + drawn(12, "$3::text[]") + `
join families as family on family.place = ` + drawn(2, "$4::text[]") + `
join boys as father on father.place = ` + drawn(6, "$3::text[]") + `
join girls as mother on mother.place = ` + drawn(7, "$2::text[]") + `
order by n`

// auditStudents gives every student the history of having been created.
const auditStudents = `
insert into student_audit (student_id, version, action, changed_at, changed_by, request_id, after)
select student_id, version, 'CREATED', created_at, created_by, 'bench', to_jsonb(student) from student`

// numberStudents lets further students be created after the ones made here.
const numberStudents = `
insert into student_number (year, synthetic, last)
select split_part(student_id, '-', 2)::int, false, max(split_part(student_id, '-', 3)::bigint) from student group by 1`

// FillStudents fills an empty student database with n students, the same for the same n: Indian names as frequent as they are in
// a register, a sixteenth of them inactive, registered from 2019 to 2026. With audit, each has its first history entry. Indexes
// are made after the rows, because that is faster, and the tables are vacuumed, as autovacuum would have done by then.
func FillStudents(ctx context.Context, pool *pgxpool.Pool, n int, audit bool) error {
	insert := []any{insertStudents, n, weighted(girls, " Devi", " Rani", "ben"), weighted(boys, " Kumar", "bhai", " Raj"), weighted(families, "kar", "wala")}
	rest := []string{numberStudents}
	if audit {
		rest = append(rest, auditStudents, "vacuum analyze student_audit")
	}
	return fillWith(ctx, pool, insert, rest)
}

// fillWith inserts students by a statement with its arguments, without indexes, and runs the rest with them.
func fillWith(ctx context.Context, pool *pgxpool.Pool, insert []any, rest []string) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	rows, _ := conn.Query(ctx, `select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
		where indrelid = 'student'::regclass and not indisprimary order by 1`)
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Definition string }])
	if err != nil {
		return fmt.Errorf("list the indexes of students: %w", err)
	}
	run := func(sql string, args ...any) {
		if err == nil {
			if _, err = conn.Exec(ctx, sql, args...); err != nil {
				err = fmt.Errorf("fill with students: %w: %.80s", err, sql)
			}
		}
	}
	run("set statement_timeout = 0")
	run("set synchronous_commit = on") // vacuum finds rows visible to all only once their commit is on disk
	run("set maintenance_work_mem = '512MB'")
	for _, index := range indexes {
		run("drop index " + index.Name)
	}
	run(insert[0].(string), insert[1:]...)
	for _, index := range indexes {
		run(index.Definition)
	}
	for _, statement := range rest {
		run(statement)
	}
	run("vacuum analyze student")
	run("reset all")
	return err
}
