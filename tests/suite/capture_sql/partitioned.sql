-- The table with all its partitions, at once or not at all: who held one while waiting for another could close a circle
-- with a migration, and Postgres would end that.
do $lock$
declare
    begun constant pg_catalog.timestamptz := pg_catalog.clock_timestamp();
begin
    loop
        begin
            lock table "public"."partitioned" in share row exclusive mode nowait;
            exit;
        exception when lock_not_available then
            if pg_catalog.clock_timestamp() > begun + interval '2000 ms' then
                raise;
            end if;
        end;
        perform pg_catalog.pg_sleep(0.01);
    end loop;
end
$lock$;
do $body$begin perform pg_catalog.set_config('pgflume.seen', (
    select coalesce(pg_catalog.jsonb_object_agg(
        E'trigger\t\t' || pg_catalog.substr(g.tgname, pg_catalog.length('pgflume_replicate_data_libsql_') + 1),
        pg_catalog.concat_ws('.', g.xmin,
            pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable)),
            p.xmin)), '{}')
    from pg_catalog.pg_trigger g
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = '"public"."partitioned"'::pg_catalog.regclass and pg_catalog.starts_with(g.tgname, 'pgflume_replicate_data_libsql_')
)::pg_catalog.text, true); end$body$;
grant create on schema pgflume to pgflume_capture;
create or replace function pgflume."replicate_data_libsql.public.partitioned.row"() returns trigger
language plpgsql security definer
set search_path = ''
as $body$
declare
    marked pg_catalog.jsonb;
begin
    begin
        -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which
        -- would run with our rights.
        if pg_catalog.pg_typeof(new."id")::pg_catalog.oid operator(pg_catalog.=) 20::pg_catalog.oid
            and pg_catalog.pg_typeof(new."region")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid
            and pg_catalog.pg_typeof(new."v")::pg_catalog.oid operator(pg_catalog.=) 25::pg_catalog.oid then
            marked := case
                when tg_op = 'INSERT' then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(new."id"::pg_catalog.text, new."region"::pg_catalog.text))
                when tg_op = 'DELETE' then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(old."id"::pg_catalog.text, old."region"::pg_catalog.text))
                when not (old."id" operator(pg_catalog.=) new."id") or not (old."region"::pg_catalog.text collate pg_catalog."C" operator(pg_catalog.=) new."region"::pg_catalog.text collate pg_catalog."C")
                    then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(old."id"::pg_catalog.text, old."region"::pg_catalog.text), pg_catalog.jsonb_build_array(new."id"::pg_catalog.text, new."region"::pg_catalog.text))
                when case when greatest(pg_catalog.pg_column_size(old."v"), pg_catalog.pg_column_size(new."v")) > 65536 then true else old."v"::pg_catalog.text collate pg_catalog."C" is distinct from new."v"::pg_catalog.text collate pg_catalog."C" end
                    then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(new."id"::pg_catalog.text, new."region"::pg_catalog.text))
            end;
        else
            marked := case
                when tg_op = 'INSERT' then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(pg_catalog.format('%s', new."id"), pg_catalog.format('%s', new."region")))
                when tg_op = 'DELETE' then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(pg_catalog.format('%s', old."id"), pg_catalog.format('%s', old."region")))
                when not (pg_catalog.format('%s', old."id") collate pg_catalog."C" operator(pg_catalog.=) pg_catalog.format('%s', new."id") collate pg_catalog."C") or not (pg_catalog.format('%s', old."region") collate pg_catalog."C" operator(pg_catalog.=) pg_catalog.format('%s', new."region") collate pg_catalog."C")
                    then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(pg_catalog.format('%s', old."id"), pg_catalog.format('%s', old."region")), pg_catalog.jsonb_build_array(pg_catalog.format('%s', new."id"), pg_catalog.format('%s', new."region")))
                when case when greatest(pg_catalog.pg_column_size(old."v"), pg_catalog.pg_column_size(new."v")) > 65536 then true else row(old."v")::pg_catalog.record operator(pg_catalog.*<>) row(new."v")::pg_catalog.record end
                    then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(pg_catalog.format('%s', new."id"), pg_catalog.format('%s', new."region")))
            end;
        end if;
    exception when datatype_mismatch or undefined_column or internal_error
            or undefined_function or ambiguous_function or undefined_object then
        -- compiled with another type of a column than it has now, or a type or a column is gone: these are parsed each time
        marked := '[]';
        if tg_op <> 'INSERT' then
            execute 'select $2 operator(pg_catalog.||) pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(pg_catalog.format(''%s'', ($1)."id"), pg_catalog.format(''%s'', ($1)."region")))' into marked using old, marked;
        end if;
        if tg_op <> 'DELETE' then
            execute 'select $2 operator(pg_catalog.||) pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(pg_catalog.format(''%s'', ($1)."id"), pg_catalog.format(''%s'', ($1)."region")))' into marked using new, marked;
        end if;
    end;
    if marked is not null then
        insert into pgmq."q_replicate_data_libsql" (vt, message)
        values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', 'partitioned', 'keys', marked));
    end if;
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.partitioned.row"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.partitioned.row"() from public;
create or replace function pgflume."replicate_data_libsql.public.partitioned.truncate"() returns trigger
language plpgsql security definer
set search_path = ''
as $body$
begin
    insert into pgmq."q_replicate_data_libsql" (vt, message)
    values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', 'partitioned', 'truncate', true));
    return null;
