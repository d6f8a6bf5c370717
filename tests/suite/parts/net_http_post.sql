-- A stand-in for the part of pg_net that the tests need, with pg_net's names and signature.
--
-- As in pg_net, net.http_post only puts a row in net.http_request_queue. The row becomes visible
-- to the sender, which is outside this transaction, when the transaction commits, and goes away
-- with it when it rolls back. The sender (`PgNet` of the test harness, pg_net's background worker
-- in the original) deletes the row, sends the request and records the outcome in
-- net._http_response.

create schema if not exists net;

create unlogged table if not exists net.http_request_queue (
  id bigserial primary key,
  method text not null,
  url text not null,
  headers jsonb not null,
  body text,
  timeout_milliseconds int not null
);

create unlogged table if not exists net._http_response (
  id bigint,
  status_code int,
  content_type text,
  headers jsonb,
  content text,
  timed_out bool,
  error_msg text,
  created timestamptz not null default now()
);

-- 'a b&c' -> 'a%20b%26c'
create or replace function net._urlencode_string(string text) returns text
language sql immutable strict as $$
  select coalesce(string_agg(
    case when ch ~ '^[A-Za-z0-9_.~-]$' then ch
         else regexp_replace(upper(encode(convert_to(ch, 'UTF8'), 'hex')), '(..)', '%\1', 'g')
    end, '' order by position), '')
  from regexp_split_to_table(string, '') with ordinality as each_one(ch, position)
$$;

create or replace function net.http_post(
  url text,
  body jsonb default '{}'::jsonb,
  params jsonb default '{}'::jsonb,
  headers jsonb default '{"Content-Type": "application/json"}'::jsonb,
  timeout_milliseconds int default 5000
) returns bigint
language plpgsql volatile as $$
declare
  query text;
  request_id bigint;
  content_type text;
begin
  select string_agg(net._urlencode_string(key) || '=' || net._urlencode_string(value), '&')
    into query from jsonb_each_text(params);
  select value into content_type
    from jsonb_each_text(http_post.headers) where lower(key) = 'content-type' limit 1;
  if content_type is null then
    headers := headers || '{"Content-Type": "application/json"}'::jsonb;
  elsif content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;
  insert into net.http_request_queue as q (method, url, headers, body, timeout_milliseconds)
  values ('POST', http_post.url || coalesce('?' || query, ''), http_post.headers,
          http_post.body::text, http_post.timeout_milliseconds)
  returning q.id into request_id;
  return request_id;
end
$$;
