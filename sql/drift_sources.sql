-- The source tables as they are now. $1 names in schema.json, $2 schemas, $3 tables, $4 what they were captured
-- as (oid, or 0), $5 the prefix of our triggers' names.
select w.name,
       coalesce(c.oid, 0),
       (select format('%I.%I', mn.nspname, m.relname) from pg_class m join pg_namespace mn on mn.oid = m.relnamespace
        where m.oid = w.captured and m.oid is distinct from c.oid),
       (select jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'number', a.attnum)
               order by a.attnum)
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)::text,
       -- the sets of NOT NULL columns that identify a row, the primary key first
       (select jsonb_agg(k.columns order by k.is_primary desc)
        from (select i.indisprimary as is_primary, jsonb_agg(a.attname order by a.attname) as columns
              from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
              where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
              group by i.indexrelid, i.indisprimary having bool_and(a.attnotnull)) k)::text,
       (select jsonb_object_agg(substr(g.tgname, length($5) + 1), g.tgenabled)
        from pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal and starts_with(g.tgname, $5))::text,
       (select count(*) from pg_partition_tree(case when c.relkind = 'p' then c.oid end) p
        where p.level > 0 and not exists (select from pg_trigger g where g.tgrelid = p.relid
            and g.tgname = $5 || 'row' and g.tgenabled = 'A')),
       coalesce(c.relkind::text, ''),
       coalesce(c.relpersistence::text, ''),
       (select count(*) from pg_inherits i where i.inhparent = c.oid and c.relkind <> 'p'),
       c.relispartition or exists (select from pg_inherits i where i.inhrelid = c.oid),
       exists (select from pg_subscription_rel s where s.srrelid = c.oid),
       (select count(*) from pg_partition_tree(case when c.relkind = 'p' then c.oid end) t join pg_class p on p.oid = t.relid
        where t.level > 0 and (p.relpersistence = 'u' or p.relkind not in ('r', 'p'))),
       -- as capture_record.sql writes it down
       (select jsonb_object_agg(substr(g.tgname, length($5) + 1),
                   md5(concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::text, p.proowner::regrole)))
        from pg_trigger g join pg_proc p on p.oid = g.tgfoid
        where g.tgrelid = c.oid and not g.tgisinternal and starts_with(g.tgname, $5))::text
from unnest($1::text[], $2::text[], $3::text[], $4::oid[]) as w(name, schema, source, captured)
left join pg_namespace n on n.nspname = w.schema
left join pg_class c on c.relnamespace = n.oid and c.relname = w.source and c.relkind in ('r', 'p', 'v')
