-- What the rows of each replicated table, and the capture of their changes, depend on in the catalog: a line each,
-- with a value that another one replaces when it changes. catalog_fingerprint.sql says cheaply that something has.
-- $1 names in schema.json, $2 schemas, $3 tables, $4 the prefix of our triggers' names, $5 the queue's table, $6 the
-- queue.
with recursive roots as materialized (
    select w.name, c.oid, c.relkind, c.relpersistence, c.relfilenode
    from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) as w(name, schema, source)
    join pg_catalog.pg_namespace n on n.nspname = w.schema
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.source and c.relkind in ('r', 'p')
), tree(root, oid, parent, attached) as (
    select distinct i.inhparent, i.inhrelid, i.inhparent, i.xmin
    from pg_catalog.pg_inherits i
    where i.inhparent = any (array(select oid from roots)) and not i.inhdetachpending
    union all
    select tree.root, i.inhrelid, i.inhparent, i.xmin
    from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid and not i.inhdetachpending
), branches as materialized (
    select tree.*, c.relkind, c.relpersistence, c.relfilenode, c.reltype
    from tree join pg_catalog.pg_class c on c.oid = tree.oid
), columns as materialized (
    select a.attrelid, a.attnum, a.attname, a.xmin, a.atttypid, a.attcollation, a.attgenerated
    from pg_catalog.pg_attribute a
    where a.attrelid = any (array(select oid from roots)) and a.attnum > 0 and not a.attisdropped
), expressions as materialized (
    select d.oid, d.adrelid, d.adnum, d.adbin
    from pg_catalog.pg_attrdef d
    where (d.adrelid, d.adnum) in (select attrelid, attnum from columns where attgenerated <> '')
), called as materialized (
    select d.objid as expression, p.oid as function
    from pg_catalog.pg_depend d
    join pg_catalog.pg_proc p on p.oid = d.refobjid
    where d.classid = 2604 and d.objid = any (array(select oid from expressions)) and d.refclassid = 1255
), types(attrelid, attname, oid) as (
    select attrelid, attname, atttypid from columns where atttypid >= 16384
    union
    select types.attrelid, types.attname, below.oid
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
), queue as (
    select c.oid
    from pg_catalog.pg_class c
    where c.relname = $5 and c.relnamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = 'pgmq')
), facts(name, kind, item, part, value) as (
    select name, 'table', '', '', oid::pg_catalog.text from roots
    union all
    select name, 'kept', '', '', relkind::pg_catalog.text || relpersistence::pg_catalog.text from roots
    union all
    select name, 'file', '', '', relfilenode::pg_catalog.text from roots
    union all
    -- a crash discards the server's statistics; they begin anew then
    select name, 'crash', '', '', extract(epoch from pg_catalog.pg_stat_get_bgwriter_stat_reset_time())::pg_catalog.text from roots
    union all
    select r.name, 'parents', '', '', coalesce((
        select pg_catalog.string_agg(pg_catalog.concat(i.inhparent, '.', i.xmin), ' ' order by i.inhparent)
        from pg_catalog.pg_inherits i where i.inhrelid = r.oid), '')
    from roots r
    union all
    select r.name, 'subscribed', '', '',
           exists (select from pg_catalog.pg_subscription_rel s where s.srrelid = r.oid)::pg_catalog.text
    from roots r
    union all
    select r.name, 'column', a.attname, '', pg_catalog.concat_ws('.', a.atttypid, a.attgenerated, pg_catalog.md5((
        select e.adbin::pg_catalog.text from expressions e where e.adrelid = a.attrelid and e.adnum = a.attnum)))
    from roots r join columns a on a.attrelid = r.oid
    union all
    -- a column of that name that was dropped and made anew, or renamed into it, is another one
    select r.name, 'number', a.attname, '', a.attnum::pg_catalog.text
    from roots r join columns a on a.attrelid = r.oid
    union all
    select r.name, 'collation', a.attname, '', a.attcollation::pg_catalog.text
    from roots r join columns a on a.attrelid = r.oid
    where a.attcollation <> 0
    union all
    select r.name, 'written', a.attname, '', a.xmin::pg_catalog.text
    from roots r join columns a on a.attrelid = r.oid
    union all
    select r.name, 'expression', a.attname, p.oid::pg_catalog.text,
           pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.probin, p.prolang, p.proisstrict, p.proconfig::pg_catalog.text,
               pg_catalog.to_jsonb(p) ->> 'prosqlbody'))
    from roots r
    join columns a on a.attrelid = r.oid
    join expressions e on e.adrelid = a.attrelid and e.adnum = a.attnum
    join called c on c.expression = e.oid
    join pg_catalog.pg_proc p on p.oid = c.function and p.oid >= 16384
    union all
    -- how a type of one's own is written: by what it is made of, by its output function, by casts
    select r.name, 'type', t.attname, t.oid::pg_catalog.text,
           pg_catalog.md5(pg_catalog.concat_ws(' ', (
               select pg_catalog.string_agg(pg_catalog.concat(f.attname, ' ', f.atttypid), ',' order by f.attnum)
               from pg_catalog.pg_attribute f
               where y.typtype = 'c' and f.attrelid = y.typrelid and f.attnum > 0 and not f.attisdropped), (
               select pg_catalog.concat(p.prosrc, ' ', p.probin)
               from pg_catalog.pg_proc p where p.oid = y.typoutput and p.oid >= 16384), (
               select pg_catalog.string_agg(pg_catalog.concat(k.oid, ' ', p.prosrc), ',' order by k.oid)
               from pg_catalog.pg_cast k join pg_catalog.pg_proc p on p.oid = k.castfunc
               where k.castsource = y.oid and k.castfunc >= 16384 and k.casttarget in (25, 114, 3802))))
    from roots r
    join types t on t.attrelid = r.oid
    join pg_catalog.pg_type y on y.oid = t.oid
    union all
    select r.name, 'label', t.attname, e.oid::pg_catalog.text, e.enumlabel
    from roots r
    join types t on t.attrelid = r.oid
    join pg_catalog.pg_enum e on e.enumtypid = t.oid
    union all
    select r.name, 'trigger', pg_catalog.substr(g.tgname, pg_catalog.length($4) + 1), '',
           pg_catalog.concat_ws('.', g.xmin,
               pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                   g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable)),
               p.xmin)
    from roots r
    join pg_catalog.pg_trigger g on g.tgrelid = r.oid and pg_catalog.starts_with(g.tgname, $4)
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    union all
    -- A partition: who its parent is, and since when; its row trigger's and its truncate trigger's row; its file;
    -- whether it was made where it is, and so began empty there (attaching writes its columns anew), with a row trigger
    -- that nobody has touched since (what it depends on is written once, right after it); its kind.
    select r.name, 'partition', b.oid::pg_catalog.text, '',
           pg_catalog.concat_ws('.', b.parent, b.attached, coalesce(own.xmin::pg_catalog.text, '0'),
               coalesce(truncated.xmin::pg_catalog.text, '0'), b.relfilenode,
               case when made.here then 'made' else 'attached' end, b.relkind::pg_catalog.text || b.relpersistence::pg_catalog.text)
    from roots r
    join branches b on b.root = r.oid
    left join pg_catalog.pg_trigger own on own.tgrelid = b.oid and own.tgname = $4 || 'row'
    left join pg_catalog.pg_trigger truncated on truncated.tgrelid = b.oid and truncated.tgname = $4 || 'truncate'
    cross join lateral (
        select r.relkind = 'p' and t.xmin = b.attached and coalesce((
            -- columns that were altered by a later transaction tell nothing
            select pg_catalog.bool_and(a.cmin::pg_catalog.text = t.cmin::pg_catalog.text)
            from pg_catalog.pg_attribute a where a.attrelid = b.oid and a.attnum > 0 and a.xmin = t.xmin), false)
            and own.xmin = b.attached and exists (
                select from pg_catalog.pg_depend d
                where d.classid = 2620 and d.objid = own.oid and d.xmin = own.xmin
                    and d.cmin::pg_catalog.text::pg_catalog.int8 >= own.cmin::pg_catalog.text::pg_catalog.int8) as here
        from pg_catalog.pg_type t where t.oid = b.reltype offset 0
    ) made
    union all
    select c.name, 'filter', f ->> 'schema', f ->> 'name', pg_catalog.md5((
        select pg_catalog.string_agg(pg_catalog.concat_ws(' ', p.oid, p.prosrc, p.probin, p.prolang, p.proisstrict, p.proconfig::pg_catalog.text,
                   pg_catalog.to_jsonb(p) ->> 'prosqlbody'), ',' order by p.oid)
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = f ->> 'name'
        where n.nspname = f ->> 'schema'))
    from pgflume.captured c
    cross join lateral pg_catalog.jsonb_array_elements(c.definition -> 'calls') f
    where c.queue = $6 and f ->> 'kind' is null
    union all
    select c.name, 'operator', f ->> 'schema', f ->> 'name', pg_catalog.md5((
        select pg_catalog.string_agg(pg_catalog.concat_ws(' ', o.oid, o.xmin, p.xmin), ',' order by o.oid)
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_operator o on o.oprnamespace = n.oid and o.oprname = f ->> 'name'
        left join pg_catalog.pg_proc p on p.oid = o.oprcode
        where n.nspname = f ->> 'schema'))
    from pgflume.captured c
    cross join lateral pg_catalog.jsonb_array_elements(c.definition -> 'calls') f
    where c.queue = $6 and f ->> 'kind' = 'operator'
    union all
    select c.name, 'order', f ->> 'schema', f ->> 'name', pg_catalog.md5((
        select pg_catalog.string_agg(pg_catalog.concat_ws(' ', l.oid, pg_catalog.to_jsonb(l)), ',' order by l.oid)
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_collation l on l.collnamespace = n.oid and l.collname = f ->> 'name'
        where n.nspname = f ->> 'schema'))
    from pgflume.captured c
    cross join lateral pg_catalog.jsonb_array_elements(c.definition -> 'calls') f
    where c.queue = $6 and f ->> 'kind' = 'collation'
    union all
    -- all of it: a filter may name any, and they are few
    select c.name, 'words', '', '', searched.made
    from pgflume.captured c
    cross join lateral (
        select pg_catalog.md5(pg_catalog.concat_ws('/', (
                select pg_catalog.string_agg(pg_catalog.concat_ws('.', g.oid, g.xmin), ' ' order by g.oid) from pg_catalog.pg_ts_config g), (
                select pg_catalog.string_agg(pg_catalog.concat_ws('.', m.mapcfg, m.maptokentype, m.mapseqno, m.mapdict, m.xmin), ' '
                           order by m.mapcfg, m.maptokentype, m.mapseqno)
                from pg_catalog.pg_ts_config_map m), (
                select pg_catalog.string_agg(pg_catalog.concat_ws('.', d.oid, d.xmin), ' ' order by d.oid) from pg_catalog.pg_ts_dict d))) as made
        offset 0
    ) searched
    where c.queue = $6 and c.definition -> 'calls' @> '[{"kind": "text search"}]'
    union all
    -- stays true for a while when the last rule is gone
    select r.name, 'ruled', '', '', c.relhasrules::pg_catalog.text
    from roots r
    cross join lateral (select oid from queue) q
    join pg_catalog.pg_class c on c.oid = q.oid
    union all
    -- what could keep a mark off the queue, or take it away unseen: triggers that come before, and our own guards
    select r.name, 'queue', '', '', marks.made
    from roots r
    cross join lateral (select oid from queue) q
    cross join lateral (
        select pg_catalog.md5(pg_catalog.string_agg(m.line, ' ' order by m.line)) as made
        from (
            select pg_catalog.concat_ws('.', g.oid, g.xmin, pg_catalog.md5(pg_catalog.concat(p.prosrc, p.proowner, p.prosecdef))) as line
            from pg_catalog.pg_trigger g
            join pg_catalog.pg_proc p on p.oid = g.tgfoid
            where g.tgrelid = q.oid and not g.tgisinternal
                and (g.tgname in ('pgflume_deleted', 'pgflume_changed', 'pgflume_truncated') or g.tgtype::pg_catalog.int4 & 2 <> 0)
        ) m
    ) marks
    union all
    -- a function that was another one for a time
    select r.name, 'guards', '', '', runs.written
    from roots r
    cross join lateral (select oid from queue) q
    cross join lateral (
        select pg_catalog.string_agg(distinct pg_catalog.concat_ws('.', p.oid, p.xmin), ' ') as written
        from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        where g.tgrelid = q.oid and g.tgname in ('pgflume_deleted', 'pgflume_changed', 'pgflume_truncated')
    ) runs
)
select name, kind, item, part, coalesce(value, '') from facts where name = any ($1::pg_catalog.text[])
