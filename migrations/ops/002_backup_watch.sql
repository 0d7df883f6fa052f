-- expand: from before rollouts ran migrations: it has run while nothing else did
-- Since when the watchdog has known each database: one without any verified backup is overdue once its promise has passed
-- from then on.
create table watched_database (
    name  text collate "C" primary key,
    since timestamptz not null
);

-- The newest operation of a kind, and of a state, of a database.
create index operation_of_subject on operation (subject, kind, started_at desc);
