//! One turn of one engine: a new database, a first copy, what is then written, and what it took.

use super::engine::{Engine, Installed, Running};
use super::reader::{Reader, now_ns};
use super::source::{Database, Source};
use super::usage::{Peak, memory_bytes, resident_bytes};
use crate::freshness::Writers;
use crate::ground::connect;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Connections that write single rows at once.
pub const CONNECTIONS: i64 = 4;

/// Commits a second.
pub const RATES: [u64; 4] = [1, 20, 100, 1000];

/// The rate at which the processor time of following is taken.
pub const STEADY: u64 = 100;

/// After a write is readable: whatever is tidied up then was caused by it.
const SETTLE: Duration = Duration::from_secs(1);

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rows of the table.
    pub rows: i64,
    /// Transactions of one row each.
    pub singles: i64,
    /// Turns of each engine.
    pub rounds: usize,
    /// How long commits come at each of [`RATES`].
    pub seconds: [u64; 4],
    /// How long all is left alone after the highest rate.
    pub rest_s: u64,
    /// How long nothing comes, after that.
    pub idle_s: u64,
}

/// What is measured as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// From nothing to all rows.
    Copy,
    /// A fifth of the rows, by one statement.
    Update,
    /// Another fifth.
    Delete,
    /// Single rows, a transaction each.
    Singles,
}

/// What one step took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds until the writes had been committed.
    pub written_s: f64,
    /// From then until all was readable.
    pub readable_s: f64,
    /// Seconds of a processor.
    pub process_s: f64,
    /// The same of all of Postgres.
    pub postgres_s: f64,
    /// What Postgres wrote to its log.
    pub wal_mb: f64,
}

/// What a turn found.
#[derive(Debug, Default)]
pub struct Turn {
    /// Of the steps that there are for this engine.
    pub costs: BTreeMap<Step, Cost>,
    /// Milliseconds from commit to readable, by commits a second.
    pub late_ms: BTreeMap<u64, Vec<f64>>,
    /// Percent of a processor, its own and Postgres', at [`STEADY`] commits a second.
    pub steady: Option<[f64; 2]>,
    /// The same while nothing was written.
    pub idle: Option<[f64; 2]>,
    /// Its most memory while rows came in bulk.
    pub peak_mb: f64,
    /// Its memory after all that, at rest.
    pub rest_mb: Option<f64>,
    /// The same with what its processes share counted in each.
    pub rest_resident_mb: Option<f64>,
    /// What zero-cache says of its first copy.
    pub logged_copy_s: Option<f64>,
}

/// A turn under way.
struct Work<'a> {
    engine: Engine,
    installed: &'a Installed,
    database: &'a Database,
    running: Running,
    turn: Turn,
}

impl Turn {
    /// Takes the engine through everything, on a database named `name`.
    pub async fn take(engine: Engine, installed: &Installed, source: &Source, name: &str, plan: &Plan) -> Self {
        let database = source.database(name, plan.rows).await;
        let running = Running::new(engine);
        let mut work = Work { engine, installed, database: &database, running, turn: Self::default() };
        work.copy(plan).await;
        work.writes(plan).await;
        if engine != Engine::Dlt {
            work.rates(plan).await;
        }
        let turn = work.turn;
        drop(work.running);
        source.drop(database).await;
        turn
    }
}

