-- Changes with whatever DDL does to these tables, their columns or their triggers. $1 their oids.
select coalesce(md5(string_agg(t.line, '|' order by t.line)), '')
from (
    select concat_ws(',', c.oid, c.relnamespace, length(c.relname), c.relname, c.relkind, c.relrowsecurity, a.attnum,
                     length(a.attname), a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attcollation) as line
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.oid = any ($1)
    union all
    select concat_ws(',', e.enumtypid, row_number() over (partition by e.enumtypid order by e.enumsortorder), e.enumlabel)
    from pg_enum e
    where e.enumtypid in (select a.atttypid from pg_attribute a where a.attrelid = any ($1))
    union all
    select concat_ws(',', i.indexrelid, i.indisprimary, i.indisunique, i.indisvalid, i.indkey)
    from pg_index i where i.indrelid = any ($1)
    union all
    select concat_ws(',', g.tgrelid, length(g.tgname), g.tgname, g.tgenabled)
    from pg_trigger g where g.tgrelid = any ($1) and not g.tgisinternal) t
