//! A connection: how it begins, that each statement is prepared and ends in time, and what its failures mean.

use super::url::MySqlUrl;
use crate::core::error::{Cause, Error, ErrorKind, Result, Side};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError, Params, Row, ServerError, Statement, Value};
use std::time::Duration;
use tokio::time::error::Elapsed;

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
    /// None once an answer was given up: the next question would be answered by it.
    conn: Option<Conn>,
    pub server: Server,
}

/// A connection that is dropped says goodbye: the server logs those that do not.
impl Drop for Session {
    fn drop(&mut self) {
        if let (Some(conn), Ok(runtime)) = (self.conn.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(conn.disconnect());
        }
    }
}

impl Session {
    /// Connects, with settings under which values are the same whatever the server's are.
    pub async fn open(url: &MySqlUrl) -> Result<Self> {
        let conn = connect(url).await?;
        let server = Server { is_mariadb: false, version: String::new() };
        let mut session = Self { conn: Some(conn), server };
        let version: String = session.row("select version()", ()).await?.take(0).unwrap_or_default();
        session.server = Server { is_mariadb: version.contains("MariaDB"), version };
        let limit = match session.server.is_mariadb {
            true => format!("max_statement_time = {}", STATEMENT_TIME.as_secs()),
            false => format!("max_execution_time = {}", STATEMENT_TIME.as_millis()),
        };
        session.run(&format!("set session {limit}")).await?;
        if session.server.is_mariadb {
            // A long list of keys is looked up as a list; before 10.3.18 it always is.
            session.run("set session in_predicate_conversion_threshold = 0").await.ok();
        }
        Ok(session)
    }

    /// A statement without rows, by the text protocol: some cannot be prepared.
    pub async fn run(&mut self, sql: &str) -> Result<()> {
        let answer = tokio::time::timeout(PATIENCE, self.conn()?.query_drop(sql)).await;
        self.answered(answer)
    }

    /// All rows of a statement.
    pub async fn rows(&mut self, sql: &str, parameters: impl Into<Params> + Send) -> Result<Vec<Row>> {
        let parameters = parameters.into();
        let conn = self.conn()?;
        let reading = async {
            let statement = prepared(conn, sql, &parameters).await?;
            conn.exec(&statement, parameters).await
        };
        let answer = tokio::time::timeout(PATIENCE, reading).await;
        self.answered(answer)
    }

    /// Whether the server had something to remark on the last statement that was prepared.
    pub fn has_warnings(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.get_warnings() > 0)
    }

    /// Rows of a statement up to so many bytes, one row more at least; the others are passed over, and whether there were
    /// any.
    pub async fn first_rows(
        &mut self,
        sql: &str,
        parameters: impl Into<Params> + Send,
        most_bytes: usize,
    ) -> Result<(Vec<Row>, bool)> {
        let parameters = parameters.into();
        let conn = self.conn()?;
        let reading = async {
            let statement = prepared(conn, sql, &parameters).await?;
            let mut result = conn.exec_iter(&statement, parameters).await?;
            let (mut rows, mut bytes, mut is_cut) = (Vec::new(), 0, false);
            while let Some(row) = result.next().await? {
                if bytes > most_bytes {
                    is_cut = true;
                    continue;
                }
                bytes += (0..row.len()).filter_map(|at| row.as_ref(at)).map(bytes_of).sum::<usize>();
                rows.push(row);
            }
            Ok((rows, is_cut))
        };
        let answer = tokio::time::timeout(PATIENCE, reading).await;
        self.answered(answer)
    }

    /// The one row of a statement.
    pub async fn row(&mut self, sql: &str, parameters: impl Into<Params> + Send) -> Result<Row> {
        let row = self.rows(sql, parameters).await?.into_iter().next();
        row.ok_or_else(|| Error::retry("the server gave no row where it should; it will be asked again"))
    }

    fn conn(&mut self) -> Result<&mut Conn> {
        self.conn.as_mut().ok_or_else(|| Error::retry("the connection to MySQL was given up; it will be opened again"))
    }

    fn answered<T>(&mut self, answer: std::result::Result<mysql_async::Result<T>, Elapsed>) -> Result<T> {
        match answer {
            Ok(answer) => answer.map_err(error),
            Err(_) => {
                self.conn = None;
                Err(Error::retry("MySQL does not answer: the connection is given up, and it will be tried again"))
            }
        }
    }
}

/// The statement, which the driver keeps; one that has other parameters than ours would end the connection.
async fn prepared(conn: &mut Conn, sql: &str, parameters: &Params) -> mysql_async::Result<Statement> {
    let statement = conn.prep(sql).await?;
    let supplied = match parameters {
        Params::Empty => 0,
        Params::Named(all) => all.len(),
        Params::Positional(all) => all.len(),
    };
    match usize::from(statement.num_params()) == supplied {
        true => Ok(statement),
        false => Err(DriverError::StmtParamsMismatch { required: statement.num_params(), supplied }.into()),
    }
}

fn bytes_of(value: &Value) -> usize {
    if let Value::Bytes(bytes) = value { bytes.len() } else { 8 }
}

/// Servers that take no encrypted connection: asked each time, they log each time that somebody went away.
mod plain {
    use super::MySqlUrl;
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    /// After so long they are asked again.
    const ASKED: Duration = Duration::from_secs(600);

    static KNOWN: Mutex<BTreeMap<(String, u16), Instant>> = Mutex::new(BTreeMap::new());

    /// Whether it was found to be one, not long ago, and the URL lets that be.
    pub fn has(url: &MySqlUrl) -> bool {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        url.attempts().len() > 1 && known.get(&url.place()).is_some_and(|at| at.elapsed() < ASKED)
    }

