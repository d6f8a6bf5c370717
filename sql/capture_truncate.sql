{# The body of the statement trigger for truncates. #}

begin
{% for table in tables %}
    insert into {{ queue }} (vt, message)
    values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', {{ table }}, 'truncate', true));
{% endfor %}
    return null;
end
