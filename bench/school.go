package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// What addresses are made of: a town has few of the most frequent ones and many of its own.
const (
	houses = `Shanti Niwas|Sai Krupa|Green Park|Laxmi Vihar|Om Residency|Gulmohar|Silver Oak|Ganga Heights|Shivam|Royal Enclave|Ashirwad|Anand Nagar|
Sunrise|Lake View|Hill Top|Vasant Kunj|Surya Kiran|Matru Chhaya|Pearl|Orchid|Palm Grove|Panchsheel|Nisarg|Kaveri|Godavari|Krishna Kunj|Saraswati|
Trimurti|Jai Bhavani|Raj Mandir|Amrapali|Sanskruti|Swapna Purti|Blue Bell|Harmony|Riverside|Golden Nest|Chandra Mauli|Parijat|Sahyadri`
	roads = `MG Road|Station Road|Lake Road|Temple Street|Nehru Road|Gandhi Chowk|Tilak Path|Market Yard|Old Mill Lane|Church Street|Fort Road|Canal Road|
Ring Road|Subhash Marg|Ambedkar Marg|Shivaji Path|Airport Road|University Road|College Lane|Hospital Road|Cotton Market|Potters' Row|Ghat Road|
Bank Street|Police Lines|Civil Lines|Cantonment|Bazaar Peth|Rajaji Salai|Anna Nagar Main|Patel Street|Link Road|Bypass|Court Road|Garden Lane`
	towns = `Pune|Mumbai|Nagpur|Nashik|Thane|Solapur|Kolhapur|Sangli|Satara|Jalgaon|Akola|Latur|Dhule|Ahmednagar|Chandrapur|Parbhani|Jalna|Amravati|
Nanded|Ichalkaranji|Bhusawal|Panvel|Baramati|Beed|Gondia|Wardha|Yavatmal|Achalpur|Osmanabad|Karad|Pandharpur|Malegaon|Ratnagiri|Miraj|Barshi|Lonavala`
)

// insertSchool is insertStudents with addresses, mail addresses and words about the child as clerks enter them.
var insertSchool = `
with names as (select * from unnest($2::text[], $3::text[], $4::text[]) with ordinality as names (girl, boy, family, place)),
places as (select * from unnest($5::text[], $6::text[], $7::text[]) with ordinality as places (house, road, town, place)),
size as (select cardinality($2::text[]) as girls, cardinality($3::text[]) as boys, cardinality($4::text[]) as families,
    cardinality($5::text[]) as houses, cardinality($6::text[]) as roads, cardinality($7::text[]) as towns)
insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile, email,
    guardian_name, mother_name, caste, moles, aadhaar_number, status, version, created_at, created_by, updated_at, updated_by)
select 'STU-' || year || '-' || lpad(number::text, greatest(5, length(number::text)), '0'),
    case when ` + draw(0) + ` % 2 = 0 then girl.girl else boy.boy end, family.family, date '2009-01-01' + (` + draw(3) + ` % 5000)::int,
    ` + draw(4) + ` % 900 + 1 || ', ' || house.house || ', ' || ` + draw(21) + ` % 300 + 1 || ' ' || road.road, town.town, 'Maharashtra',
    (400001 + ` + draw(5) + ` % 45000)::text, 'India', (6000000000 + n * 2654435761 % 3999999979)::text,
    case when n % 3 > 0 then lower(father.boy) || '.' || lower(family.family) || ` + draw(22) + ` % 10000 || '@example.' || (array['com', 'in', 'org'])[n % 3 + 1] else '' end,
    father.boy || ' ' || family.family, mother.girl || ' ' || family.family,
    (array['General', 'General', 'General', 'OBC', 'OBC', 'OBC', 'SC', 'SC', 'ST', 'EWS'])[` + draw(8) + ` % 10 + 1],
    case when n % 4 = 0 then 'mole on the ' || (array['left', 'right'])[` + draw(23) + ` % 2 + 1] || ' ' || (array['cheek', 'hand', 'forearm', 'knee', 'shoulder', 'chin'])[` + draw(24) + ` % 6 + 1] else '' end,
    lpad((` + draw(25) + ` * 2147483648 + ` + draw(26) + `)::numeric::text, 12, '0'),
    case when ` + draw(9) + ` % 16 = 0 then 'INACTIVE' else 'ACTIVE' end, 1 + (n % 3 = 0)::int, created_at, clerk,
    created_at + case when n % 3 = 0 then interval '1 second' * (` + draw(10) + ` % 15000000) else interval '0' end, clerk
from generate_series(1, $1::bigint) as n
cross join size
cross join lateral (select 2019 + (n - 1) * 8 / $1 as year, n - ((n - 1) * 8 / $1 * $1 + 7) / 8 as number, 'clerk.' || (` + draw(27) + ` % 40 + 1) as clerk,
    timestamptz '2019-01-01 00:00Z' + n * interval '8 years' / $1 + interval '1 microsecond' * (` + draw(28) + ` % 1000000) as created_at) as registered
join names as girl on girl.place = ` + draw(1) + ` % girls + 1
join names as boy on boy.place = ` + draw(12) + ` % boys + 1
join names as family on family.place = ` + draw(2) + ` % families + 1
join names as father on father.place = ` + draw(6) + ` % boys + 1
join names as mother on mother.place = ` + draw(7) + ` % girls + 1
join places as house on house.place = ` + draw(31) + ` % houses + 1
join places as road on road.place = ` + draw(32) + ` % roads + 1
join places as town on town.place = ` + draw(33) + ` % towns + 1
order by n`

