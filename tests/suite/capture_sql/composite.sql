lock table "public"."composite" in share row exclusive mode;
do $body$begin perform pg_catalog.set_config('pgflume.seen', (
    select coalesce(pg_catalog.jsonb_object_agg(
        E'trigger\t\t' || pg_catalog.substr(g.tgname, pg_catalog.length('pgflume_replicate_data_libsql_') + 1),
        pg_catalog.concat_ws('.', g.xmin,
            pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable)),
            p.xmin)), '{}')
    from pg_catalog.pg_trigger g
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = '"public"."composite"'::pg_catalog.regclass and pg_catalog.starts_with(g.tgname, 'pgflume_replicate_data_libsql_')
)::pg_catalog.text, true); end$body$;
grant create on schema pgflume to pgflume_capture;
create or replace function pgflume."replicate_data_libsql.public.composite.insert"() returns trigger
language plpgsql security definer
set search_path = ''
set DateStyle = 'ISO, YMD'
set jit = 'off'
as $body$
#variable_conflict use_column
declare
    is_known pg_catalog.bool;
    found_rows pg_catalog.int8;
begin
    -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which would
    -- run with our rights. A column that is gone finds its name in m.
    select pg_catalog.bool_and(r.is_known), pg_catalog.count(*) into is_known, found_rows
    from (
        select g.is_known
        from (select null::pg_catalog.xid as "day", null::pg_catalog.xid as "notes", null::pg_catalog.xid as "tenant", null::pg_catalog.xid as "v") m
        cross join lateral (
            select pg_catalog.pg_typeof("day")::pg_catalog.oid operator(pg_catalog.=) 1082::pg_catalog.oid
                and pg_catalog.pg_typeof("notes")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("tenant")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid
                and pg_catalog.pg_typeof("v")::pg_catalog.oid operator(pg_catalog.=) 23::pg_catalog.oid as is_known
            from new_rows t
        ) g
        limit 2
    ) r;
    if found_rows operator(pg_catalog.=) 0 then
        return null;
    end if;
    if not is_known then
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', pg_catalog.array_agg(array[k.k1, k.k2]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1) + pg_catalog.octet_length(r.k2)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."day") as k1, pg_catalog.format('%s', t."tenant") as k2
                from new_rows t
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', array[array[t."day"::pg_catalog.text, t."tenant"::pg_catalog.text]])
        from new_rows t;
    else
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', pg_catalog.array_agg(array[k.k1, k.k2]))
        from (
            select r.*, (pg_catalog.row_number() over () - 1) / 250 as part
            from (
                select t."day"::pg_catalog.text as k1, t."tenant"::pg_catalog.text as k2
                from new_rows t
            ) r
        ) k
        group by k.part;
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.composite.insert"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.composite.insert"() from public;
create or replace function pgflume."replicate_data_libsql.public.composite.update"() returns trigger
language plpgsql security definer
set search_path = ''
set DateStyle = 'ISO, YMD'
set jit = 'off'
as $body$
#variable_conflict use_column
declare
    is_known pg_catalog.bool;
    found_rows pg_catalog.int8;
