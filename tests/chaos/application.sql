-- The application whose tables are replicated. Every row carries a version that rises with each commit for its
-- key, and `history` has every version that was ever written: what a reader of the replica sees and `history`
-- lacks was never durable.

create sequence versions;
create table history (tab text not null, key text not null, version bigint not null);

-- The version is drawn while the row's lock (update) or the key's lock (insert, new key) is held to the end of the
-- transaction, so for one key versions are in the order of commits, also across a delete.
create function stamp() returns trigger language plpgsql as $$
declare
    image jsonb := to_jsonb(new);
    key text;
begin
    select string_agg(image->>c, '|' order by i) into key from unnest(tg_argv[1:]) with ordinality u(c, i);
    perform pg_advisory_xact_lock(hashtextextended(tg_argv[0] || '|' || key, 0));
    new.version := nextval('public.versions');
    insert into public.history values (tg_argv[0], key, new.version);
    return new;
end $$;

create table accounts (id bigint primary key, owner text, balance numeric, active bool, settings jsonb,
    updated timestamptz, version bigint);
create table documents (name text primary key, body jsonb, size numeric, version bigint);
create table items (region text, number int, price float8, picture bytea, token uuid, version bigint,
    primary key (region, number));
create table lines (id bigint primary key, region text, number int, quantity int, version bigint,
    foreign key (region, number) references items on update cascade on delete cascade);
create table slots (id int primary key deferrable initially deferred, label text, version bigint);
create table events (id bigint, kind text, payload jsonb, at timestamptz, version bigint, primary key (id, kind))
    partition by list (kind);
create table events_a partition of events for values in ('a');
create table events_b partition of events for values in ('b', 'c');
create table events_rest partition of events default;
create table counters (id int primary key, n bigint, version bigint);
create table shown (id int primary key, score int, is_public bool, note text, version bigint);
create table twins (id int primary key, owner text, mark bigint);
create table loads (id uuid primary key, batch int, body text, version bigint);

create trigger stamp before insert or update on accounts for each row execute function stamp('accounts', 'id');
create trigger stamp before insert or update on documents for each row execute function stamp('documents', 'name');
create trigger stamp before insert or update on items for each row execute function stamp('items', 'region', 'number');
create trigger stamp before insert or update on lines for each row execute function stamp('lines', 'id');
create trigger stamp before insert or update on slots for each row execute function stamp('slots', 'id');
create trigger stamp before insert or update on events for each row execute function stamp('events', 'id', 'kind');
create trigger stamp before insert or update on counters for each row execute function stamp('counters', 'id');
create trigger stamp before insert or update on shown for each row execute function stamp('shown', 'id');
create trigger stamp before insert or update on loads for each row execute function stamp('loads', 'id');

-- Writes the same row, or a sibling, once more after each update.
create function echo() returns trigger language plpgsql as $$
begin
    update public.counters set n = n + 1 where id = case when new.n % 3 = 0 then new.id + 1 else new.id end;
    return null;
end $$;
create trigger echo after update on counters for each row when (pg_trigger_depth() = 0) execute function echo();

insert into counters select i, 0 from generate_series(1, 20) i;
insert into slots select i, 'slot ' || i from generate_series(1, 60) i;
insert into items select r, n, n / 7.0, decode(md5(r || n), 'hex'), md5(r || n)::uuid
    from unnest(array['eu', 'us']) r, generate_series(1, 40) n;
insert into lines select i, 'eu', 1 + i % 40, i from generate_series(1, 200) i;
