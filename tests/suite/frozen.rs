//! Whatever hangs, the rest goes on: each connection of the process is frozen once, by name, and each command that
//! holds something is stopped while it does.

use crate::parts::Freezer;
use crate::parts::process::{Process, tail};
use crate::snapshot::rebuilt;
use crate::support::{Home, Path, Rig, Server, config, schema, until};
use crate::volume::set_up;
use pgflume::operate::alter::{self, Sides};
use pgflume::operate::doctor::{Examination, examine};
use pgflume::operate::status::{status, unready};
use pgflume::operate::{dead, resync};
use pgflume::postgres::books::dead_letters::Choice;
use pgflume::postgres::capture::{SetupOptions, TeardownOptions, setup, teardown};
use pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
use pgflume::postgres::{PgUrl, Purpose};
use pgflume::provider::StampOptions;
use pgflume::provider::postgres::{PostgresProvider, Wanted};
use pgflume::pull::Pull;
use pgflume::push::{Pushes, Writables};
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use pgflume::sync::pairing::nuke;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const RETYPED: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}}}"#;
const MAKE: &str =
    "create table t (id int primary key, v text); insert into t select i, i from generate_series(1, 50) i";
const RETYPE: &str = "alter table t alter column v type int using v::int";

/// A replicated table, and a connection that will freeze.
struct Stop {
    rig: Rig,
    freezer: Freezer,
    /// A worker by way of it.
    worker: Arc<Worker>,
}

impl Stop {
    /// The connection of this purpose freezes once it has sent `text`.
    async fn at(purpose: Purpose, text: &str) -> Self {
        let rig = Rig::new(Path::File, schema(TABLES)).await;
        rig.db.sql(MAKE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let freezer = Freezer::start(rig.db.cluster().port(), purpose.name(), text).await;
        let url = freezer.url(&rig.db.url(), rig.db.cluster().port());
        let worker = Arc::new(Worker::new(config(&url, rig.home.target(), schema(TABLES))));
        Self { rig, freezer, worker }
    }

    fn url(&self) -> String {
        self.freezer.url(&self.rig.db.url(), self.rig.db.cluster().port())
    }

    fn postgres(&self) -> PgUrl {
        PgUrl::parse(&self.url()).unwrap()
    }

    async fn server(&self, is_following: bool) -> Server {
        let config = config(&self.url(), self.rig.home.target(), schema(TABLES));
        if is_following { Server::following(config).await } else { Server::start(config).await }
    }

    /// A server whose connections are all sound.
    async fn other(&self) -> Server {
        Server::following(config(&self.rig.db.url(), self.rig.home.target(), schema(TABLES))).await
    }

    async fn has_frozen(&self) {
        until("it has frozen", async || self.freezer.has_frozen()).await;
    }

    /// What is written from now on arrives.
    async fn goes_on(&self) {
        self.has_frozen().await;
        arrives(&self.rig).await;
    }
}

async fn arrives(rig: &Rig) {
    rig.db.sql("insert into t values (1000, '7')").await;
    until("it arrives", async || rig.rows("SELECT v FROM t WHERE id = 1000").await == ["7"]).await;
}

/// Ends within a connection's own limit, and a little for the rest.
async fn ends<T>(purpose: Purpose, work: impl Future<Output = T>) -> T {
    let limit = purpose.patience() + Duration::from_secs(60);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| panic!("{purpose:?} hangs for more than {limit:?}"))
}

