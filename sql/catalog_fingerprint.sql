-- Changes with whatever DDL does to what is replicated: the tables, all that hangs on them, their columns' types, the
-- functions of their filters and generated columns, their capture and the queue. Says that something changed;
-- catalog_traits.sql says what. By the transaction that wrote each row of the catalog (an update of a row leaves
-- another xmin; VACUUM, also FREEZE and FULL, leaves it): what was changed and changed back is seen, too.
-- Arrays of oids, because only so is each catalog read by its index whatever the planner thinks.
-- $1 schemas, $2 tables, $3 the prefix of our triggers' names, $4 the queue's table, $5 the queue.
with recursive roots(oid) as (
    select c.oid
    from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) as w(schema, source)
    join pg_catalog.pg_namespace n on n.nspname = w.schema
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.source
), tree(oid) as (
    select oid from roots
    union
    select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid
), sets as materialized (
    select array(select oid from roots) as roots, array(select oid from tree) as tree, (
        select c.oid from pg_catalog.pg_class c
        where c.relname = $4 and c.relnamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = 'pgmq')
    ) as queue
), columns as materialized (
    select a.attrelid, a.attnum, a.xmin, a.atttypid
    from pg_catalog.pg_attribute a
    where a.attrelid = any ((select roots from sets)::pg_catalog.oid[]) and a.attnum > 0
), triggers as materialized (
    select g.oid, g.xmin, g.tgfoid
    from pg_catalog.pg_trigger g
    where g.tgrelid = any ((select tree || queue from sets)::pg_catalog.oid[])
        and (g.tgrelid = (select queue from sets) or pg_catalog.starts_with(g.tgname, $3))
), expressions as materialized (
    select d.oid, d.xmin
    from pg_catalog.pg_attrdef d
    where d.adrelid = any ((select roots from sets)::pg_catalog.oid[])
), types(oid) as (
    select distinct atttypid from columns where atttypid >= 16384
    union
    select below.oid
    from types
    join pg_catalog.pg_type t on t.oid = types.oid
    cross join lateral (
        select t.typbasetype where t.typbasetype <> 0
        union all
        select t.typelem where t.typelem <> 0
        union all
        select r.rngsubtype from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
        union all
        select f.atttypid from pg_catalog.pg_attribute f where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0
    ) below(oid)
    where below.oid >= 16384
), typed as materialized (
    select t.oid, t.xmin, t.typrelid, t.typoutput
    from pg_catalog.pg_type t where t.oid = any (array(select oid from types))
), used as materialized (
    select f ->> 'kind' as kind, n.oid as namespace, f ->> 'name' as name
    from pgflume.captured c
    cross join lateral pg_catalog.jsonb_array_elements(c.definition -> 'calls') f
    left join pg_catalog.pg_namespace n on n.nspname = f ->> 'schema'
    where c.queue = $5 and f ->> 'kind' is not null
), operators as materialized (
    select o.oid, o.xmin, o.oprcode::pg_catalog.oid as oprcode
    from used
    join pg_catalog.pg_operator o on o.oprnamespace = used.namespace and o.oprname = used.name
    where used.kind = 'operator'
), functions as materialized (
    select d.refobjid as oid
    from pg_catalog.pg_depend d
    where d.classid = 2604 and d.objid = any (array(select oid from expressions)) and d.refclassid = 1255
    union
    select p.oid
    from pgflume.captured c
    cross join lateral pg_catalog.jsonb_array_elements(c.definition -> 'calls') f
    join pg_catalog.pg_namespace n on n.nspname = f ->> 'schema'
    join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = f ->> 'name'
    where c.queue = $5 and f ->> 'kind' is null
    union
    select oprcode from operators
    union
    select tgfoid from triggers
    union
    select typoutput from typed where typoutput >= 16384
), facts(class, oid, number, seen) as (
    select 1, c.oid, c.relfilenode::pg_catalog.int8, c.xmin
    from pg_catalog.pg_class c where c.oid = any ((select tree || queue from sets)::pg_catalog.oid[])
    union all
    select 2, attrelid, attnum, xmin from columns
    union all
    select 3, i.inhrelid, i.inhparent::pg_catalog.int8, i.xmin
    from pg_catalog.pg_inherits i where i.inhrelid = any ((select tree from sets)::pg_catalog.oid[])
    union all
    select 4, oid, tgfoid::pg_catalog.int8, xmin from triggers
    union all
    select 5, i.indexrelid, 0, i.xmin
    from pg_catalog.pg_index i where i.indrelid = any ((select roots from sets)::pg_catalog.oid[])
    union all
    select 6, oid, 0, xmin from expressions
    union all
    select 7, p.oid, 0, p.xmin from pg_catalog.pg_proc p where p.oid = any (array(select oid from functions))
    union all
    select 8, oid, 0, xmin from typed
    union all
    select 9, a.attrelid, a.attnum, a.xmin
    from pg_catalog.pg_attribute a
    where a.attrelid = any (array(select typrelid from typed where typrelid <> 0)) and a.attnum > 0
    union all
    select 10, e.oid, 0, e.xmin from pg_catalog.pg_enum e where e.enumtypid = any (array(select oid from typed))
    union all
    select 11, k.oid, 0, k.xmin from pg_catalog.pg_cast k where k.castfunc >= 16384
    union all
    select 12, r.oid, 0, r.xmin
    from pg_catalog.pg_rewrite r where r.ev_class = any ((select roots || queue from sets)::pg_catalog.oid[])
    union all
    select 13, s.seqrelid, s.seqcache, s.xmin
    from pg_catalog.pg_sequence s
    where s.seqrelid = any (array(select d.objid from pg_catalog.pg_depend d
        where d.refclassid = 1259 and d.refobjid = (select queue from sets) and d.classid = 1259))
    union all
    select 14, n.oid, 0, n.xmin from pg_catalog.pg_namespace n where n.nspname in ('pgmq', 'pgflume')
    union all
    select 15, s.srrelid, s.srsubid::pg_catalog.int8, '0'::pg_catalog.xid
    from pg_catalog.pg_subscription_rel s where s.srrelid = any ((select roots from sets)::pg_catalog.oid[])
    union all
    select 16, oid, 0, xmin from operators
    union all
    select 17, l.oid, 0, l.xmin
    from used
    join pg_catalog.pg_collation l on l.collnamespace = used.namespace and l.collname = used.name
    where used.kind = 'collation'
    union all
    select 18, oid, 0, xmin from pg_catalog.pg_ts_config where exists (select from used where kind = 'text search')
    union all
    select 19, mapcfg, pg_catalog.hash_record_extended(row(maptokentype, mapseqno, mapdict), 0), xmin
    from pg_catalog.pg_ts_config_map where exists (select from used where kind = 'text search')
    union all
    select 20, oid, 0, xmin from pg_catalog.pg_ts_dict where exists (select from used where kind = 'text search')
)
select pg_catalog.concat_ws('/', pg_catalog.count(*),
           pg_catalog.bit_xor(pg_catalog.hash_record_extended(row(class, oid, number, seen), 0)))
from facts
