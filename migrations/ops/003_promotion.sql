-- expand: from before rollouts ran migrations: it has run while nothing else did
-- Every release that has become the stable one of a service, and the one that it took the place of.
create table promotion (
    operation   text collate "C" primary key,
    environment text        not null,
    service     text        not null,
    release     text        not null,
    replaced    text        not null,
    -- It took the place of one that was not good after all.
    rollback    boolean     not null,
    promoted_by text        not null,
    promoted_at timestamptz not null default now()
);

create index promotion_history on promotion (environment, service, promoted_at, operation);

-- A request that is sent again is found by its id.
create index operation_of_request on operation (kind, started_by, (input ->> 'requestId')) where input ? 'requestId';
