-- The capture was what the worker saw last, nobody else could change it since, and it is as good now: not to be taken
-- for one that was away.
update pgflume.shapes set definition = pg_catalog.jsonb_set(definition, '{traits}', (definition -> 'traits') || {{state}})
where queue = {{queue_name}} and name in ({{names}})
    and definition -> 'traits' @> pg_catalog.current_setting('pgflume.seen')::pg_catalog.jsonb;
update pgflume.progress set shape = null where queue = {{queue_name}};
