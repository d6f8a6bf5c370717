-- The table with all its partitions, at once or not at all: who held one while waiting for another could close a circle
-- with a migration, and Postgres would end that.
do $lock$
declare
    begun constant pg_catalog.timestamptz := pg_catalog.clock_timestamp();
begin
    loop
        begin
            lock table {{ on }} in {{ mode }} mode nowait;
            exit;
        exception when lock_not_available then
            if pg_catalog.clock_timestamp() > begun + interval '{{ ms }} ms' then
                raise;
            end if;
        end;
        perform pg_catalog.pg_sleep(0.01);
    end loop;
end
$lock$;