end
$body$;
alter function pgflume."replicate_data_libsql.public.partitioned.truncate"() owner to pgflume_capture;
revoke all on function pgflume."replicate_data_libsql.public.partitioned.truncate"() from public;
-- whoever adds a partition adds this trigger to it
grant execute on function pgflume."replicate_data_libsql.public.partitioned.row"() to "postgres";
revoke create on schema pgflume from pgflume_capture;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."partitioned"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_row' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.partitioned.row' and g.tgtype = 29
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_row" after insert or update or delete on "public"."partitioned"
        for each row execute function pgflume."replicate_data_libsql.public.partitioned.row"();
    alter table "public"."partitioned" enable always trigger "pgflume_replicate_data_libsql_row";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."partitioned"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_truncate' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.partitioned.truncate' and g.tgtype = 32
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_truncate" after truncate on "public"."partitioned"
        for each statement execute function pgflume."replicate_data_libsql.public.partitioned.truncate"();
    alter table "public"."partitioned" enable always trigger "pgflume_replicate_data_libsql_truncate";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."partitioned_east"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_truncate' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.partitioned.truncate' and g.tgtype = 32
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_truncate" after truncate on "public"."partitioned_east"
        for each statement execute function pgflume."replicate_data_libsql.public.partitioned.truncate"();
    alter table "public"."partitioned_east" enable always trigger "pgflume_replicate_data_libsql_truncate";
end
$body$;
do $body$
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = '"public"."partitioned_rest"'::pg_catalog.regclass and g.tgname = 'pgflume_replicate_data_libsql_truncate' and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = 'replicate_data_libsql.public.partitioned.truncate' and g.tgtype = 32
            and g.tgoldtable is not distinct from null
            and g.tgnewtable is not distinct from null
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger "pgflume_replicate_data_libsql_truncate" after truncate on "public"."partitioned_rest"
        for each statement execute function pgflume."replicate_data_libsql.public.partitioned.truncate"();
    alter table "public"."partitioned_rest" enable always trigger "pgflume_replicate_data_libsql_truncate";
end
$body$;
alter table "public"."partitioned_east" enable always trigger "pgflume_replicate_data_libsql_row";
alter table "public"."partitioned_rest" enable always trigger "pgflume_replicate_data_libsql_row";
-- what was there before, or changed while nothing captured it: the worker copies it, and removes what is gone
insert into pgflume.resyncs as r (queue, name, reason)
select 'replicate_data_libsql', n, 'setup' from pg_catalog.unnest(array['partitioned']) n
on conflict (queue, name) do update set phase = 'copy', cursor = null, fresh = false, reason = 'setup', problem = null,
    rows = 0, removed = 0, estimated = null, busy_ms = 0, unfit = 0, requested_at = pg_catalog.now(), started_at = null, finished_at = null;
