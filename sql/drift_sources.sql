-- The source tables as they are now. $1 names in schema.json, $2 schemas, $3 tables, $4 what they were captured
-- as (oid, or 0), $5 the prefix of our triggers' names.
select w.name,
       coalesce(c.oid, 0),
       (select pg_catalog.format('%I.%I', mn.nspname, m.relname) from pg_catalog.pg_class m join pg_catalog.pg_namespace mn on mn.oid = m.relnamespace
        where m.oid = w.captured and m.oid is distinct from c.oid),
       (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'number', a.attnum)
               order by a.attnum)
        from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)::pg_catalog.text,
       -- the sets of NOT NULL columns that identify a row, the primary key first
       (select pg_catalog.jsonb_agg(k.columns order by k.is_primary desc)
        from (select i.indisprimary as is_primary, pg_catalog.jsonb_agg(a.attname order by a.attname) as columns
              from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
              where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
              group by i.indexrelid, i.indisprimary having pg_catalog.bool_and(a.attnotnull)) k)::pg_catalog.text,
       (select pg_catalog.jsonb_object_agg(pg_catalog.substr(g.tgname, pg_catalog.length($5) + 1), g.tgenabled)
        from pg_catalog.pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal and pg_catalog.starts_with(g.tgname, $5))::pg_catalog.text,
       (select pg_catalog.count(*) from pg_catalog.pg_partition_tree(case when c.relkind = 'p' then c.oid end) p
        where p.level > 0 and not exists (select from pg_catalog.pg_trigger g where g.tgrelid = p.relid
            and g.tgname = $5 || 'row' and g.tgenabled = 'A')),
       coalesce(c.relkind::pg_catalog.text, ''),
       coalesce(c.relpersistence::pg_catalog.text, ''),
       (select pg_catalog.count(*) from pg_catalog.pg_inherits i where i.inhparent = c.oid and c.relkind <> 'p'),
       c.relispartition or exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid),
       exists (select from pg_catalog.pg_subscription_rel s where s.srrelid = c.oid),
       (select pg_catalog.count(*) from pg_catalog.pg_partition_tree(case when c.relkind = 'p' then c.oid end) t
        join pg_catalog.pg_class p on p.oid = t.relid
        where t.level > 0 and (p.relpersistence = 'u' or p.relkind not in ('r', 'p'))),
       -- as capture_record.sql writes it down
       (select pg_catalog.jsonb_object_agg(pg_catalog.substr(g.tgname, pg_catalog.length($5) + 1),
                   pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                       g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable)))
        from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid
        where g.tgrelid = c.oid and not g.tgisinternal and pg_catalog.starts_with(g.tgname, $5))::pg_catalog.text
from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[]),
               pg_catalog.unnest($4::pg_catalog.oid[])) as w(name, schema, source, captured)
left join pg_catalog.pg_namespace n on n.nspname = w.schema
left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.source and c.relkind in ('r', 'p', 'v')
