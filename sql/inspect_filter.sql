-- The columns that the predicate of the probe's only index uses.
select distinct a.attname::pg_catalog.text
from pg_catalog.pg_depend d
join pg_catalog.pg_index i on i.indexrelid = d.objid
join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0
    and i.indrelid = 'pg_temp.pgflume_probe'::pg_catalog.regclass and d.refobjid = i.indrelid
