    begin
        -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which
        -- would run with our rights.
        if {{is_known}} then
{{marked}}
        else
{{otherwise}}
        end if;
    exception when datatype_mismatch or undefined_column or internal_error
            or undefined_function or ambiguous_function or undefined_object then
        -- compiled with another type of a column than it has now, or a type or a column is gone: these are parsed each time
        marked := '[]';
        if tg_op <> 'INSERT' then
            execute {{keys}} into marked using old, marked;
        end if;
        if tg_op <> 'DELETE' then
            execute {{keys}} into marked using new, marked;
        end if;
    end;
    if marked is not null then
        insert into {{queue}} (vt, message)
        values (pg_catalog.clock_timestamp(), pg_catalog.jsonb_build_object('v', 1, 'table', {{table}}, 'keys', marked));
    end if;
