-- expand: from before rollouts ran migrations: it has run while nothing else did
-- A change's place in the feed, given when somebody reads. Neither change_id nor transaction_id can be that place: both are given
-- out before their transaction commits, so a reader would lose what commits later, and transaction ids do not survive a
-- restore. Readers go by position, one at a time gives the next ones, and only to what has committed.
alter table student_change add column position bigint;

comment on column student_change.position is 'place in the change feed, from 1 without gaps; null until somebody has read so far';

create unique index student_change_position on student_change (position) where position is not null;
-- position leads though it is always null, so that an order by both columns has no other index to go by: were the statistics
-- stale, the primary key would look as good, and reading it means to read the whole past.
create index student_change_waiting on student_change (position, change_id) where position is null;

-- One row. Whoever holds its lock gives positions.
create table student_feed (
    one      boolean primary key default true check (one),
    last     bigint  not null default 0,
    -- Cursors hold the epoch. It is renewed when the database turns out to be another than the one it was made for: a restored
    -- copy gives positions that the original has given to other changes.
    epoch    uuid    not null default gen_random_uuid(),
    made_for text    not null default ''
);

insert into student_feed default values;

---- create above / drop below ----

drop table student_feed;
alter table student_change drop column position;
