        -- int8, int2, int4, oid, uuid: only their text stands in JSON as it is, and the type may have changed since
        if exists (
            select from {{rows}} t
            where pg_catalog.pg_typeof(t.{{key}})::pg_catalog.oid
                  operator(pg_catalog.=) any (array[20, 21, 23, 26, 2950]::pg_catalog.oid[])
        ) then
{{blocks}}
        else
{{marks}}
        end if;
