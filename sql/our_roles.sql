-- These roles belong to the whole cluster, so somebody may have made them first. Whoever is a member of
-- pgflume_capture could change the capture functions, which run in everybody's writes.
do $ours$
declare
    stranger pg_catalog.text;
begin
    with me as (
        select r.oid, r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user
    ), found as (
        select pg_catalog.format('role %I, which may do more than it is for', r.rolname) as what
        from pg_catalog.pg_roles r
        where (r.rolname in ('pgflume_capture', 'pgflume_worker', 'pgflume_push')
                and (r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication))
            or (r.rolname in ('pgflume_capture', 'pgflume_push') and (r.rolcanlogin or r.rolbypassrls))
        union all
        select pg_catalog.format('membership of %I in pgflume_capture', m.rolname)
        from pg_catalog.pg_auth_members a
        join pg_catalog.pg_roles g on g.oid = a.roleid and g.rolname = 'pgflume_capture'
        join pg_catalog.pg_roles m on m.oid = a.member
        cross join me
        where not (m.rolsuper or m.oid = me.oid or (not me.rolsuper and pg_catalog.pg_has_role(m.oid, 'usage')))
    )
    select pg_catalog.string_agg(what, ', ' order by what) into stranger from found;
    if stranger is not null then
        raise exception 'made by somebody else, and not taken for ours: %', stranger using errcode = 'PF002',
            hint = 'look at who made it; then revoke pgflume_capture from that role, take those rights away (alter role), or drop the role';
    end if;
end
$ours$;
