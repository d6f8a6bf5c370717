-- The queue and its dead letters. A queue that is there stays as it is, with all that is on it.
do $queue$
begin
    if pg_catalog.to_regclass({{queue_text}}) is null then
        perform pgmq.create({{queue_name}});
    end if;
    if pg_catalog.to_regclass({{dead_text}}) is null then
        perform pgmq.create({{dead_name}});
    end if;
end
$queue$;
