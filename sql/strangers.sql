-- What the worker relies on and somebody has made whom it has no reason to trust: neither itself, nor a role that it is
-- a member of, nor the database's owner, nor a superuser, nor an extension. $1 the queue's table, $2 its dead letters.
-- What such a role has made could run as the worker: a view or a rule in place of a table, a trigger on the queue.
with me as (
    select r.oid, r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user
), trusted as (
    select r.oid from pg_catalog.pg_roles r cross join me
    where r.oid = me.oid or r.rolsuper or (not me.rolsuper and pg_catalog.pg_has_role(r.oid, 'usage'))
    union
    select d.datdba from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()
    union
    -- it owns nothing but functions that setup made; setup lets no stranger be a member of it
    select r.oid from pg_catalog.pg_roles r where r.rolname = 'pgflume_capture'
), relied as (
    select c.oid, n.nspname, c.relname, c.relkind, c.relowner
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where (n.nspname = 'pgflume' and c.relkind in ('r', 'p', 'v', 'm', 'f'))
        or c.oid in (pg_catalog.to_regclass($1), pg_catalog.to_regclass($2))
)
select pg_catalog.string_agg(f.what, ', ' order by f.what)
from (
    select pg_catalog.format('schema pgflume of %s', pg_catalog.pg_get_userbyid(n.nspowner)) as what
    from pg_catalog.pg_namespace n
    where n.nspname = 'pgflume' and n.nspowner not in (select oid from trusted)
    union all
    select pg_catalog.format('%I.%I of %s', r.nspname, r.relname, pg_catalog.pg_get_userbyid(r.relowner))
    from relied r
    where r.relkind not in ('r', 'p') or (r.nspname = 'pgflume' and r.relowner not in (select oid from trusted))
    union all
    select pg_catalog.format('rule %I on %I.%I', w.rulename, r.nspname, r.relname)
    from relied r join pg_catalog.pg_rewrite w on w.ev_class = r.oid
    where r.relkind = 'r'
    union all
    select pg_catalog.format('trigger %I on %I.%I, which runs a function of %s', t.tgname, r.nspname, r.relname,
               pg_catalog.pg_get_userbyid(p.proowner))
    from relied r
    join pg_catalog.pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal and t.tgenabled <> 'D'
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
    where p.proowner not in (select oid from trusted)
        and not exists (
            select from pg_catalog.pg_depend d
            join pg_catalog.pg_extension e on e.oid = d.refobjid and e.extowner in (select oid from trusted)
            where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e'
                and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass)
    union all
    -- what a stranger has put on a queue of its own: constraints, defaults, indexes that call somebody's function
    select pg_catalog.format('%s on %I.%I of %s', pg_catalog.pg_describe_object(d.classid, d.objid, 0), r.nspname, r.relname,
               pg_catalog.pg_get_userbyid(r.relowner))
    from relied r
    join (
        select c.conrelid as owner, 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid as class, c.oid
        from pg_catalog.pg_constraint c where c.contype = 'c'
        union all
        select a.adrelid, 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid, a.oid from pg_catalog.pg_attrdef a
        union all
        select i.indrelid, 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, i.indexrelid from pg_catalog.pg_index i
    ) part on part.owner = r.oid
    join pg_catalog.pg_depend d on d.classid = part.class and d.objid = part.oid
        and d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                             'pg_catalog.pg_type'::pg_catalog.regclass)
        and d.refobjid >= 16384
    where r.relowner not in (select oid from trusted)
    limit 5) f