// requestID is a request id, as the gateway gives one to each write.
const requestID = `md5(student_id || '/%s')::uuid::text`

// recordSchool gives every student its history and its changes, each write with its request, as the service writes them: made
// by one clerk, and a third of them mended since.
var recordSchool = []string{
	`insert into student_audit (student_id, version, action, changed_at, changed_by, request_id, after)
select student_id, 1, 'CREATED', created_at, created_by, ` + fmt.Sprintf(requestID, "1") + `,
    to_jsonb(student) || jsonb_build_object('version', 1, 'updated_at', created_at) from student order by created_at`,
	`insert into student_audit (student_id, version, action, changed_at, changed_by, request_id, before, after)
select student_id, 2, 'UPDATED', updated_at, updated_by, ` + fmt.Sprintf(requestID, "2") + `,
    to_jsonb(student) || jsonb_build_object('version', 1, 'updated_at', created_at, 'mobile', (6000000000 + hashtext(student_id)::bigint + 2147483648)::text),
    to_jsonb(student) from student where version = 2 order by updated_at`,
	`insert into student_change (transaction_id, student_id, version, action, changed_at, changed_by, request_id, position)
select (1000 + row_number() over written)::text::xid8, student_id, version, action, changed_at, changed_by, request_id, row_number() over written
from student_audit window written as (order by changed_at, audit_id) order by changed_at, audit_id`,
	`insert into student_reveal (student_id, field, revealed_at, revealed_by, request_id)
select student_id, 'aadhaarNumber', updated_at + interval '3 days', 'principal', ` + fmt.Sprintf(requestID, "seen") + ` from student where hashtext(student_id) % 5 = 0`,
}

// FillSchool fills an empty student database with n students and all that the service writes about them: history, changes, looks at
// what is masked. It is the same for the same n.
func FillSchool(ctx context.Context, pool *pgxpool.Pool, n int) error {
	fill := []any{insertSchool, n, weighted(girls, " Devi", " Rani", "ben"), weighted(boys, " Kumar", "bhai", " Raj"), weighted(families, "kar", "wala"),
		split(houses), split(roads), split(towns)}
	return fillWith(ctx, pool, fill, append(recordSchool, numberStudents, "vacuum analyze student_audit", "vacuum analyze student_change", "vacuum analyze student_reveal"))
}

func split(list string) []string {
	var all []string
	for name := range strings.SplitSeq(list, "|") {
		all = append(all, strings.TrimSpace(name))
	}
	return all
}