begin
    -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which would
    -- run with our rights. A column that is gone finds its name in m.
    select pg_catalog.bool_and(r.is_known), pg_catalog.count(*) into is_known, found_rows
    from (
        select g.is_known
        from (select null::pg_catalog.xid as "day", null::pg_catalog.xid as "notes", null::pg_catalog.xid as "tenant", null::pg_catalog.xid as "v") m
        cross join lateral (
            select pg_catalog.pg_typeof("day")::pg_catalog.oid operator(pg_catalog.=) 1082::pg_catalog.oid
                and pg_catalog.pg_typeof("notes")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("tenant")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid
                and pg_catalog.pg_typeof("v")::pg_catalog.oid operator(pg_catalog.=) 23::pg_catalog.oid as is_known
            from new_rows t
        ) g
        limit 2
    ) r;
    if found_rows operator(pg_catalog.=) 0 then
        return null;
    end if;
    if not is_known then
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', pg_catalog.array_agg(array[k.k1, k.k2]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1) + pg_catalog.octet_length(r.k2)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select pg_catalog.format('%s', coalesce(o.k1, n.k1)) as k1, pg_catalog.format('%s', coalesce(o.k2, n.k2)) as k2
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "notes", true as "v") m
                    cross join lateral (select t."day" as k1, t."tenant" as k2, "notes" as c1, "v" as c2 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "notes", false as "v") m
                    cross join lateral (select t."day" as k1, t."tenant" as k2, "notes" as c1, "v" as c2 from new_rows t) r
                ) n on pg_catalog.format('%s', o.k1) collate pg_catalog."C" operator(pg_catalog.=) pg_catalog.format('%s', n.k1) collate pg_catalog."C" and pg_catalog.format('%s', o.k2) collate pg_catalog."C" operator(pg_catalog.=) pg_catalog.format('%s', n.k2) collate pg_catalog."C"
                where (o.k1 is null or n.k1 is null)
                    or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else row(o.c1)::pg_catalog.record operator(pg_catalog.*<>) row(n.c1)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c2), pg_catalog.pg_column_size(n.c2)) > 65536 then true else row(o.c2)::pg_catalog.record operator(pg_catalog.*<>) row(n.c2)::pg_catalog.record end
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys',
                   case when o.k1 operator(pg_catalog.=) n.k1 and o.k2 operator(pg_catalog.=) n.k2 then array[array[n.k1::pg_catalog.text, n.k2::pg_catalog.text]] else array[array[o.k1::pg_catalog.text, o.k2::pg_catalog.text]] || array[array[n.k1::pg_catalog.text, n.k2::pg_catalog.text]] end)
        from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "notes", true as "v") m
                    cross join lateral (select t."day" as k1, t."tenant" as k2, "notes" as c1, "v" as c2 from old_rows t) r
                ) o,
            (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "notes", false as "v") m
                    cross join lateral (select t."day" as k1, t."tenant" as k2, "notes" as c1, "v" as c2 from new_rows t) r
                ) n
        where not (o.k1 operator(pg_catalog.=) n.k1 and o.k2 operator(pg_catalog.=) n.k2)
            or o.c2 is distinct from n.c2
            or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else o.c1::pg_catalog.text collate pg_catalog."C" is distinct from n.c1::pg_catalog.text collate pg_catalog."C" end;
    else
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', pg_catalog.array_agg(array[k.k1, k.k2]))
        from (
            select r.*, (pg_catalog.row_number() over () - 1) / 250 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select coalesce(o.k1, n.k1)::pg_catalog.text as k1, coalesce(o.k2, n.k2)::pg_catalog.text as k2
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "notes", true as "v") m
                    cross join lateral (select t."day" as k1, t."tenant" as k2, "notes" as c1, "v" as c2 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "notes", false as "v") m
                    cross join lateral (select t."day" as k1, t."tenant" as k2, "notes" as c1, "v" as c2 from new_rows t) r
                ) n on o.k1 operator(pg_catalog.=) n.k1 and o.k2 operator(pg_catalog.=) n.k2
                where (o.k1 is null or n.k1 is null)
                    or o.c2 is distinct from n.c2
                    or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else o.c1::pg_catalog.text collate pg_catalog."C" is distinct from n.c1::pg_catalog.text collate pg_catalog."C" end
            ) r
        ) k
        group by k.part;
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.composite.update"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.composite.update"() from public;
create or replace function pgflume."replicate_data_libsql.public.composite.delete"() returns trigger
language plpgsql security definer
set search_path = ''
set DateStyle = 'ISO, YMD'
set jit = 'off'
as $body$
#variable_conflict use_column
declare
    is_known pg_catalog.bool;
    found_rows pg_catalog.int8;
