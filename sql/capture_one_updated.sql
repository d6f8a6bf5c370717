        insert into {{queue}} (vt, message)
        select pg_catalog.clock_timestamp(),
               pg_catalog.jsonb_build_object('v', 1, 'table', {{table}}, 'keys',
                   case when {{same_key}} then {{new_key}} else {{old_key}} || {{new_key}} end)
        from {{old}} o, {{new}} n
        where not ({{same_key}}){{or_changed}};
