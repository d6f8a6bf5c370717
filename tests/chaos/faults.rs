//! What goes wrong, one fault after another, drawn from the seed. (The proxy's faults and the stops and stalls
//! inside the workers happen by themselves.)

use crate::judge::Violation;
use crate::older::Older;
use crate::parts::Sqld;
use crate::plan::{millis, pick, rng};
use crate::readers::TABLES;
use crate::stage::{Failure, Stage};
use crate::workers::{ENDS, signal};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::demo::postgres::Stop;
use pgflume::replica::head::SELECT_HEAD;
use pgflume::replica::target::Target;
use pgflume::replica::{Statement, Work};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The longest that a command of the binary may take; longer ones are killed, which is a fault too.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Commands at the same time: each is a process with connections of its own.
const COMMANDS: usize = 2;
/// For a comparison under way, before it is disturbed that much.
const COMPARISON_PATIENCE: Duration = Duration::from_secs(10);
/// For commands before the replica is copied or put back.
const COMMANDS_PATIENCE: Duration = Duration::from_secs(4);
const BURST: usize = 12;
/// How long the network is as good or bad as it is, in milliseconds.
const WEATHER_MS: (u64, u64) = (500, 3_000);
/// Of 1,000 writes, so many are struck. Good weather in between lets the queue drain.
const WEATHER: [u32; 6] = [0, 50, 100, 200, 300, 500];
/// For a batch of a worker that has just been started.
const BATCH_TIMEOUT: Duration = Duration::from_secs(3);
const RESTART_TRIES: u32 = 5;

/// The one that makes them.
pub struct Faults {
    stage: Arc<Stage>,
    rng: StdRng,
    background: JoinSet<()>,
    commands: JoinSet<()>,
    next: Next,
    older: Option<Older>,
    is_poisoned: bool,
}

/// Faults that need time to get over come at intervals.
struct Next {
    weather: Instant,
    crash: Instant,
    server: Instant,
    nuke: Instant,
    fall_back: Instant,
    purge: Instant,
}

#[derive(Clone, Copy)]
enum Kind {
    Kill,
    Freeze,
    Burst,
    Resync,
    Verify,
    Repair,
    Sync,
    Disconnect,
    Lock,
    FreezeServer,
    KillServer,
    CrashPostgres,
    Nuke,
    FallBack,
    Purge,
    Poison,
}

/// Accounts whose rows the replica rejects for a while, and how.
pub const POISONED: &str = "between 900 and 909";
const REJECTION: &str = "CREATE TRIGGER IF NOT EXISTS poison BEFORE INSERT ON accounts WHEN NEW.owner = 'poison'
    BEGIN SELECT RAISE(ABORT, 'poison'); END";

/// Each as often as its share. Processes that are killed all the time never come to the places where they stop.
const KINDS: [(Kind, u32); 16] = [
    (Kind::Kill, 1),
    (Kind::Freeze, 2),
    (Kind::Burst, 6),
    (Kind::Resync, 3),
    (Kind::Verify, 5),
    (Kind::Repair, 3),
    (Kind::Sync, 4),
    (Kind::Disconnect, 2),
    (Kind::Lock, 6),
    (Kind::FreezeServer, 2),
    (Kind::KillServer, 3),
    (Kind::CrashPostgres, 3),
    (Kind::Nuke, 3),
    (Kind::FallBack, 6),
    (Kind::Purge, 2),
    (Kind::Poison, 4),
];

impl Faults {
    pub fn new(stage: Arc<Stage>, seed: u64) -> Self {
        let now = Instant::now();
        let soon = |seconds| now + Duration::from_secs(seconds);
        let next =
            Next { weather: now, crash: soon(3), server: soon(2), nuke: soon(10), fall_back: soon(5), purge: soon(8) };
        let (background, commands) = (JoinSet::new(), JoinSet::new());
        Self { stage, rng: rng(seed, "faults"), background, commands, next, older: None, is_poisoned: false }
    }

