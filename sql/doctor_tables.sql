-- What is wrong with the tables that schema.json names. $1 their names there, $2 and $3 the schemas and names of their
-- sources, $4 the columns of each as JSON.
with wanted as (
    select w.name, w.schema, w.source, w.columns, c.oid, c.relowner, c.relkind,
           coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select'), false) as readable,
           pg_catalog.format('%I.%I', w.schema, w.source) as relation
    from (select u.name, u.schema, u.source, u.columns
          from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]),
                          pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.text[])) u(name, schema, source, columns)) w
    left join pg_catalog.pg_namespace n on n.nspname = w.schema
    left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.source and c.relkind in ('r', 'p', 'f', 'v', 'm')
)
select 'PF-101', 'schema.json', 'none of its ' || pg_catalog.count(*) || ' tables is in this database', 'pgflume init', false
from wanted having pg_catalog.count(oid) = 0
union all
select 'PF-102', w.name, w.relation || ' does not exist', 'pgflume init --stdout', false
from wanted w where w.oid is null and exists (select from wanted o where o.oid is not null)
union all
select 'PF-103', w.name, pg_catalog.format('%s has no column %I', w.relation, k.name),
       'pgflume init --stdout --table ' || pg_catalog.quote_literal(w.schema || '.' || w.source), false
from wanted w cross join lateral pg_catalog.jsonb_array_elements_text(w.columns::pg_catalog.jsonb) k(name)
where w.oid is not null and not exists (
    select from pg_catalog.pg_attribute a where a.attrelid = w.oid and a.attname = k.name and a.attnum > 0 and not a.attisdropped)
union all
select 'PF-105', w.name, current_user || ' may not read ' || w.relation,
       pg_catalog.format('grant usage on schema %I to %I; grant select on %s to %2$I', w.schema, current_user, w.relation), false
from wanted w where w.oid is not null and not w.readable
union all
select 'PF-106', w.name, 'policies of ' || w.relation || ' bind ' || current_user, pg_catalog.format('alter role %I bypassrls', current_user), false
from wanted w where w.oid is not null and w.readable and pg_catalog.row_security_active(w.oid)
union all
select 'PF-133', w.name, pg_catalog.format('the trigger %I puts each row on the queue, too', t.tgname), 'pgflume setup --take-over', false
from wanted w
join pg_catalog.pg_trigger t on t.tgrelid = w.oid and not t.tgisinternal
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where p.proname = 'trigger_http_queue_post_to_function_libsql' and n.nspname <> 'pgflume'
    and exists (select from pg_catalog.pg_trigger o join pg_catalog.pg_proc f on f.oid = o.tgfoid join pg_catalog.pg_namespace s on s.oid = f.pronamespace
                where o.tgrelid = w.oid and s.nspname = 'pgflume' and f.proname <> p.proname)
order by 1, 2
