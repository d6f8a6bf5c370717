-- PGMQ, if it is not here: the extension where the server offers it and lets us, else PGMQ's own SQL.
do {{outer}}
begin
    if pg_catalog.to_regprocedure('pgmq.create(text)') is not null then
        return;
    end if;
    if exists (select from pg_catalog.pg_available_extensions where name = 'pgmq') then
        begin
            create extension pgmq;
            return;
        exception when insufficient_privilege then
            raise notice 'the extension pgmq may not be created by %; installing its SQL', current_user;
        end;
    end if;
    execute {{pgmq}};
end
{{outer}};
