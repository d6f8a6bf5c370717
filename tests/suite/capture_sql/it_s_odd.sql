lock table "public"."it's ""odd""" in share row exclusive mode;
do $body$begin perform pg_catalog.set_config('pgflume.seen', (
    select coalesce(pg_catalog.jsonb_object_agg(
        E'trigger\t\t' || pg_catalog.substr(g.tgname, pg_catalog.length('pgflume_replicate_data_libsql_') + 1),
        pg_catalog.concat_ws('.', g.xmin,
            pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable)),
            p.xmin)), '{}')
    from pg_catalog.pg_trigger g
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = '"public"."it''s ""odd"""'::pg_catalog.regclass and pg_catalog.starts_with(g.tgname, 'pgflume_replicate_data_libsql_')
)::pg_catalog.text, true); end$body$;
grant create on schema pgflume to pgflume_capture;
create or replace function pgflume."replicate_data_libsql.public.it's ""odd"".insert"() returns trigger
language plpgsql security definer
set search_path = ''
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
        from (select null::pg_catalog.xid as "the ""id""", null::pg_catalog.xid as "v\1", null::pg_catalog.xid as "w") m
        cross join lateral (
            select pg_catalog.pg_typeof("the ""id""")::pg_catalog.oid operator(pg_catalog.=) 20::pg_catalog.oid
                and pg_catalog.pg_typeof("v\1")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("w")::pg_catalog.oid operator(pg_catalog.=) 23::pg_catalog.oid as is_known
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
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."the ""id""") as k1
                from new_rows t
            ) r
        ) k
        group by k.part;
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."the ""id""") as k1
                from new_rows t
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'keys', array[array[t."the ""id"""::pg_catalog.text]])
        from new_rows t;
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'keys', array[array[t."the ""id"""::pg_catalog.text]])
        from new_rows t;
    else
        <<block>>
        declare
            done pg_catalog.int8 := 0;
            messages pg_catalog.int8;
        begin
            -- a block of keys in one array, cut into messages: numbering each row would take longer than reading it
            loop
                insert into pgmq."q_replicate_data_libsql" (vt, message)
                select pg_catalog.clock_timestamp(),
                       ('{"v":1,"table":"odd","keys":[["' || pg_catalog.array_to_string(k.keys[k.first:k.first + 500 - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), 500) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t."the ""id""" as k1
                            from new_rows t offset block.done limit 1000000
                        ) r
                    ) b
                ) k;
                get diagnostics messages = row_count;
                exit when messages < 1000000 / 500;
                done := done + 1000000;
            end loop;
        end block;
        <<block>>
        declare
            done pg_catalog.int8 := 0;
            messages pg_catalog.int8;
        begin
            -- a block of keys in one array, cut into messages: numbering each row would take longer than reading it
            loop
                insert into pgmq."q_replicate_data_libsql" (vt, message)
                select pg_catalog.clock_timestamp(),
                       ('{"v":1,"table":"odd''s twin","keys":[["' || pg_catalog.array_to_string(k.keys[k.first:k.first + 500 - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), 500) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t."the ""id""" as k1
                            from new_rows t offset block.done limit 1000000
                        ) r
                    ) b
                ) k;
                get diagnostics messages = row_count;
                exit when messages < 1000000 / 500;
                done := done + 1000000;
            end loop;
        end block;
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.it's ""odd"".insert"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.it's ""odd"".insert"() from public;
create or replace function pgflume."replicate_data_libsql.public.it's ""odd"".update"() returns trigger
language plpgsql security definer
set search_path = ''
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
        from (select null::pg_catalog.xid as "the ""id""", null::pg_catalog.xid as "v\1", null::pg_catalog.xid as "w") m
        cross join lateral (
            select pg_catalog.pg_typeof("the ""id""")::pg_catalog.oid operator(pg_catalog.=) 20::pg_catalog.oid
                and pg_catalog.pg_typeof("v\1")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("w")::pg_catalog.oid operator(pg_catalog.=) 23::pg_catalog.oid as is_known
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
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select pg_catalog.format('%s', coalesce(o.k1, n.k1)) as k1
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "v\1") m
                    cross join lateral (select t."the ""id""" as k1, "v\1" as c1 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "v\1") m
                    cross join lateral (select t."the ""id""" as k1, "v\1" as c1 from new_rows t) r
                ) n on pg_catalog.format('%s', o.k1) collate pg_catalog."C" operator(pg_catalog.=) pg_catalog.format('%s', n.k1) collate pg_catalog."C"
                where (o.k1 is null or n.k1 is null)
                    or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else row(o.c1)::pg_catalog.record operator(pg_catalog.*<>) row(n.c1)::pg_catalog.record end
            ) r
        ) k
        group by k.part;
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select pg_catalog.format('%s', coalesce(o.k1, n.k1)) as k1
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "w") m
                    cross join lateral (select t."the ""id""" as k1, "w" as c1 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "w") m
                    cross join lateral (select t."the ""id""" as k1, "w" as c1 from new_rows t) r
                ) n on pg_catalog.format('%s', o.k1) collate pg_catalog."C" operator(pg_catalog.=) pg_catalog.format('%s', n.k1) collate pg_catalog."C"
                where (o.k1 is null or n.k1 is null)
                    or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else row(o.c1)::pg_catalog.record operator(pg_catalog.*<>) row(n.c1)::pg_catalog.record end
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'keys',
                   case when o.k1 operator(pg_catalog.=) n.k1 then array[array[n.k1::pg_catalog.text]] else array[array[o.k1::pg_catalog.text]] || array[array[n.k1::pg_catalog.text]] end)
        from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "v\1") m
                    cross join lateral (select t."the ""id""" as k1, "v\1" as c1 from old_rows t) r
                ) o,
            (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "v\1") m
                    cross join lateral (select t."the ""id""" as k1, "v\1" as c1 from new_rows t) r
                ) n
        where not (o.k1 operator(pg_catalog.=) n.k1)
            or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else o.c1::pg_catalog.text collate pg_catalog."C" is distinct from n.c1::pg_catalog.text collate pg_catalog."C" end;
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'keys',
                   case when o.k1 operator(pg_catalog.=) n.k1 then array[array[n.k1::pg_catalog.text]] else array[array[o.k1::pg_catalog.text]] || array[array[n.k1::pg_catalog.text]] end)
        from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "w") m
                    cross join lateral (select t."the ""id""" as k1, "w" as c1 from old_rows t) r
                ) o,
            (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "w") m
                    cross join lateral (select t."the ""id""" as k1, "w" as c1 from new_rows t) r
                ) n
        where not (o.k1 operator(pg_catalog.=) n.k1)
            or o.c1 is distinct from n.c1;
    else
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.row_number() over () - 1) / 500 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select coalesce(o.k1, n.k1)::pg_catalog.text as k1
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "v\1") m
                    cross join lateral (select t."the ""id""" as k1, "v\1" as c1 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "v\1") m
                    cross join lateral (select t."the ""id""" as k1, "v\1" as c1 from new_rows t) r
                ) n on o.k1 operator(pg_catalog.=) n.k1
                where (o.k1 is null or n.k1 is null)
                    or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else o.c1::pg_catalog.text collate pg_catalog."C" is distinct from n.c1::pg_catalog.text collate pg_catalog."C" end
            ) r
        ) k
        group by k.part;
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.row_number() over () - 1) / 500 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select coalesce(o.k1, n.k1)::pg_catalog.text as k1
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "w") m
                    cross join lateral (select t."the ""id""" as k1, "w" as c1 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "w") m
                    cross join lateral (select t."the ""id""" as k1, "w" as c1 from new_rows t) r
                ) n on o.k1 operator(pg_catalog.=) n.k1
                where (o.k1 is null or n.k1 is null)
                    or o.c1 is distinct from n.c1
            ) r
        ) k
        group by k.part;
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.it's ""odd"".update"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.it's ""odd"".update"() from public;
create or replace function pgflume."replicate_data_libsql.public.it's ""odd"".delete"() returns trigger
language plpgsql security definer
set search_path = ''
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
        from (select null::pg_catalog.xid as "the ""id""", null::pg_catalog.xid as "v\1", null::pg_catalog.xid as "w") m
        cross join lateral (
            select pg_catalog.pg_typeof("the ""id""")::pg_catalog.oid operator(pg_catalog.=) 20::pg_catalog.oid
                and pg_catalog.pg_typeof("v\1")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("w")::pg_catalog.oid operator(pg_catalog.=) 23::pg_catalog.oid as is_known
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
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."the ""id""") as k1
                from old_rows t
            ) r
        ) k
        group by k.part;
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."the ""id""") as k1
                from old_rows t
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'keys', array[array[t."the ""id"""::pg_catalog.text]])
        from old_rows t;
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'keys', array[array[t."the ""id"""::pg_catalog.text]])
        from old_rows t;
    else
        <<block>>
        declare
            done pg_catalog.int8 := 0;
            messages pg_catalog.int8;
        begin
            -- a block of keys in one array, cut into messages: numbering each row would take longer than reading it
            loop
                insert into pgmq."q_replicate_data_libsql" (vt, message)
                select pg_catalog.clock_timestamp(),
                       ('{"v":1,"table":"odd","keys":[["' || pg_catalog.array_to_string(k.keys[k.first:k.first + 500 - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), 500) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t."the ""id""" as k1
                            from old_rows t offset block.done limit 1000000
                        ) r
                    ) b
                ) k;
                get diagnostics messages = row_count;
                exit when messages < 1000000 / 500;
                done := done + 1000000;
            end loop;
        end block;
        <<block>>
        declare
            done pg_catalog.int8 := 0;
            messages pg_catalog.int8;
        begin
            -- a block of keys in one array, cut into messages: numbering each row would take longer than reading it
            loop
                insert into pgmq."q_replicate_data_libsql" (vt, message)
                select pg_catalog.clock_timestamp(),
                       ('{"v":1,"table":"odd''s twin","keys":[["' || pg_catalog.array_to_string(k.keys[k.first:k.first + 500 - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), 500) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t."the ""id""" as k1
                            from old_rows t offset block.done limit 1000000
                        ) r
                    ) b
                ) k;
                get diagnostics messages = row_count;
                exit when messages < 1000000 / 500;
                done := done + 1000000;
            end loop;
        end block;
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.it's ""odd"".delete"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.it's ""odd"".delete"() from public;
create or replace function pgflume."replicate_data_libsql.public.it's ""odd"".truncate"() returns trigger
language plpgsql security definer
set search_path = ''
as $body$
begin
    insert into pgmq."q_replicate_data_libsql" (vt, message)
    values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', 'odd', 'truncate', true));
    insert into pgmq."q_replicate_data_libsql" (vt, message)
    values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', 'odd''s twin', 'truncate', true));
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.it's ""odd"".truncate"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.it's ""odd"".truncate"() from public;
revoke create on schema pgflume from pgflume_capture;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."it''s ""odd"""'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_insert' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.it''s "odd".insert' and g.tgtype = 4
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from 'new_rows'
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_insert" after insert on "public"."it's ""odd"""
        referencing new table as new_rows
        for each statement execute function pgflume."replicate_data_libsql.public.it's ""odd"".insert"();
    alter table "public"."it's ""odd""" enable always trigger "pgflume_replicate_data_libsql_insert";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."it''s ""odd"""'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_update' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.it''s "odd".update' and g.tgtype = 16
            and g.tgoldtable is not distinct from 'old_rows'
            and g.tgnewtable is not distinct from 'new_rows'
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_update" after update on "public"."it's ""odd"""
        referencing old table as old_rows new table as new_rows
        for each statement execute function pgflume."replicate_data_libsql.public.it's ""odd"".update"();
    alter table "public"."it's ""odd""" enable always trigger "pgflume_replicate_data_libsql_update";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."it''s ""odd"""'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_delete' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.it''s "odd".delete' and g.tgtype = 8
            and g.tgoldtable is not distinct from 'old_rows'
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_delete" after delete on "public"."it's ""odd"""
        referencing old table as old_rows
        for each statement execute function pgflume."replicate_data_libsql.public.it's ""odd"".delete"();
    alter table "public"."it's ""odd""" enable always trigger "pgflume_replicate_data_libsql_delete";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."it''s ""odd"""'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_truncate' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.it''s "odd".truncate' and g.tgtype = 32
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_truncate" after truncate on "public"."it's ""odd"""
        for each statement execute function pgflume."replicate_data_libsql.public.it's ""odd"".truncate"();
    alter table "public"."it's ""odd""" enable always trigger "pgflume_replicate_data_libsql_truncate";
end
$body$;
-- what was there before, or changed while nothing captured it: the worker copies it, and removes what is gone
insert into pgflume.resyncs as r (queue, name, reason)
select 'replicate_data_libsql', n, 'setup' from pg_catalog.unnest(array['odd', 'odd''s twin']) n
on conflict (queue, name) do update set phase = 'copy', cursor = null, fresh = false, reason = 'setup', problem = null,
    rows = 0, removed = 0, estimated = null, busy_ms = 0, unfit = 0, requested_at = pg_catalog.now(), started_at = null, finished_at = null;
