-- Every operation of every kind, for listing. The truth about a running one is its workflow; this is what it last said.
create table operation (
    id          text collate "C" primary key,
    kind        text        not null,
    workflow_id text        not null,
    run_id      text        not null,
    environment text        not null,
    subject     text        not null,
    state       text        not null,
    summary     text        not null,
    started_by  text        not null,
    started_at  timestamptz not null,
    ended_at    timestamptz,
    input       jsonb       not null,
    result      jsonb       not null,
    -- Counts what the workflow has said; an older word that arrives late is ignored.
    revision    bigint      not null,
    updated_at  timestamptz not null default now()
);

-- The lock of a backup: one at a time for each database (docs/decisions/0004-backup-lock.md).
create unique index operation_one_backup on operation (subject) where kind = 'backup' and ended_at is null;

create index operation_newest on operation (kind, started_at desc, id desc);
