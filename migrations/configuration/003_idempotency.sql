-- What a POST was answered with, by caller and Idempotency-Key. answer holds the setting.
create table idempotency_key (
    user_name    text        not null,
    key          text        not null,
    request_hash bytea       not null,
    answer       jsonb       not null,
    created_at   timestamptz not null default now(),
    primary key (user_name, key)
);

create index idempotency_key_created_at on idempotency_key (created_at);

---- create above / drop below ----

drop table idempotency_key;
