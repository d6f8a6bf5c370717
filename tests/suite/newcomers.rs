//! Replicas that are new, or somebody else's: whose files they are, and whose rows.

use crate::support::{Db, Home, PATHS, Path, Rig, config, repository_schema, schema};
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_is_its_owners_alone() {
    for (umask, expected) in [("000", 0o600), ("022", 0o600), ("277", 0o400)] {
        let db = Db::new().await;
        db.sql(
            "create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 1000) i",
        )
        .await;
        let home = tempfile::tempdir().unwrap();
        let (definition, replica) = (home.path().join("schema.json"), home.path().join("replica.db"));
        std::fs::write(&definition, T).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            &format!("umask {umask}; exec \"$0\" serve --follow --port 0"),
            env!("CARGO_BIN_EXE_pgflume"),
        ]);
        command.env_clear().env("PGMQ_URL", db.url()).env("LIBSQL_URL", &replica).env("SCHEMA_FILE", &definition);
        command.env("WEBHOOK_SIGNATURE", "0123456789abcdef");
        let log = home.path().join("log");
        let process = crate::parts::process::Process::spawn(&mut command, &log, None);
        let mode = |name: &str| {
            let found = std::fs::metadata(home.path().join(name)).ok()?;
            Some(found.permissions().mode() & 0o777)
        };
        // SQLite makes a side file before it sets its mode, and this one last: it is whole when it has been grown.
        let grown = || std::fs::metadata(home.path().join("replica.db-shm")).is_ok_and(|found| found.len() > 0);
        crate::support::until("the replica is written", async || grown()).await;
        for name in ["replica.db", "replica.db-wal", "replica.db-shm"] {
            assert_eq!(mode(name), Some(expected), "{name} under umask {umask}");
        }
        drop(process);
    }
    // What is there already keeps its mode: readers go by it.
    let home = Home::new(Path::File);
    let Target::File(file) = home.target() else { unreachable!() };
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _open = Replica::open(&home.target()).await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
}

