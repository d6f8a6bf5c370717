-- What the worker itself keeps in Postgres. Created at first contact, or by `pgflume setup`.
-- Safe to run again.

create schema if not exists pgflume;
revoke all on schema pgflume from public;

-- One row a queue: how far the replica is. Its row lock is the single flight of all workers.
create table if not exists pgflume.progress (
    queue       text primary key,
    -- the pairing of this queue with one replica, and the position in it; null before first contact
    epoch       text,
    seq         bigint not null default 0,
    token       text not null default '',
    -- an epoch that a pairing or a nuke has announced and not finished yet
    next_epoch  text,
    -- what this Postgres was when they were paired: a restore or a failover changes it
    source_id   text,
    queue_id    oid,
    caught_up_at timestamptz,
    synced_at   timestamptz
);

-- Callers that found a drain running leave a note here; the drain looks once more before it ends.
create table if not exists pgflume.wakeup (
    queue   text primary key,
    calls   bigint not null default 0
);

-- Ids of signed requests that work once (a nuke's).
create table if not exists pgflume.redeemed (
    id  text primary key,
    at  timestamptz not null default now()
);
