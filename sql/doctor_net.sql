-- What the worker has answered to the posts of pg_net, whose table does not say whom it asked: the last of an hour that
-- reads like an answer of ours, and failures where there is none such.
select 'PF-123', 'net._http_response', coalesce('the last answer was ' || l.status_code || ': ' || pg_catalog.left(l.content, 200),
       'no answer came: ' || pg_catalog.left(coalesce(l.error_msg, 'it took too long'), 200)),
       'select * from net._http_response order by id desc limit 5', false
from (
    select r.status_code, r.content, r.error_msg, r.timed_out, r.content like '%"success"%' as is_ours
    from net._http_response r
    where r.created > pg_catalog.clock_timestamp() - interval '1 hour'
        and (r.content like '%"success"%' or r.status_code is null)
    order by r.content like '%"success"%' desc nulls last, r.id desc limit 1) l
where not coalesce(l.is_ours and l.status_code between 200 and 299, false)
