//! Drains the same queue with the reference algorithm and with pgflume, in one run, on a real Postgres
//! and a real sqld; prints messages a second as medians and ratios, and the peak memory of a drain.
//!
//! The reference algorithm: at most 998 messages a call with a visibility timeout, one
//! `INSERT OR REPLACE` a row, all in one batch request, archive, `count(*)`. It is given the same
//! protocol (protobuf) and one connection kept open, which the original does not have.
//!
//! `cargo bench --bench drain` (200,000 messages, 5 runs), `-- --quick` (50,000, 3 runs).
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking")]

#[path = "../tests/suite/parts/mod.rs"]
mod parts;

use parts::{Sqld, SqldOptions};
use pgflume::config::{Config, DEFAULT_QUEUE, QueueName, Target};
use pgflume::demo::postgres::{Cluster, Options};
use pgflume::postgres::PgUrl;
use pgflume::replica::Replica;
use pgflume::replica::hrana::{Encoding, Step, When};
use pgflume::replica::remote::install_crypto;
use pgflume::schema::Schema;
use pgflume::secret::Secret;
use pgflume::sync::Worker;
use pgflume::value::Cell;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// What the reference reads at once.
const REFERENCE_MESSAGES: i64 = 998;

const COLUMNS: [&str; 12] = [
    "id",
    "owner_org",
    "app_id",
    "name",
    "r2_path",
    "user_id",
    "deleted",
    "external_url",
    "checksum",
    "session_key",
    "storage_provider",
    "min_update_version",
];

struct Bench {
    client: Client,
    url: String,
    schema: Arc<Schema>,
    messages: i64,
}

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|a| a == "--quick");
    let (messages, runs) = if quick { (50_000, 3) } else { (200_000, 5) };
    install_crypto();
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(Options::default())).await.unwrap().unwrap();
    let url = cluster.url("postgres");
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    client.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
    client.batch_execute(&format!("select pgmq.create('{DEFAULT_QUEUE}')")).await.unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json")).unwrap();
    let bench = Bench { client, url, schema: Arc::new(Schema::parse(&text).unwrap()), messages };

    println!("{messages} messages on the queue, median of {runs} runs, messages/s (rows/s for marks)");
    let mut rates: [Vec<f64>; 5] = Default::default();
    for _ in 0..runs {
        bench.fill_images(messages).await;
        rates[0].push(bench.reference().await);
        bench.fill_images(messages).await;
        rates[1].push(bench.drain_to_sqld().await);
        bench.fill_images(messages).await;
        rates[2].push(bench.drain_to_file().await);
        bench.fill_marks().await;
        rates[3].push(bench.drain_to_sqld().await);
        bench.fill_marks().await;
        rates[4].push(bench.drain_to_file().await);
    }
    let medians = rates.map(median);
    let names = [
        "reference algorithm, sqld, Capgo-format",
        "pgflume, sqld, Capgo-format",
        "pgflume, local file, Capgo-format",
        "pgflume, sqld, marks of 500 keys",
        "pgflume, local file, marks of 500 keys",
    ];
    for (name, rate) in names.iter().zip(medians) {
        println!("{name:<42} {rate:>10.0}   {:>5.1} x the reference", rate / medians[0]);
    }
    let queued = if quick { 200_000 } else { 1_000_000 };
    println!(
        "{queued} messages drained by `pgflume sync` to sqld, peak resident memory: {} MB",
        bench.peak_memory(queued).await
    );
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

impl Bench {
    async fn fill_images(&self, messages: i64) {
        let sql = format!(
            "truncate pgmq.q_{DEFAULT_QUEUE}, pgmq.a_{DEFAULT_QUEUE}; drop table if exists app_versions; drop schema if exists pgflume cascade;
             insert into pgmq.q_{DEFAULT_QUEUE} (vt, message)
             select now() - interval '1 s', jsonb_build_object('record', to_jsonb(r), 'old_record', null, 'type', 'INSERT', 'table', 'app_versions')
             from (select {ROW} from generate_series(1, {messages}) i) r; vacuum analyze pgmq.q_{DEFAULT_QUEUE}"
        );
        for statement in sql.split(';') {
            self.client.batch_execute(statement).await.unwrap();
        }
    }

    async fn fill_marks(&self) {
        let sql = format!(
            "truncate pgmq.q_{DEFAULT_QUEUE}; drop table if exists app_versions; drop schema if exists pgflume cascade;
             create table app_versions as select {ROW} from generate_series(1, {}) i; alter table app_versions add primary key (id);
             insert into pgmq.q_{DEFAULT_QUEUE} (vt, message)
             select now(), jsonb_build_object('v', 1, 'table', 'app_versions', 'keys', jsonb_agg(jsonb_build_array(id::text)))
             from app_versions group by id / 500; vacuum analyze app_versions",
            self.messages
        );
        for statement in sql.split(';') {
            self.client.batch_execute(statement).await.unwrap();
        }
    }

