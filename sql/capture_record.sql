insert into pgflume.captured as c (queue, name, source, definition)
select {{queue_name}}, {{name}}, r.oid, {{definition}}::jsonb || jsonb_build_object(
    'known', r.relnatts,
    -- what the triggers run, to tell when somebody replaces it
    'functions', (select coalesce(jsonb_object_agg(substr(g.tgname, length({{prefix}}) + 1),
                               md5(concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::text, p.proowner::regrole))), '{}')
                  from pg_trigger g join pg_proc p on p.oid = g.tgfoid
                  where g.tgrelid = r.oid and not g.tgisinternal and starts_with(g.tgname, {{prefix}})),
    'source_columns', (select jsonb_agg(jsonb_build_object('name', a.attname, 'number', a.attnum,
                               'type', format_type(a.atttypid, a.atttypmod)) order by a.attnum)
                       from pg_attribute a where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped))
from pg_class r where r.oid = {{source_text}}::regclass
on conflict (queue, name) do update set source = excluded.source, at = now(), definition = excluded.definition || jsonb_build_object(
    -- columns that were added while the table followed its source go on being followed
    'known', case when (c.definition ->> 'evolve')::boolean and (excluded.definition ->> 'evolve')::boolean and c.source = excluded.source
                  then c.definition -> 'known' else excluded.definition -> 'known' end,
    -- columns that the replica may still have
    'retired', (select coalesce(jsonb_agg(u.n order by u.n), '[]')
                from (select jsonb_object_keys(c.definition -> 'columns')
                      union select jsonb_array_elements_text(coalesce(c.definition -> 'retired', '[]'))
                      except select jsonb_object_keys(excluded.definition -> 'columns')) u(n)));
