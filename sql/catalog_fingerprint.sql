-- Changes with whatever DDL does to these tables, their columns or their triggers. $1 their oids.
select coalesce(pg_catalog.md5(pg_catalog.string_agg(t.line, '|' order by t.line)), '')
from (
    select pg_catalog.concat_ws(',', c.oid, c.relnamespace, pg_catalog.length(c.relname), c.relname, c.relkind, c.relrowsecurity, a.attnum,
                     pg_catalog.length(a.attname), a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attcollation) as line
    from pg_catalog.pg_class c
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.oid = any ($1)
    union all
    select pg_catalog.concat_ws(',', e.enumtypid, pg_catalog.row_number() over (partition by e.enumtypid order by e.enumsortorder), e.enumlabel)
    from pg_catalog.pg_enum e
    where e.enumtypid in (select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = any ($1))
    union all
    select pg_catalog.concat_ws(',', i.indexrelid, i.indisprimary, i.indisunique, i.indisvalid, i.indkey)
    from pg_catalog.pg_index i where i.indrelid = any ($1)
    union all
    select pg_catalog.concat_ws(',', g.tgrelid, pg_catalog.length(g.tgname), g.tgname, g.tgenabled)
    from pg_catalog.pg_trigger g where g.tgrelid = any ($1) and not g.tgisinternal) t
