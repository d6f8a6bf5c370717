delete from pgflume.progress where queue = {{ queue_name }};
delete from pgflume.wakeup where queue = {{ queue_name }};
do $newer$
begin
    if pg_catalog.to_regclass('pgflume.resyncs') is not null then
        delete from pgflume.resyncs where queue = {{ queue_name }};
        delete from pgflume.verified where queue = {{ queue_name }};
    end if;
    if pg_catalog.to_regclass('pgflume.shapes') is not null then
        delete from pgflume.captured where queue = {{ queue_name }};
        delete from pgflume.shapes where queue = {{ queue_name }};
    end if;
    if pg_catalog.to_regclass('pgflume.kept') is not null then
        delete from pgflume.kept where queue = {{ queue_name }};
        delete from pgflume.steps where queue = {{ queue_name }};
        delete from pgflume.losses where queue = {{ queue_name }};
    end if;
    if pg_catalog.to_regclass('pgflume.events') is not null then
        delete from pgflume.events where queue = {{ queue_name }};
    end if;
end
$newer$;
