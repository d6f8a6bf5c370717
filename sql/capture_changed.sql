            -- keys that are on one side only, and keys whose row differs in what is replicated
            select {{both}}
            from old_rows o
            full join new_rows n on {{join}}
            where {{one_sided}}
{{changed}}
