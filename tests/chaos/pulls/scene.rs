//! The parts of a run: a Postgres behind a proxy with faults and another one that may take its place, the replica, two
//! workers, and applications that write.

use super::writers::{self, Writers};
use crate::parts::process::Process;
use crate::parts::{Fault, Proxy, Sqld, SqldOptions};
use crate::plan::{Path, pick, rng};
use crate::report::Tally;
use crate::stage::{Era, Failure};
use crate::workers::{replica_file, signal};
use pgflume::core::failpoint::PULL_NAMES;
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions, Stop};
use pgflume::postgres::PgUrl;
use pgflume::replica::Store;
use pgflume::replica::local::Local;
use pgflume::replica::remote::Remote;
use pgflume::replica::target::Target;
use rand::RngExt;
use rand::rngs::StdRng;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::Client;

/// A role that may only read.
const READER: &str = "reader";
const POLL: Duration = Duration::from_millis(20);

/// Rows that carry a version, which a reader follows.
const VERSIONS: &str = "create table versions (id int primary key, version bigint not null);
    insert into versions select i, 0 from generate_series(1, 200) i";

/// The definition of the pulled tables.
pub fn schema() -> String {
    let mut schema: serde_json::Value = serde_json::from_str(writers::SCHEMA).unwrap();
    schema["versions"] = serde_json::json!({"primaryKey": "id", "columns": {"id": "INTEGER", "version": "INTEGER"}});
    schema.to_string()
}

pub struct Scene {
    /// The source, as it should be.
    pub cluster: Arc<Cluster>,
    /// Another one with the same tables and other rows.
    pub other: Arc<Cluster>,
    /// Between the workers and the source.
    pub network: Proxy,
    pub sqld: Option<Mutex<Sqld>>,
    /// Between the workers and sqld.
    pub proxy: Option<crate::proxy::Proxy>,
    pub target: Target,
    pub tally: Tally,
    pub era: Era,
    workers: [Mutex<Option<Process>>; 2],
    rng: Mutex<StdRng>,
    applications: Mutex<Option<Applications>>,
    seed: AtomicU64,
    directory: Mutex<Option<TempDir>>,
    place: PathBuf,
}

/// Those that write.
struct Applications {
    writers: Writers,
    is_over: Arc<AtomicBool>,
    counting: tokio::task::JoinHandle<()>,
}

