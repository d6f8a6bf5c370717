{# The body of the statement trigger for updates. #}
{% from "capture_marks.sql" import marks %}
{# The old or the new rows: the key as k1, k2, ..., the watched columns as c1, c2, ... #}
{% macro side(table, transition, missing) %}
{% if table.watched %}
(
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.*
                    from (select {% for column in table.watched %}{{ missing }} as {{ column }}{{ ", " if not loop.last }}{% endfor %}) m
                    cross join lateral (select {{ table.columns | join(", ") }} from {{ transition }} t) r
                )
{%- else %}
(select {{ table.columns | join(", ") }} from {{ transition }} t)
{%- endif %}
{% endmacro %}
{# The keys of all that the statement changed, compared as the types of the columns are or as if they were any. #}
{% macro changed_rows(table, key) %}
                -- keys that are on one side only, and keys whose row differs in what is replicated
                select {{ key.either | join(", ") }}
                from {{ side(table, "old_rows", "true") }} o
                full join {{ side(table, "new_rows", "false") }} n on {{ key.is_same }}
                where (o.k1 is null or n.k1 is null){% if key.changed +%}
                    or {{ key.changed | join("\n                    or ") }}{% endif %}
{% endmacro %}

#variable_conflict use_column
declare
    is_known pg_catalog.bool;
    found_rows pg_catalog.int8;
begin
{% include "capture_known.sql" %}
    if not is_known then
{% for table in tables %}
{% call marks(queue, table, table.of_any_types) %}
{{ changed_rows(table, table.of_any_types) }}
{%- endcall %}
{% endfor %}
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
{% for table in tables %}
        insert into {{ queue }} (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', {{ table.name }}, 'keys',
                   case when {{ table.as_typed.is_same }} then {{ table.new }} else {{ table.old }} || {{ table.new }} end)
        from {{ side(table, "old_rows", "true") }} o,
            {{ side(table, "new_rows", "false") }} n
        where not ({{ table.as_typed.is_same }}){% if table.as_typed.changed +%}
            or {{ table.as_typed.changed | join("\n            or ") }}{% endif %};
{% endfor %}
    else
{% for table in tables %}
{% call marks(queue, table, table.as_typed) %}
{{ changed_rows(table, table.as_typed) }}
{%- endcall %}
{% endfor %}
    end if;
    return null;
end
