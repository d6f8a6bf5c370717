//! Copies a table into a local file and into a real sqld, and compares both sides; in the same run the
//! floor: the same pages read by COPY and written by prepared inserts, with no checks. Prints rows a second
//! as medians and ratios. Then the bar: 2,000,000 rows copied while eight writers change them, by a worker
//! that is killed ten times, watched by a reader, verified, damaged by one bit, and repaired under load.
//!
//! `cargo bench --bench snapshot` (2,000,000 rows, 5 runs), `-- --quick` (300,000, 3 runs).
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking")]

#[path = "../tests/suite/parts/mod.rs"]
mod parts;

use futures_util::TryStreamExt;
use parts::{Sqld, SqldOptions};
use pgflume::config::Config;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::schema::Schema;
use pgflume::core::secret::Secret;
use pgflume::core::value::Cell;
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::operate::resync;
use pgflume::operate::verify::verify;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};
use pgflume::replica::local::Local;
use pgflume::replica::remote::Remote;
use pgflume::replica::target::Target;
use pgflume::replica::{Replica, Store, Work};
use pgflume::sync::Worker;
use pgflume::sync::compare::report::VerifyOptions;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

const SCHEMA: &str = r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT","amount":"DECIMAL","ratio":"REAL","data":"JSON","at":"TEXT","flag":"BOOLEAN","version":"INTEGER"}}}"#;

const COLUMNS: &str =
    "id::text, name::text, amount::text, ratio::text, data::text, to_jsonb(at) #>> '{}', flag::text, version::text";

/// Rows of a page of the floor.
const PAGE: i64 = 50_000;

/// Keys above are inserted and deleted; those below are only changed.
const STEADY: i64 = 1_000_000_000;

