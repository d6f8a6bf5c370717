{# The first question of a statement trigger: how many rows, none, one or more, and are their types known? #}
    -- Of the types of setup still? With another type a cast or an operator may be its owner's function, which would
    -- run with our rights. A column that is gone finds its name in m.
    select pg_catalog.bool_and(r.is_known), pg_catalog.count(*) into is_known, found_rows
    from (
        select g.is_known
        from (select {% for column in columns %}null::pg_catalog.xid as {{ column }}{{ ", " if not loop.last }}{% endfor %}) m
        cross join lateral (
            select {{ known | join("\n                and ") or "true" }} as is_known
            from {{ rows }} t
        ) g
        limit 2
    ) r;
    if found_rows operator(pg_catalog.=) 0 then
        return null;
    end if;
