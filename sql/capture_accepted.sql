-- The capture was as it was set up, the worker has seen that, nobody else could change it since, and it is as good
-- now: not to be taken for one that was away.
update pgflume.shapes s set definition = pg_catalog.jsonb_set(s.definition, '{traits}', (s.definition -> 'traits') || {{ state }})
where s.queue = {{ queue_name }} and s.name in ({{ names | join(", ") }})
    and s.definition -> 'traits' @> pg_catalog.current_setting('pgflume.seen')::pg_catalog.jsonb
    and not exists (
        select from pg_catalog.jsonb_each_text(pg_catalog.current_setting('pgflume.seen')::pg_catalog.jsonb) t(trait, value)
        where pg_catalog.split_part(t.value, '.', 2) is distinct from (
            select c.definition -> 'functions' ->> pg_catalog.split_part(t.trait, E'\t', 3)
            from pgflume.captured c where c.queue = s.queue and c.name = s.name));
update pgflume.progress set shape = null where queue = {{ queue_name }};
