//! A connection: how it begins, that each statement is prepared and ends in time, and what its failures mean.

use super::url::MySqlUrl;
use crate::core::error::{Cause, Error, ErrorKind, Result, Side};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Params, Row, ServerError};
use std::time::Duration;

/// How long one statement may take.
pub(crate) const STATEMENT_TIME: Duration = Duration::from_secs(60);

/// How long the server is waited for, whatever it was asked.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long it may take to connect.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// How long a lock on a table's definition is waited for, in seconds: the server takes no less.
const LOCK_SECONDS: u32 = 1;

/// A server, as it says what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub version: String,
    pub is_mariadb: bool,
}

/// A connection to one.
pub(crate) struct Session {
    conn: Conn,
    pub server: Server,
}

impl Session {
    /// Connects, with settings under which values are the same whatever the server's are.
    pub async fn open(url: &MySqlUrl) -> Result<Self> {
        let mut conn = connect(url).await?;
        let version: Option<String> = within(conn.exec_first("select version()", ())).await?;
        let version = version.unwrap_or_default();
        let server = Server { is_mariadb: version.contains("MariaDB"), version };
        let mut session = Self { conn, server };
        let limit = match session.server.is_mariadb {
            true => format!("max_statement_time = {}", STATEMENT_TIME.as_secs()),
            false => format!("max_execution_time = {}", STATEMENT_TIME.as_millis()),
        };
        session.run(&format!("set session {limit}")).await?;
        Ok(session)
    }

    /// A statement without rows, by the text protocol: some cannot be prepared.
    pub async fn run(&mut self, sql: &str) -> Result<()> {
        within(self.conn.query_drop(sql)).await
    }

    /// All rows of a statement.
    pub async fn rows(&mut self, sql: &str, parameters: impl Into<Params> + Send) -> Result<Vec<Row>> {
        within(self.conn.exec(sql, parameters.into())).await
    }

    /// The one row of a statement.
    pub async fn row(&mut self, sql: &str, parameters: impl Into<Params> + Send) -> Result<Row> {
        let row: Option<Row> = within(self.conn.exec_first(sql, parameters.into())).await?;
        row.ok_or_else(|| Error::retry("the server gave no row where it should; it will be asked again"))
    }
}

async fn connect(url: &MySqlUrl) -> Result<Conn> {
    let setup = vec![
        "set session time_zone = '+00:00', sql_mode = '', character_set_results = 'utf8mb4'".to_owned(),
        format!("set session lock_wait_timeout = {LOCK_SECONDS}, net_write_timeout = 600, wait_timeout = 28800"),
        "set session transaction isolation level repeatable read".to_owned(),
    ];
    for &encrypted in url.attempts() {
        let options = url.options(encrypted, setup.clone())?;
        let tried = tokio::time::timeout(CONNECT_TIME, Conn::new(options)).await;
        match tried {
            Ok(Ok(conn)) => return Ok(conn),
            Ok(Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))) if url.attempts().len() > 1 => {
            }
            Ok(Err(e)) => return Err(unreached(e)),
            Err(_) => {
                return Err(Error::side(format!(
                    "MySQL does not answer within {} s: check the host, the port and the firewall",
                    CONNECT_TIME.as_secs()
                )));
            }
        }
    }
    Err(Error::side("MySQL takes no encrypted connection: set ssl-mode=DISABLED where that is meant"))
}

/// The answer, or that there was none in time.
async fn within<T>(answer: impl Future<Output = mysql_async::Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(error),
        Err(_) => Err(Error::retry("MySQL does not answer: the connection is given up, and it will be tried again")),
    }
}

fn unreached(e: mysql_async::Error) -> Error {
    match &e {
        mysql_async::Error::Server(_) => error(e),
        // What the driver says of sockets and certificates holds no secret.
        other => Error::side(format!("MySQL cannot be reached ({other}): check the host, the port and ssl-mode"))
            .caused_by(e),
    }
}

/// What a failure means. What the server says may quote values, so its text is not shown.
pub(crate) fn error(e: mysql_async::Error) -> Error {
    let mysql_async::Error::Server(server) = &e else {
        return Error::retry("the connection to MySQL is broken; it will be tried again").caused_by(e);
    };
    let ServerError { code, state, .. } = server;
    let said = |text: &str| format!("MySQL says {code} ({state}): {text}");
    let made = match code {
        1044 | 1045 | 1049 | 1130 | 1251 | 1698 | 2061 => Error::side(said(
            "the login is refused: check user, password, database, and from where the user may log in",
        )),
        1040 | 1203 | 1226 => Error::retry(said("it has no connection left; it will be tried again")),
        1142 | 1143 | 1370 => Error::halt(said("the login may not read this: grant select on it, or leave it out"))
            .of_postgres(state, Cause::Table),
        1051 | 1054 | 1146 | 1412 | 1356 => {
            Error::halt(said("a table is not as it was, or gone")).of_postgres(state, Cause::Table)
        }
        1205 => Error::new(ErrorKind::Locked, said("another session keeps a lock on the table's definition")),
        1969 | 3024 | 1317 => {
            Error::retry(said("a statement took too long, or was cancelled")).of_postgres(state, Cause::Cancelled)
        }
        1053 | 1077 | 1079 | 1152 | 1184 | 1158 | 1159 | 1160 | 1161 | 1213 | 1927 => {
            Error::retry(said("the connection ended; it will be tried again"))
        }
        _ => Error::halt(said("see the server's list of errors")).of_postgres(state, Cause::Other),
    };
    made.caused_by(e)
}

/// A failure of one table only.
pub(crate) fn of_table(error: Error, table: &str) -> Error {
    match error.cause() {
        Some(Cause::Table | Cause::Cancelled | Cause::Row) => error.of_table(table, Side::Source),
        _ => error,
    }
}