    pub fn add(url: &MySqlUrl) {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(url.place(), Instant::now());
    }
}

pub(crate) async fn connect(url: &MySqlUrl) -> Result<Conn> {
    let setup = vec![
        "set names utf8mb4".to_owned(),
        "set session time_zone = '+00:00', sql_mode = '', sql_select_limit = 18446744073709551615".to_owned(),
        format!("set session lock_wait_timeout = {LOCK_SECONDS}, net_write_timeout = 600, wait_timeout = 28800"),
        "set session transaction isolation level repeatable read".to_owned(),
        // A sort goes by so many bytes of a text.
        "set session max_sort_length = 8388608".to_owned(),
    ];
    for &encrypted in url.attempts().iter().filter(|&&encrypted| !encrypted || !plain::has(url)) {
        let options = url.options(encrypted, setup.clone())?;
        let tried = tokio::time::timeout(CONNECT_TIME, Conn::new(options)).await;
        match tried {
            Ok(Ok(conn)) => return Ok(conn),
            Ok(Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))) if url.attempts().len() > 1 => {
                plain::add(url);
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

fn unreached(e: mysql_async::Error) -> Error {
    match &e {
        mysql_async::Error::Server(ServerError { code: code @ (1044 | 1045 | 1049 | 1130 | 1251 | 1698 | 2061), state, .. }) => {
            Error::side(format!(
                "MySQL says {code} ({state}): the login is refused: check user, password, database, and from where the user may log in"
            ))
            .caused_by(e)
        }
        mysql_async::Error::Server(_) => error(e),
        // What the driver says of sockets and certificates holds no secret.
        other => Error::side(format!("MySQL cannot be reached ({other}): check the host, the port and ssl-mode"))
            .caused_by(e),
    }
}

/// What a failure means. What the server says may quote values, so its text is not shown.
pub(crate) fn error(e: mysql_async::Error) -> Error {
    if is_too_large(&e) {
        return Error::halt("a row is larger than the driver takes (1 GB): leave its long columns out")
            .of_postgres("08S01", Cause::Table)
            .caused_by(e);
    }
    if let mysql_async::Error::Driver(
        DriverError::MixedParams | DriverError::Params(_) | DriverError::StmtParamsMismatch { .. },
    ) = &e
    {
        return Error::halt("`where` of its definition has a `?` or a `:name` outside of quotes, which stands for a parameter: write it otherwise")
            .of_postgres("HY000", Cause::Table)
            .caused_by(e);
    }
    let mysql_async::Error::Server(server) = &e else {
        return Error::retry("the connection to MySQL is broken; it will be tried again").caused_by(e);
    };
    let ServerError { code, state, .. } = server;
    let said = |text: &str| format!("MySQL says {code} ({state}): {text}");
    let made = match code {
        1040 | 1203 => Error::retry(said("it has no connection left; it will be tried again")),
        1226 => Error::retry(said("the login has used up what it may ask for in an hour, or its connections; it will be tried again")),
        1461 => Error::retry(said("it has no prepared statement left (max_prepared_stmt_count); it will be tried again")),
        1820 | 1862 | 3118 | 4151 => {
            Error::side(said("the login's password has expired, or it is locked: give it a new one, or unlock it"))
        }
        1129 => Error::side(said("it refuses this host after too many broken connections: run FLUSH HOSTS there")),
        1153 => Error::halt(said(
            "a statement or a row is larger than max_allowed_packet: raise it on the server, or leave long columns out",
        ))
        .of_postgres(state, Cause::Table),
        1021 | 1041 | 1135 => Error::retry(said("it is out of disk, memory or threads; it will be tried again")),
        1047 | 1615 | 4031 => Error::retry(said("it is not ready, or has ended the session; it will be tried again")),
        1044 | 1045 | 1449 => Error::halt(said("a view's definer is gone, or may not read this: make it anew"))
            .of_postgres(state, Cause::Table),
        145 | 1194 | 1195 => Error::halt(said("the table is broken: run CHECK TABLE and REPAIR TABLE on it"))
            .of_postgres(state, Cause::Table),
        1142 | 1143 | 1370 => Error::halt(said("the login may not read this: grant select on it, or leave it out"))
            .of_postgres(state, Cause::Table),
        1051 | 1054 | 1146 | 1412 | 1356 => {
            Error::halt(said("a table is not as it was, or gone")).of_postgres(state, Cause::Table)
        }
        1205 => Error::new(ErrorKind::Locked, said("another session keeps a lock on the table's definition")),
        1969 | 3024 | 1317 => {
            Error::retry(said("a statement took longer than a minute, or was cancelled: counting rows takes an index that is small, finding changed ones an index on the stamp"))
                .of_postgres(state, Cause::Cancelled)
        }
        1053 | 1077 | 1079 | 1152 | 1184 | 1158 | 1159 | 1160 | 1161 | 1213 | 1927 => {
            Error::retry(said("the connection ended; it will be tried again"))
        }
        _ => Error::halt(said(
            "look it up in the server's list of errors; where a definition has a `where`, look at that",
        ))
        .of_postgres(state, Cause::Table),
    };
    made.caused_by(e)
}

/// Whether the driver has given a packet up because of its size.
fn is_too_large(e: &mysql_async::Error) -> bool {
    match e {
        mysql_async::Error::Driver(DriverError::PacketTooLarge) => true,
        mysql_async::Error::Io(IoError::Io(e)) => e.to_string().contains("Packet too large"),
        _ => false,
    }
}

/// A failure of one table only.
pub(crate) fn of_table(error: Error, table: &str) -> Error {
    match error.cause() {
        Some(Cause::Table | Cause::Cancelled | Cause::Row) => error.of_table(table, Side::Source),
        _ => error,
    }
}
