-- What else than columns and what it calls by itself decides what the predicate of the probe's only index says: kind,
-- schema, name. Functions are found by their names in the text of other functions' bodies, which is rather too many
-- than too few; of text search it is known only that it is used.
with recursive predicate as materialized (
    select i.indexrelid, pg_catalog.pg_get_expr(i.indpred, i.indrelid) as text
    from pg_catalog.pg_index i where i.indrelid = 'pg_temp.pgflume_probe'::pg_catalog.regclass
), direct as materialized (
    select d.refclassid as class, d.refobjid as oid
    from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid in (select indexrelid from predicate)
), own as materialized (
    select p.oid, n.nspname, p.proname, pg_catalog.concat(p.prosrc, ' ', pg_catalog.to_jsonb(p) ->> 'prosqlbody') as body
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid >= 16384 and n.nspname not in ('pg_catalog', 'information_schema', 'pgflume', 'pgmq')
), functions(oid) as (
    select oid from direct where class = 'pg_catalog.pg_proc'::pg_catalog.regclass
    union
    select o.oprcode::pg_catalog.oid
    from direct join pg_catalog.pg_operator o on o.oid = direct.oid
    where direct.class = 'pg_catalog.pg_operator'::pg_catalog.regclass
    union
    select below.oid
    from functions
    cross join lateral (
        select d.refobjid
        from pg_catalog.pg_depend d
        where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.refclassid = d.classid and d.objid = functions.oid
        union all
        select named.oid
        from own
        cross join lateral (
            select pg_catalog.regexp_split_to_array(own.body || ' ' || pg_catalog.lower(own.body), '[^[:alnum:]_$]+') as words offset 0
        ) w
        join own named on named.proname = any (w.words)
            or (named.proname !~ '^[[:alnum:]_$]+$' and pg_catalog.strpos(own.body, named.proname::pg_catalog.text) > 0)
        where own.oid = functions.oid
    ) below(oid)
)
select null::pg_catalog.text, own.nspname::pg_catalog.text, own.proname::pg_catalog.text
from functions join own on own.oid = functions.oid
union
select 'operator', n.nspname::pg_catalog.text, o.oprname::pg_catalog.text
from direct
join pg_catalog.pg_operator o on o.oid = direct.oid
join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
where direct.class = 'pg_catalog.pg_operator'::pg_catalog.regclass
union
select 'collation', n.nspname::pg_catalog.text, l.collname::pg_catalog.text
from direct
join pg_catalog.pg_collation l on l.oid = direct.oid
join pg_catalog.pg_namespace n on n.oid = l.collnamespace
where direct.class = 'pg_catalog.pg_collation'::pg_catalog.regclass
union
select 'text search', '', ''
where exists (
    select from (select text from predicate union all select own.body from functions join own on own.oid = functions.oid) t(text)
    where t.text ~* 'tsvector|tsquery|ts_|regconfig|regdictionary')
order by 1, 2, 3