    async fn drain_to_sqld(&self) -> f64 {
        let sqld = Sqld::start(SqldOptions::default());
        self.drain(Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) }).await
    }

    async fn drain_to_file(&self) -> f64 {
        let directory = tempfile::tempdir().unwrap();
        self.drain(Target::File(directory.path().join("replica.db"))).await
    }

    async fn drain(&self, target: Target) -> f64 {
        let config = Config {
            postgres: PgUrl::parse(&self.url).unwrap(),
            target: target.clone(),
            schema: self.schema.clone(),
            rows_per_second: None,
            retention: Duration::ZERO,
            queue: QueueName::parse(DEFAULT_QUEUE).unwrap(),
        };
        let worker = Worker::new(config);
        let started = Instant::now();
        let done = worker.drain(Duration::from_secs(600)).await.unwrap();
        let elapsed = started.elapsed();
        assert_eq!((done.queued, done.dead), (0, 0));
        self.check(&Replica::open(&target).await.unwrap()).await;
        self.messages as f64 / elapsed.as_secs_f64()
    }

    async fn check(&self, replica: &Replica) {
        let rows = replica.query("SELECT count(*) FROM app_versions", vec![]).await.unwrap();
        assert_eq!(rows[0][0], Cell::Integer(self.messages), "everything has to arrive");
    }

    /// The reference algorithm until the queue is empty.
    async fn reference(&self) -> f64 {
        let sqld = Sqld::start(SqldOptions::default());
        let target = Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) };
        let replica = Replica::open(&target).await.unwrap();
        replica.prepare(&self.schema).await.unwrap();
        let http = reqwest::Client::new();
        let marks: Vec<_> = (1..=COLUMNS.len()).map(|i| format!("?{i}")).collect();
        let insert =
            format!("INSERT OR REPLACE INTO app_versions ({}) VALUES ({})", COLUMNS.join(", "), marks.join(", "));
        let started = Instant::now();
        loop {
            let read =
                format!("select msg_id, message::text from pgmq.read('{DEFAULT_QUEUE}', 30, {REFERENCE_MESSAGES})");
            let messages = self.client.query(&read, &[]).await.unwrap();
            if messages.is_empty() {
                break;
            }
            let plain = |when, sql: &str| Step { when, sql: sql.to_owned(), args: vec![], want_rows: false };
            let mut steps = vec![plain(When::Always, "BEGIN")];
            for row in &messages {
                let message: serde_json::Value = serde_json::from_str(row.get(1)).unwrap();
                let args = COLUMNS.iter().map(|c| cell(&message["record"][c])).collect();
                let when = When::Ok(steps.len() as u32 - 1);
                steps.push(Step { when, sql: insert.clone(), args, want_rows: false });
            }
            let last = steps.len() as u32 - 1;
            steps.push(plain(When::Ok(last), "COMMIT"));
            let request = http.post(format!("{}/v3-protobuf/pipeline", sqld.url())).bearer_auth(sqld.token_rw());
            let body = Encoding::Protobuf.encode(steps);
            let answer = request.header("content-type", "application/x-protobuf").body(body).send().await.unwrap();
            let outcome = Encoding::Protobuf.decode(&answer.bytes().await.unwrap()).unwrap().unwrap();
            assert!(outcome.error.is_none(), "{:?}", outcome.error);
            let ids: Vec<i64> = messages.iter().map(|row| row.get(0)).collect();
            self.client
                .execute(&format!("select pgmq.archive('{DEFAULT_QUEUE}', id) from unnest($1::bigint[]) id"), &[&ids])
                .await
                .unwrap();
            self.client.query_one(&format!("select count(*) from pgmq.q_{DEFAULT_QUEUE}"), &[]).await.unwrap();
        }
        let elapsed = started.elapsed();
        self.check(&replica).await;
        self.messages as f64 / elapsed.as_secs_f64()
    }

    /// Megabytes that `pgflume sync` had resident at its peak.
    async fn peak_memory(&self, queued: i64) -> u64 {
        self.fill_images(queued).await;
        let sqld = Sqld::start(SqldOptions::default());
        let mut child = Command::new(env!("CARGO_BIN_EXE_pgflume"))
            .arg("sync")
            .env("PGMQ_URL", &self.url)
            .env("LIBSQL_URL", sqld.url())
            .env("LIBSQL_AUTH_TOKEN", sqld.token_rw())
            .env("SCHEMA_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json"))
            .env("RUST_LOG", "error")
            .spawn()
            .unwrap();
        let mut peak_kb = 0;
        let status = loop {
            let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            peak_kb = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0).max(peak_kb);
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success());
        peak_kb / 1024
    }
}

/// One row of `app_versions`, as `i` counts.
const ROW: &str = "i as id, '046a36ac-e03c-4590-9257-bd6c9dba9ee8' as owner_org, 'com.demo.app' || i % 100 as app_id,
    '1.' || i as name, 'orgs/046a36ac/apps/com.demo.app/' || i || '.zip' as r2_path, null::text as user_id, i % 10 = 0 as deleted,
    null::text as external_url, md5(i::text) as checksum, null::text as session_key, 'r2' as storage_provider, null::text as min_update_version";

fn cell(value: &serde_json::Value) -> Cell {
    match value {
        serde_json::Value::Null => Cell::Null,
        serde_json::Value::Bool(b) => Cell::Integer(i64::from(*b)),
        serde_json::Value::Number(n) => Cell::Integer(n.as_i64().unwrap()),
        serde_json::Value::String(text) => Cell::Text(text.clone()),
        other => Cell::Text(other.to_string()),
    }
}
