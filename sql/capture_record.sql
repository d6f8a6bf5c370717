insert into pgflume.captured as c (queue, name, source, definition)
select {{ queue_name }}, {{ name }}, r.oid, {{ definition }}::pg_catalog.jsonb || pg_catalog.jsonb_build_object(
    'known', r.relnatts,
    -- what the triggers run, to tell when somebody replaces it
    'functions', (select coalesce(pg_catalog.jsonb_object_agg(pg_catalog.substr(g.tgname, pg_catalog.length({{ prefix }}) + 1),
                               pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                                  g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable))), '{}')
                  from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid
                  where g.tgrelid = r.oid and not g.tgisinternal and pg_catalog.starts_with(g.tgname, {{ prefix }})),
    'source_columns', (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', a.attname, 'number', a.attnum,
                               'type', pg_catalog.format_type(a.atttypid, a.atttypmod)) order by a.attnum)
                       from pg_catalog.pg_attribute a where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped))
from pg_catalog.pg_class r where r.oid = {{ source_text }}::pg_catalog.regclass
on conflict (queue, name) do update set source = excluded.source, at = pg_catalog.now(), definition = excluded.definition || pg_catalog.jsonb_build_object(
    -- columns that were added while the table followed its source go on being followed
    'known', case when (c.definition ->> 'evolve')::boolean and (excluded.definition ->> 'evolve')::boolean and c.source = excluded.source
                  then c.definition -> 'known' else excluded.definition -> 'known' end,
    -- columns that the replica may still have
    'retired', (select coalesce(pg_catalog.jsonb_agg(u.n order by u.n), '[]')
                from (select pg_catalog.jsonb_object_keys(c.definition -> 'columns')
                      union select pg_catalog.jsonb_array_elements_text(coalesce(c.definition -> 'retired', '[]'))
                      except select pg_catalog.jsonb_object_keys(excluded.definition -> 'columns')) u(n)));
