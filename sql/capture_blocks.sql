        <<block>>
        declare
            done pg_catalog.int8 := 0;
            messages pg_catalog.int8;
        begin
            -- a block of keys in one array, cut into messages: numbering each row would take longer than reading it
            loop
                insert into {{queue}} (vt, message)
                select pg_catalog.clock_timestamp(),
                       ({{head}} || pg_catalog.array_to_string(k.keys[k.first:k.first + {{message_keys}} - 1], '"],["') || '"]]}')::pg_catalog.jsonb
                from (
                    select b.keys, pg_catalog.generate_series(1, pg_catalog.cardinality(b.keys), {{message_keys}}) as first
                    from (
                        select pg_catalog.array_agg(r.k1) as keys
                        from (
                            select t.{{key}} as k1
                            from {{rows}} t offset block.done limit {{block_keys}}
                        ) r
                    ) b
                ) k;
                get diagnostics messages = row_count;
                exit when messages < {{block_keys}} / {{message_keys}};
                done := done + {{block_keys}};
            end loop;
        end block;
