create table setting (
    setting_id  bigint      generated always as identity primary key,
    category    text        not null check (category in ('GENERAL', 'ACADEMIC', 'FINANCIAL')),
    key         text        not null check (key ~ '^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$'),
    value       text        not null,
    description text        not null default '',
    version     bigint      not null default 1 check (version > 0),
    updated_at  timestamptz not null default now(),
    updated_by  text        not null,
    constraint setting_category_key unique (category, key)
);

create table school_profile (
    only_row    boolean     primary key default true check (only_row),
    school_name text        not null,
    school_code text        not null,
    logo_path   text        not null default '',
    address     text        not null default '',
    phone       text        not null default '',
    email       text        not null default '',
    version     bigint      not null default 1 check (version > 0),
    updated_at  timestamptz not null default now(),
    updated_by  text        not null
);

-- One row a write, in the transaction of the write. Writers of settings exclude each other, so audit_id is also the order
-- of the changes. subject is 'school-profile' or 'setting/<id>'; before and after are images of the row.
create table setting_audit (
    audit_id   bigint      generated always as identity primary key,
    subject    text        not null,
    version    bigint      not null,
    action     text        not null check (action in ('CREATED', 'UPDATED', 'DELETED')),
    changed_at timestamptz not null default now(),
    changed_by text        not null,
    request_id text        not null,
    before     jsonb,
    after      jsonb
);

create index setting_audit_subject on setting_audit (subject, audit_id);

insert into setting (category, key, value, description, updated_by) values
    ('GENERAL', 'SCHOOL_TIMEZONE', 'Asia/Kolkata', 'IANA time zone of the school: its dates and nightly jobs go by it', 'system'),
    ('ACADEMIC', 'CURRENT_ACADEMIC_YEAR',
        -- the school year starts in April
        (select y || '-' || y + 1 from (select extract(year from now() - interval '3 months')::int as y) as started),
        'academic year that is running, YYYY-YYYY', 'system'),
    ('ACADEMIC', 'MIN_STUDENT_AGE', '3', 'least age of a student at registration, in years', 'system'),
    ('ACADEMIC', 'MAX_STUDENT_AGE', '18', 'greatest age of a student at registration, in years', 'system'),
    ('FINANCIAL', 'CURRENCY_CODE', 'INR', 'ISO 4217 code of the currency of fees', 'system');

insert into school_profile (school_name, school_code, updated_by) values ('School', 'SCHOOL-1', 'system');

---- create above / drop below ----

drop table setting_audit;
drop table school_profile;
drop table setting;
