-- Nothing that somebody else made is taken for ours. What is here already has to belong to the role that installs, to
-- a role that it is a member of, to a superuser, or to an extension of one of these: whoever owns an extension may add
-- things of his own to it.
do $ours$
declare
    stranger pg_catalog.text;
begin
    with me as (
        select r.oid, r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user
    ), trusted as (
        select r.oid from pg_catalog.pg_roles r cross join me
        where r.oid = me.oid or r.rolsuper or (not me.rolsuper and pg_catalog.pg_has_role(r.oid, 'usage'))
    ), capture as (
        select r.oid from pg_catalog.pg_roles r where r.rolname = 'pgflume_capture'
    ), found as (
        select pg_catalog.format('schema %I', n.nspname) as what, n.nspowner as owner,
               'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid as class, n.oid
        from pg_catalog.pg_namespace n where n.nspname in ('pgflume', 'pgmq')
        union all
        select pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner,
               'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, c.oid
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        -- queues of other programs may be others'
        where n.nspname = 'pgflume' or (n.nspname = 'pgmq' and c.relname = 'meta')
        union all
        select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure), p.proowner,
               'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, p.oid
        from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('pgflume', 'pgmq')
            and not (n.nspname = 'pgflume' and p.proowner in (select oid from capture))
    )
    select pg_catalog.string_agg(pg_catalog.format('%s of %s', f.what, pg_catalog.pg_get_userbyid(f.owner)), ', '
            order by f.what)
    into stranger
    from (
        select * from found
        where owner not in (select oid from trusted)
            and not exists (
                select from pg_catalog.pg_depend d
                join pg_catalog.pg_extension e on e.oid = d.refobjid and e.extowner in (select oid from trusted)
                where d.classid = found.class and d.objid = found.oid and d.deptype = 'e'
                    and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass)
        order by what limit 5
    ) f;
    if stranger is not null then
        raise exception 'made by somebody else, and not taken for ours: %', stranger using errcode = 'PF002',
            hint = 'look at what they are; then drop them, hand them over (alter ... owner to ' || current_user
                || '), or run setup as their owner';
    end if;
end
$ours$;
