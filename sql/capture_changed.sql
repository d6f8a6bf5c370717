                -- keys that are on one side only, and keys whose row differs in what is replicated
                select {{both}}
                from {{old}} o
                full join {{new}} n on {{join}}
                where {{one_sided}}{{or_changed}}
