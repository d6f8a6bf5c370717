{# One message for each part of the keys that the caller selects as k1, k2, ... #}
{% macro marks(queue, table, key) %}
        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into {{ queue }} (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', {{ table.name }}, 'keys', pg_catalog.array_agg(array[{{ table.parts | join(", ") }}]))
        from (
            select r.*, {{ key.message }} as part
            from (
{{ caller() }}
            ) r
        ) k
        group by k.part;
{% endmacro %}
