//! One schedule: two sides, processes that run workers, applications that write, and what happens to all of them.

use super::dice::Dice;
use super::judge::{Judge, Shown, Version};
use super::network::Network;
use super::process::Process;
use super::store::{Mooring, arrive};
use crate::memory::engine::{Lock, Wait};
use crate::memory::link::Memory as Connector;
use crate::memory::postgres::{Postgres, Restored};
use crate::memory::tables::{Reading, Row};
use futures_util::FutureExt;
use pgflume::config::Config;
use pgflume::core::chance::Chance;
use pgflume::core::difference::VerifyReport;
use pgflume::core::error::Error;
use pgflume::core::message::mark_of;
use pgflume::core::position::Head;
use pgflume::core::queue_name::QueueName;
use pgflume::core::schema::Schema;
use pgflume::core::value::Cell;
use pgflume::postgres::books::rebuilds::Reason;
use pgflume::postgres::link::{Connect, Link};
use pgflume::postgres::{PgUrl, Purpose};
use pgflume::replica::memory::Memory;
use pgflume::replica::target::{Given, Target};
use pgflume::replica::{Rows, Statement, Store, Work};
use pgflume::sync::compare::Comparison;
use pgflume::sync::compare::report::VerifyOptions;
use pgflume::sync::{Worker, pairing};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A table that triggers mark, another with a key of two columns, and one that sends images.
const TABLES: &str = r#"{
    "a": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "INTEGER", "p": "TEXT"}},
    "b": {"primaryKey": ["k", "n"], "columns": {"k": "TEXT", "n": "INTEGER", "v": "INTEGER", "p": "TEXT"}},
    "c": {"primaryKey": "id", "columns": {"id": "TEXT", "v": "INTEGER", "p": "TEXT"}}}"#;

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::parse(TABLES).unwrap()));

/// How many times as long as usual a schedule is.
pub static LENGTH: AtomicU32 = AtomicU32::new(1);

/// More steps than any schedule of the usual length has.
const MOST_STEPS: u64 = 3_000;

/// Names of the tables.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// Those that are marked.
pub const MARKED: [&str; 2] = ["a", "b"];

/// What the replica does not take.
pub const POISON: &str = "poison";

/// The version of each row, and the position.
const SHOWN: &str = "SELECT 'a', CAST(id AS TEXT), v, NULL FROM a UNION ALL SELECT 'b', k || ' ' || n, v, NULL FROM b \
    UNION ALL SELECT 'c', id, v, NULL FROM c UNION ALL SELECT 'head', epoch, seq, token FROM _pgflume_head";

const HEAD: &str = "SELECT epoch, seq, token FROM _pgflume_head";

/// How much goes wrong in one schedule.
#[derive(Debug)]
pub struct Mood {
    /// One of so many calls has another fate than to pass; 0: none.
    pub faults: u64,
    /// One of so many writes to the replica arrives late.
    pub late: u64,
    /// How long each takes.
    pub pace: Duration,
    /// Most messages that are taken at once.
    pub takes: i64,
    time: Duration,
    processes: usize,
    writers: usize,
    keys: usize,
    /// How often rows are bad, one in so many; 0: never.
    pub bad: u64,
    rests: Duration,
    rows_per_second: Option<u32>,
    retention: Duration,
    /// How long between two mishaps, and which there are.
    mishaps: Duration,
    crashes: bool,
    restores: bool,
    ddl: bool,
    nukes: bool,
    tampers: bool,
    /// There are marks of the table that sends images.
    leftovers: bool,
}

impl Mood {
    fn roll(dice: &Dice) -> Self {
        let millis = |choices: &[u64]| Duration::from_millis(dice.of(choices));
        Self {
            faults: dice.of(&[0, 40, 150, 400]),
            late: dice.of(&[0, 0, 20, 60]),
            pace: millis(&[0, 0, 0, 0, 300, 1500, 3000]),
            takes: dice.of(&[1000, 1000, 1000, 2, 1]),
            time: millis(&[40, 40, 150, 150, 500, 1500]) * LENGTH.load(Ordering::Relaxed),
            processes: dice.of(&[1, 1, 2, 3]),
            writers: dice.of(&[1, 2, 3]),
            keys: dice.of(&[2, 4, 8]),
            bad: dice.of(&[0, 0, 6, 30]),
            rests: millis(&[50, 150, 500]),
            rows_per_second: dice.of(&[None, None, Some(5), Some(20)]),
            retention: Duration::from_secs(dice.of(&[0, 3600])),
            mishaps: millis(&[50, 200, 1000]),
            crashes: dice.one_in(2),
            restores: dice.one_in(3),
            ddl: dice.one_in(3),
            nukes: dice.one_in(4),
            tampers: dice.one_in(4),
            leftovers: dice.one_in(4),
        }
    }
}

