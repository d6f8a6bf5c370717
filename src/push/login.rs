//! Who may be whom: what the login of `PUSH_URL` must not be, and which roles it may run a request as.

use crate::core::error::{Error, Result};
use crate::postgres::Client;
use tokio_postgres::types::Type;

/// Refuses a login that could do more than its users may.
pub(super) async fn check(client: &Client) -> Result<()> {
    let row = client.query_typed_one(include_str!("../../sql/push_login.sql"), &[]).await?;
    let (is_above, inherits, has_role, is_member): (bool, bool, bool, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let refuse = |problem: &str| Err(Error::side(format!("PUSH_URL's login {problem}")));
    if is_above {
        return refuse(
            "may do more than its users: it is a superuser, or has BYPASSRLS, CREATEROLE or REPLICATION; make one of its own (docs/push.md)",
        );
    }
    if inherits {
        return refuse(
            "inherits rights of another role, which would count before a request is given its own: alter role NAME noinherit, and from PostgreSQL 16 on grant ROLE to NAME with inherit false (docs/push.md)",
        );
    }
    if !has_role {
        return refuse(
            "has no journal to write: run `pgflume setup` with a schema.json that says what is \"writable\"",
        );
    }
    if !is_member {
        return refuse("may not write the journal: grant pgflume_push to it");
    }
    Ok(())
}

/// Whether the login may run a request as this role.
pub(super) async fn may_be(client: &Client, role: &str) -> Result<bool> {
    let sql = include_str!("../../sql/push_role.sql");
    Ok(client.query_typed_one(sql, &[(&role, Type::TEXT)]).await?.try_get(0)?)
}

/// Goes on as this role, with these claims, to the end of the transaction or savepoint.
pub(super) async fn become_role(client: &Client, role: &str, claims: &str) -> Result<()> {
    let sql =
        "select pg_catalog.set_config('search_path', '', true), pg_catalog.set_config('request.jwt.claims', $2, true),
                      pg_catalog.set_config('role', $1, true)";
    client.query_typed(sql, &[(&role, Type::TEXT), (&claims, Type::TEXT)]).await?;
    Ok(())
}

/// The first of these tables (schemas and names) of which the role at hand sees all rows.
pub(super) async fn unguarded(client: &Client, schemas: &[&str], names: &[&str]) -> Result<Option<String>> {
    let sql = include_str!("../../sql/push_unguarded.sql");
    let rows = client.query_typed(sql, &[(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)]).await?;
    rows.first().map(|row| Ok(row.try_get(0)?)).transpose()
}
