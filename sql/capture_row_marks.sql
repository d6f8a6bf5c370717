    marked := case
        when tg_op = 'INSERT' then pg_catalog.jsonb_build_array({{new_key}})
        when tg_op = 'DELETE' then pg_catalog.jsonb_build_array({{old_key}})
        when {{key_differs}}
            then pg_catalog.jsonb_build_array({{old_key}}, {{new_key}})
        when {{changed}}
            then pg_catalog.jsonb_build_array({{new_key}})
    end;
    if marked is not null then
        insert into {{queue}} (vt, message)
        values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', {{table}}, 'keys', marked));
    end if;
