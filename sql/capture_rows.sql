
{{conflicts}}begin
    perform from {{rows}} offset 1 limit 1;
    if not found then
        -- one row, as most writes: nothing to gather, to number or to join
{{one}}
    else
{{many}}
    end if;
    return null;
end
