-- Names are compared with an ICU collation, so that case folding does not depend on how the cluster was made.

create table student (
    student_id     text        primary key check (student_id ~ '^STU-[0-9]{4}-[0-9]{5,}$'),
    first_name     text        not null,
    last_name      text        not null,
    date_of_birth  date        not null,
    street         text        not null,
    city           text        not null,
    state          text        not null,
    pin_code       text        not null,
    country        text        not null,
    mobile         text        not null,
    email          text        not null default '',
    guardian_name  text        not null,
    mother_name    text        not null,
    caste          text        not null,
    moles          text        not null default '',
    aadhaar_number text        not null default '',
    status         text        not null default 'ACTIVE' check (status in ('ACTIVE', 'INACTIVE')),
    synthetic      boolean     not null default false,
    version        bigint      not null default 1 check (version > 0),
    created_at     timestamptz not null default now(),
    created_by     text        not null,
    updated_at     timestamptz not null default now(),
    updated_by     text        not null
);

comment on column student.synthetic is 'made by a smoke test: in no search, statistic or change, and removed for good afterwards';

-- A synthetic student never takes a number away from a real one.
create unique index student_mobile_key on student (mobile) where not synthetic;
create index student_created_at on student (created_at, student_id) where not synthetic;
create index student_updated_at on student (updated_at, student_id) where not synthetic;
create index student_status on student (status, created_at, student_id) where not synthetic;
create index student_caste on student (caste, created_at, student_id) where not synthetic;
create index student_date_of_birth on student (date_of_birth, student_id) where not synthetic;
create index student_first_name on student (lower(first_name collate "und-x-icu") text_pattern_ops) where not synthetic;
create index student_last_name on student (lower(last_name collate "und-x-icu") text_pattern_ops) where not synthetic;

-- The last number given out for student ids, a year. Synthetic students count apart, so that smoke tests use up no ids.
create table student_number (
    year      integer not null,
    synthetic boolean not null,
    last      bigint  not null,
    primary key (year, synthetic)
);

-- One row a write, in the transaction of the write. before and after are images of the student row.
create table student_audit (
    audit_id   bigint      generated always as identity primary key,
    student_id text        not null,
    version    bigint      not null,
    action     text        not null check (action in ('CREATED', 'UPDATED', 'STATUS_CHANGED', 'DELETED')),
    changed_at timestamptz not null default now(),
    changed_by text        not null,
    request_id text        not null,
    before     jsonb,
    after      jsonb,
    unique (student_id, version)
);

-- What consumers follow, in the transaction of the write. Identity values are given out before their transaction commits, so
-- a reader goes by transaction_id and stops short of pg_snapshot_xmin(pg_current_snapshot()), or it would lose rows. The images are those of
-- student_audit with the same student_id and version.
create table student_change (
    change_id      bigint      generated always as identity primary key,
    transaction_id xid8        not null default pg_current_xact_id(),
    student_id     text        not null,
    version        bigint      not null,
    action         text        not null,
    changed_at     timestamptz not null default now(),
    changed_by     text        not null,
    request_id     text        not null
);

create index student_change_order on student_change (transaction_id, change_id);

---- create above / drop below ----

drop table student_change;
drop table student_audit;
drop table student_number;
drop table student;
