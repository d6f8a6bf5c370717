-- PGMQ, if it is not here: the extension where the server offers it and lets us, else PGMQ's own SQL.
do {{ outer }}
declare
    given pg_catalog.text;
begin
    if pg_catalog.to_regprocedure('pgmq.create(text)') is not null then
        return;
    end if;
    if exists (select from pg_catalog.pg_available_extensions where name = 'pgmq') then
        begin
            create extension pgmq;
        exception when insufficient_privilege then
            raise notice 'the extension pgmq may not be created by %; installing its SQL', current_user;
        end;
    end if;
    if pg_catalog.to_regprocedure('pgmq.create(text)') is null then
        execute {{ pgmq }};
    end if;
    -- What default privileges have given to others. PGMQ's own grants (pg_monitor may look) stay.
    for given in
        select pg_catalog.format('revoke all on %s from %s cascade', o.what,
                case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end)
        from (
            select 'schema pgmq' as what, n.nspacl as acl, n.nspowner as owner, false as is_function
            from pg_catalog.pg_namespace n where n.nspname = 'pgmq'
            union all
            select pg_catalog.format('%s pgmq.%I', case c.relkind when 'S' then 'sequence' else 'table' end, c.relname),
                   c.relacl, c.relowner, false
            from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname = 'pgmq' and c.relkind in ('r', 'p', 'S')
            union all
            select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure), p.proacl, p.proowner, true
            from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'pgmq' and p.prokind in ('f', 'w')) o
        cross join lateral pg_catalog.aclexplode(o.acl) a
        where a.grantee <> o.owner and pg_catalog.pg_get_userbyid(a.grantee) <> 'pg_monitor'
            -- of no use without the schema, and those who are let into it have counted on it
            and not (o.is_function and a.grantee = 0)
        group by o.what, a.grantee
    loop
        execute given;
    end loop;
end
{{ outer }};
