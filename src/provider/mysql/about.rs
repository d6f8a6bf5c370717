//! What a MySQL is, and what its login may do, for people.

use crate::core::error::Result;
use crate::mysql::MySqlUrl;
use crate::mysql::catalog::get;
use crate::mysql::session::Session;

/// A server and a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its version.
    pub version: String,
    /// The login, as the server knows it.
    pub user: String,
    /// Procedures, functions, triggers and events of the database, which SQLite has not.
    pub not_carried: Vec<String>,
}

/// Asks.
pub async fn about(url: &MySqlUrl) -> Result<About> {
    let mut session = Session::open(url).await?;
    let user = session.row("select current_user()", ()).await?;
    let database = url.database();
    let sql = "select concat(lower(r.routine_type), ' ', r.routine_name) from information_schema.routines r where r.routine_schema = ?
               union all select concat('trigger ', t.trigger_name) from information_schema.triggers t where t.trigger_schema = ?
               union all select concat('event ', e.event_name) from information_schema.events e where e.event_schema = ?
               order by 1";
    let rows = session.rows(sql, (database, database, database)).await?;
    let kind = if session.server.is_mariadb { "MariaDB" } else { "MySQL" };
    Ok(About {
        version: format!("{kind} {}", session.server.version),
        user: get(&user, 0)?,
        not_carried: rows.iter().map(|row| get(row, 0)).collect::<Result<_>>()?,
    })
}
