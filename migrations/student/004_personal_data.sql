-- expand: from before rollouts ran migrations: it has run while nothing else did
-- Who has seen what of a student that is hidden otherwise.
create table student_reveal (
    reveal_id   bigint      generated always as identity primary key,
    student_id  text        not null,
    field       text        not null,
    revealed_at timestamptz not null default now(),
    revealed_by text        not null,
    request_id  text        not null
);

create index student_reveal_student on student_reveal (student_id, reveal_id);

-- What is left of an erased student (docs/decisions/0008-erasure.md).
create table student_erasure (
    student_id text        primary key,
    version    bigint      not null,
    erased_at  timestamptz not null default now(),
    erased_by  text        not null,
    request_id text        not null,
    reason     text        not null
);

-- Erased students still count in statistics. Each fact is counted apart, so that no caste can be linked to a birthday.
create table student_erased_count (
    kind     text   not null check (kind in ('status', 'caste', 'date_of_birth')),
    value    text   not null,
    students bigint not null check (students > 0),
    primary key (kind, value)
);

alter table student_audit
    drop constraint student_audit_action_check,
    add constraint student_audit_action_check check (action in ('CREATED', 'UPDATED', 'STATUS_CHANGED', 'DELETED', 'ERASED'));

---- create above / drop below ----

-- What an erasure has left stays a fact: the narrower check holds for new rows only.
alter table student_audit
    drop constraint student_audit_action_check,
    add constraint student_audit_action_check check (action in ('CREATED', 'UPDATED', 'STATUS_CHANGED', 'DELETED')) not valid;
drop table student_erased_count;
drop table student_erasure;
drop table student_reveal;