pub struct World {
    pub dice: Dice,
    pub mood: Mood,
    pub postgres: Postgres,
    pub replica: Memory,
    /// What tables the replica has, while nobody makes or drops any.
    pub tables: Mutex<Option<Rows>>,
    /// Writes that are on their way for long.
    pub late: Mutex<Vec<Work>>,
    /// Connections of processes that ended, which Postgres has not noticed yet.
    pub orphans: Mutex<Vec<Arc<dyn Link>>>,
    pub judge: Mutex<Judge>,
    is_quiet: AtomicBool,
    backups: Mutex<Vec<Vec<u8>>>,
    /// The first commit that Postgres may be put back to.
    base: u64,
    until: Instant,
    pub steps: AtomicU64,
    trace: Option<Mutex<Vec<String>>>,
}

impl World {
    fn new(seed: u64, is_traced: bool) -> Arc<Self> {
        let dice = Dice::new(seed);
        let mood = Mood::roll(&dice);
        let postgres = Postgres::new(SCHEMA.clone(), &MARKED);
        postgres.schedule_setup().now_or_never().unwrap().unwrap();
        let base = postgres.now();
        let judge = Judge::new(mood.bad != 0 || mood.leftovers);
        let until = Instant::now() + mood.time;
        Arc::new(Self {
            dice,
            mood,
            postgres,
            replica: Memory::new().unwrap(),
            tables: Mutex::default(),
            late: Mutex::default(),
            orphans: Mutex::default(),
            judge: Mutex::new(judge),
            is_quiet: AtomicBool::new(false),
            backups: Mutex::new(vec![Vec::new()]),
            base,
            until,
            steps: AtomicU64::new(0),
            trace: is_traced.then(Mutex::default),
        })
    }