struct Bench {
    client: Client,
    url: String,
    schema: Arc<Schema>,
    rows: i64,
}

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|a| a == "--quick");
    let (rows, runs) = if quick { (300_000, 3) } else { (2_000_000, 5) };
    pgflume::core::crypto::install();
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(ClusterOptions::default())).await.unwrap().unwrap();
    let url = cluster.url("postgres");
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    client.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
    let fill = format!(
        "create table items (id bigint primary key, name text, amount numeric, ratio float8, data jsonb, at timestamptz, flag bool, version bigint);
         insert into items select i, 'item number ' || i, i / 100.0, sqrt(i), jsonb_build_object('n', i, 'tags', array['a', 'b']),
             timestamptz '2024-01-01' + i * interval '1 s', i % 3 = 0, 0 from generate_series(1, {rows}) i;
         analyze items"
    );
    client.batch_execute(&fill).await.unwrap();
    client.batch_execute("vacuum items").await.unwrap();
    let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
    setup(&PgUrl::parse(&url).unwrap(), &schema, &QueueName::parse(DEFAULT_QUEUE).unwrap(), &SetupOptions::default())
        .await
        .unwrap();
    let bench = Bench { client, url, schema, rows };
    bench.speeds(runs).await;
    for is_remote in [false, true] {
        bench.bar(is_remote).await;
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

impl Bench {
    async fn speeds(&self, runs: usize) {
        println!("{} rows of 8 columns, median of {runs} runs, rows/s", self.rows);
        let mut rates: [Vec<f64>; 5] = Default::default();
        for _ in 0..runs {
            let directory = tempfile::tempdir().unwrap();
            rates[0].push(self.floor(&directory.path().join("floor.db")).await);
            let file = Target::File(directory.path().join("replica.db"));
            rates[1].push(self.snapshot(&file).await);
            rates[2].push(self.verify(&file).await);
            let sqld = Sqld::start(SqldOptions::default());
            let remote = Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) };
            rates[3].push(self.snapshot(&remote).await);
            rates[4].push(self.verify(&remote).await);
        }
        let [floor, file, file_verify, sqld, sqld_verify] = rates.map(median);
        println!("floor: COPY and prepared inserts, file   {floor:>10.0}");
        println!("snapshot, local file                     {file:>10.0}   {:>5.2} x the floor", file / floor);
        println!("snapshot, sqld                           {sqld:>10.0}   {:>5.2} x the floor", sqld / floor);
        println!(
            "verify, local file                       {file_verify:>10.0}   {:>5.2} x its snapshot",
            file_verify / file
        );
        println!(
            "verify, sqld                             {sqld_verify:>10.0}   {:>5.2} x its snapshot",
            sqld_verify / sqld
        );
    }

    fn config(&self, target: &Target) -> Config {
        Config {
            postgres: PgUrl::parse(&self.url).unwrap(),
            target: target.clone(),
            schema: self.schema.clone(),
            queue: QueueName::parse(DEFAULT_QUEUE).unwrap(),
            rows_per_second: None,
            retention: Duration::ZERO,
            heartbeat: None,
            has_events: false,
            row_bytes: pgflume::postgres::catalog::DEFAULT_ROW_BYTES,
            adopt: false,
            feeding: Default::default(),
        }
    }

    async fn floor(&self, path: &std::path::Path) -> f64 {
        let database = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
        for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"] {
            database.query(pragma, ()).await.unwrap().next().await.unwrap();
        }
        let create = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, amount TEXT, ratio REAL, data TEXT, at TEXT, flag BOOLEAN, version INTEGER)";
        database.execute(create, ()).await.unwrap();
        let started = Instant::now();
        let mut last = i64::MIN;
        loop {
            let sql =
                format!("copy (select {COLUMNS} from items where id > {last} order by id limit {PAGE}) to stdout");
            let stream = self.client.copy_out(&sql).await.unwrap();
            let mut stream = Box::pin(stream);
            database.execute("BEGIN IMMEDIATE", ()).await.unwrap();
            let insert = database.prepare("INSERT INTO items VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)").await.unwrap();
            let mut read = 0;
            while let Some(line) = stream.try_next().await.unwrap() {
                let line = std::str::from_utf8(&line).unwrap().trim_end_matches('\n');
                let fields: Vec<&str> = line.split('\t').collect();
                last = fields[0].parse().unwrap();
                let text = |i: usize| libsql::Value::Text(fields[i].replace("\\\\", "\\"));
                let values = vec![
                    libsql::Value::Integer(last),
                    text(1),
                    text(2),
                    libsql::Value::Real(fields[3].parse().unwrap()),
                    text(4),
                    text(5),
                    libsql::Value::Integer(i64::from(fields[6] == "true")),
                    libsql::Value::Integer(fields[7].parse().unwrap()),
                ];
                insert.execute(libsql::params::Params::Positional(values)).await.unwrap();
                insert.reset();
                read += 1;
            }
            database.execute("COMMIT", ()).await.unwrap();
            if read < PAGE {
                break;
            }
        }
        self.rows as f64 / started.elapsed().as_secs_f64()
    }

    async fn snapshot(&self, target: &Target) -> f64 {
        self.client.batch_execute("delete from pgflume.progress; delete from pgflume.resyncs").await.unwrap();
        let worker = Worker::new(self.config(target));
        worker.drain(Duration::from_secs(60)).await.unwrap();
        resync::request(&worker, &["items"]).await.unwrap();
        let started = Instant::now();
        while worker.drain(Duration::from_secs(600)).await.unwrap().rebuilding > 0 {}
        let copied: i64 = self.client.query_one("select busy_ms from pgflume.resyncs", &[]).await.unwrap().get(0);
        println!(
            "    snapshot: {:.1} s, of them {:.1} s in pages",
            started.elapsed().as_secs_f64(),
            copied as f64 / 1000.0
        );
        self.rows as f64 / started.elapsed().as_secs_f64()
    }

    async fn verify(&self, target: &Target) -> f64 {
        let worker = Worker::new(self.config(target));
        let options = VerifyOptions { tables: vec!["items".into()], ..VerifyOptions::default() };
        let started = Instant::now();
        let report = verify(&worker, options, Arc::default()).await.unwrap();
        let elapsed = started.elapsed();
        assert!(report.is_equal() && report.tables["items"].rows as i64 == self.rows, "{report:?}");
        self.rows as f64 / elapsed.as_secs_f64()
    }

    /// `pgflume sync`, as a user's cron would run it.
    fn sync(&self, target: &Target) -> std::process::Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.arg("sync").env("PGMQ_URL", &self.url).env("RUST_LOG", "off").stdout(std::process::Stdio::null());
        match target {
            Target::File(path) => command.env("LIBSQL_URL", path),
            Target::Remote { url, token } => {
                command.env("LIBSQL_URL", url).env("LIBSQL_AUTH_TOKEN", token.as_ref().unwrap().expose())
            }
            Target::Given(_) => unreachable!(),
        };
        let schema = std::env::temp_dir().join(format!("pgflume-bench-{}.json", std::process::id()));
        std::fs::write(&schema, SCHEMA).unwrap();
        command.env("SCHEMA_FILE", schema).spawn().unwrap()
    }

    async fn one(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn bar(&self, is_remote: bool) {
        let directory = tempfile::tempdir().unwrap();
        let sqld = is_remote.then(|| Sqld::start(SqldOptions::default()));
        let target = match &sqld {
            Some(sqld) => Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) },
            None => Target::File(directory.path().join("replica.db")),
        };
        println!("the bar, {}:", if is_remote { "sqld" } else { "local file" });
        self.client.batch_execute("delete from pgflume.progress; delete from pgflume.resyncs").await.unwrap();
        let worker = Worker::new(self.config(&target));
        worker.drain(Duration::from_secs(60)).await.unwrap();
        resync::request(&worker, &["items"]).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(AtomicU64::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (url, stop, writes, rows) = (self.url.clone(), stop.clone(), writes.clone(), self.rows);
            tasks.spawn(async move { write(&url, writer, rows, &stop, &writes).await });
        }
        let reads = Arc::new(AtomicU64::new(0));
        tasks.spawn(read(target.clone(), self.rows, stop.clone(), reads.clone()));

        let started = Instant::now();
        let (mut kills, mut seen, mut waited) = (0, 0, 0);
        let mut child = self.sync(&target);
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let copied = self.one("select rows from pgflume.resyncs").await;
            assert!(copied >= seen, "it started over");
            let is_done = self.one("select count(*) from pgflume.resyncs where phase <> 'done'").await == 0;
            if is_done {
                break;
            }
            waited += 1;
            // At any moment of a step, and sometimes just after one.
            if kills < 10 && waited > 20 + (kills * 37) % 50 {
                waited = 0;
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                child = self.sync(&target);
            }
            if child.try_wait().unwrap().is_some() {
                child = self.sync(&target);
            }
            seen = copied;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        println!("    copied in {:.1} s, killed {kills} times, resumed each time", started.elapsed().as_secs_f64());
        let options = VerifyOptions { tables: vec!["items".into()], ..VerifyOptions::default() };
        let report = verify(&worker, options.clone(), Arc::default()).await.unwrap();
        assert!(report.is_equal(), "{report:?}");
        println!("    verify under load: equal, {} rows", report.tables["items"].rows);
        // The lowest bit of the last digit.
        let flipped = "substr(amount, 1, length(amount) - 1) || char(unicode(substr(amount, -1)) + 1 - 2 * (unicode(substr(amount, -1)) % 2))";
        plant(&target, &format!("UPDATE items SET amount = {flipped} WHERE id = {}", self.rows / 3)).await;
        let repair = VerifyOptions { repair: true, ..options.clone() };
        let report = verify(&worker, repair, Arc::default()).await.unwrap();
        let items = &report.tables["items"];
        assert!(items.different == 1 && items.repaired == 1 && items.missing + items.extra == 0, "{report:?}");
        println!("    one damaged value found in {:?} and repaired under load", items.examples[0].columns);
        let report = verify(&worker, options.clone(), Arc::default()).await.unwrap();
        assert!(report.is_equal(), "{report:?}");
        stop.store(true, Ordering::Relaxed);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        println!(
            "    {} transactions by 8 writers, {} rows looked at by the reader, none went back or vanished",
            writes.load(Ordering::Relaxed),
            reads.load(Ordering::Relaxed)
        );
        self.client.batch_execute(&format!("delete from items where id > {STEADY}")).await.unwrap();
    }
}

