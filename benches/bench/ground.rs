//! What every section stands on: a Postgres with PGMQ, two tables, queues filled in three formats, and targets.

use crate::parts::{Sqld, SqldOptions};
use pgflume::config::Config;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::schema::Schema;
use pgflume::core::secret::Secret;
use pgflume::core::value::Cell;
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::Client;

/// A source table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Eight columns of eight types, no index.
    Narrow,
    /// Capgo's `app_versions`: twelve columns, six indexes.
    Wide,
}

/// How changes stand on the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Capgo's: one row's image a message.
    Images,
    /// Ours, of single-row writes.
    OneKey,
    /// Ours, of bulk writes: 500 keys a message.
    ManyKeys,
    /// Ours, of single-row writes: 1 % of the keys have 90 % of the changes.
    HotKeys,
}

/// Where rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A local file.
    File,
    /// sqld.
    Sqld,
}

/// A replica of its own.
pub enum Home {
    /// Its directory.
    File(TempDir),
    /// Its server.
    Sqld(Box<Sqld>),
}

/// Both tables: the source's definition, a row as `i` counts, and what is replicated.
impl Table {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Narrow => "items",
            Self::Wide => "app_versions",
        }
    }

    /// A row's columns in SQL.
    pub fn row(self) -> &'static str {
        match self {
            Self::Narrow => {
                "i::bigint as id, 'item number ' || i as name, (i / 100.0)::numeric as amount, sqrt(i) as ratio, jsonb_build_object('n', i, 'tags', array['a', 'b']) as data, timestamptz '2024-01-01' + i * interval '1 s' as at, i % 3 = 0 as flag, 0::bigint as version"
            }
            Self::Wide => {
                "i::bigint as id, '046a36ac-e03c-4590-9257-bd6c9dba9ee8' as owner_org, 'com.demo.app' || i % 100 as app_id, '1.' || i as name, 'orgs/046a36ac/apps/com.demo.app/' || i || '.zip' as r2_path, null::text as user_id, i % 10 = 0 as deleted, null::text as external_url, md5(i::text) as checksum, null::text as session_key, 'r2' as storage_provider, null::text as min_update_version"
            }
        }
    }

    /// Its `schema.json`.
    pub fn json(self) -> &'static str {
        match self {
            Self::Narrow => {
                r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT","amount":"DECIMAL","ratio":"REAL","data":"JSON","at":"TEXT","flag":"BOOLEAN","version":"INTEGER"}}}"#
            }
            Self::Wide => {
                r#"{"app_versions":{"primaryKey":"id","columns":{"id":"INTEGER","owner_org":"TEXT","app_id":"TEXT","name":"TEXT","r2_path":"TEXT","user_id":"TEXT","deleted":"BOOLEAN","external_url":"TEXT","checksum":"TEXT","session_key":"TEXT","storage_provider":"TEXT","min_update_version":"TEXT"},"indexes":["owner_org","app_id","user_id","r2_path","external_url","name"]}}"#
            }
        }
    }

    /// What `schema.json` says of it.
    pub fn schema(self) -> Arc<Schema> {
        Arc::new(Schema::parse(self.json()).unwrap())
    }
}

/// The source.
pub struct Ground {
    /// A connection to it.
    pub client: Client,
    /// Its address.
    pub url: String,
    /// Fewer rows and runs.
    pub is_quick: bool,
    cluster: Cluster,
}

