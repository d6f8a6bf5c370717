//! Pulls from a MariaDB, or a MySQL (`TEST_MYSQL=mysql`): by a login that may only SELECT, and by one that may read the binlog, too (`told`).

mod basics;
mod commands;
mod corpus;
mod faults;
mod hidden;
mod keys;
mod large;
mod manners;
mod of_mysql;
mod plans;
mod quiet;
mod ranges;
mod restarts;
mod schemas;
mod told;
mod told_writers;
mod tutorial;
mod values;
mod views;
mod writers;

use crate::parts::mysql_server::{MySqlServer, is_mysql, said};
use crate::support::{Home, Path, schema};
use mysql_async::prelude::Queryable;
use pgflume::core::schema::Schema;
use pgflume::mysql::MySqlUrl;
use pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
use pgflume::provider::StampOptions;
use pgflume::provider::mysql::{MySqlProvider, Quiet, Wanted};
use pgflume::pull::{Passed, Pull};
use pgflume::replica::{Replica, Rows};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One for the run.
pub fn server() -> &'static Arc<MySqlServer> {
    static SERVER: OnceLock<Arc<MySqlServer>> = OnceLock::new();
    SERVER.get_or_init(|| Arc::new(MySqlServer::start(&[])))
}

/// Definitions of no table that is there.
pub const NONE: &str = r#"{"none":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;

/// A database, a login that may read it, and a replica.
pub struct Rig {
    server: Arc<MySqlServer>,
    pub name: String,
    pub home: Home,
    pub schema: Arc<Schema>,
    pub stamps: StampOptions,
}

impl Rig {
    /// With these tables.
    pub async fn new(path: Path, tables: &str, json: &str) -> Self {
        Self::on(server().clone(), path, tables, json).await
    }

    /// The same in another server.
    pub async fn on(server: Arc<MySqlServer>, path: Path, tables: &str, json: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("d{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut root = server.connect(None).await;
        for sql in [
            format!("create database {name} character set utf8mb4"),
            format!("create user {name}@'%' identified by 'p@:/ß'"),
            format!("grant select on {name}.* to {name}@'%'"),
        ] {
            root.query_drop(sql).await.unwrap();
        }
        let stamps = StampOptions { every: Duration::from_secs(1), ..StampOptions::default() };
        let rig = Self { server, name, home: Home::new(path), schema: schema(json), stamps };
        rig.sql(tables).await;
        rig
    }

    /// Without definitions: its tables are pulled by their names.
    pub async fn undefined(path: Path, tables: &str) -> Self {
        Self::new(path, tables, NONE).await
    }

    /// Its server.
    pub fn server(&self) -> &MySqlServer {
        &self.server
    }

    /// Statements, as root.
    pub async fn sql(&self, sql: &str) {
        let mut root = self.server.connect(Some(&self.name)).await;
        root.query_drop(said(sql)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        // All of several statements have run when the connection is through with them.
        root.disconnect().await.unwrap();
    }

    pub fn url(&self) -> MySqlUrl {
        MySqlUrl::parse(&self.plain_url()).unwrap()
    }

    /// The same, as a file has it.
    pub fn plain_url(&self) -> String {
        let (name, port) = (&self.name, self.server.port());
        format!("mysql://{name}:p%40%3A%2F%C3%9F@127.0.0.1:{port}/{name}")
    }

    pub fn provider(&self) -> MySqlProvider {
        let wanted = Wanted::Defined(self.schema.clone());
        let (stamps, quiet) = (self.stamps.clone(), Quiet::default());
        MySqlProvider { url: self.url(), wanted, row_bytes: DEFAULT_ROW_BYTES, stamps, quiet }
    }

    pub fn named(&self) -> MySqlProvider {
        MySqlProvider { wanted: Wanted::Named { tables: Vec::new(), exclude: Vec::new() }, ..self.provider() }
    }

    pub async fn pass(&self) -> Passed {
        self.pass_of(self.provider()).await
    }

    pub async fn pass_of(&self, provider: MySqlProvider) -> Passed {
        Pull::new("p".into(), Arc::new(provider), self.home.target(), false).pass().await.unwrap()
    }

    pub async fn replica(&self, sql: &str) -> Rows {
        let replica = Replica::open(&self.home.target()).await.unwrap();
        replica.query(sql, vec![]).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Rows of the replica as text, `|` between columns.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let show = |row: &Vec<_>| row.iter().map(crate::store::show).collect::<Vec<_>>().join("|");
        self.replica(sql).await.iter().map(show).collect()
    }

    /// The one column of the source's rows.
    pub async fn source(&self, sql: &str) -> Vec<String> {
        self.server.connect(Some(&self.name)).await.query(sql).await.unwrap()
    }
}
