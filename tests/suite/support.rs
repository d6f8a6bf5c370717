//! What a test stands on: a fresh database with PGMQ, a replica on either write path, a worker
//! between them, and ways to look at both sides.

use crate::in_use::InUse;
use crate::parts::http::Answer;
use crate::parts::{Sqld, SqldOptions};
use crate::store::show;
use pgflume::config::{Config, Signatures};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::core::schema::Schema;
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::http::auth::Auth;
use pgflume::http::{self, App};
use pgflume::postgres::PgUrl;
use pgflume::replica::target::Target;
use pgflume::replica::{Replica, Rows};
use pgflume::sync::{Drained, Worker};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_postgres::Client;

/// The secret of every worker in the suite.
pub const SECRET: &str = "a-secret-of-the-suite";

/// The run's Postgres. `PGFLUME_TEST_PG` may name the binaries of another version.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| start_cluster(std::env::var_os("PGFLUME_TEST_PG").map(PathBuf::from)))
}

/// PostgreSQL 18, the other end of the supported range.
pub fn newest_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.parts/postgres18/bin");
        start_cluster(Some(path.into()))
    })
}

/// One more, of the same version as the run's.
pub fn own_cluster() -> Cluster {
    start_cluster(std::env::var_os("PGFLUME_TEST_PG").map(PathBuf::from))
}

pub fn start_cluster(bin_dir: Option<PathBuf>) -> Cluster {
    let mut settings = vec![("fsync", "off"), ("max_connections", "300"), ("max_wal_size", "256MB")];
    if bin_dir.is_none() {
        settings.push(("shared_preload_libraries", "pg_cron"));
        settings.push(("cron.database_name", "cron"));
    }
    let settings = settings.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let cluster = Cluster::start(ClusterOptions { bin_dir, settings, ..ClusterOptions::default() }).unwrap();
    let url = PgUrl::parse(&cluster.url("postgres")).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = url.connect().await.unwrap();
            client.batch_execute("create database with_pgmq").await.unwrap();
        });
    })
    .join()
    .unwrap();
    let url = PgUrl::parse(&cluster.url("with_pgmq")).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = url.connect().await.unwrap();
            client.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
        });
    })
    .join()
    .unwrap();
    cluster
}

/// A fresh database.
pub struct Db {
    pub name: String,
    cluster: &'static Cluster,
    pub client: Client,
    in_use: InUse,
}

impl Db {
    /// With PGMQ and an empty queue, as `select pgmq.create(…)` leaves it.
    pub async fn new() -> Self {
        Self::on(cluster(), "with_pgmq").await
    }

    pub async fn on(cluster: &'static Cluster, template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::named(format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)), cluster, template).await
    }

    /// A database of that name: pg_cron works in one only.
    pub async fn named(name: String, cluster: &'static Cluster, template: &str) -> Self {
        let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
        // Two copies of a template at once wait for each other; one that is in use is an error.
        static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let turn = ONE.lock().await;
        loop {
            let made = admin.batch_execute(&format!("create database {name} template {template}")).await;
            match made {
                Ok(()) => break,
                Err(e) if e.code().is_some_and(|c| c.code() == "55006") => tokio::task::yield_now().await,
                Err(e) => panic!("{e:?}"),
            }
        }
        drop(turn);
        let client = PgUrl::parse(&cluster.url(&name)).unwrap().connect().await.unwrap();
        let db = Self { in_use: InUse::new(cluster.url("postgres"), name.clone()), name, cluster, client };
        if template == "with_pgmq" {
            db.sql(&format!("select pgmq.create('{DEFAULT_QUEUE}')")).await;
        }
        db
    }

    /// A database that is there already.
    pub async fn existing(name: &str, cluster: &'static Cluster) -> Self {
        let client = PgUrl::parse(&cluster.url(name)).unwrap().connect().await.unwrap();
        let in_use = InUse::new(cluster.url("postgres"), name.to_owned());
        Self { in_use, name: name.to_owned(), cluster, client }
    }

    /// Ends the connection, not the database.
    pub fn leave(self) -> InUse {
        self.in_use
    }

    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// A connection as the worker's own are.
    pub async fn pinned(&self) -> pgflume::postgres::Client {
        PgUrl::parse(&self.url()).unwrap().pinned(pgflume::postgres::Purpose::Demo).await.unwrap()
    }

    pub async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// The first column of the first row, as text.
    pub async fn one(&self, sql: &str) -> String {
        self.all(sql).await.swap_remove(0)
    }

    /// The first column of all rows, as text.
    pub async fn all(&self, sql: &str) -> Vec<String> {
        let rows = self.client.query(&format!("select x::text from ({sql}) q(x)"), &[]).await;
        rows.unwrap_or_else(|e| panic!("{sql}: {e:?}"))
            .iter()
            .map(|row| row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".into()))
            .collect()
    }

    /// Sends one message, as somebody would by hand.
    pub async fn send(&self, message: &str) {
        self.client
            .execute("select pgmq.send($1, $2::text::jsonb)", &[&DEFAULT_QUEUE, &message])
            .await
            .unwrap_or_else(|e| panic!("{message}: {e:?}"));
    }

    pub async fn queued(&self) -> i64 {
        self.one("select count(*) from pgmq.q_replicate_data_libsql").await.parse().unwrap()
    }

    /// Reasons of all dead letters, oldest first.
    pub async fn dead(&self) -> Vec<String> {
        self.all("select message->>'reason' from pgmq.q_replicate_data_libsql_dead order by msg_id").await
    }
}

/// Where a replica lives for the length of a test.
pub enum Home {
    File(TempDir),
    Sqld(Box<Sqld>),
}

/// The two write paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    File,
    Sqld,
}

