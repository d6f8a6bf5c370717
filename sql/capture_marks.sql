    -- one message for each part of the keys
    insert into {{queue}} (vt, message)
    select pg_catalog.clock_timestamp(),
           pg_catalog.jsonb_build_object('v', 1, 'table', {{table}}, 'keys',
               pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array({{key}})))
    from (
        select r.*, {{part}} as part
        from (
{{rows}}
        ) r
    ) k
    group by k.part;
