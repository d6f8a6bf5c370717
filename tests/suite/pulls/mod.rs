//! Pulls: a Postgres where nothing is installed and a role that may only SELECT, brought to a replica.

mod basics;
mod exact;
mod found;
mod listed;
mod rules;
mod sides;
mod tables;
pub mod watched;
mod writers;

use crate::support::{Db, Home, Path, schema};
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::postgres::PgUrl;
use pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
use pgflume::postgres::init::InitOptions;
use pgflume::provider::StampOptions;
use pgflume::provider::postgres::{PostgresProvider, Wanted};
use pgflume::pull::{Passed, Pull};
use pgflume::replica::{Replica, Rows};
use std::sync::{Arc, OnceLock};

/// A Postgres that can prepare transactions, without any extension.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(own_cluster)
}

/// Fail points, where this process is one of `rules` that leaves one out: who arms them keeps all others waiting.
pub fn armed() -> Option<impl Drop> {
    std::env::var_os("FAILPOINTS").and_then(|_| pgflume::core::failpoint::armed())
}

/// One more.
pub fn own_cluster() -> Cluster {
    let settings = [("fsync", "off"), ("max_connections", "200"), ("max_prepared_transactions", "20")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).unwrap()
}

/// A database, a role that may read its tables, and a replica.
pub struct Rig {
    pub db: Db,
    pub home: Home,
    pub schema: Arc<pgflume::core::schema::Schema>,
    reader: String,
}

impl Rig {
    /// With these tables, all of which the role may read.
    pub async fn new(path: Path, tables: &str, json: &str) -> Self {
        Self::on(Db::on(cluster(), "template1").await, path, tables, json).await
    }

    pub async fn on(db: Db, path: Path, tables: &str, json: &str) -> Self {
        db.sql(tables).await;
        let reader = format!("reader_{}", db.name);
        db.sql(&format!("create role {reader} login")).await;
        let rig = Self { db, home: Home::new(path), schema: schema(json), reader };
        rig.grant().await;
        rig
    }

    /// Lets the role read what there is by now.
    pub async fn grant(&self) {
        self.db.sql(&format!("grant select on all tables in schema public to {}", self.reader)).await;
    }

    /// The database as the role that may only read.
    pub fn reader_url(&self) -> String {
        let mut url = url::Url::parse(&self.db.url()).unwrap();
        url.set_username(&self.reader).unwrap();
        url.into()
    }

    pub fn provider(&self) -> PostgresProvider {
        PostgresProvider {
            url: PgUrl::parse(&self.reader_url()).unwrap(),
            wanted: Wanted::Defined(self.schema.clone()),
            row_bytes: DEFAULT_ROW_BYTES,
            stamps: StampOptions { every: std::time::Duration::from_secs(1), ..StampOptions::default() },
        }
    }

    pub fn reader(&self) -> &str {
        &self.reader
    }

    /// All tables that the role may read.
    pub fn named(&self) -> PostgresProvider {
        PostgresProvider { wanted: Wanted::Named(InitOptions::default()), ..self.provider() }
    }

    pub fn pull(&self) -> Pull {
        Pull::new("p".into(), Arc::new(self.provider()), self.home.target(), false)
    }

    pub async fn pass(&self) -> Passed {
        self.pull().pass().await.unwrap()
    }

    pub async fn pass_named(&self) -> Passed {
        Pull::new("p".into(), Arc::new(self.named()), self.home.target(), false).pass().await.unwrap()
    }

    /// Both sides have the same rows of these columns.
    pub async fn assert_equal(&self, table: &str, columns: &[&str]) {
        let here = self.rows(&format!("SELECT {} FROM {table} ORDER BY 1", columns.join(", "))).await;
        let row: Vec<_> = columns.iter().map(|c| format!("coalesce({c}::text, 'NULL')")).collect();
        let there = self
            .source(&format!("select concat_ws('|', {}) from {table} order by {}", row.join(", "), columns[0]))
            .await;
        assert_eq!(here, there, "{table}");
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

    /// Rows of the source in the same form.
    pub async fn source(&self, sql: &str) -> Vec<String> {
        self.db.all(sql).await
    }
}
