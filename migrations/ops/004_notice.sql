-- What happened to operations, in the order in which it did, for those who are to be told (internal/notice). It is written with the operation
-- itself, whoever writes that: nothing is lost with a process that dies.
create table notice (
    id          bigint generated always as identity primary key,
    operation   text        not null,
    kind        text        not null,
    environment text        not null,
    subject     text        not null,
    state       text        not null,
    summary     text        not null,
    started_by  text        not null,
    -- The webhooks that the operation's caller wants told, as a JSON array; null: all.
    notify      jsonb,
    at          timestamptz not null default now()
);

-- How far each webhook has been told, and how it is doing.
create table webhook (
    name       text collate "C" primary key,
    -- The last notice that it was told, or that is not for it.
    told       bigint      not null,
    -- Who tells it now, and until when nobody else does.
    held_by    text        not null default '',
    held_until timestamptz not null default '-infinity',
    -- How often in a row it did not take a notice, why not the last time, and when it is tried again.
    failures   integer     not null default 0,
    failure    text        not null default '',
    retry_at   timestamptz not null default '-infinity',
    sent_at    timestamptz,
    failed_at  timestamptz,
    -- Since when the notice that it did not take has been waiting.
    waiting_since timestamptz
);

create function tell_of_operation() returns trigger language plpgsql as $$
begin
    -- One after the other until they are committed, so that ids show in their order: who has read up to one has missed none below it.
    perform pg_advisory_xact_lock('notice'::regclass::oid::bigint);
    insert into notice (operation, kind, environment, subject, state, summary, started_by, notify)
    values (new.id, new.kind, new.environment, new.subject, new.state, new.summary, new.started_by,
            coalesce(new.input -> 'notify', new.input -> 'each' -> 'notify'));
    return null;
end
$$;

-- What ended long ago is no news: a catalogue of backups that is rebuilt from their storage.
create trigger operation_begun after insert on operation for each row
    when (new.ended_at is null or new.ended_at > now() - interval '1 day') execute function tell_of_operation();

create trigger operation_moved after update of state on operation for each row
    when (old.state is distinct from new.state) execute function tell_of_operation();