impl Ground {
    /// Starts Postgres.
    pub async fn prepare(is_quick: bool) -> Self {
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(ClusterOptions::default())).await.unwrap().unwrap();
        let url = cluster.url("postgres");
        let client = connect(&url).await;
        client.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
        client.batch_execute(&format!("select pgmq.create('{DEFAULT_QUEUE}')")).await.unwrap();
        Self { client, url, is_quick, cluster }
    }

    /// Runs of a measurement: medians of five say something.
    pub fn runs(&self) -> usize {
        if self.is_quick { 3 } else { 5 }
    }

    /// Runs `sql`, statement by statement, because VACUUM goes alone.
    pub async fn sql(&self, sql: &str) {
        for statement in sql.split(";\n") {
            self.client.batch_execute(statement).await.unwrap();
        }
    }

    /// Fills the table.
    pub async fn fill(&self, table: Table, rows: i64) {
        let name = table.name();
        self.sql(&format!(
            "drop table if exists {name};\ncreate table {name} as select {} from generate_series(1, {rows}) i;\n
             alter table {name} add primary key (id);\nvacuum analyze {name}",
            table.row()
        ))
        .await;
    }

    /// Empties the queue, and forgets all replicas.
    pub async fn forget(&self) {
        self.sql(&format!(
            "truncate pgmq.q_{DEFAULT_QUEUE}, pgmq.a_{DEFAULT_QUEUE};\ndrop schema if exists pgflume cascade"
        ))
        .await;
    }

    /// An empty queue without a memory, and what `json` names captured.
    pub async fn capture(&self, json: &str) {
        self.forget().await;
        let (queue, schema) = (QueueName::parse(DEFAULT_QUEUE).unwrap(), Arc::new(Schema::parse(json).unwrap()));
        setup(&PgUrl::parse(&self.url).unwrap(), &schema, &queue, &SetupOptions::default()).await.unwrap();
    }

    /// Puts `changes` of the filled table on the queue.
    pub async fn queue(&self, table: Table, format: Format, changes: i64) {
        let name = table.name();
        let images = |row: &str| {
            format!(
                "jsonb_build_object('record', to_jsonb(r), 'old_record', null, 'type', 'INSERT', 'table', '{name}') from (select {row} from generate_series(1, {changes}) i) r"
            )
        };
        let mark = |keys: &str, from: &str| {
            format!("jsonb_build_object('v', 1, 'table', '{name}', 'keys', {keys}) from {from}")
        };
        let messages = match format {
            Format::Images => images(table.row()),
            Format::OneKey => {
                let key = "(1 + (i - 1) % (select count(*) from t))::text".replace("from t", &format!("from {name}"));
                mark(
                    &format!("jsonb_build_array(jsonb_build_array({key}))"),
                    &format!("generate_series(1, {changes}) i"),
                )
            }
            Format::ManyKeys => mark(
                "jsonb_agg(jsonb_build_array(i::text))",
                &format!("generate_series(1, {changes}) i group by (i - 1) / 500 order by (i - 1) / 500"),
            ),
            Format::HotKeys => {
                let key = format!(
                    "case when i % 10 = 0 then 1 + i % {changes} else 1 + (i * 7919::bigint) % greatest({changes} / 100, 1) end"
                );
                mark(
                    "jsonb_build_array(jsonb_build_array(k::text))",
                    &format!("(select {key} as k from generate_series(1, {changes}) i) k"),
                )
            }
        };
        let queue = format!("pgmq.q_{DEFAULT_QUEUE}");
        self.sql(&format!(
            "insert into {queue} (vt, message) select now() - interval '1 s', {messages};\nanalyze {queue}"
        ))
        .await;
    }

    /// How often a second `clients` of pgbench run `script`, with this `synchronous_commit`.
    pub async fn pgbench(&self, script: &str, clients: u32, seconds: u32, commit: &str) -> f64 {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(script.as_bytes()).unwrap();
        let mut command = std::process::Command::new(self.cluster.bin_dir().join("pgbench"));
        command.args(["--no-vacuum", "--protocol=prepared", "--jobs=1", "--file"]).arg(file.path());
        command.arg(format!("--client={clients}")).arg(format!("--time={seconds}")).arg(&self.url);
        command.env("PGOPTIONS", format!("-c synchronous_commit={commit}"));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        rate.unwrap()
    }

    /// A worker for the replica at `target`.
    pub fn worker(&self, table: Table, target: &Target) -> Worker {
        self.worker_by(&table.schema(), target)
    }

    fn worker_by(&self, schema: &Arc<Schema>, target: &Target) -> Worker {
        Worker::new(Config {
            postgres: PgUrl::parse(&self.url).unwrap(),
            target: target.clone(),
            schema: schema.clone(),
            rows_per_second: None,
            retention: target.default_retention(),
            heartbeat: None,
            has_events: false,
            adopt: false,
            row_bytes: pgflume::postgres::catalog::DEFAULT_ROW_BYTES,
            queue: QueueName::parse(DEFAULT_QUEUE).unwrap(),
        })
    }

    /// Seconds that a drain of so many changes takes, into a replica that is there; afterwards it has `rows`.
    pub async fn drain(&self, table: Table, format: Format, target: &Target, changes: i64, rows: i64) -> f64 {
        self.drain_by(&table.schema(), table, format, target, changes, rows).await
    }

    /// The same by these definitions.
    pub async fn drain_by(
        &self,
        schema: &Arc<Schema>,
        table: Table,
        format: Format,
        target: &Target,
        changes: i64,
        rows: i64,
    ) -> f64 {
        self.forget().await;
        let worker = self.worker_by(schema, target);
        worker.drain(Duration::from_secs(60)).await.unwrap();
        self.queue(table, format, changes).await;
        let started = Instant::now();
        let done = worker.drain(Duration::from_secs(600)).await.unwrap();
        let elapsed = started.elapsed().as_secs_f64();
        assert_eq!((done.queued, done.dead, done.skipped), (0, 0, 0));
        check(table, target, rows).await;
        elapsed
    }
}

/// Panics unless the replica has `rows`.
pub async fn check(table: Table, target: &Target, rows: i64) {
    let replica = Replica::open(target).await.unwrap();
    let there = replica.query(format!("SELECT count(*) FROM {}", table.name()), vec![]).await.unwrap();
    assert_eq!(there[0][0], Cell::Integer(rows), "everything has to arrive");
}

/// A connection to `url`.
pub async fn connect(url: &str) -> Client {
    PgUrl::parse(url).unwrap().connect().await.unwrap()
}

impl Home {
    /// An empty one.
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File(tempfile::tempdir().unwrap()),
            Kind::Sqld => Self::Sqld(Box::new(Sqld::start(SqldOptions::default()))),
        }
    }

    /// Its address.
    pub fn target(&self) -> Target {
        match self {
            Self::File(directory) => Target::File(directory.path().join("replica.db")),
            Self::Sqld(sqld) => Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) },
        }
    }
}
