-- The columns that the predicate of the probe's only index uses.
select distinct a.attname::text
from pg_depend d
join pg_index i on i.indexrelid = d.objid
join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0
    and i.indrelid = 'pg_temp.pgflume_probe'::regclass and d.refobjid = i.indrelid
