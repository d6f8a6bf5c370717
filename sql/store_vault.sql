-- Stores a setting in Vault: $1 name, $2 value. A row comes back if that changed something.
with stored as (
    select id, decrypted_secret from vault.decrypted_secrets where name = $1 limit 1
), updated as (
    select vault.update_secret(id, $2)::pg_catalog.text as done from stored where decrypted_secret is distinct from $2
), created as (
    select vault.create_secret($2, $1)::pg_catalog.text as done where not exists (select from stored)
)
select done from updated
union all
select done from created
