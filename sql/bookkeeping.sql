-- What the worker itself keeps in Postgres. Created at first contact, or by `pgflume setup`.
-- Safe to run again.

-- One row a queue: how far the replica is. Its row lock is the single flight of all workers.
create table if not exists pgflume.progress (
    queue       pg_catalog.text primary key,
    -- the pairing of this queue with one replica, and the position in it; null before first contact
    epoch       pg_catalog.text,
    seq         bigint not null default 0,
    token       pg_catalog.text not null default '',
    -- an epoch that a pairing or a nuke has announced and not finished yet
    next_epoch  pg_catalog.text,
    -- what this Postgres was when they were paired: a restore or a failover changes it
    source_id   pg_catalog.text,
    queue_id    pg_catalog.oid,
    caught_up_at pg_catalog.timestamptz,
    synced_at   pg_catalog.timestamptz
);

-- Callers that found a drain running leave a note here; the drain looks once more before it ends.
create table if not exists pgflume.wakeup (
    queue   pg_catalog.text primary key,
    calls   bigint not null default 0
);

-- Ids of signed requests that work once (a nuke's).
create table if not exists pgflume.redeemed (
    id  pg_catalog.text primary key,
    at  pg_catalog.timestamptz not null default pg_catalog.now()
);

-- Tables that are rebuilt: one row for each table of a queue's schema.json that ever was.
create table if not exists pgflume.resyncs (
    queue        pg_catalog.text not null,
    name         pg_catalog.text not null,
    -- copy: rows in key order into the replica; sweep: what the source lacks out of it; done; failed: until asked again
    phase        pg_catalog.text not null default 'copy',
    -- the key up to which the phase is done (text, as Postgres or the replica writes it); null: from the start
    cursor       pg_catalog.text[],
    -- setup, request, nuke, truncate, evolve, or what was noticed (behind, other_replica, other_source)
    reason       pg_catalog.text not null,
    -- the replica's table had no row when its copy was asked for or since, before the first page: nothing to sweep
    fresh        boolean not null default false,
    -- why it waits
    problem      pg_catalog.text,
    rows         bigint not null default 0,
    removed      bigint not null default 0,
    -- from the planner's statistics, as the copy began; null: unknown
    estimated    bigint,
    busy_ms      bigint not null default 0,
    requested_at pg_catalog.timestamptz not null default pg_catalog.now(),
    started_at   pg_catalog.timestamptz,
    finished_at  pg_catalog.timestamptz,
    primary key (queue, name)
);

-- How far `pgflume verify --sample` has come, and what every row was last compared by.
create table if not exists pgflume.verified (
    queue        pg_catalog.text not null,
    name         pg_catalog.text not null,
    phase        pg_catalog.text not null default 'compare',
    cursor       pg_catalog.text[],
    rows         bigint not null default 0,
    different    bigint not null default 0,
    started_at   pg_catalog.timestamptz not null default pg_catalog.now(),
    -- the last pass that went through the whole table
    last_started_at  pg_catalog.timestamptz,
    last_finished_at pg_catalog.timestamptz,
    last_rows        bigint,
    last_different   bigint,
    primary key (queue, name)
);

-- What was noticed about the two sides, and healed by a resync.
alter table pgflume.progress add column if not exists healed_at pg_catalog.timestamptz;
alter table pgflume.progress add column if not exists healed_from pg_catalog.text;
-- epochs that this queue was paired in: a replica that comes back with one of them is an older copy of its own
alter table pgflume.progress add column if not exists past_epochs pg_catalog.text[] not null default '{}';

-- What `pgflume setup` captured, one row for each table of schema.json: to tell what has changed since.
create table if not exists pgflume.captured (
    queue       pg_catalog.text not null,
    name        pg_catalog.text not null,
    -- pg_class.oid: a renamed table is found again
    source      pg_catalog.oid not null,
    -- columns, key, where, indexes, source and triggers as captured; the source's columns and types at that time;
    -- columns that schema.json named once and the replica may still have
    definition  pg_catalog.jsonb not null,
    at          pg_catalog.timestamptz not null default pg_catalog.now(),
    primary key (queue, name)
);

-- By which definition the replica's rows are kept: what a worker with another one has to copy again.
create table if not exists pgflume.shapes (
    queue       pg_catalog.text not null,
    name        pg_catalog.text not null,
    definition  pg_catalog.jsonb not null,
    primary key (queue, name)
);

-- All of a queue's shapes in one value, so that a step sees at once that another worker has another schema.json.
alter table pgflume.progress add column if not exists shape pg_catalog.text;

-- By what a cursor is to be read: another key makes it worthless; and rows that became dead letters.
alter table pgflume.resyncs add column if not exists ordered_by pg_catalog.text;
alter table pgflume.resyncs add column if not exists unfit bigint not null default 0;
alter table pgflume.verified add column if not exists ordered_by pg_catalog.text;

-- Acknowledged messages, for a replica that falls back: what a take took, and, in a row of its own, where its step led.
create table if not exists pgflume.kept (
    id          bigint generated always as identity primary key,
    queue       pg_catalog.text not null,
    epoch       pg_catalog.text not null,
    -- where the replica was when the step began
    after_seq   bigint not null,
    after_token pg_catalog.text not null,
    -- the tokens of the batches that it applied
    tokens      pg_catalog.text[] not null default '{}',
    -- tables of which it wrote rows that no message names
    copied      pg_catalog.text[] not null default '{}',
    msg_ids     bigint[] not null default '{}',
    messages    pg_catalog.text[] not null default '{}',
    at          pg_catalog.timestamptz not null default pg_catalog.now()
);
create index if not exists kept_by_age on pgflume.kept (queue, at);

-- Each take compresses what it keeps: pglz takes four times as long. A server may be built without lz4.
-- Not again where it is done: it would wait for readers.
do $$
begin
    if exists (select from pg_catalog.pg_attribute
               where attrelid = 'pgflume.kept'::pg_catalog.regclass and attname = 'messages' and attcompression <> 'l') then
        alter table pgflume.kept alter column messages set compression lz4;
    end if;
exception when feature_not_supported then
    null;
end
$$;

-- Messages that others took off a queue, each row one statement: their changes have to be found by a resync.
create table if not exists pgflume.losses (
    id          bigint generated always as identity primary key,
    queue       pg_catalog.text not null,
    -- DELETE or TRUNCATE
    by          pg_catalog.text not null,
    -- the role
    who         pg_catalog.text not null,
    at          pg_catalog.timestamptz not null default pg_catalog.clock_timestamp()
);

-- Names of steps that write rows that no message names, committed before they write: a Postgres that knows the name
-- has all that the step saw.
create table if not exists pgflume.steps (
    queue       pg_catalog.text not null,
    token       pg_catalog.text not null,
    at          pg_catalog.timestamptz not null default pg_catalog.now(),
    primary key (queue, token)
);

-- Where the replica is that the queue is paired with, as a digest; and whether an announced epoch refills its tables.
alter table pgflume.progress add column if not exists address pg_catalog.text;
alter table pgflume.progress add column if not exists next_refills pg_catalog.bool not null default true;

-- Events that wait to be delivered (EVENTS_URL), written in the transaction of what they tell of.
create table if not exists pgflume.events (
    id          bigint generated always as identity primary key,
    queue       pg_catalog.text not null,
    type        pg_catalog.text not null,
    data        pg_catalog.text not null,
    -- what it is delivered by: unlike the number, no other database or backup has it
    uid         pg_catalog.uuid not null default pg_catalog.gen_random_uuid(),
    at          pg_catalog.timestamptz not null default pg_catalog.clock_timestamp()
);
do $events$
begin
    -- setup grants it, too, and may have been run by an older version
    if exists (select from pg_catalog.pg_roles where rolname = 'pgflume_worker') then
        grant select, insert, delete on pgflume.events to pgflume_worker;
    end if;
end
$events$;

-- Which version made this, and the oldest that may still use it. An older one that runs this leaves what a newer one said.
do $version$
begin
    if coalesce(pg_catalog.substring(
            pg_catalog.obj_description('pgflume'::pg_catalog.regnamespace, 'pg_namespace'),
            'pgflume, bookkeeping ([0-9]{1,6})')::pg_catalog.int4, 0) <= 7 then
        comment on schema pgflume is 'pgflume, bookkeeping 7, for 5 and later';
    end if;
end
$version$;
