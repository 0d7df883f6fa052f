-- One row an import of a CSV file. Whoever works on a running one holds its lease; when the lease has run out, any instance takes it over.
create table student_import (
    import_id      uuid        primary key default gen_random_uuid(),
    state          text        not null default 'RUNNING' check (state in ('RUNNING', 'SUCCEEDED', 'REJECTED', 'FAILED')),
    phase          text        not null default 'UPLOADING' check (phase in ('UPLOADING', 'CHECKING', 'WRITING', 'DONE')),
    dry_run        boolean     not null,
    mode           text        not null check (mode in ('all', 'partial')),
    confirm        boolean     not null,
    file_name      text        not null,
    header         text[]      not null,
    separator      text        not null,
    utf8           boolean     not null default false,
    rows_read      bigint      not null default 0,
    rows_staged    bigint      not null default 0,
    rows_created   bigint      not null default 0,
    rows_updated   bigint      not null default 0,
    rows_unchanged bigint      not null default 0,
    rows_rejected  bigint      not null default 0,
    deactivated    bigint      not null default 0,
    attempts       integer     not null default 1,
    lease_until    timestamptz not null,
    request_id     text        not null,
    created_at     timestamptz not null default now(),
    created_by     text        not null,
    finished_at    timestamptz,
    idempotency_key text,
    body_digest     bytea
);

-- One import a caller and key. One that failed may be sent again.
create unique index student_import_key on student_import (created_by, idempotency_key) where state <> 'FAILED';

comment on column student_import.utf8 is 'whether a row holds a character that only UTF-8 writes so';
comment on column student_import.rows_staged is 'rows that student_import_row must hold: it loses them when the database crashes';

-- What the file says, a row a line, until the import has ended. null: the file does not say, or says it wrongly. Not logged: it can be sent
-- again, and what children's data is not in the log is in no archive of it.
create unlogged table student_import_row (
    import_id      uuid    not null,
    line           bigint  not null,
    faulty         boolean not null,
    latin1         boolean not null,
    student_id     text,
    first_name     text,
    last_name      text,
    date_of_birth  date,
    street         text,
    city           text,
    state          text,
    pin_code       text,
    country        text,
    mobile         text,
    email          text,
    guardian_name  text,
    mother_name    text,
    caste          text,
    moles          text,
    aadhaar_number text,
    status         text,
    primary key (import_id, line)
);

comment on column student_import_row.faulty is 'has a row in student_import_fault: it counts for finding students named twice, and is not written';

-- The lines that were found wrong, and line 0 for what is wrong with the whole. Personal data: swept with their import.
create table student_import_fault (
    import_id uuid   not null,
    line      bigint not null,
    cells     jsonb  not null,
    faults    jsonb  not null,
    primary key (import_id, line)
);

comment on column student_import_fault.cells is 'texts in the order of the header; a line that is no row of the file''s form is one text';
comment on column student_import_fault.faults is 'objects of column, code and detail';

---- create above / drop below ----

drop table student_import_fault;
drop table student_import_row;
drop table student_import;
