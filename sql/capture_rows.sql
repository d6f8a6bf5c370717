{# The body of the statement triggers for inserts and for deletes. #}
{% from "capture_marks.sql" import marks %}

#variable_conflict use_column
declare
    is_known pg_catalog.bool;
    found_rows pg_catalog.int8;
begin
{% include "capture_known.sql" %}
    if not is_known then
{% for table in tables %}
{% call marks(queue, table, table.of_any_types) %}
                select {{ table.of_any_types.columns | join(", ") }}
                from {{ rows }} t
{%- endcall %}
{% endfor %}
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
{% for table in tables %}
        insert into {{ queue }} (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', {{ table.name }}, 'keys', array[array[{{ table.key | join(", ") }}]])
        from {{ rows }} t;
{% endfor %}
    else
{% for table in tables %}
{% if table.block %}
        <<block>>
        declare
            done pg_catalog.int8 := 0;
            messages pg_catalog.int8;
        begin
            -- a block of keys in one array, cut into messages: numbering each row would take longer than reading it
            loop
                insert into {{ queue }} (vt, message)
                select pg_catalog.clock_timestamp(),
                       ({{ table.block.head }} || pg_catalog.array_to_string(k.keys[k.first:k.first + {{ message_keys }} - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), {{ message_keys }}) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t.{{ table.block.column }} as k1
                            from {{ rows }} t offset block.done limit {{ block_keys }}
                        ) r
                    ) b
                ) k;
                get diagnostics messages = row_count;
                exit when messages < {{ block_keys }} / {{ message_keys }};
                done := done + {{ block_keys }};
            end loop;
        end block;
{% else %}
{% call marks(queue, table, table.as_typed) %}
                select {{ table.as_typed.columns | join(", ") }}
                from {{ rows }} t
{%- endcall %}
{% endif %}
{% endfor %}
    end if;
    return null;
end