pub const PATHS: [Path; 2] = [Path::File, Path::Sqld];

impl Home {
    pub fn new(path: Path) -> Self {
        match path {
            Path::File => Self::File(tempfile::tempdir().unwrap()),
            Path::Sqld => Self::Sqld(Box::new(Sqld::start(SqldOptions::default()))),
        }
    }

    pub fn target(&self) -> Target {
        match self {
            Self::File(dir) => Target::File(dir.path().join("replica.db")),
            Self::Sqld(sqld) => Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) },
        }
    }
}

/// A worker between a database and a replica.
pub struct Rig {
    pub db: Db,
    pub home: Home,
    pub worker: Arc<Worker>,
}

pub fn schema(json: &str) -> Arc<Schema> {
    Arc::new(Schema::parse(json).unwrap())
}

pub fn repository_schema() -> Arc<Schema> {
    schema(include_str!("../../schema.json"))
}

pub fn config(url: &str, target: Target, schema: Arc<Schema>) -> Config {
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    Config {
        postgres: PgUrl::parse(url).unwrap(),
        heartbeat: target.default_heartbeat(),
        has_events: false,
        target,
        schema,
        queue,
        rows_per_second: None,
        retention: Duration::ZERO,
        row_bytes: pgflume::postgres::catalog::DEFAULT_ROW_BYTES,
        adopt: false,
        feeding: Default::default(),
    }
}

impl Rig {
    pub async fn new(path: Path, schema: Arc<Schema>) -> Self {
        Self::with(Db::new().await, Home::new(path), schema)
    }

    pub fn with(db: Db, home: Home, schema: Arc<Schema>) -> Self {
        let worker = Worker::new(config(&db.url(), home.target(), schema)).keeping_its_connection();
        Self { db, home, worker: Arc::new(worker) }
    }

    /// One that replaces rows which somebody else has left in the replica.
    pub fn adopting(db: Db, home: Home, schema: Arc<Schema>) -> Self {
        let config = Config { adopt: true, ..config(&db.url(), home.target(), schema) };
        Self { db, home, worker: Arc::new(Worker::new(config)) }
    }

    /// One drain with the budget of a call.
    pub async fn drain(&self) -> Drained {
        self.worker.drain(Duration::from_secs(25)).await.unwrap()
    }

    /// Another worker for the same queue and replica.
    pub fn second_worker(&self) -> Worker {
        Worker::new(config(&self.db.url(), self.home.target(), self.worker.schema().clone()))
    }

    /// Reads the replica.
    pub async fn replica(&self, sql: &str) -> Rows {
        let replica = Replica::open(&self.home.target()).await.unwrap();
        replica.query(sql, vec![]).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Rows of the replica as text, `|` between columns.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        self.replica(sql).await.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join("|")).collect()
    }
}

/// Waits by condition, for as long as a slow machine and the longest rest may take.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within two minutes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The HTTP worker on a free port, stopped when dropped.
pub struct Server {
    pub address: String,
    /// Sends the signal to stop.
    pub stop: Option<oneshot::Sender<()>>,
    pub task: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Server {
    pub async fn start(config: Config) -> Self {
        let secret = || vec![Secret::new(SECRET)];
        Self::with(config, Signatures { webhook: secret(), nuke: secret() }).await
    }

    /// One that applies changes as they come.
    pub async fn following(config: Config) -> Self {
        let secret = || vec![Secret::new(SECRET)];
        let auth = Auth::new(Signatures { webhook: secret(), nuke: secret() });
        Self::of(App::new(Worker::new(config), auth).following()).await
    }

    pub async fn with(config: Config, signatures: Signatures) -> Self {
        Self::of(App::new(Worker::new(config), Auth::new(signatures))).await
    }

    pub async fn of(app: App) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let app = Arc::new(app);
        let shutdown = async { stopped.await.unwrap_or(()) };
        let task = Some(tokio::spawn(http::serve(listener, app, shutdown)));
        Self { address, stop: Some(stop), task }
    }

    pub async fn call(&self, method: &str, path: &str, secret: Option<&str>) -> Answer {
        let headers: Vec<_> = secret.map(|s| ("x-webhook-signature".to_owned(), s.to_owned())).into_iter().collect();
        self.request(method, path, headers, Vec::new()).await
    }

    pub async fn request(&self, method: &str, path: &str, headers: Vec<(String, String)>, body: Vec<u8>) -> Answer {
        let (method, url) = (method.to_owned(), format!("{}{path}", self.address));
        let answer = tokio::task::spawn_blocking(move || {
            crate::parts::http::request(&method, &url, &headers, &body, Duration::from_secs(60))
        });
        answer.await.unwrap().unwrap()
    }

    pub async fn sync(&self) -> Answer {
        self.call("POST", "/sync", Some(SECRET)).await
    }
}
