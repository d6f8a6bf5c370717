//! A real MariaDB with a binlog, started by whoever runs the tests; a MySQL where `TEST_MYSQL=mysql` says so.

use mysql_async::{Conn, OptsBuilder};
use pgflume::demo::mysql_server::{self, Kind};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

/// Whose servers the tests of `mysql::` run against.
pub fn kind() -> Kind {
    match std::env::var("TEST_MYSQL").as_deref() {
        Ok("mysql") => Kind::MySql,
        _ => Kind::MariaDb,
    }
}

/// Whether they run against a MySQL.
pub fn is_mysql() -> bool {
    kind() == Kind::MySql
}

/// A statement as this kind of server takes it: MariaDB's tables of numbers, `seq_1_to_9`, and
/// some of its words are known to no MySQL.
pub fn said(sql: &str) -> String {
    if !is_mysql() {
        return sql.to_owned();
    }
    let mut sql = sql.to_owned();
    for (mariadb, mysql) in [
        ("binlog monitor", "replication client"),
        ("reset master", "reset binary logs and gtids"),
        (" with system versioning", ""),
        ("information_schema.global_status", "performance_schema.global_status"),
    ] {
        sql = sql.replace(mariadb, mysql);
    }
    let mut parts = sql.split("seq_");
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && !"_to".contains(c)).unwrap_or(part.len());
        match part[..end].split_once("_to_") {
            Some((first, last)) => said.push_str(&format!(
                "(with recursive n (seq) as (select {first} union all select seq + 1 from n where seq < {last}) select seq from n) n"
            )),
            None => said.push_str(&format!("seq_{}", &part[..end])),
        }
        said.push_str(&part[end..]);
    }
    said
}

/// One server.
pub struct MySqlServer(Mutex<mysql_server::MySqlServer>);

impl MySqlServer {
    /// Makes its files and starts it, with further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let deep: &[&str] = if is_mysql() { &["--cte-max-recursion-depth=10000000"] } else { &[] };
        let arguments = [deep, arguments].concat();
        Self(Mutex::new(mysql_server::MySqlServer::start(kind(), &arguments, false).unwrap_or_else(|e| panic!("{e}"))))
    }

    /// A connection as root.
    pub async fn connect(&self, database: Option<&str>) -> Conn {
        self.reach(database).await.expect("the server takes a connection")
    }

    /// The same, where it may be gone.
    pub async fn reach(&self, database: Option<&str>) -> mysql_async::Result<Conn> {
        let socket = self.server().socket();
        Conn::new(OptsBuilder::default().socket(socket.to_str()).user(Some("root")).db_name(database)).await
    }

    /// Whose it is.
    pub fn kind(&self) -> Kind {
        self.server().kind()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server().port()
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.server().socket()
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.server().data()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.server().kill();
    }

    /// Starts it, with one argument more, if there is one.
    pub fn start_again(&self, argument: Option<&str>) {
        let mut server = self.server();
        if let Some(argument) = argument {
            server.add_argument(argument);
        }
        server.start_again().unwrap_or_else(|e| panic!("{e}"));
    }

    fn server(&self) -> MutexGuard<'_, mysql_server::MySqlServer> {
        self.0.lock().unwrap()
    }
}
