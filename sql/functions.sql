{# A setting: Vault's secret of that name, else the row of pgflume.settings. Null if it was never set. #}
{% macro setting(name) %}
create or replace function pgflume.get_{{ name }}() returns pg_catalog.text
language plpgsql stable security definer set search_path = ''
as $body$
declare
    found_value pg_catalog.text;
begin
    if exists (
        select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'vault' and c.relname = 'decrypted_secrets' and pg_catalog.has_schema_privilege(n.oid, 'usage')
            -- not just anybody's view of that name
            and exists (select from pg_catalog.pg_roles o where o.oid = c.relowner and (o.rolsuper or o.rolname = current_user))
    ) then
        execute 'select s.decrypted_secret from vault.decrypted_secrets s where s.name = $1 limit 1'
            into found_value using '{{ name }}';
    end if;
    if found_value is null then
        select s.value into found_value from pgflume.settings s where s.name = '{{ name }}';
    end if;
    return found_value;
end
$body$;
revoke all on function pgflume.get_{{ name }}() from public;
{%- endmacro %}
-- The functions around the queue, under the names of the original migration. Nobody but their owner may
-- call them: two of them know the secret.

-- Where the address and the secret are kept if the server has no Vault.
create table if not exists pgflume.settings (
    name  pg_catalog.text primary key,
    value pg_catalog.text not null
);
revoke all on table pgflume.settings from public;

-- What a writer has to show to those who wait for its own write: the id of its transaction. Whoever may not use this
-- schema calls pg_current_xact_id() itself.
do $token$
declare
    given pg_catalog.text;
begin
    -- those who were given it keep it
    if exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
               where n.nspname = 'pgflume' and p.proname = 'token' and p.pronargs = 0) then
        return;
    end if;
    create function pgflume.token() returns pg_catalog.text
    language sql volatile parallel unsafe set search_path = ''
    as 'select pg_catalog.pg_current_xact_id()::pg_catalog.text';
    -- but nobody by default privileges
    for given in
        select case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end
        from pg_catalog.pg_proc p
        cross join lateral pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        where p.oid = 'pgflume.token()'::pg_catalog.regprocedure and a.grantee <> p.proowner
    loop
        execute 'revoke all on function pgflume.token() from ' || given || ' cascade';
    end loop;
end
$token$;

-- Where cron posts: Vault's secret libsql_sync_url, else pgflume.settings. Null if it was never set.
{{ setting("libsql_sync_url") }}

-- The secret that the worker expects: Vault's libsql_webhook_signature, else pgflume.settings.
{{ setting("libsql_webhook_signature") }}

-- What cron runs: one post to the worker, which drains the queue by itself.
create or replace function pgflume.process_libsql_replication_batch() returns pg_catalog.void
language plpgsql security definer set search_path = ''
as $body$
declare
    url         constant pg_catalog.text := pgflume.get_libsql_sync_url();
    signature   constant pg_catalog.text := pgflume.get_libsql_webhook_signature();
    timeout_ms  constant pg_catalog.int4 := 30000; -- the worker answers within 25 s
    body        constant pg_catalog.text := '{"type":"sync"}';
    http_schema pg_catalog.name;
    status      pg_catalog.int4;
begin
    if url is null or signature is null then
        raise warning 'pgflume: nothing was posted, because % not set',
            case when url is null then 'the address of the worker is' else 'the webhook secret is' end
            using hint = 'run pgflume setup with SYNC_URL and WEBHOOK_SIGNATURE';
        return;
    end if;

    -- pg_net: asynchronous, returns at once
    if exists (
        select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'net' and p.proname = 'http_post' and pg_catalog.has_schema_privilege(n.oid, 'usage')
    ) and not exists (
        -- what anybody else has made would learn the secret
        select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'net' and p.proname = 'http_post'
            and not exists (select from pg_catalog.pg_roles o where o.oid = p.proowner and (o.rolsuper or o.rolname = current_user))
    ) then
        execute 'select net.http_post(url := $1, body := $2, params := $3, headers := $4, timeout_milliseconds := $5)'
            using url, body::pg_catalog.jsonb, '{}'::pg_catalog.jsonb,
                pg_catalog.jsonb_build_object('Content-Type', 'application/json', 'x-webhook-signature', signature),
                timeout_ms;
        return;
    end if;

    -- the extension http, in whichever schema it was created; not just anything that has its name
    select n.nspname into http_schema
    from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'http';
    if http_schema is null then
        raise exception 'pgflume: nothing here can send an HTTP request'
            using hint = 'create extension pg_net (or http), or let the system''s cron run "pgflume sync" instead';
    end if;
    -- an overload of somebody else's there would be called in their place, and learn the secret
    if exists (
        select from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        join pg_catalog.pg_roles o on o.oid = p.proowner
        where n.nspname = http_schema and p.proname in ('http', 'http_header', 'http_set_curlopt')
            and not (o.rolsuper or o.rolname = current_user)
    ) then
        raise exception 'pgflume: nothing was posted: somebody else has made functions of the names of the extension http in schema %', http_schema
            using hint = 'drop http, http_header and http_set_curlopt there that belong to no superuser';
    end if;
    execute pg_catalog.format('select %I.http_set_curlopt(''CURLOPT_TIMEOUT_MS''::pg_catalog.varchar, $1)', http_schema)
        using timeout_ms::pg_catalog.varchar;
    execute pg_catalog.format(
        'select (%1$I.http((''POST'', $1, array[%1$I.http_header(''x-webhook-signature''::pg_catalog.varchar, $2)], ''application/json'', $3)'
        '::%1$I.http_request)).status', http_schema)
        into status using url::pg_catalog.varchar, signature::pg_catalog.varchar, body::pg_catalog.varchar;
    if status <> 200 then
        raise warning 'pgflume: the worker answered with status %', status
            using hint = 'look at the worker''s log; the next run tries again and nothing is lost';
    end if;
