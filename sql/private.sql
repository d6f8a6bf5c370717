-- What default privileges have given to others on what is in schema pgflume is taken back.
do $private$
declare
    given pg_catalog.text;
begin
    for given in
        select pg_catalog.format('revoke all on %s from %s cascade', o.what,
                case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end)
        from (
            select 'schema pgflume' as what, coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner)) as acl, n.nspowner as owner, true as is_shared, null::pg_catalog.oid as function
            from pg_catalog.pg_namespace n where n.nspname = 'pgflume'
            union all
            select pg_catalog.format('%s pgflume.%I', case c.relkind when 'S' then 'sequence' else 'table' end, c.relname),
                   coalesce(c.relacl, pg_catalog.acldefault(case c.relkind when 'S' then 's' else 'r' end::pg_catalog."char", c.relowner)), c.relowner, c.relname <> 'settings' and c.relname <> 'setups', null
            from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname = 'pgflume' and c.relkind in ('r', 'S')
            union all
            select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure), coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner, false, p.oid
            from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'pgflume') o
        cross join lateral pg_catalog.aclexplode(o.acl) a
        where a.grantee <> o.owner
            -- writers that were given their token
            and not (o.what = 'function pgflume.token()' and a.grantee <> 0 and a.privilege_type = 'EXECUTE')
            and not (o.what = 'schema pgflume' and a.privilege_type = 'USAGE' and exists (
                select from pg_catalog.pg_proc p
                join pg_catalog.pg_namespace n on n.oid = p.pronamespace and n.nspname = 'pgflume'
                cross join lateral pg_catalog.aclexplode(p.proacl) t
                where p.proname = 'token' and p.pronargs = 0 and t.grantee = a.grantee))
            -- their rights are given one by one
            and not (o.is_shared and pg_catalog.pg_get_userbyid(a.grantee) in ('pgflume_worker', 'pgflume_capture', 'pgflume_push'))
            -- whoever adds a partition to a table adds its trigger
            and not exists (
                select from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
                where t.tgfoid = o.function and c.relowner = a.grantee)
        group by o.what, a.grantee
    loop
        execute given;
    end loop;
end
$private$;
