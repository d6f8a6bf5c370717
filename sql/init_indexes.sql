-- The indexes of tables, the primary key first, then what replica identity uses. $1 the tables' oids.
select
    i.indrelid,
    i.indisprimary,
    i.indisunique,
    i.indpred is null and i.indexprs is null,
    am.amname = 'btree',
    array(select a.attname::pg_catalog.text
        from pg_catalog.unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality k (attnum, place)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        order by k.place)
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indexrelid
join pg_catalog.pg_am am on am.oid = c.relam
where i.indrelid = any ($1) and i.indisvalid
order by i.indrelid, not i.indisprimary, not i.indisreplident, c.relname collate "C"
