//! How long after its commit a change is readable in the replica that `pgflume serve --follow` keeps.

use crate::ground::{Ground, Home, Kind, connect};
use crate::parts::http;
use crate::report::Section;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::schema::Schema;
use pgflume::core::value::Cell;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};
use pgflume::replica::local::Local;
use pgflume::replica::remote::Remote;
use pgflume::replica::target::Target;
use pgflume::replica::{Statement, Store};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const SCHEMA: &str = r#"{"fresh":{"primaryKey":"id","columns":{"id":"INTEGER","version":"INTEGER"}}}"#;

/// How long the reader rests between two looks.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// Writers at most; each commits to a row of its own.
pub const WRITERS: u64 = 16;

/// `serve --follow`, ended with its value.
pub struct Following(Child);

impl Following {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// By a `schema.json` with these definitions, once it listens.
    pub async fn start(ground: &Ground, target: &Target, definition: &str, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let schema = directory.path().join("schema.json");
        std::fs::write(&schema, definition).unwrap();
        let (url, token) = match target {
            Target::File(path) => (path.display().to_string(), None),
            Target::Remote { url, token } => (url.clone(), token.clone()),
            Target::Given(_) => unreachable!(),
        };
        let port = pgflume::demo::postgres::free_port().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command
            .args(["serve", "--follow", "--port", &port.to_string()])
            .env("PGMQ_URL", &ground.url)
            .env("LIBSQL_URL", url);
        command.envs(token.map(|t| ("LIBSQL_AUTH_TOKEN", t.expose().to_owned())));
        command.env("SCHEMA_FILE", &schema).env("RUST_LOG", "off").env("WEBHOOK_SIGNATURE", "x".repeat(40));
        command.envs(variables.iter().copied());
        let following = Self(command.spawn().unwrap());
        while http::get_status(&format!("http://127.0.0.1:{port}/health")) != Some(200) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        following
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Commits at some rates to a file and to sqld.
pub async fn run(ground: &Ground) -> Section {
    let duration = Duration::from_secs(if ground.is_quick { 4 } else { 15 });
    let make = format!(
        "drop table if exists fresh;\ncreate table fresh (id int primary key, version int);\ninsert into fresh select i, 0 from generate_series(1, {WRITERS}) i"
    );
    ground.sql(&make).await;
    let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    let samples = if ground.is_quick { 20 } else { 200 };
    let rates =
        [1, 20, 100, 1000].map(|rate| (Kind::File, rate)).into_iter().chain([(Kind::Sqld, 20), (Kind::Sqld, 100)]);
    for (kind, per_second) in rates {
        set_up(ground, &schema).await;
        let home = Home::new(kind);
        let _following = follow_by(ground, &home.target(), SCHEMA).await;
        let replica = reader(&home.target()).await;
        let enough = Duration::from_secs(samples).div_f64(per_second as f64);
        let (late, achieved) = measure(ground, &*replica, per_second, duration.max(enough)).await;
        let ms = |share: f64| late[((late.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let place = if kind == Kind::File { "file" } else { "sqld" };
        let name = format!("{per_second} commits/s, {place}");
        rows.push(vec![
            name.clone(),
            format!("{achieved:.0}"),
            format!("{:.1}", ms(0.5)),
            format!("{:.1}", ms(0.95)),
            format!("{:.1}", ms(0.99)),
        ]);
        bars.push((format!("{name}, p50"), ms(0.5)));
        bars.push((format!("{name}, p99"), ms(0.99)));
    }
    Section {
        name: "freshness",
        what: "Milliseconds from the return of a commit until a reader of the replica sees it, with `serve --follow`. The reader looks every 0.5 ms."
            .into(),
        head: vec!["commits", "achieved/s", "p50", "p95", "p99"],
        rows,
        plot: ("From commit to readable, ms".into(), bars),
    }
    .print()
}

/// Captures its tables, and forgets the replica that the queue had.
pub async fn set_up(ground: &Ground, schema: &Arc<Schema>) {
    ground.forget().await;
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    setup(&PgUrl::parse(&ground.url).unwrap(), schema, &queue, &SetupOptions::default()).await.unwrap();
}

/// By a `schema.json` that has the table `fresh`, once the replica has all its rows.
pub async fn follow_by(ground: &Ground, target: &Target, definition: &str) -> Following {
    let following = Following::start(ground, target, definition, &[]).await;
    let replica = reader(target).await;
    ground.sql("update fresh set version = version + 1").await;
    let count = || Statement::new("SELECT count(*) FROM fresh", vec![]);
    let there = async || replica.read(count()).await.is_ok_and(|rows| rows[0][0] == Cell::Integer(WRITERS as i64));
    while !there().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    following
}

/// Comes back when each table is copied.
pub async fn copied(ground: &Ground) {
    let left = "select count(*) from pgflume.resyncs where phase <> 'done'";
    while ground.client.query_one(left, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A connection that only reads.
pub async fn reader(target: &Target) -> Box<dyn Store> {
    match target {
        Target::File(path) => Box::new(Local::open(path).await.unwrap()),
        Target::Remote { url, token } => Box::new(Remote::new(url, token.clone()).unwrap()),
        Target::Given(_) => unreachable!(),
    }
}

/// Sorted times, and the commits a second that there were.
pub async fn measure(
    ground: &Ground,
    replica: &dyn Store,
    per_second: u64,
    duration: Duration,
) -> (Vec<Duration>, f64) {
    let first: Vec<i64> = versions(replica).await;
    let writers = Writers::start(&ground.url, per_second, duration).await;
    let commits = &writers.commits;
    let mut late = Vec::new();
    let mut seen = first.clone();
    loop {
        let is_over = writers.are_done();
        let now = versions(replica).await;
        let at = Instant::now();
        for writer in 0..commits.len() {
            let commits = commits[writer].lock().unwrap();
            for version in seen[writer]..now[writer] {
                // One that is seen before its writer knows took no time at all.
                let committed = commits.get((version - first[writer]) as usize).copied().unwrap_or(at);
                late.push(at.saturating_duration_since(committed));
            }
        }
        seen = now;
        let done: usize = commits.iter().map(|c| c.lock().unwrap().len()).sum();
        if is_over && late.len() >= done {
            break;
        }
        // tokio's own sleep is one of whole milliseconds.
        tokio::task::block_in_place(|| std::thread::sleep(LOOK_AGAIN));
    }
    late.sort_unstable();
    let achieved = late.len() as f64 / duration.as_secs_f64();
    (late, achieved)
}

/// Some who commit at a rate, each to a row of its own of `fresh`.
pub struct Writers {
    /// When each commit of each of them had returned.
    pub commits: Vec<Arc<Mutex<Vec<Instant>>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// As many as it takes for so many a second, for so long.
    pub async fn start(url: &str, per_second: u64, duration: Duration) -> Self {
        let writers = WRITERS.min(per_second.div_ceil(60));
        let commits: Vec<Arc<Mutex<Vec<Instant>>>> = (0..writers).map(|_| Arc::default()).collect();
        let started = Instant::now();
        let mut tasks = Vec::new();
        for writer in 0..writers {
            let (client, commits) = (connect(url).await, commits[writer as usize].clone());
            let pause = Duration::from_secs_f64(writers as f64 / per_second as f64);
            tasks.push(tokio::spawn(async move {
                let mut due = Instant::now() + pause.mul_f64(writer as f64 / writers as f64);
                let sql = format!("update fresh set version = version + 1 where id = {}", writer + 1);
                while started.elapsed() < duration {
                    tokio::time::sleep_until(due.into()).await;
                    client.batch_execute(&sql).await.unwrap();
                    commits.lock().unwrap().push(Instant::now());
                    due += pause;
                }
            }));
        }
        Self { commits, tasks }
    }

    /// Whether all have ended.
    pub fn are_done(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }
}

async fn versions(replica: &dyn Store) -> Vec<i64> {
    let rows = replica.read(Statement::new("SELECT version FROM fresh ORDER BY id", vec![])).await.unwrap();
    rows.iter().map(|row| if let Cell::Integer(version) = row[0] { version } else { 0 }).collect()
}
