    if {{guard}} then
{{then}}
    else
    -- a column that is compared was dropped or renamed since setup
{{else}}
    end if;