async fn with_foreign(path: Path, definition: &str, sql: &[&str]) -> Rig {
    let rig = Rig::new(path, schema(definition)).await;
    let replica = Replica::open(&rig.home.target()).await.unwrap();
    for sql in sql {
        replica.query(*sql, vec![]).await.unwrap();
    }
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_stranger_stay_until_they_are_given_up() {
    let stranger = ["CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (7, 'theirs')"];
    for path in PATHS {
        let rig = with_foreign(path, T, &stranger).await;
        rig.db.sql("create table t (id int primary key, v text); insert into t values (1, 'ours')").await;
        for _ in 0..2 {
            let error = rig.worker.drain(Duration::from_secs(5)).await.unwrap_err().to_string();
            assert!(error.contains("\"t\"") && error.contains("--adopt"), "{error}");
        }
        let error = pgflume::sync::pairing::nuke(&rig.worker, None, true).await.unwrap_err().to_string();
        assert!(error.contains("--adopt"), "{error}");
        assert_eq!(rig.rows("SELECT * FROM t").await, ["7|theirs"]);
        assert_eq!(rig.rows("SELECT name FROM sqlite_master WHERE name LIKE '\\_pgflume%' ESCAPE '\\'").await, [""; 0]);
        let mut wanted = config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
        wanted.adopt = true;
        let adopting = Worker::new(wanted).ending_caught_up();
        pgflume::operate::resync::request(&adopting, &["t"]).await.unwrap();
        while adopting.drain(Duration::from_secs(25)).await.unwrap().rebuilding > 0 {}
        assert_eq!(rig.rows("SELECT * FROM t").await, ["1|ours"], "{path:?}");
        rig.drain().await; // it is ours from now on
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_tables_other_tables_and_capgos_replica_are_welcome() {
    let cases: [(&str, &[&str]); 4] = [
        ("empty", &["CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"]),
        ("another name", &["CREATE TABLE u (id INTEGER PRIMARY KEY)", "INSERT INTO u VALUES (1)"]),
        ("nothing", &[]),
        (
            "lost bookkeeping",
            &[
                "CREATE TABLE _pgflume_freshness (caught_up_at TEXT, applied_at TEXT, queued INTEGER)",
                "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT)",
                "INSERT INTO t VALUES (1, 'x')",
            ],
        ),
    ];
    for (what, sql) in cases {
        let rig = with_foreign(Path::File, T, sql).await;
        rig.worker.drain(Duration::from_secs(5)).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    let whole = repository_schema();
    for (declared, is_welcome) in [
        (whole.get("apps").unwrap().columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>(), true),
        (vec!["id".into(), "app_id".into(), "name".into()], true),
        (vec!["id".into(), "title".into()], false),
    ] {
        let columns: Vec<_> =
            declared.iter().map(|c| format!("{c} TEXT{}", if c == "id" { " PRIMARY KEY" } else { "" })).collect();
        let made = format!("CREATE TABLE apps ({})", columns.join(", "));
        let rig = Rig::new(Path::File, whole.clone()).await;
        let replica = Replica::open(&rig.home.target()).await.unwrap();
        for sql in [made.as_str(), "INSERT INTO apps (id) VALUES ('a')"] {
            replica.query(sql, vec![]).await.unwrap();
        }
        let done = rig.worker.drain(Duration::from_secs(5)).await;
        assert_eq!(done.is_ok(), is_welcome, "{declared:?}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_file_is_cut_after_a_large_transaction() {
    let home = Home::new(Path::File);
    let Target::File(file) = home.target() else { unreachable!() };
    let replica = Replica::open(&home.target()).await.unwrap();
    let log_mb = || std::fs::metadata(format!("{}-wal", file.display())).unwrap().len() >> 20;
    let run = async |sql: &str| drop(replica.query(sql, vec![]).await.unwrap());
    run("CREATE TABLE t (x)").await;
    run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90) INSERT INTO t SELECT randomblob(1000000) FROM n").await;
    assert!(log_mb() >= 85, "{} MB", log_mb());
    run("PRAGMA wal_checkpoint(RESTART)").await;
    run("INSERT INTO t VALUES (1)").await; // begins the log anew
    assert!(log_mb() <= 64, "{} MB", log_mb());
}

/// Closing any descriptor of a file drops all locks that the process has on it: then the next reader that closes the
/// file takes the log away from under the worker, and every later reader is stale.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_how_things_stand_takes_no_lock_from_the_replica() {
    let db = Db::new().await;
    db.sql("create table t (id int primary key, v text)").await;
    crate::volume::set_up(&db.url(), &schema(T)).await;
    let home = tempfile::tempdir().unwrap();
    let (definition, replica) = (home.path().join("schema.json"), home.path().join("replica.db"));
    std::fs::write(&definition, T).unwrap();
    let port = pgflume::demo::postgres::free_port().unwrap().to_string();
    let pgflume = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(arguments).env_clear().env("PGMQ_URL", db.url()).env("LIBSQL_URL", &replica);
        command.env("SCHEMA_FILE", &definition).env("WEBHOOK_SIGNATURE", crate::support::SECRET);
        command
    };
    let log = home.path().join("log");
    let process =
        crate::parts::process::Process::spawn(&mut pgflume(&["serve", "--follow", "--port", &port]), &log, None);
    let read = async |sql: &str| {
        let replica = Replica::open(&Target::File(replica.clone())).await.ok()?;
        let rows = replica.query(sql, vec![]).await.ok()?;
        rows.first().map(|row| crate::store::show(&row[0]))
    };
    for round in 1..=3 {
        db.sql(&format!("insert into t values (1, '{round}') on conflict (id) do update set v = excluded.v")).await;
        crate::support::until("it arrives", async || read("SELECT v FROM t").await == Some(round.to_string())).await;
        for path in ["/ready", "/status", "/metrics"] {
            let url = format!("http://127.0.0.1:{port}{path}");
            let headers = [("x-webhook-signature".to_owned(), crate::support::SECRET.to_owned())];
            let answer = tokio::task::spawn_blocking(move || {
                crate::parts::http::request("GET", &url, &headers, &[], std::time::Duration::from_secs(30))
            });
            assert_eq!(answer.await.unwrap().unwrap().status, 200, "{path}");
        }
        // Another process that opens the file, and closes it.
        assert!(pgflume(&["status"]).output().unwrap().status.success());
        let open = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
        let targets = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        let lost: Vec<_> = targets
            .filter(|t| t.to_string_lossy().contains("replica.db") && t.to_string_lossy().ends_with("(deleted)"))
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}