    /// One after another for so long; then everything is up and sound.
    pub async fn run(mut self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.stage.workers.tend();
            self.change_weather();
            self.one().await?;
            let pause = millis(&mut self.rng, 10, 200);
            tokio::time::sleep(pause).await;
        }
        self.stage.proxy.iter().for_each(|proxy| proxy.set_rate(0));
        while self.background.join_next().await.is_some() {}
        while self.commands.join_next().await.is_some() {}
        self.cure().await
    }

    fn change_weather(&mut self) {
        if Instant::now() < self.next.weather {
            return;
        }
        self.next.weather = Instant::now() + millis(&mut self.rng, WEATHER_MS.0, WEATHER_MS.1);
        let rate = if self.is_comparing() { WEATHER[1] } else { *pick(&mut self.rng, &WEATHER) };
        self.stage.proxy.iter().for_each(|proxy| proxy.set_rate(rate));
    }

    async fn one(&mut self) -> Result<(), Failure> {
        let worker = self.rng.random_range(0..2);
        match self.kind() {
            Kind::Kill => {
                self.fault("worker killed");
                self.stage.workers.kill(worker);
            }
            Kind::Freeze => self.freeze(worker),
            Kind::Burst => self.burst(),
            Kind::Resync => self.resync(worker),
            Kind::Verify => self.command("verify", &["verify", "--json"]),
            Kind::Repair => self.command("verify --repair", &["verify", "--repair", "--json"]),
            Kind::Sync => self.command("sync by hand", &["sync"]),
            Kind::Disconnect => self.disconnect().await,
            Kind::Lock => self.lock(),
            Kind::FreezeServer => self.freeze_server(),
            Kind::KillServer => self.kill_server().await?,
            Kind::CrashPostgres => self.crash_postgres().await?,
            Kind::Nuke => self.nuke(worker),
            Kind::FallBack => self.fall_back().await?,
            Kind::Purge => self.purge().await,
            Kind::Poison if self.is_poisoned => drop(self.cure().await),
            Kind::Poison => self.poison().await,
        }
        Ok(())
    }

    fn kind(&mut self) -> Kind {
        let mut left = self.rng.random_range(0..KINDS.iter().map(|(_, share)| share).sum());
        let drawn = KINDS.iter().find(|(_, share)| match left.checked_sub(*share) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        drawn.map_or(Kind::Burst, |(kind, _)| *kind)
    }

    fn fault(&self, kind: &str) {
        self.stage.tally.fault(kind);
    }

    fn freeze(&mut self, worker: usize) {
        self.fault("worker frozen");
        let (workers, time) = (self.stage.workers.clone(), millis(&mut self.rng, 50, 1_500));
        self.background.spawn(async move { workers.freeze(worker, time).await });
    }

    /// A comparison needs a gap between the drains of others.
    fn is_comparing(&self) -> bool {
        self.stage.comparing.load(Ordering::Relaxed) > 0
    }

    fn burst(&mut self) {
        if self.is_comparing() {
            return;
        }
        self.fault("burst of calls");
        for caller in 0..BURST {
            let workers = self.stage.workers.clone();
            self.background.spawn(async move { workers.post(caller % 2, "/sync", String::new()).await });
        }
    }

    fn resync(&mut self, worker: usize) {
        self.fault("resync");
        let body = match self.rng.random_bool(0.3) {
            true => String::new(),
            false => format!(r#"{{"tables":["{}"]}}"#, pick(&mut self.rng, &TABLES).0),
        };
        let workers = self.stage.workers.clone();
        self.background.spawn(async move { workers.post(worker, "/resync", body).await });
    }

    fn nuke(&mut self, worker: usize) {
        if Instant::now() < self.next.nuke {
            return;
        }
        self.next.nuke = Instant::now() + millis(&mut self.rng, 10_000, 30_000);
        self.fault("nuke");
        let workers = self.stage.workers.clone();
        self.background.spawn(async move { workers.post(worker, "/nuke", String::new()).await });
    }

    /// A command of the binary beside the workers, half of the time with a stop or a stall in it.
    fn command(&mut self, name: &'static str, arguments: &'static [&'static str]) {
        while self.commands.try_join_next().is_some() {}
        let compares = arguments[0] == "verify";
        if self.commands.len() >= COMMANDS || (compares && self.is_comparing()) {
            return;
        }
        self.fault(name);
        let armed = self.rng.random_bool(0.5).then(|| self.stage.workers.armed(compares)).flatten();
        let stage = self.stage.clone();
        stage.comparing.fetch_add(usize::from(compares), Ordering::Relaxed);
        self.commands.spawn(async move {
            let (code, said) = stage.workers.binary().run(arguments, armed.as_deref(), COMMAND_TIMEOUT).await;
            stage.comparing.fetch_sub(usize::from(compares), Ordering::Relaxed);
            match code {
                None if !said.contains(ENDS) => stage.tally.fault(format!("{name} killed")),
                Some(0) => stage.tally.command_done(name),
                _ => {}
            }
            // The replica has nothing to repair, whatever happens around it.
            if compares && (code == Some(3) || differences(&said) > 0) {
                stage.tally.violation(Violation(format!("pgflume {name} found differences: {said}")));
            }
        });
    }

    /// The replica is as it was some seconds before: what it acknowledged since is lost.
    async fn fall_back(&mut self) -> Result<(), Failure> {
        let patience = if self.is_comparing() { COMPARISON_PATIENCE } else { Duration::ZERO };
        if Instant::now() < self.next.fall_back + patience {
            return Ok(());
        }
        self.stage.workers.end();
        self.end_commands().await;
        let wait = match self.older.take() {
            None => {
                self.stage.workers.keep_messages(self.rng.random_bool(0.5));
                self.older = Some(Older::copy(&self.stage).await?);
                (3_000, 8_000)
            }
            Some(older) => {
                older.put_back(&self.stage).await?;
                self.fault("replica put back as it was before");
                (5_000, 10_000)
            }
        };
        self.next.fall_back = Instant::now() + millis(&mut self.rng, wait.0, wait.1);
        Ok(())
    }

    /// They may end by themselves; most have little left to do when nobody else works.
    async fn end_commands(&mut self) {
        let commands = &mut self.commands;
        let ended = async { while commands.join_next().await.is_some() {} };
        if tokio::time::timeout(COMMANDS_PATIENCE, ended).await.is_err() {
            let ends = self.stage.workers.binary().ends.clone();
            ends.store(true, Ordering::Relaxed);
            while self.commands.join_next().await.is_some() {}
            ends.store(false, Ordering::Relaxed);
        }
    }

    /// Somebody empties the queue.
    async fn purge(&mut self) {
        if Instant::now() < self.next.purge {
            return;
        }
        let sql = format!("set lock_timeout = '2s'; select pgmq.purge_queue('{DEFAULT_QUEUE}')");
        if let Ok(client) = self.stage.connect().await
            && client.batch_execute(&sql).await.is_ok()
        {
            self.fault("queue purged");
            self.next.purge = Instant::now() + millis(&mut self.rng, 8_000, 20_000);
        }
    }

    /// Rows that the replica rejects, until they are set right.
    async fn poison(&mut self) {
        let Ok(store) = self.stage.replica().await else { return };
        if store.write(Work { before: vec![REJECTION.to_owned().into()], ..Work::default() }).await.is_err() {
            return;
        }
        let sql = "insert into public.accounts (id, owner) select i, 'poison' from generate_series(900, 909) i where random() < 0.3
             on conflict (id) do update set owner = excluded.owner";
        if let Ok(client) = self.stage.connect().await
            && client.batch_execute(sql).await.is_ok()
        {
            self.fault("rows poisoned");
            self.is_poisoned = true;
        }
    }

    /// Sets the poisoned rows right, and so marks them again.
    async fn cure(&mut self) -> Result<(), Failure> {
        let sql = format!(
            "delete from public.accounts where id {POISONED} and id % 3 = 0;
             update public.accounts set owner = 'cured' where id {POISONED}"
        );
        self.stage.connect().await?.batch_execute(&sql).await?;
        self.is_poisoned = false;
        Ok(())
    }

    /// Ends connections of the workers, as a failing network or an administrator does.
    async fn disconnect(&mut self) {
        let share = self.rng.random_range(0.1..0.6);
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name like 'pgflume%' and random() < {share}"
        );
        if let Ok(client) = self.stage.connect().await
            && let Ok(row) = client.query_one(&sql, &[]).await
            && row.get::<_, i64>(0) > 0
        {
            self.fault("connections terminated");
        }
    }

    /// Somebody else holds the file's write lock for a while, sometimes longer than a worker waits.
    fn lock(&mut self) {
        let Target::File(path) = self.stage.target.clone() else { return };
        self.fault("file locked by another");
        let longest = if self.rng.random_bool(0.1) { 7_000 } else { 400 };
        let time = millis(&mut self.rng, 20, longest);
        self.background.spawn(hold(path, time));
    }

    fn freeze_server(&mut self) {
        let Some(id) = self.stage.sqld.as_ref().and_then(number) else { return };
        self.fault("sqld frozen");
        let (stage, time) = (self.stage.clone(), millis(&mut self.rng, 50, 1_200));
        self.background.spawn(async move { freeze(id, time, || stage.sqld.as_ref().and_then(number)).await });
    }

    async fn kill_server(&mut self) -> Result<(), Failure> {
        if self.stage.sqld.is_none() || Instant::now() < self.next.server {
            return Ok(());
        }
        self.fault("sqld killed");
        let (stage, down) = (self.stage.clone(), millis(&mut self.rng, 0, 1_000));
        tokio::task::spawn_blocking(move || {
            let Some(sqld) = &stage.sqld else { return };
            let mut sqld = sqld.lock().unwrap_or_else(PoisonError::into_inner);
            sqld.kill();
            std::thread::sleep(down);
            sqld.start_again();
        })
        .await?;
        self.next.server = Instant::now() + millis(&mut self.rng, 5_000, 12_000);
        Ok(())
    }

    /// For a while nobody writes the log to disk but one worker, which stalls each time the replica has a batch; the
    /// server goes down at such a moment. Its log writer would hand full pages to the system, where they outlive the
    /// server (not the machine), so it stands still, and ends as in a crash.
    async fn make_hasty(&mut self) {
        let Some(log_writer) = self.log_writer().await else { return };
        self.stage.hasty.store(true, Ordering::Relaxed);
        signal("-STOP", log_writer);
        tokio::time::sleep(millis(&mut self.rng, 100, 600)).await;
        let workers = self.stage.workers.clone();
        workers.end();
        workers.start_stalling();
        let call = tokio::spawn(async move { workers.post_when_up(0, "/sync").await });
        self.batch_applied().await;
        signal("-QUIT", log_writer);
        signal("-CONT", log_writer);
        self.background.spawn(async { drop(call.await) });
    }

    /// The process id of Postgres' log writer.
    async fn log_writer(&self) -> Option<u32> {
        let sql = "select pid from pg_stat_activity where backend_type = 'walwriter'";
        let row = self.stage.connect().await.ok()?.query_one(sql, &[]).await.ok()?;
        u32::try_from(row.get::<_, i32>(0)).ok()
    }

    /// Waits for the next batch, but not for ever: nothing may be queued.
    async fn batch_applied(&self) {
        let Ok(store) = self.stage.replica().await else { return };
        let head = || async { store.read(Statement::new(SELECT_HEAD, Vec::new())).await.ok() };
        let (before, began) = (head().await, Instant::now());
        while began.elapsed() < BATCH_TIMEOUT {
            let now = head().await;
            if now.is_some() && now != before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// An immediate shutdown, often in the middle of a step that has seen what was committed asynchronously.
    async fn crash_postgres(&mut self) -> Result<(), Failure> {
        if Instant::now() < self.next.crash {
            return Ok(());
        }
        self.fault("Postgres crashed");
        if self.rng.random_bool(0.7) {
            self.make_hasty().await;
        }
        let (cluster, down) = (self.stage.cluster.clone(), millis(&mut self.rng, 0, 800));
        let restarted = tokio::task::spawn_blocking(move || {
            cluster.stop(Stop::Immediate)?;
            std::thread::sleep(down);
            let mut tries = 1..RESTART_TRIES;
            loop {
                match cluster.start_again() {
                    Err(_) if tries.next().is_some() => std::thread::sleep(Duration::from_millis(500)),
                    other => return other,
                }
            }
        });
        restarted.await??;
        self.stage.hasty.store(false, Ordering::Relaxed);
        self.next.crash = Instant::now() + millis(&mut self.rng, 9_000, 20_000);
        Ok(())
    }
}

/// The process id of a server.
pub fn number(sqld: &Mutex<Sqld>) -> Option<u32> {
    sqld.lock().unwrap_or_else(PoisonError::into_inner).id()
}

/// Stops a process for a while, unless it is another by then: its id may be somebody else's.
pub async fn freeze(id: u32, time: Duration, now: impl Fn() -> Option<u32>) {
    signal("-STOP", id);
    tokio::time::sleep(time).await;
    if now() == Some(id) {
        signal("-CONT", id);
    }
}

/// Holds a file's write lock for so long.
pub async fn hold(path: std::path::PathBuf, time: Duration) {
    let Ok(database) = libsql::Builder::new_local(path).build().await else { return };
    let Ok(connection) = database.connect() else { return };
    if connection.execute("BEGIN IMMEDIATE", ()).await.is_ok() {
        tokio::time::sleep(time).await;
        connection.execute("ROLLBACK", ()).await.ok();
    }
}

/// How many differences a `verify --json` tells.
pub fn differences(said: &str) -> u64 {
    let Some(start) = said.find("\n{").map(|at| at + 1).or_else(|| said.starts_with('{').then_some(0)) else {
        return 0;
    };
    let mut documents = serde_json::Deserializer::from_str(&said[start..]).into_iter::<Value>();
    let Some(Ok(report)) = documents.next() else { return 0 };
    let count =
        |table: &Value| ["different", "missing", "extra"].iter().map(|k| table[k].as_u64().unwrap_or(0)).sum::<u64>();
    report["tables"].as_object().into_iter().flatten().map(|(_, table)| count(table)).sum()
}
