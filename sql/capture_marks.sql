        -- one message for each part of the keys (an array first: it takes a quarter of the memory of jsonb_agg)
        insert into {{queue}} (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', {{table}}, 'keys', pg_catalog.array_agg(array[{{key}}]))
        from (
            select r.*, {{part}} as part
            from (
{{rows}}
            ) r
        ) k
        group by k.part;
