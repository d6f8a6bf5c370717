-- The sets of columns that identify a row: primary key and unique indexes over plain columns. $1 the table's oid.
select i.indisprimary, array(select a.attname::pg_catalog.text from pg_catalog.pg_attribute a
        where a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1]) order by a.attname)
from pg_catalog.pg_index i
where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
