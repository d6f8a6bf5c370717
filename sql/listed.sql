-- What the rows of views and foreign tables come from. $1 their oids. Of each: a text that is another when the definition of
-- it, of a view below it, or of a function that these call is; and the functions of somebody's own that these call: they run
-- with the rights of whoever reads. Whether a materialized view has rows at all.
with recursive shown(root, oid) as (
    select o, o from pg_catalog.unnest($1::pg_catalog.oid[]) as u(o)
    union
    select s.root, d.refobjid
    from shown s
    join pg_catalog.pg_rewrite r on r.ev_class = s.oid and r.ev_type = '1'
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
        and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
), uses(root, class, oid) as (
    select s.root, d.refclassid, d.refobjid
    from shown s
    join pg_catalog.pg_rewrite r on r.ev_class = s.oid and r.ev_type = '1'
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
    union
    -- the checks of domains
    select u.root, d.refclassid, d.refobjid
    from uses u
    join pg_catalog.pg_constraint x on x.contypid = u.oid and u.class = 'pg_catalog.pg_type'::pg_catalog.regclass
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = x.oid
), calls as (
    select u.root, p.oid, p.xmin, n.nspname, p.proname, p.proowner
    from uses u
    left join pg_catalog.pg_operator o on u.class = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oid = u.oid
    join pg_catalog.pg_proc p on p.oid = case when u.class = 'pg_catalog.pg_proc'::pg_catalog.regclass then u.oid else o.oprcode::pg_catalog.oid end
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid >= 16384
)
select c.oid,
       pg_catalog.md5(pg_catalog.concat_ws('/',
           (select pg_catalog.string_agg(pg_catalog.concat_ws(':', s.oid, pg_catalog.pg_get_viewdef(s.oid)), '/' order by s.oid)
            from shown s join pg_catalog.pg_class v on v.oid = s.oid and v.relkind in ('v', 'm') where s.root = c.oid),
           (select pg_catalog.string_agg(pg_catalog.concat_ws(':', k.oid, k.xmin), '/' order by k.oid) from calls k where k.root = c.oid),
           (select pg_catalog.concat_ws(':', f.ftserver, f.xmin) from pg_catalog.pg_foreign_table f where f.ftrelid = c.oid))),
       (select pg_catalog.min(pg_catalog.format('%I.%I', k.nspname, k.proname))
        from calls k
        join pg_catalog.pg_roles r on r.oid = k.proowner
        where k.root = c.oid and not r.rolsuper and r.rolname <> current_user),
       c.relispopulated
from pg_catalog.pg_class c
where c.oid = any ($1)
