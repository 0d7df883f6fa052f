create table lease (
    app           text        not null check (app = lower(app)),
    instance_id   text        not null,
    document      jsonb       not null,
    lease_seconds integer     not null check (lease_seconds > 0),
    written_at    timestamptz not null default now(),
    primary key (app, instance_id)
);

comment on table lease is 'Who was registered when the registry last ran: loaded at its start, each with one full lease.';

create table split (
    app        text        primary key check (app = lower(app)),
    shares     jsonb       not null,
    fence      bigint      not null,
    updated_by text        not null,
    updated_at timestamptz not null default now()
);

comment on table split is 'Traffic of an application by release, in percent; {} means that all instances count alike.';
comment on column split.fence is 'Grows with each operation on the application; a lower one is refused.';

---- create above / drop below ----

drop table split;
drop table lease;