impl Scene {
    pub async fn set(path: Path, seed: u64) -> Result<Arc<Self>, Failure> {
        let tally = Tally::default();
        let directory = tempfile::Builder::new().prefix("pgflume-chaos-").tempdir()?;
        let place = directory.path().to_owned();
        let (sqld, proxy, target) = match path {
            Path::File => (None, None, Target::File(replica_file(&place))),
            Path::Sqld => {
                let sqld = tokio::task::spawn_blocking(|| Sqld::start(SqldOptions::default())).await?;
                let proxy = crate::proxy::Proxy::start(&sqld.url(), seed, tally.clone()).await?;
                let target = Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) };
                (Some(Mutex::new(sqld)), Some(proxy), target)
            }
        };
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(options())).await??;
        let other = tokio::task::spawn_blocking(|| Cluster::start(options())).await??;
        let network = Proxy::start(cluster.port());
        let edge = match (&target, &proxy) {
            (Target::Remote { token, .. }, Some(proxy)) => {
                serde_json::json!({"url": proxy.url(), "token": token.as_ref().map(|token| token.expose().to_owned())})
            }
            _ => serde_json::json!({"url": format!("file:{}", replica_file(&place).display())}),
        };
        let source = format!("postgres://{READER}@127.0.0.1:{}/postgres", network.port());
        let file = serde_json::json!({
            "connections": {"source": {"url": source}, "edge": edge},
            "syncs": {"all": {"from": "source", "to": "edge", "schema": "schema.json", "every": "100ms", "retryDelay": "100ms", "retries": 0}},
        });
        std::fs::write(place.join("pgflume.json"), file.to_string())?;
        std::fs::write(place.join("schema.json"), schema())?;
        let scene = Arc::new(Self {
            cluster: Arc::new(cluster),
            other: Arc::new(other),
            network,
            sqld,
            proxy,
            target,
            tally,
            era: Era::default(),
            workers: Default::default(),
            rng: Mutex::new(rng(seed, "workers")),
            applications: Mutex::default(),
            seed: AtomicU64::new(seed),
            directory: Mutex::new(Some(directory)),
            place,
        });
        for cluster in [&scene.cluster, &scene.other] {
            let client = PgUrl::parse(&cluster.url("postgres"))?.connect().await?;
            let grant = format!("create role {READER} login; grant pg_read_all_data to {READER}");
            client.batch_execute(&format!("{}; {VERSIONS}; {grant}", writers::TABLES)).await?;
        }
        let client = PgUrl::parse(&scene.other.url("postgres"))?.connect().await?;
        client.batch_execute("update versions set version = -id; delete from t where id % 3 = 0; update k set v = 'other'; insert into p values (9000, 1, 'other')").await?;
        scene.write();
        Ok(scene)
    }

    /// A connection to the source, past the proxy.
    pub async fn connect(&self) -> Result<Client, Failure> {
        Ok(PgUrl::parse(&self.cluster.url("postgres?application_name=application"))?.connect().await?)
    }

    /// A plain connection to the replica, past the proxy.
    pub async fn replica(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(match &self.target {
            Target::File(path) => Box::new(Local::open(path).await?),
            Target::Remote { url, token } => Box::new(Remote::new(url, token.clone())?),
            Target::Given(given) => given.open().await?,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(arguments).env_clear().current_dir(&self.place);
        command.envs([("PORT", "0"), ("WEBHOOK_SIGNATURE", "0123456789abcdef"), ("RUST_LOG", "info")]);
        command
    }

    /// Runs a command to its end; its exit code (`None`: it took too long) and what it said.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> (Option<i32>, String) {
        self.run_with(arguments, "", limit).await
    }

    /// The same with a stop or a stall in it.
    pub async fn run_with(&self, arguments: &[&str], failpoints: &str, limit: Duration) -> (Option<i32>, String) {
        let mut command = self.command(arguments);
        command.env("FAILPOINTS", failpoints);
        let log = self.place.join(format!("{}.log", arguments.join("")));
        let ended = tokio::task::spawn_blocking(move || {
            let before = std::fs::metadata(&log).map_or(0, |found| usize::try_from(found.len()).unwrap_or(0));
            let (mut process, began) = (Process::spawn(&mut command, &log, None), Instant::now());
            let status = loop {
                match process.ended() {
                    None if began.elapsed() < limit => std::thread::sleep(POLL),
                    other => break other,
                }
            };
            drop(process);
            let text = std::fs::read(&log).unwrap_or_default();
            let new = text.get(before..).unwrap_or_default();
            (status.and_then(|status| status.code()), String::from_utf8_lossy(new).into_owned())
        });
        ended.await.unwrap_or((None, String::new()))
    }

    /// Waits until a pass that began after this call has brought all tables.
    pub async fn settle(&self, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            let (code, _) = self.run(&["sync", "all"], limit).await;
            if code == Some(0) {
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }

    /// What all processes have logged.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(&self.place).into_iter().flatten().flatten().map(|file| file.path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let texts = logs.map(|log| std::fs::read(log).unwrap_or_default());
        texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
    }

    /// Starts those workers that are gone, each with another stop or stall in it.
    pub fn tend(&self) {
        for (number, worker) in self.workers.iter().enumerate() {
            let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
            if worker.as_mut().is_some_and(|process| process.ended().is_none()) {
                continue;
            }
            let mut command = self.command(&["serve"]);
            if let Some(failpoints) = self.armed() {
                command.env("FAILPOINTS", failpoints);
            }
            *worker = None;
            *worker = Some(Process::spawn(&mut command, &self.place.join(format!("worker{number}.log")), None));
        }
    }

    fn armed(&self) -> Option<String> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let name = pick(&mut rng, &PULL_NAMES).to_string();
        match rng.random_range(0..10) {
            0..3 => None,
            3..7 => Some(format!("{name}={}*off->return", rng.random_range(0..4))),
            _ => Some(format!("{name}={}%return({})", rng.random_range(20..60), rng.random_range(20..1_500))),
        }
    }

    /// SIGKILL.
    pub fn kill(&self, number: usize) {
        *self.workers[number].lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn kill_all(&self) {
        (0..self.workers.len()).for_each(|number| self.kill(number));
    }

    /// Stops a worker for a while, as a machine that is paused.
    pub async fn freeze(&self, number: usize, time: Duration) {
        let id = || self.workers[number].lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Process::id);
        let Some(before) = id() else { return };
        signal("-STOP", before);
        tokio::time::sleep(time).await;
        // Not if it was killed meanwhile: its id may be another's.
        if id() == Some(before) {
            signal("-CONT", before);
        }
    }

    /// Lets applications write to the source.
    pub fn write(&self) {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let is_over = Arc::new(AtomicBool::new(false));
        let counting = count_up(self.cluster.url("postgres"), is_over.clone());
        let counting = tokio::spawn(counting);
        let writers = Writers::start(&self.cluster.url("postgres"), seed);
        let applications = Applications { writers, is_over, counting };
        *self.applications.lock().unwrap_or_else(PoisonError::into_inner) = Some(applications);
    }

    /// Ends them; what they have prepared, too.
    pub async fn rest(&self) -> Result<(), Failure> {
        let applications = self.applications.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Applications { writers, is_over, counting }) = applications {
            is_over.store(true, Ordering::Relaxed);
            counting.await?;
            writers.stop().await;
        }
        Ok(())
    }

    /// Stops the source, does something with its data, and starts it again.
    pub async fn between(
        &self,
        how: Stop,
        work: impl FnOnce(&std::path::Path) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), Failure> {
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || -> Result<(), Failure> {
            cluster.stop(how)?;
            work(cluster.directory())?;
            Ok(cluster.start_again()?)
        })
        .await?
    }

    /// Whether the workers see the source that they should.
    pub fn leads_home(&self, is_home: bool) {
        self.network.set(Fault::Pass);
        self.network.lead_to(if is_home { self.cluster.port() } else { self.other.port() });
    }

    /// Stops all programs; where the logs and the replica are, if they are to be `kept`.
    pub fn strike(&self, kept: bool) -> Option<PathBuf> {
        self.kill_all();
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        kept.then(|| directory.keep())
    }
}

/// Writes ever higher versions.
async fn count_up(url: String, is_over: Arc<AtomicBool>) {
    let begin = async |url: &str| {
        let client = PgUrl::parse(url).ok()?.connect().await.ok()?;
        let row = client.query_one("select coalesce(max(version), 0) from versions", &[]).await.ok()?;
        Some((client, row.get::<_, i64>(0)))
    };
    // The highest of all databases that stood here: what readers saw before is older.
    static HIGHEST: AtomicU64 = AtomicU64::new(0);
    let Some((client, _)) = begin(&url).await else { return };
    while !is_over.load(Ordering::Relaxed) {
        let version = HIGHEST.fetch_add(1, Ordering::Relaxed) + 1;
        let sql = format!("update versions set version = {version} where id % 10 = {}", version % 10);
        if client.batch_execute(&sql).await.is_err() {
            return;
        }
    }
}

fn options() -> ClusterOptions {
    let settings = [
        ("fsync", "off"),
        ("max_connections", "100"),
        ("max_prepared_transactions", "20"),
        ("deadlock_timeout", "200ms"),
    ];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    ClusterOptions { settings, ..ClusterOptions::default() }
}