begin
    -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which would
    -- run with our rights. A column that is gone finds its name in m.
    select pg_catalog.bool_and(r.is_known), pg_catalog.count(*) into is_known, found_rows
    from (
        select g.is_known
        from (select null::pg_catalog.xid as "day", null::pg_catalog.xid as "notes", null::pg_catalog.xid as "tenant", null::pg_catalog.xid as "v") m
        cross join lateral (
            select pg_catalog.pg_typeof("day")::pg_catalog.oid operator(pg_catalog.=) 1082::pg_catalog.oid
                and pg_catalog.pg_typeof("notes")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("tenant")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid
                and pg_catalog.pg_typeof("v")::pg_catalog.oid operator(pg_catalog.=) 23::pg_catalog.oid as is_known
            from old_rows t
        ) g
        limit 2
    ) r;
    if found_rows operator(pg_catalog.=) 0 then
        return null;
    end if;
    if not is_known then
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', pg_catalog.array_agg(array[k.k1, k.k2]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1) + pg_catalog.octet_length(r.k2)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."day") as k1, pg_catalog.format('%s', t."tenant") as k2
                from old_rows t
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', array[array[t."day"::pg_catalog.text, t."tenant"::pg_catalog.text]])
        from old_rows t;
    else
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'keys', pg_catalog.array_agg(array[k.k1, k.k2]))
        from (
            select r.*, (pg_catalog.row_number() over () - 1) / 250 as part
            from (
                select t."day"::pg_catalog.text as k1, t."tenant"::pg_catalog.text as k2
                from old_rows t
            ) r
        ) k
        group by k.part;
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.composite.delete"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.composite.delete"() from public;
create or replace function pgflume."replicate_data_libsql.public.composite.truncate"() returns trigger
language plpgsql security definer
set search_path = ''
as $body$
begin
    insert into pgmq."q_replicate_data_libsql" (vt, message)
    values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', 'composite', 'truncate', true));
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.composite.truncate"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.composite.truncate"() from public;
revoke create on schema pgflume from pgflume_capture;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."composite"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_insert' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.composite.insert' and g.tgtype = 4
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from 'new_rows'
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_insert" after insert on "public"."composite"
        referencing new table as new_rows
        for each statement execute function pgflume."replicate_data_libsql.public.composite.insert"();
    alter table "public"."composite" enable always trigger "pgflume_replicate_data_libsql_insert";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."composite"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_update' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.composite.update' and g.tgtype = 16
            and g.tgoldtable is not distinct from 'old_rows'
            and g.tgnewtable is not distinct from 'new_rows'
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_update" after update on "public"."composite"
        referencing old table as old_rows new table as new_rows
        for each statement execute function pgflume."replicate_data_libsql.public.composite.update"();
    alter table "public"."composite" enable always trigger "pgflume_replicate_data_libsql_update";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."composite"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_delete' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.composite.delete' and g.tgtype = 8
            and g.tgoldtable is not distinct from 'old_rows'
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_delete" after delete on "public"."composite"
        referencing old table as old_rows
        for each statement execute function pgflume."replicate_data_libsql.public.composite.delete"();
    alter table "public"."composite" enable always trigger "pgflume_replicate_data_libsql_delete";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."composite"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_truncate' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.composite.truncate' and g.tgtype = 32
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_truncate" after truncate on "public"."composite"
        for each statement execute function pgflume."replicate_data_libsql.public.composite.truncate"();
    alter table "public"."composite" enable always trigger "pgflume_replicate_data_libsql_truncate";
end
$body$;
-- what was there before, or changed while nothing captured it: the worker copies it, and removes what is gone
insert into pgflume.resyncs as r (queue, name, reason)
select 'replicate_data_libsql', n, 'setup' from pg_catalog.unnest(array['composite']) n
on conflict (queue, name) do update set phase = 'copy', cursor = null, fresh = false, reason = 'setup', problem = null,
    rows = 0, removed = 0, estimated = null, busy_ms = 0, unfit = 0, requested_at = pg_catalog.now(), started_at = null, finished_at = null;
