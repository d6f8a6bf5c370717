(
                    -- a column that was dropped or renamed since setup: its name finds these, which differ
                    select r.* from (select {{missing}}) m
                    cross join lateral (select {{columns}} from {{rows}} t) r
                )
