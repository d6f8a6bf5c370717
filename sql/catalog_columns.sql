-- The columns of the replicated tables. $1 their names in schema.json, $2 schemas, $3 tables, $4 the prefix of
-- our triggers' names.
-- format_type(..., -1): with NULL it writes `character` for char(n), and a cast to that cuts to one letter.
select w.name, c.oid,
       pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select'),
       exists (select from pg_catalog.pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled <> 'D'
               and g.tgname in ($4::pg_catalog.text || 'insert', $4::pg_catalog.text || 'row')),
       a.attname::pg_catalog.text,
       pg_catalog.format_type(base.oid, -1),
       base.oid,
       coalesce(operators.equals, 'operator(pg_catalog.=)'),
       coalesce(operators.greater, 'operator(pg_catalog.>)'),
       coalesce(operators.at_least, 'operator(pg_catalog.>=)'),
       coalesce(operators.at_most, 'operator(pg_catalog.<=)'),
       -- sorted by bytes, as SQLite does
       case when a.attcollation = 0 then true
            when a.attcollation = 100 then database.by_bytes
            else database.is_utf8 and exists (select from pg_catalog.pg_collation l where l.oid = a.attcollation and l.collcollate in ('C', 'POSIX')
                         and l.collprovider = 'c') end,
       arrays.is_array, arrays.are_inside,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       -- what the order of its values depends on beside the type
       pg_catalog.concat(a.attcollation, (select pg_catalog.md5(pg_catalog.string_agg(e.enumlabel, ',' order by e.enumsortorder)) from pg_catalog.pg_enum e where e.enumtypid = base.oid)),
       a.attnum,
       base.oid <> a.atttypid,
       -- then a text need not be UTF-8
       pg_catalog.current_setting('server_encoding') = 'SQL_ASCII',
       from_text.runs_code,
       c.relkind::pg_catalog.text,
       strings.are_strings,
       -- as readers are told
       pg_catalog.format_type(base.oid, base.mod),
       exists (select from pg_catalog.pg_partitioned_table p where p.partrelid = c.oid and a.attnum = any (p.partattrs::pg_catalog.int2[]))
from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) as w(name, schema, source)
join pg_catalog.pg_namespace n on n.nspname = w.schema
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.source and c.relkind in ('r', 'p')
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
cross join (
    select u.is_utf8,
           u.is_utf8 and d.datcollate in ('C', 'POSIX') and coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' as by_bytes
    from pg_catalog.pg_database d cross join (select pg_catalog.current_setting('server_encoding') = 'UTF8' as is_utf8) u
    where d.datname = pg_catalog.current_database()) database
cross join lateral (
    with recursive b(oid, kind, below, mod, mod_below) as (
        select t.oid, t.typtype, t.typbasetype, a.atttypmod, t.typtypmod from pg_catalog.pg_type t where t.oid = a.atttypid
        union all
        select t.oid, t.typtype, t.typbasetype, case when b.mod = -1 then b.mod_below else b.mod end, t.typtypmod
        from b join pg_catalog.pg_type t on t.oid = b.below where b.kind = 'd')
    select b.oid, b.mod from b where b.kind <> 'd') base
-- the default comparison of the type: an extension's type has its own, outside the search path
left join lateral (
    select pg_catalog.max(pg_catalog.format('operator(%I.%s)', opn.nspname, o.oprname)) filter (where p.amopstrategy = 3) as equals,
           pg_catalog.max(pg_catalog.format('operator(%I.%s)', opn.nspname, o.oprname)) filter (where p.amopstrategy = 5) as greater,
           pg_catalog.max(pg_catalog.format('operator(%I.%s)', opn.nspname, o.oprname)) filter (where p.amopstrategy = 4) as at_least,
           pg_catalog.max(pg_catalog.format('operator(%I.%s)', opn.nspname, o.oprname)) filter (where p.amopstrategy = 2) as at_most
    from pg_catalog.pg_opclass oc
    join pg_catalog.pg_am am on am.oid = oc.opcmethod and am.amname = 'btree'
    join pg_catalog.pg_amop p on p.amopfamily = oc.opcfamily and p.amoplefttype = oc.opcintype and p.amoprighttype = oc.opcintype
    join pg_catalog.pg_operator o on o.oid = p.amopopr
    join pg_catalog.pg_namespace opn on opn.oid = o.oprnamespace
    where oc.opcdefault and oc.opcintype = base.oid) operators on true
-- arrays may have lower bounds, which JSON has not; int2vector (22) and oidvector (30) never show theirs
cross join lateral (
    with recursive part(oid, is_inside) as (
        select base.oid, false
        union
        select below.oid, true
        from part
        join pg_catalog.pg_type t on t.oid = part.oid
        cross join lateral (
            select t.typbasetype where t.typtype = 'd'
            union all
            select t.typelem where t.typsubscript = 'array_subscript_handler'::pg_catalog.regproc
            union all
            select f.atttypid from pg_catalog.pg_attribute f
            where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped) below(oid))
    select coalesce(pg_catalog.bool_or(not part.is_inside), false) as is_array, coalesce(pg_catalog.bool_or(part.is_inside), false) as are_inside
    from part
    join pg_catalog.pg_type t on t.oid = part.oid
    where t.typsubscript = 'array_subscript_handler'::pg_catalog.regproc and t.oid not in (22, 30)) arrays
-- what others wrote and what looking up a key would run: a cast from text that is a function, and the checks of
-- domains inside (the outermost is looked under)
cross join lateral (
    with recursive part(oid, is_inside) as (
        select base.oid, false
        union
        select below.oid, true
        from part
        join pg_catalog.pg_type t on t.oid = part.oid
        cross join lateral (
            select t.typbasetype where t.typtype = 'd'
            union all
            select t.typelem where t.typsubscript = 'array_subscript_handler'::pg_catalog.regproc
            union all
            select f.atttypid from pg_catalog.pg_attribute f
            where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
            union all
            select g.rngsubtype from pg_catalog.pg_range g where t.oid in (g.rngtypid, g.rngmultitypid)) below(oid)),
    casts as (
        select k.castsource, k.casttarget
        from pg_catalog.pg_cast k
        join pg_catalog.pg_proc f on f.oid = k.castfunc
        where f.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
          and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass and d.objid = k.oid and d.deptype = 'e'))
    select exists (select from casts k where k.castsource = 'text'::pg_catalog.regtype and k.casttarget = base.oid)
           or exists (select from part
                      join pg_catalog.pg_constraint x on x.contypid = part.oid
                      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = x.oid
                      where part.is_inside and d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)) as runs_code) from_text
-- enums and ranges, themselves or as elements
cross join lateral (
    with recursive part(oid) as (
        select base.oid
        union
        select below.oid
        from part
        join pg_catalog.pg_type t on t.oid = part.oid
        cross join lateral (
            select t.typbasetype where t.typtype = 'd'
            union all
            select t.typelem where t.typsubscript = 'array_subscript_handler'::pg_catalog.regproc) below(oid))
    select exists (select from part join pg_catalog.pg_type t on t.oid = part.oid
                   where t.oid >= 10000 and t.typtype in ('e', 'r', 'm')) as are_strings) strings