    /// Whether nothing goes wrong any more.
    pub fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed)
    }

    /// Whether there were more steps than a schedule can have.
    pub fn goes_round(&self) -> bool {
        self.steps.load(Ordering::Relaxed) > MOST_STEPS * u64::from(LENGTH.load(Ordering::Relaxed))
    }

    pub fn become_quiet(&self) {
        self.is_quiet.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.judge.lock().unwrap().violation.is_some()
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let now = self.postgres.clock().as_secs_f64();
            trace.lock().unwrap().push(format!("{now:9.3} {}", what()));
        }
    }

    pub fn violate(&self, what: String) {
        self.tell(|| format!("VIOLATION: {what}"));
        self.judge.lock().unwrap().violate(what);
    }

    pub fn query(&self, sql: &str) -> Vec<Vec<Cell>> {
        let found = self.replica.query(Statement::new(sql, Vec::new())).now_or_never().unwrap();
        found.unwrap_or_default() // a table that is not there has no rows
    }

    /// Where the replica is.
    pub fn head(&self) -> Option<Head> {
        match &self.query(HEAD).pop()?[..] {
            [Cell::Text(epoch), Cell::Integer(seq), Cell::Text(token)] => {
                Some(Head { epoch: epoch.clone(), seq: *seq, token: token.clone() })
            }
            _ => None,
        }
    }

    /// What the replica shows, and where it is.
    fn shown(&self) -> (Vec<Shown>, Option<Head>) {
        let (mut shown, mut head) = (Vec::new(), None);
        for row in self.query(SHOWN) {
            match &row[..] {
                [Cell::Text(_), Cell::Text(epoch), Cell::Integer(seq), Cell::Text(token)] => {
                    head = Some(Head { epoch: epoch.clone(), seq: *seq, token: token.clone() });
                }
                [Cell::Text(name), Cell::Text(key), Cell::Integer(version), _] => {
                    let table = NAMES.into_iter().find(|table| table == name).unwrap_or_default();
                    shown.push((table, key.clone(), *version));
                }
                other => self.violate(format!("the replica has {other:?}")),
            }
        }
        (shown, head)
    }

    /// Something was written to the replica.
    pub fn judge_replica(&self) {
        let (shown, head) = self.shown();
        self.tell(|| format!("replica at {head:?}: {shown:?}"));
        let mut judge = self.judge.lock().unwrap();
        judge.weigh(shown, head, self.postgres.engine().flushed());
        if let Some(violation) = &judge.violation {
            self.tell(|| format!("VIOLATION: {violation}"));
        }
    }

    /// Rows with this in them are refused by the replica itself.
    pub fn poison(&self) {
        for table in NAMES {
            let sql = format!(
                "CREATE TRIGGER IF NOT EXISTS refuse_{table} BEFORE INSERT ON {table} WHEN NEW.p = '{POISON}' \
                 BEGIN SELECT RAISE(ABORT, 'it is poison'); END"
            );
            self.query(&sql);
        }
    }

    async fn rest(&self) {
        sleep(self.dice.time(self.mood.rests)).await;
    }

    pub fn worker(self: &Arc<Self>, process: &Arc<Process>) -> Worker {
        let config = Config {
            postgres: PgUrl::parse("postgres://worker@localhost/app").unwrap(),
            target: Target::Given(Given::new("replica", Arc::new(Mooring(process.clone())))),
            schema: SCHEMA.clone(),
            queue: QueueName::parse("sync").unwrap(),
            rows_per_second: self.mood.rows_per_second,
            retention: self.mood.retention,
            heartbeat: None,
            has_events: false,
            row_bytes: 1 << 20,
            adopt: false,
            feeding: Default::default(),
        };
        let network = Network { process: process.clone(), postgres: Connector::new(self.postgres.clone()) };
        let seed = self.dice.next();
        let worker = Worker::over(config, Arc::new(network), Chance::seeded(seed));
        // As the one of a server that is called, or that of a command.
        if seed.is_multiple_of(2) { worker.keeping_for(Duration::from_secs(60)) } else { worker }
    }

    pub fn hear(&self, what: &str, error: &Error) {
        self.tell(|| format!("{what}: {error}"));
        let may_halt = |judge: &Judge| judge.may_diverge() || judge.is_tampered;
        if error.needs_operator() && !may_halt(&self.judge.lock().unwrap()) {
            self.violate(format!("nobody has touched either side, and {what} halts: {error}"));
        }
    }

    /// One process after the other, under one name.
    async fn processes(self: Arc<Self>, name: usize) {
        while !self.is_over() {
            let process = Process::new(self.clone(), name);
            let worker = self.worker(&process);
            let life = async {
                while !self.is_over() {
                    self.rest().await;
                    self.operate(&worker).await;
                }
            };
            tokio::select! {
                biased;
                () = process.death() => {}
                () = life => {}
            }
            drop(worker);
            self.rest().await;
        }
    }

    async fn operate(&self, worker: &Worker) {
        match self.dice.below(24) {
            0 | 1 => {
                let following = self.dice.time(self.mood.time);
                let followed = tokio::time::timeout(following, worker.follow()).await;
                self.tell(|| format!("followed: {followed:?}"));
            }
            2 | 22 | 23 => self.verify(worker).await,
            3..5 if self.mood.nukes => {
                self.judge.lock().unwrap().is_nuked = true;
                let nuked = pairing::nuke(worker, None, true).await;
                self.tell(|| format!("nuke: {nuked:?}"));
                nuked.unwrap_or_else(|e| {
                    self.hear("a nuke", &e);
                    pairing::Nuked::Replayed
                });
            }
            5 => {
                if let Ok(link) = Connector::new(self.postgres.clone()).connect(Purpose::Resync).await {
                    drop(link.schedule(&[self.dice.of(&NAMES)], Reason::Request).await);
                }
            }
            6..9 => {
                let done = worker.call(Duration::from_secs(25)).await;
                self.tell(|| format!("call: {done:?}"));
            }
            _ => match worker.drain(Duration::from_secs(25)).await {
                Ok(done) => self.tell(|| format!("drain: {done:?}")),
                Err(e) => self.hear("a drain", &e),
            },
        }
    }

    async fn verify(&self, worker: &Worker) {
        let tables = NAMES.map(str::to_owned).to_vec();
        let options = VerifyOptions { tables, repair: self.dice.one_in(2), ..VerifyOptions::default() };
        let was_tampered = self.judge.lock().unwrap().is_tampered;
        match worker.verify(Comparison::new(options, None, Arc::default()), Duration::from_secs(25)).await {
            Ok(report) => {
                self.tell(|| format!("verify: {report:?}"));
                if !was_tampered && !self.judge.lock().unwrap().is_tampered {
                    self.judge_report(&report);
                }
            }
            Err(e) => self.hear("a comparison", &e),
        }
    }

    fn judge_report(&self, report: &VerifyReport) {
        for (name, table) in &report.tables {
            if table.problem.is_none() && table.differences() > 0 {
                self.violate(format!("nobody has touched the replica, and {name} is said to differ: {table:?}"));
            }
        }
    }

    /// An application.
    async fn write(self: Arc<Self>) {
        while !self.is_over() {
            sleep(self.dice.time(self.mood.rests * 2)).await;
            let versions = self.transact().await;
            self.judge.lock().unwrap().end(&versions.0, versions.1);
        }
    }

    /// One transaction; the versions that it wrote and what became of them.
    async fn transact(&self) -> (Vec<i64>, Version) {
        let mut writer = self.postgres.writer();
        let mut versions = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let version = self.judge.lock().unwrap().begin();
            versions.push(version);
            let table = self.dice.of(&NAMES);
            let row = self.row(table, version);
            let dice = self.dice.below(16);
            let what = format!("{dice} of {table} {row:?}");
            let done = match dice {
                0 if table != "c" => writer.truncate(table).await,
                1..5 => writer.delete(table, &row.key(self.postgres.table(table))).await.map(drop),
                5 => {
                    let other = self.row(table, version);
                    writer.rekey(table, &other.key(self.postgres.table(table)), row).await.map(drop)
                }
                6 if table == "c" && self.mood.leftovers => {
                    // As of a time when it was captured.
                    let mark = mark_of(table, &[row.key(self.postgres.table(table))]);
                    writer.send(Some(&mark)).await.map(drop)
                }
                6 => writer.send(Some(r#"{"type":"INSERT","table":"others","record":{"id":1}}"#)).await.map(drop),
                _ => writer.put(table, row).await,
            };
            self.tell(|| format!("application: version {version}, {what}: {done:?}"));
            if let Err(e) = done {
                self.tell(|| format!("application: {e:?}"));
                return (versions, Version::Aborted);
            }
            if self.dice.one_in(3) {
                sleep(self.dice.time(Duration::from_secs(4))).await;
            }
        }
        if self.dice.one_in(8) {
            writer.abort();
            return (versions, Version::Aborted);
        }
        let committed = writer.commit(!self.dice.one_in(3));
        self.tell(|| format!("application: versions {versions:?} {committed:?}"));
        (versions, committed.map_or(Version::Aborted, Version::Committed))
    }

    fn row(&self, table: &str, version: i64) -> Row {
        let key = self.dice.below(self.mood.keys) as i64;
        let is_bad = self.dice.one_in(self.mood.bad);
        let poison = if is_bad && self.dice.one_in(2) { POISON } else { "good" };
        let (v, p) = (Cell::Integer(version), Cell::Text(poison.to_owned()));
        let mut row = Row::new(match table {
            "a" => vec![Cell::Integer(key), v, p],
            "b" => vec![Cell::Text(["x", "y"][key as usize % 2].to_owned()), Cell::Integer(key), v, p],
            _ => vec![Cell::Text(key.to_string()), v, p],
        });
        if is_bad && poison == "good" {
            // An image has its values, whether or not the row can be read.
            row.reading = if table == "c" {
                Reading::Unfit
            } else {
                self.dice.of(&[Reading::Unfit, Reading::Unreadable, Reading::Slow])
            };
        }
        row
    }

    /// What befalls both sides.
    async fn happen(self: Arc<Self>) {
        while !self.is_over() {
            sleep(self.dice.time(self.mood.mishaps)).await;
            self.mishap().await;
        }
    }

    async fn mishap(&self) {
        match self.dice.below(16) {
            0 if self.mood.crashes => self.crash(),
            1 if self.mood.restores => self.restore(),
            2 if self.mood.restores => self.restore_replica(),
            3 if self.mood.restores => self.purge().await,
            4 | 5 => self.reap(),
            6 | 7 => self.back_up(),
            8 | 9 => self.deliver().await,
            10 | 11 if self.mood.ddl => self.forbid().await,
            12 if self.mood.ddl => self.shut().await,
            13 if self.mood.ddl => self.alter().await,
            14 if self.mood.tampers && self.dice.one_in(2) => self.drop_table(),
            14 if self.mood.tampers => self.tamper(),
            15 => self.postgres.engine().flush(),
            _ => {}
        }
    }

    fn crash(&self) {
        self.tell(|| "Postgres crashes".into());
        let flushed = self.postgres.engine().flushed();
        self.postgres.crash();
        self.judge.lock().unwrap().lose(flushed, Version::LostInCrash);
    }

    fn restore(&self) {
        let now = self.postgres.now();
        let to = now.saturating_sub(self.dice.below(12) as u64).max(self.base);
        let to = self.postgres.restore(to, self.dice.of(&[Restored::Same, Restored::Timeline, Restored::Other]));
        self.tell(|| format!("Postgres is put back from {now} to {to}"));
        let mut judge = self.judge.lock().unwrap();
        judge.lose(to, Version::LostInRestore);
        judge.provoke();
    }

    fn back_up(&self) {
        let image = self.replica.image().unwrap();
        self.backups.lock().unwrap().push(image);
    }

    fn restore_replica(&self) {
        let backups = self.backups.lock().unwrap();
        let of = self.dice.below(backups.len());
        self.tell(|| format!("the replica is put back to backup {of}"));
        self.replica.restore(&backups[of]).unwrap();
        *self.tables.lock().unwrap() = None;
        self.judge.lock().unwrap().provoke();
    }

    async fn purge(&self) {
        let mut writer = self.postgres.writer();
        // Images that others took are lost for good; marked tables are copied again.
        let marks = self.postgres.queue().into_iter().filter(|(_, message)| message.has_version).map(|(id, _)| id);
        let some: Vec<i64> = marks.filter(|_| self.dice.one_in(2)).collect();
        for id in some {
            if writer.delete_message(id).await.is_err() {
                return;
            }
            self.tell(|| format!("somebody takes message {id}"));
        }
        if writer.commit(true).is_ok() {
            self.judge.lock().unwrap().provoke();
        }
    }

    fn reap(&self) {
        let orphans = std::mem::take(&mut *self.orphans.lock().unwrap());
        self.tell(|| format!("Postgres notices that {} connections are gone", orphans.len()));
    }

    /// A write arrives that was on its way for long.
    async fn deliver(&self) {
        let work = {
            let mut late = self.late.lock().unwrap();
            let at = self.dice.below(late.len());
            if late.is_empty() { None } else { Some(late.swap_remove(at)) }
        };
        if let Some(work) = work {
            let done = arrive(self, &self.replica, work).await;
            self.tell(|| format!("a late write arrives: {done:?}"));
        }
    }

    async fn forbid(&self) {
        let table = self.dice.of(&MARKED);
        self.tell(|| format!("{table} may not be read"));
        if self.postgres.drop_access(table).await.is_ok() {
            sleep(self.dice.time(Duration::from_secs(20))).await;
            self.tell(|| format!("{table} may be read again"));
            self.postgres.restore_access(table).await.unwrap_or(());
        }
    }

    async fn shut(&self) {
        let table = self.dice.of(&MARKED);
        let mut writer = self.postgres.writer();
        if writer.lock(table, Lock::AccessExclusive).await.is_ok() {
            self.tell(|| format!("somebody locks {table}"));
            sleep(self.dice.time(Duration::from_secs(12))).await;
            self.tell(|| format!("somebody leaves {table}"));
        }
    }

    async fn alter(&self) {
        let table = self.dice.of(&MARKED);
        let value = Cell::Text(format!("altered {}", self.dice.below(1000)));
        let done = self.postgres.alter_type(table, "p", value, Wait::For(Duration::from_secs(3))).await;
        self.tell(|| format!("{table} is altered: {done:?}"));
    }

    /// Somebody drops a table of the replica.
    fn drop_table(&self) {
        let table = self.dice.of(&NAMES);
        self.tell(|| format!("somebody drops {table} of the replica"));
        self.query(&format!("DROP TABLE {table}"));
        *self.tables.lock().unwrap() = None;
        self.judge.lock().unwrap().is_tampered = true;
    }

    /// Somebody writes into the replica.
    fn tamper(&self) {
        let table = self.dice.of(&NAMES);
        self.tell(|| format!("somebody changes {table} of the replica"));
        self.query(&format!("UPDATE {table} SET p = 'tampered'"));
        self.judge.lock().unwrap().is_tampered = true;
    }
}

/// What a schedule came to.
pub struct Outcome {
    pub violation: Option<String>,
    pub steps: u64,
    pub trace: Vec<String>,
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, is_traced: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async {
        let world = World::new(seed, is_traced);
        world.tell(|| format!("{:?}", world.mood));
        let processes = (1..=world.mood.processes).map(|name| tokio::spawn(world.clone().processes(name)));
        let writers = (0..world.mood.writers).map(|_| tokio::spawn(world.clone().write()));
        let mishaps = std::iter::once(tokio::spawn(world.clone().happen()));
        let tasks: Vec<_> = processes.chain(writers).chain(mishaps).collect();
        for task in tasks {
            if let Err(e) = task.await {
                world.violate(format!("a task ended: {e}"));
            }
        }
        if world.judge.lock().unwrap().violation.is_none() {
            world.settle().await;
        }
        world
    });
    let trace = world.trace.as_ref().map(|trace| std::mem::take(&mut *trace.lock().unwrap())).unwrap_or_default();
    let violation = world.judge.lock().unwrap().violation.clone();
    Outcome { violation, steps: world.steps.load(Ordering::Relaxed), trace }
}
