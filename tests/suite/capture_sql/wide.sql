lock table "public"."wide" in share row exclusive mode;
do $body$begin perform pg_catalog.set_config('pgflume.seen', (
    select coalesce(pg_catalog.jsonb_object_agg(
        E'trigger\t\t' || pg_catalog.substr(g.tgname, pg_catalog.length('pgflume_replicate_data_libsql_') + 1),
        pg_catalog.concat_ws('.', g.xmin,
            pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable)),
            p.xmin)), '{}')
    from pg_catalog.pg_trigger g
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = '"public"."wide"'::pg_catalog.regclass and pg_catalog.starts_with(g.tgname, 'pgflume_replicate_data_libsql_')
)::pg_catalog.text, true); end$body$;
grant create on schema pgflume to pgflume_capture;
create or replace function pgflume."replicate_data_libsql.public.wide.insert"() returns trigger
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
        from (select null::pg_catalog.xid as "a_bool", null::pg_catalog.xid as "a_bytea", null::pg_catalog.xid as "a_char", null::pg_catalog.xid as "a_date", null::pg_catalog.xid as "a_money", null::pg_catalog.xid as "a_name", null::pg_catalog.xid as "a_smallint", null::pg_catalog.xid as "a_text", null::pg_catalog.xid as "a_time", null::pg_catalog.xid as "a_timestamp", null::pg_catalog.xid as "a_timestamptz", null::pg_catalog.xid as "a_uuid", null::pg_catalog.xid as "a_varchar", null::pg_catalog.xid as "id") m
        cross join lateral (
            select pg_catalog.pg_typeof("a_bool")::pg_catalog.oid operator(pg_catalog.=) 16::pg_catalog.oid
                and pg_catalog.pg_typeof("a_bytea")::pg_catalog.oid operator(pg_catalog.=) 17::pg_catalog.oid
                and pg_catalog.pg_typeof("a_char")::pg_catalog.oid operator(pg_catalog.=) 1042::pg_catalog.oid
                and pg_catalog.pg_typeof("a_date")::pg_catalog.oid operator(pg_catalog.=) 1082::pg_catalog.oid
                and pg_catalog.pg_typeof("a_money")::pg_catalog.oid operator(pg_catalog.=) 790::pg_catalog.oid
                and pg_catalog.pg_typeof("a_name")::pg_catalog.oid operator(pg_catalog.=) 19::pg_catalog.oid
                and pg_catalog.pg_typeof("a_smallint")::pg_catalog.oid operator(pg_catalog.=) 21::pg_catalog.oid
                and pg_catalog.pg_typeof("a_text")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("a_time")::pg_catalog.oid operator(pg_catalog.=) 1083::pg_catalog.oid
                and pg_catalog.pg_typeof("a_timestamp")::pg_catalog.oid operator(pg_catalog.=) 1114::pg_catalog.oid
                and pg_catalog.pg_typeof("a_timestamptz")::pg_catalog.oid operator(pg_catalog.=) 1184::pg_catalog.oid
                and pg_catalog.pg_typeof("a_uuid")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid
                and pg_catalog.pg_typeof("a_varchar")::pg_catalog.oid operator(pg_catalog.=) 1043::pg_catalog.oid
                and pg_catalog.pg_typeof("id")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid as is_known
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
               pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."id") as k1
                from new_rows t
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'keys', array[array[t."id"::pg_catalog.text]])
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
                       ('{"v":1,"table":"wide","keys":[["' || pg_catalog.array_to_string(k.keys[k.first:k.first + 500 - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), 500) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t."id" as k1
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
alter function pgflume."replicate_data_libsql.public.wide.insert"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.wide.insert"() from public;
create or replace function pgflume."replicate_data_libsql.public.wide.update"() returns trigger
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
        from (select null::pg_catalog.xid as "a_bool", null::pg_catalog.xid as "a_bytea", null::pg_catalog.xid as "a_char", null::pg_catalog.xid as "a_date", null::pg_catalog.xid as "a_money", null::pg_catalog.xid as "a_name", null::pg_catalog.xid as "a_smallint", null::pg_catalog.xid as "a_text", null::pg_catalog.xid as "a_time", null::pg_catalog.xid as "a_timestamp", null::pg_catalog.xid as "a_timestamptz", null::pg_catalog.xid as "a_uuid", null::pg_catalog.xid as "a_varchar", null::pg_catalog.xid as "id") m
        cross join lateral (
            select pg_catalog.pg_typeof("a_bool")::pg_catalog.oid operator(pg_catalog.=) 16::pg_catalog.oid
                and pg_catalog.pg_typeof("a_bytea")::pg_catalog.oid operator(pg_catalog.=) 17::pg_catalog.oid
                and pg_catalog.pg_typeof("a_char")::pg_catalog.oid operator(pg_catalog.=) 1042::pg_catalog.oid
                and pg_catalog.pg_typeof("a_date")::pg_catalog.oid operator(pg_catalog.=) 1082::pg_catalog.oid
                and pg_catalog.pg_typeof("a_money")::pg_catalog.oid operator(pg_catalog.=) 790::pg_catalog.oid
                and pg_catalog.pg_typeof("a_name")::pg_catalog.oid operator(pg_catalog.=) 19::pg_catalog.oid
                and pg_catalog.pg_typeof("a_smallint")::pg_catalog.oid operator(pg_catalog.=) 21::pg_catalog.oid
                and pg_catalog.pg_typeof("a_text")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("a_time")::pg_catalog.oid operator(pg_catalog.=) 1083::pg_catalog.oid
                and pg_catalog.pg_typeof("a_timestamp")::pg_catalog.oid operator(pg_catalog.=) 1114::pg_catalog.oid
                and pg_catalog.pg_typeof("a_timestamptz")::pg_catalog.oid operator(pg_catalog.=) 1184::pg_catalog.oid
                and pg_catalog.pg_typeof("a_uuid")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid
                and pg_catalog.pg_typeof("a_varchar")::pg_catalog.oid operator(pg_catalog.=) 1043::pg_catalog.oid
                and pg_catalog.pg_typeof("id")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid as is_known
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
               pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select pg_catalog.format('%s', coalesce(o.k1, n.k1)) as k1
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "a_bool", true as "a_bytea", true as "a_char", true as "a_date", true as "a_float4", true as "a_inet", true as "a_interval", true as "a_json", true as "a_jsonb", true as "a_money", true as "a_mood", true as "a_name", true as "a_numeric", true as "a_point", true as "a_range", true as "a_smallint", true as "a_text", true as "a_time", true as "a_timestamp", true as "a_timestamptz", true as "a_uuid", true as "a_varchar", true as "an_array", true as "an_xml") m
                    cross join lateral (select t."id" as k1, "a_bool" as c1, "a_bytea" as c2, "a_char" as c3, "a_date" as c4, "a_float4" as c5, "a_inet" as c6, "a_interval" as c7, "a_json" as c8, "a_jsonb" as c9, "a_money" as c10, "a_mood" as c11, "a_name" as c12, "a_numeric" as c13, "a_point" as c14, "a_range" as c15, "a_smallint" as c16, "a_text" as c17, "a_time" as c18, "a_timestamp" as c19, "a_timestamptz" as c20, "a_uuid" as c21, "a_varchar" as c22, "an_array" as c23, "an_xml" as c24 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "a_bool", false as "a_bytea", false as "a_char", false as "a_date", false as "a_float4", false as "a_inet", false as "a_interval", false as "a_json", false as "a_jsonb", false as "a_money", false as "a_mood", false as "a_name", false as "a_numeric", false as "a_point", false as "a_range", false as "a_smallint", false as "a_text", false as "a_time", false as "a_timestamp", false as "a_timestamptz", false as "a_uuid", false as "a_varchar", false as "an_array", false as "an_xml") m
                    cross join lateral (select t."id" as k1, "a_bool" as c1, "a_bytea" as c2, "a_char" as c3, "a_date" as c4, "a_float4" as c5, "a_inet" as c6, "a_interval" as c7, "a_json" as c8, "a_jsonb" as c9, "a_money" as c10, "a_mood" as c11, "a_name" as c12, "a_numeric" as c13, "a_point" as c14, "a_range" as c15, "a_smallint" as c16, "a_text" as c17, "a_time" as c18, "a_timestamp" as c19, "a_timestamptz" as c20, "a_uuid" as c21, "a_varchar" as c22, "an_array" as c23, "an_xml" as c24 from new_rows t) r
                ) n on pg_catalog.format('%s', o.k1) collate pg_catalog."C" operator(pg_catalog.=) pg_catalog.format('%s', n.k1) collate pg_catalog."C"
                where (o.k1 is null or n.k1 is null)
                    or case when greatest(pg_catalog.pg_column_size(o.c1), pg_catalog.pg_column_size(n.c1)) > 65536 then true else row(o.c1)::pg_catalog.record operator(pg_catalog.*<>) row(n.c1)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c2), pg_catalog.pg_column_size(n.c2)) > 65536 then true else row(o.c2)::pg_catalog.record operator(pg_catalog.*<>) row(n.c2)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c3), pg_catalog.pg_column_size(n.c3)) > 65536 then true else row(o.c3)::pg_catalog.record operator(pg_catalog.*<>) row(n.c3)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c4), pg_catalog.pg_column_size(n.c4)) > 65536 then true else row(o.c4)::pg_catalog.record operator(pg_catalog.*<>) row(n.c4)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c5), pg_catalog.pg_column_size(n.c5)) > 65536 then true else row(o.c5)::pg_catalog.record operator(pg_catalog.*<>) row(n.c5)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c6), pg_catalog.pg_column_size(n.c6)) > 65536 then true else row(o.c6)::pg_catalog.record operator(pg_catalog.*<>) row(n.c6)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c7), pg_catalog.pg_column_size(n.c7)) > 65536 then true else row(o.c7)::pg_catalog.record operator(pg_catalog.*<>) row(n.c7)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c8), pg_catalog.pg_column_size(n.c8)) > 65536 then true else row(o.c8)::pg_catalog.record operator(pg_catalog.*<>) row(n.c8)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c9), pg_catalog.pg_column_size(n.c9)) > 65536 then true else row(o.c9)::pg_catalog.record operator(pg_catalog.*<>) row(n.c9)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c10), pg_catalog.pg_column_size(n.c10)) > 65536 then true else row(o.c10)::pg_catalog.record operator(pg_catalog.*<>) row(n.c10)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c11), pg_catalog.pg_column_size(n.c11)) > 65536 then true else row(o.c11)::pg_catalog.record operator(pg_catalog.*<>) row(n.c11)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c12), pg_catalog.pg_column_size(n.c12)) > 65536 then true else row(o.c12)::pg_catalog.record operator(pg_catalog.*<>) row(n.c12)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c13), pg_catalog.pg_column_size(n.c13)) > 65536 then true else row(o.c13)::pg_catalog.record operator(pg_catalog.*<>) row(n.c13)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c14), pg_catalog.pg_column_size(n.c14)) > 65536 then true else row(o.c14)::pg_catalog.record operator(pg_catalog.*<>) row(n.c14)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c15), pg_catalog.pg_column_size(n.c15)) > 65536 then true else row(o.c15)::pg_catalog.record operator(pg_catalog.*<>) row(n.c15)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c16), pg_catalog.pg_column_size(n.c16)) > 65536 then true else row(o.c16)::pg_catalog.record operator(pg_catalog.*<>) row(n.c16)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c17), pg_catalog.pg_column_size(n.c17)) > 65536 then true else row(o.c17)::pg_catalog.record operator(pg_catalog.*<>) row(n.c17)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c18), pg_catalog.pg_column_size(n.c18)) > 65536 then true else row(o.c18)::pg_catalog.record operator(pg_catalog.*<>) row(n.c18)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c19), pg_catalog.pg_column_size(n.c19)) > 65536 then true else row(o.c19)::pg_catalog.record operator(pg_catalog.*<>) row(n.c19)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c20), pg_catalog.pg_column_size(n.c20)) > 65536 then true else row(o.c20)::pg_catalog.record operator(pg_catalog.*<>) row(n.c20)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c21), pg_catalog.pg_column_size(n.c21)) > 65536 then true else row(o.c21)::pg_catalog.record operator(pg_catalog.*<>) row(n.c21)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c22), pg_catalog.pg_column_size(n.c22)) > 65536 then true else row(o.c22)::pg_catalog.record operator(pg_catalog.*<>) row(n.c22)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c23), pg_catalog.pg_column_size(n.c23)) > 65536 then true else row(o.c23)::pg_catalog.record operator(pg_catalog.*<>) row(n.c23)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c24), pg_catalog.pg_column_size(n.c24)) > 65536 then true else row(o.c24)::pg_catalog.record operator(pg_catalog.*<>) row(n.c24)::pg_catalog.record end
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'keys',
                   case when o.k1 operator(pg_catalog.=) n.k1 then array[array[n.k1::pg_catalog.text]] else array[array[o.k1::pg_catalog.text]] || array[array[n.k1::pg_catalog.text]] end)
        from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "a_bool", true as "a_bytea", true as "a_char", true as "a_date", true as "a_float4", true as "a_inet", true as "a_interval", true as "a_json", true as "a_jsonb", true as "a_money", true as "a_mood", true as "a_name", true as "a_numeric", true as "a_point", true as "a_range", true as "a_smallint", true as "a_text", true as "a_time", true as "a_timestamp", true as "a_timestamptz", true as "a_uuid", true as "a_varchar", true as "an_array", true as "an_xml") m
                    cross join lateral (select t."id" as k1, "a_bool" as c1, "a_bytea" as c2, "a_char" as c3, "a_date" as c4, "a_float4" as c5, "a_inet" as c6, "a_interval" as c7, "a_json" as c8, "a_jsonb" as c9, "a_money" as c10, "a_mood" as c11, "a_name" as c12, "a_numeric" as c13, "a_point" as c14, "a_range" as c15, "a_smallint" as c16, "a_text" as c17, "a_time" as c18, "a_timestamp" as c19, "a_timestamptz" as c20, "a_uuid" as c21, "a_varchar" as c22, "an_array" as c23, "an_xml" as c24 from old_rows t) r
                ) o,
            (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "a_bool", false as "a_bytea", false as "a_char", false as "a_date", false as "a_float4", false as "a_inet", false as "a_interval", false as "a_json", false as "a_jsonb", false as "a_money", false as "a_mood", false as "a_name", false as "a_numeric", false as "a_point", false as "a_range", false as "a_smallint", false as "a_text", false as "a_time", false as "a_timestamp", false as "a_timestamptz", false as "a_uuid", false as "a_varchar", false as "an_array", false as "an_xml") m
                    cross join lateral (select t."id" as k1, "a_bool" as c1, "a_bytea" as c2, "a_char" as c3, "a_date" as c4, "a_float4" as c5, "a_inet" as c6, "a_interval" as c7, "a_json" as c8, "a_jsonb" as c9, "a_money" as c10, "a_mood" as c11, "a_name" as c12, "a_numeric" as c13, "a_point" as c14, "a_range" as c15, "a_smallint" as c16, "a_text" as c17, "a_time" as c18, "a_timestamp" as c19, "a_timestamptz" as c20, "a_uuid" as c21, "a_varchar" as c22, "an_array" as c23, "an_xml" as c24 from new_rows t) r
                ) n
        where not (o.k1 operator(pg_catalog.=) n.k1)
            or o.c1 is distinct from n.c1
            or o.c4 is distinct from n.c4
            or o.c10 is distinct from n.c10
            or o.c16 is distinct from n.c16
            or o.c18 is distinct from n.c18
            or o.c19 is distinct from n.c19
            or o.c20 is distinct from n.c20
            or o.c21 is distinct from n.c21
            or o.c12::pg_catalog.text collate pg_catalog."C" is distinct from n.c12::pg_catalog.text collate pg_catalog."C"
            or row(o.c5)::pg_catalog.record operator(pg_catalog.*<>) row(n.c5)::pg_catalog.record
            or row(o.c6)::pg_catalog.record operator(pg_catalog.*<>) row(n.c6)::pg_catalog.record
            or row(o.c7)::pg_catalog.record operator(pg_catalog.*<>) row(n.c7)::pg_catalog.record
            or row(o.c11)::pg_catalog.record operator(pg_catalog.*<>) row(n.c11)::pg_catalog.record
            or case when greatest(pg_catalog.pg_column_size(o.c2), pg_catalog.pg_column_size(n.c2)) > 65536 then true else o.c2 is distinct from n.c2 end
            or case when greatest(pg_catalog.pg_column_size(o.c3), pg_catalog.pg_column_size(n.c3)) > 65536 then true else o.c3::pg_catalog.text collate pg_catalog."C" is distinct from n.c3::pg_catalog.text collate pg_catalog."C" end
            or case when greatest(pg_catalog.pg_column_size(o.c17), pg_catalog.pg_column_size(n.c17)) > 65536 then true else o.c17::pg_catalog.text collate pg_catalog."C" is distinct from n.c17::pg_catalog.text collate pg_catalog."C" end
            or case when greatest(pg_catalog.pg_column_size(o.c22), pg_catalog.pg_column_size(n.c22)) > 65536 then true else o.c22::pg_catalog.text collate pg_catalog."C" is distinct from n.c22::pg_catalog.text collate pg_catalog."C" end
            or case when greatest(pg_catalog.pg_column_size(o.c8), pg_catalog.pg_column_size(n.c8)) > 65536 then true else row(o.c8)::pg_catalog.record operator(pg_catalog.*<>) row(n.c8)::pg_catalog.record end
            or case when greatest(pg_catalog.pg_column_size(o.c9), pg_catalog.pg_column_size(n.c9)) > 65536 then true else row(o.c9)::pg_catalog.record operator(pg_catalog.*<>) row(n.c9)::pg_catalog.record end
            or case when greatest(pg_catalog.pg_column_size(o.c13), pg_catalog.pg_column_size(n.c13)) > 65536 then true else row(o.c13)::pg_catalog.record operator(pg_catalog.*<>) row(n.c13)::pg_catalog.record end
            or case when greatest(pg_catalog.pg_column_size(o.c14), pg_catalog.pg_column_size(n.c14)) > 65536 then true else row(o.c14)::pg_catalog.record operator(pg_catalog.*<>) row(n.c14)::pg_catalog.record end
            or case when greatest(pg_catalog.pg_column_size(o.c15), pg_catalog.pg_column_size(n.c15)) > 65536 then true else row(o.c15)::pg_catalog.record operator(pg_catalog.*<>) row(n.c15)::pg_catalog.record end
            or case when greatest(pg_catalog.pg_column_size(o.c23), pg_catalog.pg_column_size(n.c23)) > 65536 then true else row(o.c23)::pg_catalog.record operator(pg_catalog.*<>) row(n.c23)::pg_catalog.record end
            or case when greatest(pg_catalog.pg_column_size(o.c24), pg_catalog.pg_column_size(n.c24)) > 65536 then true else row(o.c24)::pg_catalog.record operator(pg_catalog.*<>) row(n.c24)::pg_catalog.record end;
    else
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.row_number() over () - 1) / 500 as part
            from (
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select coalesce(o.k1, n.k1)::pg_catalog.text as k1
                from (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select true as "a_bool", true as "a_bytea", true as "a_char", true as "a_date", true as "a_float4", true as "a_inet", true as "a_interval", true as "a_json", true as "a_jsonb", true as "a_money", true as "a_mood", true as "a_name", true as "a_numeric", true as "a_point", true as "a_range", true as "a_smallint", true as "a_text", true as "a_time", true as "a_timestamp", true as "a_timestamptz", true as "a_uuid", true as "a_varchar", true as "an_array", true as "an_xml") m
                    cross join lateral (select t."id" as k1, "a_bool" as c1, "a_bytea" as c2, "a_char" as c3, "a_date" as c4, "a_float4" as c5, "a_inet" as c6, "a_interval" as c7, "a_json" as c8, "a_jsonb" as c9, "a_money" as c10, "a_mood" as c11, "a_name" as c12, "a_numeric" as c13, "a_point" as c14, "a_range" as c15, "a_smallint" as c16, "a_text" as c17, "a_time" as c18, "a_timestamp" as c19, "a_timestamptz" as c20, "a_uuid" as c21, "a_varchar" as c22, "an_array" as c23, "an_xml" as c24 from old_rows t) r
                ) o
                full join (
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select false as "a_bool", false as "a_bytea", false as "a_char", false as "a_date", false as "a_float4", false as "a_inet", false as "a_interval", false as "a_json", false as "a_jsonb", false as "a_money", false as "a_mood", false as "a_name", false as "a_numeric", false as "a_point", false as "a_range", false as "a_smallint", false as "a_text", false as "a_time", false as "a_timestamp", false as "a_timestamptz", false as "a_uuid", false as "a_varchar", false as "an_array", false as "an_xml") m
                    cross join lateral (select t."id" as k1, "a_bool" as c1, "a_bytea" as c2, "a_char" as c3, "a_date" as c4, "a_float4" as c5, "a_inet" as c6, "a_interval" as c7, "a_json" as c8, "a_jsonb" as c9, "a_money" as c10, "a_mood" as c11, "a_name" as c12, "a_numeric" as c13, "a_point" as c14, "a_range" as c15, "a_smallint" as c16, "a_text" as c17, "a_time" as c18, "a_timestamp" as c19, "a_timestamptz" as c20, "a_uuid" as c21, "a_varchar" as c22, "an_array" as c23, "an_xml" as c24 from new_rows t) r
                ) n on o.k1 operator(pg_catalog.=) n.k1
                where (o.k1 is null or n.k1 is null)
                    or o.c1 is distinct from n.c1
                    or o.c4 is distinct from n.c4
                    or o.c10 is distinct from n.c10
                    or o.c16 is distinct from n.c16
                    or o.c18 is distinct from n.c18
                    or o.c19 is distinct from n.c19
                    or o.c20 is distinct from n.c20
                    or o.c21 is distinct from n.c21
                    or o.c12::pg_catalog.text collate pg_catalog."C" is distinct from n.c12::pg_catalog.text collate pg_catalog."C"
                    or row(o.c5)::pg_catalog.record operator(pg_catalog.*<>) row(n.c5)::pg_catalog.record
                    or row(o.c6)::pg_catalog.record operator(pg_catalog.*<>) row(n.c6)::pg_catalog.record
                    or row(o.c7)::pg_catalog.record operator(pg_catalog.*<>) row(n.c7)::pg_catalog.record
                    or row(o.c11)::pg_catalog.record operator(pg_catalog.*<>) row(n.c11)::pg_catalog.record
                    or case when greatest(pg_catalog.pg_column_size(o.c2), pg_catalog.pg_column_size(n.c2)) > 65536 then true else o.c2 is distinct from n.c2 end
                    or case when greatest(pg_catalog.pg_column_size(o.c3), pg_catalog.pg_column_size(n.c3)) > 65536 then true else o.c3::pg_catalog.text collate pg_catalog."C" is distinct from n.c3::pg_catalog.text collate pg_catalog."C" end
                    or case when greatest(pg_catalog.pg_column_size(o.c17), pg_catalog.pg_column_size(n.c17)) > 65536 then true else o.c17::pg_catalog.text collate pg_catalog."C" is distinct from n.c17::pg_catalog.text collate pg_catalog."C" end
                    or case when greatest(pg_catalog.pg_column_size(o.c22), pg_catalog.pg_column_size(n.c22)) > 65536 then true else o.c22::pg_catalog.text collate pg_catalog."C" is distinct from n.c22::pg_catalog.text collate pg_catalog."C" end
                    or case when greatest(pg_catalog.pg_column_size(o.c8), pg_catalog.pg_column_size(n.c8)) > 65536 then true else row(o.c8)::pg_catalog.record operator(pg_catalog.*<>) row(n.c8)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c9), pg_catalog.pg_column_size(n.c9)) > 65536 then true else row(o.c9)::pg_catalog.record operator(pg_catalog.*<>) row(n.c9)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c13), pg_catalog.pg_column_size(n.c13)) > 65536 then true else row(o.c13)::pg_catalog.record operator(pg_catalog.*<>) row(n.c13)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c14), pg_catalog.pg_column_size(n.c14)) > 65536 then true else row(o.c14)::pg_catalog.record operator(pg_catalog.*<>) row(n.c14)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c15), pg_catalog.pg_column_size(n.c15)) > 65536 then true else row(o.c15)::pg_catalog.record operator(pg_catalog.*<>) row(n.c15)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c23), pg_catalog.pg_column_size(n.c23)) > 65536 then true else row(o.c23)::pg_catalog.record operator(pg_catalog.*<>) row(n.c23)::pg_catalog.record end
                    or case when greatest(pg_catalog.pg_column_size(o.c24), pg_catalog.pg_column_size(n.c24)) > 65536 then true else row(o.c24)::pg_catalog.record operator(pg_catalog.*<>) row(n.c24)::pg_catalog.record end
            ) r
        ) k
        group by k.part;
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.wide.update"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.wide.update"() from public;
create or replace function pgflume."replicate_data_libsql.public.wide.delete"() returns trigger
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
        from (select null::pg_catalog.xid as "a_bool", null::pg_catalog.xid as "a_bytea", null::pg_catalog.xid as "a_char", null::pg_catalog.xid as "a_date", null::pg_catalog.xid as "a_money", null::pg_catalog.xid as "a_name", null::pg_catalog.xid as "a_smallint", null::pg_catalog.xid as "a_text", null::pg_catalog.xid as "a_time", null::pg_catalog.xid as "a_timestamp", null::pg_catalog.xid as "a_timestamptz", null::pg_catalog.xid as "a_uuid", null::pg_catalog.xid as "a_varchar", null::pg_catalog.xid as "id") m
        cross join lateral (
            select pg_catalog.pg_typeof("a_bool")::pg_catalog.oid operator(pg_catalog.=) 16::pg_catalog.oid
                and pg_catalog.pg_typeof("a_bytea")::pg_catalog.oid operator(pg_catalog.=) 17::pg_catalog.oid
                and pg_catalog.pg_typeof("a_char")::pg_catalog.oid operator(pg_catalog.=) 1042::pg_catalog.oid
                and pg_catalog.pg_typeof("a_date")::pg_catalog.oid operator(pg_catalog.=) 1082::pg_catalog.oid
                and pg_catalog.pg_typeof("a_money")::pg_catalog.oid operator(pg_catalog.=) 790::pg_catalog.oid
                and pg_catalog.pg_typeof("a_name")::pg_catalog.oid operator(pg_catalog.=) 19::pg_catalog.oid
                and pg_catalog.pg_typeof("a_smallint")::pg_catalog.oid operator(pg_catalog.=) 21::pg_catalog.oid
                and pg_catalog.pg_typeof("a_text")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
                and pg_catalog.pg_typeof("a_time")::pg_catalog.oid operator(pg_catalog.=) 1083::pg_catalog.oid
                and pg_catalog.pg_typeof("a_timestamp")::pg_catalog.oid operator(pg_catalog.=) 1114::pg_catalog.oid
                and pg_catalog.pg_typeof("a_timestamptz")::pg_catalog.oid operator(pg_catalog.=) 1184::pg_catalog.oid
                and pg_catalog.pg_typeof("a_uuid")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid
                and pg_catalog.pg_typeof("a_varchar")::pg_catalog.oid operator(pg_catalog.=) 1043::pg_catalog.oid
                and pg_catalog.pg_typeof("id")::pg_catalog.oid operator(pg_catalog.=) 2950::pg_catalog.oid as is_known
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
               pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'keys', pg_catalog.array_agg(array[k.k1]))
        from (
            select r.*, (pg_catalog.sum(64 + pg_catalog.octet_length(r.k1)) over (rows unbounded preceding) - 1) / 32000 as part
            from (
                select pg_catalog.format('%s', t."id") as k1
                from old_rows t
            ) r
        ) k
        group by k.part;
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'keys', array[array[t."id"::pg_catalog.text]])
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
                       ('{"v":1,"table":"wide","keys":[["' || pg_catalog.array_to_string(k.keys[k.first:k.first + 500 - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), 500) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t."id" as k1
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
alter function pgflume."replicate_data_libsql.public.wide.delete"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.wide.delete"() from public;
create or replace function pgflume."replicate_data_libsql.public.wide.truncate"() returns trigger
language plpgsql security definer
set search_path = ''
as $body$
begin
    insert into pgmq."q_replicate_data_libsql" (vt, message)
    values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', 'wide', 'truncate', true));
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.wide.truncate"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.wide.truncate"() from public;
revoke create on schema pgflume from pgflume_capture;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."wide"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_insert' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.wide.insert' and g.tgtype = 4
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from 'new_rows'
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_insert" after insert on "public"."wide"
        referencing new table as new_rows
        for each statement execute function pgflume."replicate_data_libsql.public.wide.insert"();
    alter table "public"."wide" enable always trigger "pgflume_replicate_data_libsql_insert";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."wide"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_update' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.wide.update' and g.tgtype = 16
            and g.tgoldtable is not distinct from 'old_rows'
            and g.tgnewtable is not distinct from 'new_rows'
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_update" after update on "public"."wide"
        referencing old table as old_rows new table as new_rows
        for each statement execute function pgflume."replicate_data_libsql.public.wide.update"();
    alter table "public"."wide" enable always trigger "pgflume_replicate_data_libsql_update";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."wide"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_delete' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.wide.delete' and g.tgtype = 8
            and g.tgoldtable is not distinct from 'old_rows'
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_delete" after delete on "public"."wide"
        referencing old table as old_rows
        for each statement execute function pgflume."replicate_data_libsql.public.wide.delete"();
    alter table "public"."wide" enable always trigger "pgflume_replicate_data_libsql_delete";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."wide"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_truncate' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.wide.truncate' and g.tgtype = 32
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_truncate" after truncate on "public"."wide"
        for each statement execute function pgflume."replicate_data_libsql.public.wide.truncate"();
    alter table "public"."wide" enable always trigger "pgflume_replicate_data_libsql_truncate";
end
$body$;
-- what was there before, or changed while nothing captured it: the worker copies it, and removes what is gone
insert into pgflume.resyncs as r (queue, name, reason)
select 'replicate_data_libsql', n, 'setup' from pg_catalog.unnest(array['wide']) n
on conflict (queue, name) do update set phase = 'copy', cursor = null, fresh = false, reason = 'setup', problem = null,
    rows = 0, removed = 0, estimated = null, busy_ms = 0, unfit = 0, requested_at = pg_catalog.now(), started_at = null, finished_at = null;
