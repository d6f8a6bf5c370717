        insert into {{queue}} (vt, message)
        select pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', {{table}}, 'keys', {{keys}})
        from {{rows}} t;
