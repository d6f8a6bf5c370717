-- The queue and its dead letters. A queue that is there stays as it is, with all that is on it.
do $queue$
declare
    given pg_catalog.text;
    before pg_catalog.oid[] := array(select c.oid from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'pgmq');
begin
    if pg_catalog.to_regclass({{ queue_text }}) is null then
        perform pgmq.create({{ queue_name }});
    end if;
    if pg_catalog.to_regclass({{ dead_text }}) is null then
        perform pgmq.create({{ dead_name }});
    end if;
    -- What default privileges have given to others. Who is to send by hand is granted that by somebody.
    for given in
        select pg_catalog.format('revoke all on %s pgmq.%I from %s cascade', case c.relkind when 'S' then 'sequence' else 'table' end, c.relname,
                case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end)
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        cross join lateral pg_catalog.aclexplode(c.relacl) a
        where n.nspname = 'pgmq' and c.relkind in ('r', 'S') and c.oid <> all (before) and a.grantee <> c.relowner
        group by c.relkind, c.relname, a.grantee
    loop
        execute given;
    end loop;
end
$queue$;
