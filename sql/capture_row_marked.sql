        marked := case
            when tg_op = 'INSERT' then pg_catalog.jsonb_build_array({{new_key}})
            when tg_op = 'DELETE' then pg_catalog.jsonb_build_array({{old_key}})
            when {{key_differs}}
                then pg_catalog.jsonb_build_array({{old_key}}, {{new_key}})
            when {{changed}}
                then pg_catalog.jsonb_build_array({{new_key}})
        end;
