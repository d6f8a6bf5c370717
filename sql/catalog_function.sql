-- What tells a worker before each step whether the catalog has changed: a function, because that keeps its plan.
create or replace function pgflume.catalog_state(pg_catalog.text[], pg_catalog.text[], pg_catalog.text, pg_catalog.text, pg_catalog.text)
    returns pg_catalog.text
language plpgsql stable set plan_cache_mode = force_generic_plan set jit = off
as {{ body }};
revoke all on function pgflume.catalog_state(pg_catalog.text[], pg_catalog.text[], pg_catalog.text, pg_catalog.text, pg_catalog.text) from public;
grant execute on function pgflume.catalog_state(pg_catalog.text[], pg_catalog.text[], pg_catalog.text, pg_catalog.text, pg_catalog.text) to pgflume_worker;
