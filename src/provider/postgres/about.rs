//! What a Postgres is, and what its login may do, for people.

use crate::core::error::Result;
use crate::postgres::{PgUrl, Purpose};

/// A server and a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its version, and whether it is a standby.
    pub version: String,
    /// The login.
    pub user: String,
    /// What it may do beyond SELECT on tables, which is all that is needed.
    pub rights: String,
}

/// Asks.
pub async fn about(url: &PgUrl) -> Result<About> {
    let sql = "select pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(), current_user::pg_catalog.text, r.rolsuper, r.rolbypassrls
               from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) current_user";
    let row = url.pinned(Purpose::Pull).await?.query_typed_one(sql, &[]).await?;
    let kind = if row.try_get(1)? { "a standby" } else { "a primary" };
    let rights = match (row.try_get(3)?, row.try_get(4)?) {
        (true, _) => "a superuser: a role with SELECT on the tables is enough",
        (false, true) => "which row-level security does not concern",
        (false, false) => "which needs SELECT on the tables and nothing else",
    };
    Ok(About {
        version: format!("PostgreSQL {}, {kind}", row.try_get::<_, &str>(0)?),
        user: row.try_get(2)?,
        rights: rights.to_owned(),
    })
}
