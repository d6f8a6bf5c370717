{# The body of the row trigger. #}
{# What is marked, compared as the types of the columns are or as if they were any. #}
{% macro compared(key) %}
            marked := case
                when tg_op = 'INSERT' then pg_catalog.jsonb_build_array({{ key.new }})
                when tg_op = 'DELETE' then pg_catalog.jsonb_build_array({{ key.old }})
                when {{ key.differs }}
                    then pg_catalog.jsonb_build_array({{ key.old }}, {{ key.new }})
                when {{ key.changed | join("\n                    or ") or "false" }}
                    then pg_catalog.jsonb_build_array({{ key.new }})
            end;
{%- endmacro %}

declare
    marked pg_catalog.jsonb;
begin
{% for table in tables %}
    begin
        -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which
        -- would run with our rights.
        if {{ table.known | join("\n            and ") or "true" }} then
{{ compared(table.as_typed) }}
        else
{{ compared(table.of_any_types) }}
        end if;
    exception when datatype_mismatch or undefined_column or internal_error
            or undefined_function or ambiguous_function or undefined_object then
        -- compiled with another type of a column than it has now, or a type or a column is gone: these are parsed each time
        marked := '[]';
        if tg_op <> 'INSERT' then
            execute {{ table.anew }} into marked using old, marked;
        end if;
        if tg_op <> 'DELETE' then
            execute {{ table.anew }} into marked using new, marked;
        end if;
    end;
    if marked is not null then
        insert into {{ queue }} (vt, message)
        values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', {{ table.name }}, 'keys', marked));
    end if;
{% endfor %}
    return null;
end
