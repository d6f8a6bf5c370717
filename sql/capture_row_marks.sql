{{marked}}
    if marked is not null then
        insert into {{queue}} (vt, message)
        values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', {{table}}, 'keys', marked));
    end if;
