-- expand: from before rollouts ran migrations: it has run while nothing else did
create table registry_state (
    only_row     boolean     primary key default true check (only_row),
    position     bigint      not null default 0,
    alive_at     timestamptz not null default clock_timestamp(),
    preserved_at timestamptz
);

insert into registry_state default values;

comment on table registry_state is 'One row. Whoever changes something locks it first, so changes are committed in the order of their positions.';
comment on column registry_state.position is 'Number of the last change of a lease or a split.';
comment on column registry_state.alive_at is 'When a registry last stored renewals: nobody could renew while none did.';
comment on column registry_state.preserved_at is 'When a registry last held evictions because most heartbeats had stopped at once.';

create table member (
    id         text        primary key,
    seen_at    timestamptz not null,
    sole_until timestamptz
);

comment on table member is 'The registries that live. One that is not here may not write.';
comment on column member.sole_until is 'Until then this registry answers from memory alone: others must not write before.';

alter table lease add column position bigint not null default 0;
create index lease_position on lease (position);

comment on table lease is 'Who is registered.';
comment on column lease.position is 'Number of the change that made the row what it is.';
comment on column lease.written_at is 'When the instance, or an operator, made that change.';

create table departure (
    app         text        not null,
    instance_id text        not null,
    document    jsonb       not null,
    position    bigint      not null,
    left_at     timestamptz not null,
    evicted     boolean     not null,
    primary key (app, instance_id)
);
create index departure_position on departure (position);
create index departure_left_at on departure (left_at);

comment on table departure is 'Who has left lately, for registries and Eureka clients that were not there when it was told.';
comment on column departure.evicted is 'The lease ran out, as opposed to a farewell.';

-- Renewed all day, so apart from the documents; the free space keeps updates within a page.
create table renewal (
    app         text             not null,
    instance_id text             not null,
    renewed_at  timestamptz      not null,
    stored_at   timestamptz      not null,
    member      text             not null,
    primary key (app, instance_id),
    foreign key (app, instance_id) references lease on delete cascade
) with (fillfactor = 50);

comment on column renewal.stored_at is 'By the clock of the database, while registry_state was locked.';

insert into renewal (app, instance_id, renewed_at, stored_at, member)
select app, instance_id, clock_timestamp(), clock_timestamp(), ''
  from lease;

alter table split add column sticky boolean not null default false;
alter table split add column position bigint not null default 0;

comment on column split.sticky is 'Whether all requests of a user go to one release.';

-- registry_advance takes the next position for the changes of this transaction. They were decided knowing everything up to
-- "known": with anything newer, and for a registry that the others take for dead, the transaction fails.
create function registry_advance(me text, known bigint) returns bigint
    language plpgsql as
$$
declare
    last bigint;
begin
    select position into strict last from registry_state for update;
    if last <> known then
        raise exception 'position % is behind %', known, last using errcode = 'SR001';
    end if;
    if not exists (select from member where id = me) then
        raise exception 'this registry is not a member' using errcode = 'SR002';
    end if;
    update registry_state set position = last + 1;
    return last + 1;
end
$$;

-- registry_tick says that a registry lives, and tells it who else does. Members that were not seen for member_ttl are dead.
-- One that is alone may answer from memory until sole_until; it gives that up when it says so, or lets it pass.
-- A time longer than "pause" in which no registry ticked is given back to every lease.
create function registry_tick(me text, member_ttl interval, sole_ttl interval, pause interval, surrender boolean, preserving boolean,
    out at timestamptz, out others integer, out blocked double precision, out gap double precision, out preserved double precision)
    language plpgsql as
$$
declare
    state registry_state;
    mine  member;
begin
    select * into strict state from registry_state for update;
    at := clock_timestamp();
    delete from member m where m.id <> me and m.seen_at < at - member_ttl;
    select count(*), greatest(extract(epoch from max(m.sole_until) - at), 0) into others, blocked from member m where m.id <> me;
    select * into mine from member m where m.id = me;
    insert into member (id, seen_at, sole_until)
    values (me, at, case when others = 0 then at + sole_ttl when surrender then null else mine.sole_until end)
        on conflict (id) do update set seen_at = excluded.seen_at, sole_until = excluded.sole_until;
    if mine.id is null or (surrender and others > 0 and mine.sole_until is not null) then
        perform pg_notify('registry', me || ' member');
    end if;
    gap := extract(epoch from at - state.alive_at);
    if at - state.alive_at > pause then
        update renewal r set renewed_at = least(at, r.renewed_at + (at - state.alive_at));
    else
        gap := 0;
    end if;
    update registry_state set alive_at = at, preserved_at = case when preserving then at else preserved_at end;
    preserved := extract(epoch from at - case when preserving then at else state.preserved_at end);
end
$$;

---- create above / drop below ----

drop function registry_tick;
drop function registry_advance;
alter table split drop column position;
alter table split drop column sticky;
drop table renewal;
drop table departure;
drop index lease_position;
alter table lease drop column position;
drop table member;
drop table registry_state;