impl Work<'_> {
    fn follows(&self) -> bool {
        [Engine::Pgflume, Engine::ZeroCache].contains(&self.engine)
    }

    async fn copy(&mut self, plan: &Plan) {
        let (middle, last) = (plan.rows / 2, plan.rows);
        let there = [
            format!("SELECT count(*) = 3 FROM items WHERE id IN (1, {middle}, {last})"),
            format!("SELECT count(*) = {last} FROM items"),
        ];
        match self.engine {
            Engine::Nobody => {}
            Engine::Dlt => self.step(Step::Copy, there, async |_| {}).await,
            Engine::Pgflume | Engine::ZeroCache => {
                let reader = Reader::until(&self.installed.zero, &self.running.replica(), &there).await;
                let (began, before) = (now_ns(), self.spent().await);
                self.running.start(self.installed, self.database);
                let peak = self.running.id().map(Peak::watch);
                let found = reader.found_ns().await;
                self.running.is_following(self.installed, self.database).await;
                self.note(Step::Copy, [began, began, found], before, peak).await;
                self.turn.logged_copy_s = self.running.logged_copy_s();
            }
        }
    }

    async fn writes(&mut self, plan: &Plan) {
        let (fifth, last) = (plan.rows / 5, plan.rows);
        let changed = |rest: i64, rows: i64, count: i64| {
            let keys = [0, 1, 2, 3].map(|n| (5 * (n * (rows - 1) / 3) + rest).to_string()).join(", ");
            let hint = format!("SELECT count(*) = 4 FROM items WHERE id IN ({keys}) AND version = 1");
            [hint, format!("SELECT count(*) = {count} FROM items WHERE version = 1 AND id % 5 = {}", rest % 5)]
        };
        let update = "update items set version = version + 1, at = clock_timestamp() where id % 5 = 0";
        let write = async |database: &Database| database.client.batch_execute(update).await.unwrap();
        self.step(Step::Update, changed(5, fifth, fifth), write).await;
        if self.engine != Engine::Dlt {
            let gone = [format!("SELECT count(*) = 0 FROM items WHERE id IN (1, {})", last - 4), {
                format!("SELECT count(*) = {} FROM items", last - fifth)
            }];
            let write = async |database: &Database| {
                database.client.batch_execute("delete from items where id % 5 = 1").await.unwrap();
            };
            self.step(Step::Delete, gone, write).await;
        }
        let singles = plan.singles;
        let write = async |database: &Database| write_singles(&database.url, singles).await;
        self.step(Step::Singles, changed(2, singles, singles), write).await;
    }

    /// Writes, and waits until the reader has all of it in one snapshot.
    async fn step(&mut self, step: Step, expected: [String; 2], write: impl AsyncFnOnce(&Database)) {
        let (zero, replica) = (&self.installed.zero, self.running.replica());
        let reader = if self.follows() { Some(Reader::until(zero, &replica, &expected).await) } else { None };
        let mut peak = self.running.id().map(Peak::watch);
        let (began, before) = (now_ns(), self.spent().await);
        write(self.database).await;
        let written = now_ns();
        let found = match reader {
            Some(reader) => reader.found_ns().await,
            None if self.engine == Engine::Dlt => {
                self.running.pull(self.installed, self.database, |id| peak = Some(Peak::watch(id))).await;
                let ended = now_ns();
                Reader::until(zero, &replica, &expected).await.found_ns().await;
                ended
            }
            None => written,
        };
        self.note(step, [began, written, found], before, peak).await;
    }

    async fn note(&mut self, step: Step, [began, written, found]: [i64; 3], before: [f64; 3], peak: Option<Peak>) {
        if let Some(peak) = peak {
            self.turn.peak_mb = self.turn.peak_mb.max(peak.end());
        }
        tokio::time::sleep(SETTLE).await;
        let after = self.spent().await;
        let seconds = |from: i64, to: i64| (to - from) as f64 / 1e9;
        let cost = Cost {
            written_s: seconds(began, written),
            readable_s: seconds(written, found).max(0.0),
            process_s: after[0] - before[0],
            postgres_s: after[1] - before[1],
            wal_mb: (after[2] - before[2]) / 1e6,
        };
        self.turn.costs.insert(step, cost);
    }

    /// Processor seconds of its own and of Postgres, and where the log ends.
    async fn spent(&self) -> [f64; 3] {
        [self.running.processor_s(), self.database.processor_s(), self.database.wal_bytes().await]
    }

    async fn rates(&mut self, plan: &Plan) {
        for (rate, seconds) in RATES.into_iter().zip(plan.seconds) {
            if self.follows() || rate == STEADY {
                let before = self.spent().await;
                self.rate(rate, Duration::from_secs(seconds)).await;
                if rate == STEADY {
                    self.turn.steady = Some(self.shares(before, seconds).await);
                }
            }
        }
        // What the highest rate has left behind is tidied up first.
        tokio::time::sleep(Duration::from_secs(plan.rest_s)).await;
        let before = self.spent().await;
        tokio::time::sleep(Duration::from_secs(plan.idle_s)).await;
        self.turn.idle = Some(self.shares(before, plan.idle_s).await);
        self.turn.rest_mb = self.running.id().map(|id| memory_bytes(id) as f64 / 1e6);
        self.turn.rest_resident_mb = self.running.id().map(|id| resident_bytes(id) as f64 / 1e6);
    }

    async fn shares(&self, before: [f64; 3], seconds: u64) -> [f64; 2] {
        let after = self.spent().await;
        [0, 1].map(|i| (after[i] - before[i]) / seconds as f64 * 100.0)
    }

    async fn rate(&mut self, rate: u64, duration: Duration) {
        let sql = "SELECT version FROM fresh ORDER BY id";
        let zero = &self.installed.zero;
        let reader = if self.follows() { Some(Reader::watch(zero, &self.running.replica(), sql).await) } else { None };
        let (instant, ns) = (Instant::now(), now_ns());
        let writers = Writers::start(&self.database.url, rate, duration).await;
        while !writers.are_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let Some(reader) = reader else { return };
        let on_clock = |at: &Instant| ns + i64::try_from(at.duration_since(instant).as_nanos()).unwrap();
        let commits = writers.commits.iter().map(|times| times.lock().unwrap().iter().map(on_clock).collect());
        let commits: Vec<Vec<i64>> = commits.collect();
        let first = reader.seen()[0].1.clone();
        let counts = commits.iter().map(|times| times.len() as i64).chain(std::iter::repeat(0));
        reader.shows(&first.iter().zip(counts).map(|(first, count)| first + count).collect::<Vec<_>>()).await;
        self.turn.late_ms.insert(rate, lateness(&first, &commits, &reader.seen()));
    }
}

/// Milliseconds of each commit until its version, or a later one, was seen.
fn lateness(first: &[i64], commits: &[Vec<i64>], seen: &[(i64, Vec<i64>)]) -> Vec<f64> {
    let of = |(writer, times): (usize, &Vec<i64>)| {
        let mut looks = seen.iter().peekable();
        let mut late = Vec::new();
        for (version, committed) in (first[writer] + 1..).zip(times) {
            while looks.next_if(|look| look.1[writer] < version).is_some() {}
            // One that is seen before its writer knows took no time at all.
            late.push((looks.peek().unwrap().0 - committed).max(0) as f64 / 1e6);
        }
        late
    };
    commits.iter().enumerate().flat_map(of).collect()
}

/// So many transactions of one row each, by a few connections at once.
async fn write_singles(url: &str, singles: i64) {
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let client = connect(url).await;
        tasks.push(tokio::spawn(async move {
            let sql = "update items set version = version + 1, at = clock_timestamp() where id = $1";
            let update = client.prepare(sql).await.unwrap();
            for n in (connection..singles).step_by(CONNECTIONS as usize) {
                client.execute(&update, &[&(5 * n + 2)]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