end
$body$;
revoke all on function pgflume.process_libsql_replication_batch() from public;

-- For those who want images on the queue: a row trigger that sends the row as it was and as it is.
--   create trigger ... after insert or update or delete on ... for each row
--       execute function pgflume.trigger_http_queue_post_to_function_libsql();
-- An argument names another queue than this one.
create or replace function pgflume.trigger_http_queue_post_to_function_libsql() returns pg_catalog.trigger
language plpgsql security definer
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set bytea_output = 'hex'
set extra_float_digits = 3
set quote_all_identifiers = off
as $body$
declare
    image      pg_catalog.text;
    new_record pg_catalog.jsonb;
    old_record pg_catalog.jsonb;
begin
    -- to_jsonb() runs a cast to JSON, which may be a function of the type's owner, and would run with our rights: what
    -- may have one is written by its output function. Only a superuser makes casts of a superuser's types.
    if exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped and a.atttypid >= 10000
    ) then
        with recursive part(attnum, oid, is_inside) as (
            select a.attnum, a.atttypid, false
            from pg_catalog.pg_attribute a
            where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped
            union
            select part.attnum, below.oid, below.is_inside
            from part
            join pg_catalog.pg_type t on t.oid = part.oid
            cross join lateral (
                select t.typbasetype, part.is_inside where t.typtype = 'd'
                union all
                select t.typelem, part.is_inside where t.typsubscript = 'array_subscript_handler'::pg_catalog.regproc
                union all
                select f.atttypid, true from pg_catalog.pg_attribute f
                where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
            ) below(oid, is_inside)
            where part.oid >= 10000 or t.typsubscript = 'array_subscript_handler'::pg_catalog.regproc
        ), kinds as (
            select part.attnum,
                pg_catalog.bool_or(t.typsubscript = 'array_subscript_handler'::pg_catalog.regproc and not part.is_inside) as is_array,
                pg_catalog.bool_or(leaf.is_foreign) as is_foreign,
                pg_catalog.bool_or(leaf.is_foreign and part.is_inside) as is_inside
            from part
            join pg_catalog.pg_type t on t.oid = part.oid
            join pg_catalog.pg_roles o on o.oid = t.typowner
            cross join lateral (
                select t.oid >= 10000 and not o.rolsuper and t.typtype in ('b', 'e', 'r', 'm')
                    and t.typsubscript <> 'array_subscript_handler'::pg_catalog.regproc
            ) leaf(is_foreign)
            group by part.attnum
        )
        select 'select ' || pg_catalog.string_agg(pg_catalog.format(
                case when not k.is_foreign then 'pg_catalog.jsonb_build_object(%L, pg_catalog.to_jsonb(($1).%I))'
                     when k.is_array and not k.is_inside then 'pg_catalog.jsonb_build_object(%1$L, pg_catalog.to_jsonb((case when pg_catalog.num_nulls(($1).%2$I) operator(pg_catalog.=) 0 then pg_catalog.format(''%%s'', ($1).%2$I) end)::pg_catalog.text[]))'
                     else 'pg_catalog.jsonb_build_object(%1$L, case when pg_catalog.num_nulls(($1).%2$I) operator(pg_catalog.=) 0 then pg_catalog.format(''%%s'', ($1).%2$I) end)'
                end, a.attname, a.attname), ' operator(pg_catalog.||) ' order by a.attnum)
        into image
        from kinds k
        join pg_catalog.pg_attribute a on a.attrelid = tg_relid and a.attnum = k.attnum
        having pg_catalog.bool_or(k.is_foreign);
    end if;
    if image is null then
        new_record := pg_catalog.to_jsonb(new);
        old_record := pg_catalog.to_jsonb(old);
    else
        if tg_op <> 'DELETE' then
            execute image into new_record using new;
        end if;
        if tg_op <> 'INSERT' then
            execute image into old_record using old;
        end if;
    end if;
    execute pg_catalog.format('insert into pgmq.%I (vt, message) values (pg_catalog.clock_timestamp(), $1)',
            'q_' || coalesce(tg_argv[0], {{ image_queue }}))
        using pg_catalog.jsonb_build_object(
            'record', new_record,
            'old_record', old_record,
            'type', tg_op,
            'table', tg_table_name);
    return null;
end
$body$;
revoke all on function pgflume.trigger_http_queue_post_to_function_libsql() from public;
comment on function pgflume.trigger_http_queue_post_to_function_libsql() is {{ image_comment }};
-- It runs as a role that may add to a queue and nothing else, whoever writes to the table.
grant create on schema pgflume to pgflume_capture;
alter function pgflume.trigger_http_queue_post_to_function_libsql() owner to pgflume_capture;
revoke create on schema pgflume from pgflume_capture;
