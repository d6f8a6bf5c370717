revoke execute on function {{function}} from {{grantees}} cascade;
do $check$
begin
    -- a grant of somebody else, or one by way of another role, stays
    if exists (
        select from pg_catalog.pg_roles r
        where r.rolname in ('anon', 'authenticated')
            and pg_catalog.has_function_privilege(r.oid, {{function_text}}::pg_catalog.regprocedure, 'execute')
    ) or exists (
        select from pg_catalog.pg_proc p
        cross join lateral pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        where p.oid = {{function_text}}::pg_catalog.regprocedure and a.grantee = 0 and a.privilege_type = 'EXECUTE'
    ) then
        raise exception 'the API''s roles may still execute {{function}}';
    end if;
end
$check$;