/// A new purpose needs a stop of its own: this does not compile without.
async fn stop(purpose: Purpose) {
    match purpose {
        Purpose::Step => {
            let stop = Stop::at(purpose, "for update nowait").await;
            let _following = stop.server(true).await;
            stop.goes_on().await;
        }
        Purpose::Beside => {
            let stop = Stop::at(purpose, "begin").await;
            let _following = stop.server(true).await;
            stop.goes_on().await;
        }
        Purpose::Pull => {
            let (stop, _other) = beside(purpose, "select").await;
            let home = Home::new(Path::File);
            let provider = PostgresProvider {
                url: stop.postgres(),
                wanted: Wanted::Defined(schema(TABLES)),
                row_bytes: DEFAULT_ROW_BYTES,
                stamps: StampOptions::default(),
            };
            let pull = Pull::new("p".into(), Arc::new(provider), home.target(), false);
            let pulling = tokio::spawn(async move { pull.pass().await });
            stop.goes_on().await;
            // On another connection.
            assert!(ends(purpose, pulling).await.unwrap().unwrap().caught_up_at.is_some());
        }
        Purpose::Rebuild => {
            let stop = Stop::at(purpose, "select").await;
            let _server = stop.server(false).await;
            stop.has_frozen().await;
            // Nobody calls.
            until("it is copied", async || {
                stop.rig.rows("SELECT count(*) FROM sqlite_master WHERE name = 't'").await == ["1"]
                    && stop.rig.rows("SELECT count(*) FROM t").await == ["50"]
            })
            .await;
        }
        Purpose::Nuke => {
            let (stop, _other) = beside(purpose, "for update").await;
            let nuking = tokio::spawn({
                let worker = stop.worker.clone();
                async move { nuke(&worker, None, true).await }
            });
            stop.goes_on().await;
            assert!(ends(purpose, nuking).await.unwrap().is_err());
        }
        Purpose::Dead => {
            let (stop, _other) = beside(purpose, "for update").await;
            stop.rig.db.send(r#""not understood""#).await;
            until("it is dead", async || stop.rig.db.dead().await.len() == 1).await;
            let retrying = tokio::spawn({
                let worker = stop.worker.clone();
                async move { dead::retry(&worker, &Choice { ids: vec![], table: None }).await }
            });
            stop.goes_on().await;
            assert!(ends(purpose, retrying).await.unwrap().is_err());
        }
        Purpose::Alter => {
            let (stop, _other) = beside(purpose, "for update").await;
            stop.rig.db.sql(RETYPE).await;
            let altering = tokio::spawn(alter(Sides {
                postgres: stop.postgres(),
                target: Some(stop.rig.home.target()),
                schema: schema(RETYPED),
                queue: stop.rig.worker.queue().clone(),
                wanted: SetupOptions::default(),
            }));
            stop.goes_on().await;
            assert!(ends(purpose, altering).await.unwrap().is_err());
        }
        Purpose::Resync => {
            let (stop, _other) = beside(purpose, "select").await;
            let asking = resync::request(&stop.worker, &["t"]);
            let (asked, ()) = futures_util::join!(ends(purpose, asking), stop.goes_on());
            assert!(asked.is_err());
        }
        Purpose::Status => {
            let (stop, _other) = beside(purpose, "select").await;
            let (asked, ()) = futures_util::join!(ends(purpose, status(&stop.worker)), stop.goes_on());
            assert!(asked.is_err());
        }
        Purpose::Doctor => {
            let (stop, _other) = beside(purpose, "select").await;
            let examination = Examination::default();
            let (found, ()) = futures_util::join!(ends(purpose, examine(&stop.worker, &examination)), stop.goes_on());
            assert!(!found.is_empty());
        }
        Purpose::Push => {
            let (stop, _other) = beside(purpose, "begin").await;
            let pushes = Pushes::new(stop.postgres(), Writables::default());
            let checking = tokio::spawn(async move { pushes.check().await });
            stop.goes_on().await;
            assert!(ends(purpose, checking).await.unwrap().is_err());
        }
        Purpose::Events => {
            // Its own connection: events are delivered when it is open again, and nobody waits for them.
        }
        Purpose::Ready => {
            let (stop, _other) = beside(purpose, "select").await;
            let (reasons, ()) = futures_util::join!(ends(purpose, unready(&stop.worker)), stop.goes_on());
            assert!(reasons.contains_key("source"), "{reasons:?}");
        }
        Purpose::Setup => {
            let (stop, _other) = beside(purpose, "begin").await;
            let (postgres, schema, queue) = (stop.postgres(), schema(TABLES), stop.rig.worker.queue().clone());
            let setting_up =
                tokio::spawn(
                    async move { setup(&postgres, &schema, &queue, &SetupOptions::default()).await.map(drop) },
                );
            stop.goes_on().await;
            setting_up.abort();
        }
        Purpose::Teardown => {
            let (stop, _other) = beside(purpose, "select").await;
            let (postgres, queue) = (stop.postgres(), stop.rig.worker.queue().clone());
            let tearing =
                tokio::spawn(async move { teardown(&postgres, &queue, TeardownOptions { drop_queue: false }).await });
            stop.goes_on().await;
            tearing.abort();
        }
        Purpose::Init => {
            let (stop, _other) = beside(purpose, "select").await;
            let directory = tempfile::tempdir().unwrap();
            let mut command = pgflume(&stop.url(), &stop.rig, TABLES, directory.path());
            let _process = Process::spawn(command.args(["init", "--stdout"]), &directory.path().join("log"), None);
            stop.goes_on().await;
        }
        // Its Postgres is its own, and nobody else's.
        Purpose::Demo => {}
    }
}

/// A stop beside a worker whose connections are sound, once all is copied.
async fn beside(purpose: Purpose, text: &str) -> (Stop, Server) {
    let stop = Stop::at(purpose, text).await;
    rebuilt(&stop.rig).await;
    let other = stop.other().await;
    (stop, other)
}

async fn alter(sides: Sides) -> pgflume::core::error::Result<()> {
    let plan = alter::plan(&sides).await?;
    alter::apply(&sides, plan).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_freezes_stops_nobody_else() {
    let stops = Purpose::ALL.map(|purpose| {
        Box::pin(async move {
            let began = Instant::now();
            stop(purpose).await;
            println!("{purpose:?}: the rest went on, {} s in all", began.elapsed().as_secs());
        })
    });
    futures_util::future::join_all(stops).await;
}

/// Every connection has a purpose, and only tests open one without.
#[test]
fn no_connection_is_opened_without_a_name() {
    fn sources(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    sources(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    assert!(files.len() > 50);
    let mut named = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        // The replica's file and the definition itself have a `connect` of their own; the demo is its own application.
        let may_connect = ["replica/local.rs", "src/postgres/mod.rs"].iter().any(|end| path.ends_with(end))
            || path.components().any(|part| part.as_os_str() == "demo");
        assert!(may_connect || !text.contains(".connect()"), "{} connects without a purpose", path.display());
        named.push_str(&text);
    }
    for purpose in Purpose::ALL {
        let opens = |open: &str| named.contains(&format!("{open}(Purpose::{purpose:?})"));
        assert!(opens("pinned") || opens(".connect"), "nothing opens {purpose:?}");
    }
    let names: std::collections::BTreeSet<_> = Purpose::ALL.iter().map(|purpose| purpose.name()).collect();
    assert_eq!(names.len(), Purpose::ALL.len());
}

fn pgflume(url: &str, rig: &Rig, tables: &str, directory: &std::path::Path) -> Command {
    let definition = directory.join("schema.json");
    std::fs::write(&definition, tables).unwrap();
    let Target::File(path) = rig.home.target() else { panic!("a file") };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.env("PGMQ_URL", url).env("LIBSQL_URL", format!("file:{}", path.display()));
    command.env("SCHEMA_FILE", definition).current_dir(directory);
    command
}

/// The command stops (SIGSTOP) at a place where it holds the queue, and another worker goes on.
async fn stopped(arguments: &'static [&'static str], place: &'static str, tables: &'static str) {
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    if tables == RETYPED {
        rig.db.sql(RETYPE).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut command = pgflume(&rig.db.url(), &rig, tables, directory.path());
    command.args(arguments).env("FAILPOINTS", format!("{place}=return(600000)"));
    let process = Process::spawn(&mut command, &log, None);
    until("it holds the queue", async || tail(&log).contains("the process stalls")).await;
    assert!(Command::new("kill").args(["-STOP", &process.id().to_string()]).status().unwrap().success());
    let _other = Server::following(config(&rig.db.url(), rig.home.target(), schema(tables))).await;
    arrives(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_stopped_while_it_holds_the_queue_loses_it() {
    let commands: [(&[&str], &str, &str); 5] = [
        (&["sync"], "locked", TABLES),
        (&["resync"], "locked", TABLES),
        (&["verify"], "compared", TABLES),
        (&["nuke", "--yes"], "reset", TABLES),
        (&["setup"], "altered", RETYPED),
    ];
    let all = commands.map(|(arguments, place, tables)| Box::pin(stopped(arguments, place, tables)));
    futures_util::future::join_all(all).await;
}
