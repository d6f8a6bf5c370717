//! The source that all have in turns: one Postgres, and a new database a turn.

use super::usage;
use crate::freshness::WRITERS;
use crate::ground::{Table, connect};
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use std::time::Duration;
use tokio_postgres::Client;

/// What is given to all, though zero-cache alone needs the first. No checkpoint falls into a measurement, because the
/// pages that it makes Postgres write whole would be counted as somebody's.
const SETTINGS: [(&str, &str); 3] = [("wal_level", "logical"), ("checkpoint_timeout", "1h"), ("max_wal_size", "16GB")];

/// A Postgres of its own.
pub struct Source {
    cluster: Cluster,
    client: Client,
}

/// One turn's database: `items` with so many rows, and `fresh` with a row a writer.
pub struct Database {
    /// Its name.
    name: String,
    /// Its address.
    pub url: String,
    /// A connection to it.
    pub client: Client,
    postmaster: u32,
}

impl Source {
    pub async fn start() -> Self {
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = ClusterOptions { settings, ..ClusterOptions::default() };
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(options)).await.unwrap().unwrap();
        let client = connect(&cluster.url("postgres")).await;
        Self { cluster, client }
    }

    /// Postgres' version.
    pub async fn version(&self) -> String {
        let text: String = self.client.query_one("show server_version", &[]).await.unwrap().get(0);
        text.split(' ').next().unwrap_or_default().to_owned()
    }

    /// A new one.
    pub async fn database(&self, name: &str, rows: i64) -> Database {
        // Pages that are made after a checkpoint are not written whole when they change.
        self.client.batch_execute("checkpoint").await.unwrap();
        self.client.batch_execute(&format!("create database {name}")).await.unwrap();
        let url = self.cluster.url(name);
        let client = connect(&url).await;
        let row = Table::Narrow.row();
        let statements = [
            format!("create table items as select {row} from generate_series(1, {rows}) i"),
            "alter table items add primary key (id)".into(),
            format!("create table fresh as select i as id, 0::bigint as version from generate_series(1, {WRITERS}) i"),
            "alter table fresh alter id type bigint, add primary key (id)".into(),
            "create publication peers for table items, fresh".into(),
            "vacuum analyze".into(),
        ];
        for statement in statements {
            client.batch_execute(&statement).await.unwrap();
        }
        let pid = std::fs::read_to_string(self.cluster.directory().join("data/postmaster.pid")).unwrap();
        let postmaster = pid.lines().next().unwrap().parse().unwrap();
        Database { name: name.into(), url, client, postmaster }
    }

    /// Drops it and its slot, once nobody is left who follows it.
    pub async fn drop(&self, database: Database) {
        let Database { name, client, .. } = database;
        drop(client);
        let slots = format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = '{name}' and active"
        );
        let unused = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{name}' and not active"
        );
        let left = format!("select count(*) from pg_replication_slots where database = '{name}'");
        while self.client.query_one(&left, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            for statement in [&slots, &unused] {
                // One that becomes free, or busy, just now is for the next time round.
                self.client.batch_execute(statement).await.ok();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.client.batch_execute(&format!("drop database {name} with (force)")).await.unwrap();
    }
}

impl Database {
    /// Where the log ends.
    pub async fn wal_bytes(&self) -> f64 {
        let sql = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// What all of Postgres has taken.
    pub fn processor_s(&self) -> f64 {
        usage::processor_s(self.postmaster)
    }
}