/// Each writer changes keys of its own: rows that stay, and rows that come and go.
async fn write(url: &str, writer: i64, rows: i64, stop: &AtomicBool, writes: &AtomicU64) {
    let client = PgUrl::parse(url).unwrap().connect().await.unwrap();
    let mut n: i64 = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let id = (n * 7919 * 8 + writer) % rows + 1;
        let new = STEADY + n * 8 + writer;
        let sql = format!(
            "update items set version = version + 1 where id = {id};
             insert into items (id, name, version) values ({new}, 'new', 0); delete from items where id = {}",
            new - 800
        );
        client.batch_execute(&sql).await.unwrap();
        writes.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await; // writers of a busy application, not of a benchmark
    }
}

/// Looks at rows again and again: none may vanish once seen, and no version may go down.
async fn read(target: Target, rows: i64, stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) {
    let store: Box<dyn Store> = open(&target).await;
    let replica = Replica::on(store);
    let mut seen: BTreeMap<i64, i64> = BTreeMap::new();
    let mut n: i64 = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let from = (n * 104_729) % rows;
        let found = replica
            .query(
                "SELECT id, version FROM items WHERE id > ?1 AND id <= ?1 + 200 ORDER BY id",
                vec![Cell::Integer(from)],
            )
            .await;
        let Ok(found) = found else { continue }; // busy
        let found: BTreeMap<i64, i64> = found
            .iter()
            .map(|row| match row[..] {
                [Cell::Integer(id), Cell::Integer(version)] => (id, version),
                _ => unreachable!("{row:?}"),
            })
            .collect();
        for (id, version) in seen.range(from + 1..=from + 200) {
            assert!(
                found.get(id).is_some_and(|now| now >= version),
                "row {id} was at {version}, now {:?}",
                found.get(id)
            );
        }
        reads.fetch_add(found.len() as u64, Ordering::Relaxed);
        seen.extend(found);
    }
}

async fn open(target: &Target) -> Box<dyn Store> {
    match target {
        Target::File(path) => Box::new(Local::open(path).await.unwrap()),
        Target::Remote { url, token } => Box::new(Remote::new(url, token.clone()).unwrap()),
        Target::Given(_) => unreachable!(),
    }
}

async fn plant(target: &Target, sql: &str) {
    let work = Work { before: vec![sql.to_owned().into()], ..Work::default() };
    open(target).await.write(work).await.unwrap();
}
