-- What the rows of views and foreign tables come from. $1 their oids. Of each: a text that is another when its definition
-- is, or that of a view or foreign table below it, or a function that these call; the functions of somebody's own that views
-- call, which run with the rights of whoever reads; whether a materialized view has rows at all. Takes no locks.
with recursive shown(root, oid) as (
    select o, o from pg_catalog.unnest($1::pg_catalog.oid[]) as u(o)
    union
    select s.root, d.refobjid
    from shown s
    -- what a materialized view calls is run by who refreshes it
    join pg_catalog.pg_class c on c.oid = s.oid and c.relkind = 'v'
    join pg_catalog.pg_rewrite r on r.ev_class = s.oid and r.ev_type = '1'
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
        and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
), rules as materialized (
    select s.root, c.relowner, r.oid, pg_catalog.md5(r.ev_action::pg_catalog.text) as definition
    from shown s
    join pg_catalog.pg_class c on c.oid = s.oid and c.relkind = 'v'
    join pg_catalog.pg_rewrite r on r.ev_class = s.oid and r.ev_type = '1'
), uses(root, owner, class, oid) as (
    select u.root, u.relowner, d.refclassid, d.refobjid
    from rules u
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = u.oid
    union
    select u.root, u.owner, below.class, below.oid
    from uses u
    cross join lateral (
        -- types inside of types, and the checks of domains
        select 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid, b.oid
        from pg_catalog.pg_type t
        cross join lateral (
            select t.typbasetype where t.typbasetype <> 0
            union all
            select t.typelem where t.typelem <> 0
            union all
            select a.atttypid from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0
            union all
            select g.rngsubtype from pg_catalog.pg_range g where t.oid in (g.rngtypid, g.rngmultitypid)) b(oid)
        where u.class = 'pg_catalog.pg_type'::pg_catalog.regclass and t.oid = u.oid
        union all
        select d.refclassid, d.refobjid
        from pg_catalog.pg_constraint x
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = x.oid
        where u.class = 'pg_catalog.pg_type'::pg_catalog.regclass and x.contypid = u.oid
        union all
        -- what an aggregate is made of
        select 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, f.oid
        from pg_catalog.pg_aggregate a
        cross join lateral pg_catalog.unnest(array[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
            a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::pg_catalog.oid[]) as f(oid)
        where u.class = 'pg_catalog.pg_proc'::pg_catalog.regclass and a.aggfnoid::pg_catalog.oid = u.oid and f.oid <> 0
    ) below(class, oid)
), calls as materialized (
    select u.root, u.owner, p.oid, p.xmin, n.nspname, p.proname, p.proowner
    from uses u
    left join pg_catalog.pg_operator o on u.class = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oid = u.oid
    join pg_catalog.pg_proc p on p.oid = case when u.class = 'pg_catalog.pg_proc'::pg_catalog.regclass then u.oid else o.oprcode::pg_catalog.oid end
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid >= 16384
)
select c.oid,
       pg_catalog.md5(pg_catalog.concat_ws('/',
           (select pg_catalog.string_agg(pg_catalog.concat_ws(':', u.oid, u.definition), '/' order by u.oid) from rules u where u.root = c.oid),
           (select pg_catalog.string_agg(distinct pg_catalog.concat_ws(':', k.oid, k.xmin), '/') from calls k where k.root = c.oid),
           (select pg_catalog.string_agg(pg_catalog.concat_ws(':', f.ftrelid, f.xmin, v.xmin, a.options), '/' order by f.ftrelid)
            from shown s
            join pg_catalog.pg_foreign_table f on f.ftrelid = s.oid
            join pg_catalog.pg_foreign_server v on v.oid = f.ftserver
            cross join lateral (select pg_catalog.string_agg(a.attfdwoptions::pg_catalog.text, ',' order by a.attnum) as options
                from pg_catalog.pg_attribute a where a.attrelid = f.ftrelid) a
            where s.root = c.oid))),
       (select pg_catalog.min(pg_catalog.format('%I.%I', k.nspname, k.proname))
        from calls k
        join pg_catalog.pg_roles r on r.oid = k.proowner
        where k.root = c.oid and not r.rolsuper and k.proowner <> k.owner and r.rolname <> current_user),
       c.relispopulated
from pg_catalog.pg_class c
where c.oid = any ($1)
