
#variable_conflict use_column
declare
    is_known pg_catalog.bool;
    found_rows pg_catalog.int8;
begin
    -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which would
    -- run with our rights. A column that is gone finds its name in m.
    select pg_catalog.bool_and(r.is_known), pg_catalog.count(*) into is_known, found_rows
    from (
        select g.is_known from (select {{missing}}) m
        cross join lateral (
            select {{is_known}} as is_known
            from {{rows}} t
        ) g
        limit 2
    ) r;
    if found_rows operator(pg_catalog.=) 0 then
        return null;
    end if;
    if not is_known then
{{otherwise}}
    elsif found_rows operator(pg_catalog.=) 1 then
        -- one row, as most writes: nothing to gather, to number or to join
{{one}}
    else
{{many}}
    end if;
    return null;
end
