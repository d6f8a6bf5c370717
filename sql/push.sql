-- Writes of clients: what became of each, and who may write that down. Only where schema.json says what is writable.
--   pgflume_push  writes the journal and nothing else; grant it, and the roles of your users, to the login of PUSH_URL
do $role$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'pgflume_push') then
        begin
            create role pgflume_push nologin;
        exception when duplicate_object or unique_violation then
            null; -- another database's set-up was faster
        end;
    end if;
end
$role$;
create table if not exists pgflume.pushes (
    -- which copy of an application asked, and what it called the request
    client  pg_catalog.text not null,
    key     pg_catalog.text not null,
    -- whose key it is: the claim sub of the token
    subject pg_catalog.text,
    -- what was asked, as a digest
    digest  pg_catalog.text not null,
    at      pg_catalog.timestamptz not null default pg_catalog.now(),
    txid    pg_catalog.xid8 not null default pg_catalog.pg_current_xact_id(),
    -- what was answered, as JSON; null while its transaction runs
    result  pg_catalog.text,
    primary key (client, key)
);
create index if not exists pushes_by_age on pgflume.pushes (at);
-- exactly these: default privileges may have given more
revoke all on all tables in schema pgflume from pgflume_push cascade;
revoke all on all sequences in schema pgflume from pgflume_push cascade;
revoke all on schema pgflume from pgflume_push cascade;
grant usage on schema pgflume to pgflume_push;
grant select, insert, update, delete on pgflume.pushes to pgflume_push;
