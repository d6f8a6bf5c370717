-- A grant of somebody else, or one by way of another role, stays.
do $check$
declare
    others pg_catalog.text;
begin
    select pg_catalog.string_agg(g.name, ', ' order by g.name) into others
    from (
        select r.rolname::pg_catalog.text as name from pg_catalog.pg_roles r
        where r.rolname in ('anon', 'authenticated')
            and pg_catalog.has_function_privilege(r.oid, {{ function_text }}::pg_catalog.regprocedure, 'execute')
        union all
        select 'public' from pg_catalog.pg_proc p
        cross join lateral pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        where p.oid = {{ function_text }}::pg_catalog.regprocedure and a.grantee = 0 and a.privilege_type = 'EXECUTE'
    ) g;
    if others is not null then
        raise exception '% may still execute {{ function }}', others
            using errcode = 'PF001', hint = 'as its owner, revoke it from them and from the roles by way of which they have it';
    end if;
end
$check$;
