//! One queue and one replica: which goes with which, whatever an operator's variables say, and whatever was moved,
//! emptied, restored or made anew meanwhile.

use crate::snapshot::{assert_equal, rebuilt, write_by_hand};
use crate::support::{Db, Home, PATHS, Path, Rig, Server, config, schema, until};
use crate::volume::set_up;
use pgflume::operate::status::{status, unready};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{TeardownOptions, teardown};
use pgflume::postgres::drift::DriftKind;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use pgflume::sync::pairing::nuke;
use std::process::{Command, Output};
use std::time::Duration;

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const MAKE: &str =
    "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 50) i";
const BUDGET: Duration = Duration::from_secs(20);

/// A queue that is paired, and both sides equal.
async fn paired(path: Path) -> Rig {
    let rig = Rig::new(path, schema(TABLES)).await;
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig
}

/// A worker of the same queue with its replica at `home`.
fn worker_at(rig: &Rig, home: &Home) -> Worker {
    Worker::new(config(&rig.db.url(), home.target(), rig.worker.schema().clone()))
}

fn file(home: &Home) -> std::path::PathBuf {
    let Target::File(path) = home.target() else { panic!("a file") };
    path
}

async fn refusal(worker: &Worker) -> String {
    worker.drain(BUDGET).await.unwrap_err().to_string()
}

async fn healed_from(rig: &Rig) -> Option<String> {
    status(&rig.worker).await.unwrap().last_sync.healed_from
}

/// The binary, with a schema file of its own.
fn pgflume(rig: &Rig, target: &str, tables: &str, arguments: &[&str], failpoints: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let definition = directory.path().join("schema.json");
    std::fs::write(&definition, tables).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(arguments).env("PGMQ_URL", rig.db.url()).env("LIBSQL_URL", target).env("SCHEMA_FILE", definition);
    command.env("FAILPOINTS", failpoints).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_replica_somewhere_else_is_refused_and_a_nuke_moves_the_queue_there() {
    for path in PATHS {
        let (rig, elsewhere) = (paired(path).await, Home::new(path));
        let laptop = worker_at(&rig, &elsewhere);
        rig.db.sql("insert into t values (51, 'new')").await;
        for _ in 0..3 {
            let error = refusal(&laptop).await;
            assert!(error.contains("pgflume nuke") && error.contains("QUEUE_NAME"), "{error}");
            assert!(error.contains("another address"), "{error}");
        }
        if path == Path::File {
            assert!(!file(&elsewhere).exists(), "nothing is made there");
        }
        assert_eq!(rig.db.queued().await, 1, "nothing is taken");
        assert_eq!(rig.db.one("select count(*) from pgflume.resyncs where phase <> 'done'").await, "0");
        assert_eq!(rig.drain().await.queued, 0);
        assert_equal(&rig).await;
        assert_eq!(healed_from(&rig).await, None, "{path:?}: the other one goes on as if nothing had been");
        nuke(&laptop, None, true).await.unwrap();
        while laptop.drain(BUDGET).await.unwrap().rebuilding > 0 {}
        let error = refusal(&rig.worker).await;
        assert!(error.contains("another address"), "the queue is there now: {error}");
        let moved = Rig { db: rig.db, home: elsewhere, worker: rig.worker };
        assert_equal(&moved).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_followers_with_two_replicas_do_not_rebuild_each_others() {
    let (rig, elsewhere) = (paired(Path::File).await, Home::new(Path::File));
    let epoch = rig.db.one("select epoch from pgflume.progress").await;
    let _one = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let other = Server::following(config(&rig.db.url(), elsewhere.target(), rig.worker.schema().clone())).await;
    until("the other one says so", async || other.call("GET", "/ready", None).await.body.contains("another address"))
        .await;
    for i in 0..5 {
        rig.db.sql(&format!("insert into t values (100 + {i}, 'new')")).await;
        let there = format!("SELECT count(*) FROM t WHERE id = 100 + {i}");
        until("it arrives", async || rig.rows(&there).await == ["1"]).await;
    }
    assert_eq!(rig.db.one("select epoch from pgflume.progress").await, epoch, "nothing was paired anew");
    assert!(!file(&elsewhere).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_moved_goes_on_and_an_older_copy_of_it_elsewhere_does_not() {
    let (rig, elsewhere, copied) = (paired(Path::File).await, Home::new(Path::File), Home::new(Path::File));
    std::fs::copy(file(&rig.home), file(&copied)).unwrap();
    rig.db.sql("update t set v = 'new' where id = 1").await;
    rig.drain().await;
    let epoch = rig.db.one("select epoch from pgflume.progress").await;
    std::fs::rename(file(&rig.home), file(&elsewhere)).unwrap();
    rig.db.sql("update t set v = 'newer' where id = 2").await;
    let moved = Rig { worker: worker_at(&rig, &elsewhere).into(), db: rig.db, home: elsewhere };
    assert_eq!(moved.drain().await.queued, 0);
    assert_equal(&moved).await;
    assert_eq!(moved.db.one("select epoch from pgflume.progress").await, epoch);
    assert_eq!(healed_from(&moved).await, None);
    for _ in 0..3 {
        let error = refusal(&worker_at(&moved, &copied)).await;
        assert!(error.contains("another address"), "{error}");
        let error = refusal(&worker_at(&moved, &rig.home)).await;
        assert!(error.contains("another address"), "the old place, where nothing is now: {error}");
        assert_eq!(moved.drain().await.queued, 0);
    }
    assert_eq!(moved.db.one("select epoch from pgflume.progress").await, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_replica_at_the_same_address_heals_by_itself_as_often_as_it_takes() {
    let rig = paired(Path::File).await;
    for i in 0..3 {
        std::fs::remove_file(file(&rig.home)).unwrap();
        rig.db.sql(&format!("insert into t values (100 + {i}, 'new')")).await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        assert_eq!(healed_from(&rig).await.as_deref(), Some("other_replica"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_this_queue_does_not_know_is_a_restore_where_this_source_wrote_it() {
    let rig = paired(Path::File).await;
    // Both sides restored to different times: the replica is in an epoch that this Postgres has forgotten.
    for i in 0..3 {
        let by_hand = libsql::Builder::new_local(file(&rig.home)).build().await.unwrap().connect().unwrap();
        by_hand.execute(&format!("UPDATE _pgflume_head SET epoch = 'of another life {i}'"), ()).await.unwrap();
        by_hand.execute("DELETE FROM t WHERE id < 10", ()).await.unwrap();
        rebuilt(&rig).await;
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_replica_is_refused_at_once() {
    let (theirs, ours) = (paired(Path::File).await, paired(Path::File).await);
    rebuilt(&theirs).await;
    std::fs::copy(file(&theirs.home), file(&ours.home)).unwrap();
    for ending in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{ending}", file(&ours.home).display())).ok();
    }
    let before = ours.rows("SELECT epoch, seq, owner FROM _pgflume_head").await;
    for _ in 0..2 {
        let error = refusal(&ours.worker).await;
        assert!(error.contains("belongs to another queue or another database"), "{error}");
    }
    assert_eq!(ours.rows("SELECT epoch, seq, owner FROM _pgflume_head").await, before, "nothing was changed");
    assert!(before[0].contains(&format!("/replicate_data_libsql/{}", theirs.db.name)), "{before:?}");
    nuke(&ours.worker, None, true).await.unwrap();
    rebuilt(&ours).await;
    assert_equal(&ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_torn_down_and_set_up_again_takes_its_replica_back_and_rebuilds_it_in_place() {
    for path in PATHS {
        for how in ["teardown", "teardown with the queue", "drop schema"] {
            let rig = paired(path).await;
            let url = PgUrl::parse(&rig.db.url()).unwrap();
            match how {
                "drop schema" => rig.db.sql("drop schema pgflume cascade").await,
                _ => {
                    let options = TeardownOptions { drop_queue: how.ends_with("queue") };
                    drop(teardown(&url, rig.worker.queue(), options).await.unwrap());
                }
            }
            rig.db.sql("update t set v = 'unseen' where id = 1; delete from t where id = 2").await;
            set_up(&rig.db.url(), rig.worker.schema()).await;
            rig.db.sql("insert into t values (51, 'seen')").await;
            assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["50"], "readers see it all the while");
            rebuilt(&rig).await;
            assert_equal(&rig).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_an_older_version_is_signed_by_the_next_step() {
    let rig = paired(Path::File).await;
    let by_hand = libsql::Builder::new_local(file(&rig.home)).build().await.unwrap().connect().unwrap();
    by_hand.execute("ALTER TABLE _pgflume_head DROP COLUMN owner", ()).await.unwrap();
    rig.db.sql("update pgflume.progress set address = null").await;
    let epoch = rig.db.one("select epoch from pgflume.progress").await;
    rig.db.sql("insert into t values (51, 'new')").await;
    rig.drain().await;
    assert_equal(&rig).await;
    assert_eq!(rig.db.one("select epoch from pgflume.progress where address is not null").await, epoch);
    assert!(rig.rows("SELECT owner FROM _pgflume_head").await[0].ends_with(&rig.db.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_or_replaced_while_it_is_followed_is_noticed() {
    let rig = paired(Path::File).await;
    let older = tempfile::tempdir().unwrap();
    std::fs::copy(file(&rig.home), older.path().join("copy")).unwrap();
    let server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    until("it follows", async || server.call("GET", "/ready", None).await.status == 200).await;
    for is_replaced in [false, true] {
        for ending in ["-wal", "-shm"] {
            std::fs::remove_file(format!("{}{ending}", file(&rig.home).display())).ok();
        }
        match is_replaced {
            true => std::fs::rename(older.path().join("copy"), file(&rig.home)).unwrap(),
            false => std::fs::remove_file(file(&rig.home)).unwrap(),
        }
        // Nothing is written: an idle worker looks, too.
        until("the file is whole", async || {
            file(&rig.home).exists()
                && rig.db.one("select count(*) from pgflume.progress where healed_at > now() - interval '20 s'").await
                    == "1"
        })
        .await;
        rig.db.sql(&format!("insert into t values (100 + {}, 'new')", i32::from(is_replaced))).await;
        until("it is ready again", async || server.call("GET", "/ready", None).await.status == 200).await;
        until("all is there", async || rig.db.queued().await == 0).await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        rig.db.sql("update pgflume.progress set healed_at = null").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_another_one_now_is_not_ready() {
    for path in PATHS {
        let mut rig = paired(path).await;
        assert_eq!(unready(&rig.worker).await.len(), 0);
        let place = match &mut rig.home {
            Home::File(dir) => dir.path().to_owned(),
            Home::Sqld(sqld) => {
                sqld.kill();
                sqld.directory()
            }
        };
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::create_dir(&place).unwrap();
        if let Home::Sqld(sqld) = &mut rig.home {
            sqld.start_again();
        }
        let reasons = unready(&rig.worker).await;
        assert!(reasons.get("target").is_some_and(|r| r.contains("not the one")), "{path:?}: {reasons:?}");
        if path == Path::File {
            assert!(!file(&rig.home).exists(), "who only looks makes nothing");
        }
        rebuilt(&rig).await;
        assert_eq!(unready(&rig.worker).await.len(), 0, "{path:?}");
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn books_of_a_newer_version_are_left_as_they_are() {
    let rig = paired(Path::File).await;
    let comment = "select obj_description('pgflume'::regnamespace, 'pg_namespace')";
    for newer in ["pgflume, bookkeeping 99", "pgflume, bookkeeping 99, for 5 and later"] {
        rig.db.sql(&format!("comment on schema pgflume is '{newer}'; insert into t values (100, 'new') on conflict (id) do update set v = t.v || '+'")).await;
        assert_eq!(rig.drain().await.queued, 0, "{newer}");
        set_up(&rig.db.url(), rig.worker.schema()).await;
        assert_eq!(rig.db.one(comment).await, newer);
    }
    rig.db.sql("comment on schema pgflume is 'pgflume, bookkeeping 99, for 98 and later'").await;
    let error = refusal(&rig.worker).await;
    assert!(error.contains("newer version"), "{error}");
    rig.db.sql("comment on schema pgflume is 'pgflume, bookkeeping 5'").await;
    rig.drain().await;
    assert!(rig.db.one(comment).await.starts_with("pgflume, bookkeeping 7"));
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_that_leaves_the_tables_empty_does_so_too_where_it_is_cut_short() {
    for place in ["announced", "reset", "paired"] {
        let rig = paired(Path::File).await;
        let url = format!("file:{}", file(&rig.home).display());
        let died = pgflume(&rig, &url, TABLES, &["nuke", "--yes", "--no-refill"], &format!("{place}=return"));
        assert!(!died.status.success(), "{}", errors(&died));
        rebuilt(&rig).await;
        let expected = if place == "announced" { "50" } else { "0" };
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, [expected], "{place}");
        let whole = pgflume(&rig, &url, TABLES, &["nuke", "--yes", "--no-refill"], "");
        assert!(whole.status.success(), "{}", errors(&whole));
        rebuilt(&rig).await;
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["0"], "{place}");
        let refilled = pgflume(&rig, &url, TABLES, &["nuke", "--yes"], "");
        assert!(refilled.status.success(), "{}", errors(&refilled));
        rebuilt(&rig).await;
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_asks_before_it_empties() {
    let rig = paired(Path::File).await;
    let url = format!("file:{}", file(&rig.home).display());
    let asked = pgflume(&rig, &url, TABLES, &["nuke"], "");
    assert_eq!(asked.status.code(), Some(2), "{}", errors(&asked));
    assert!(errors(&asked).contains("--yes"));
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_setup_altered_is_filled_also_where_setup_died_before_it_could_say_so() {
    let rig = paired(Path::File).await;
    let url = format!("file:{}", file(&rig.home).display());
    // Somebody has made the table anew, and so that text would turn into numbers. No definition has changed: only
    // what `setup` leaves in Postgres tells anybody that rows are missing.
    for sql in ["DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)"] {
        write_by_hand(&rig, sql).await;
    }
    let died = pgflume(&rig, &url, TABLES, &["setup"], "altered=return");
    assert!(!died.status.success() && errors(&died).contains("failpoint altered"), "{}", errors(&died));
    for _ in 0..3 {
        let drained = pgflume(&rig, &url, TABLES, &["sync"], "");
        assert!(drained.status.success(), "{}", errors(&drained));
    }
    assert_equal(&rig).await;
    assert_eq!(rig.rows("SELECT count(*), count(v), max(v) FROM t").await, ["50|50|old"]);
}

/// The only reason of `/ready` that is about the schema.
async fn schema_reason(rig: &Rig) -> String {
    unready(&rig.worker).await.remove("schema").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn capture_that_was_dropped_with_its_records_is_missed_until_it_is_set_up_again() {
    for path in PATHS {
        for how in ["drop schema pgflume cascade", "teardown", "delete from pgflume.captured"] {
            let rig = paired(path).await;
            assert_eq!(schema_reason(&rig).await, "", "{how}");
            match how {
                "teardown" => {
                    let url = PgUrl::parse(&rig.db.url()).unwrap();
                    drop(teardown(&url, rig.worker.queue(), TeardownOptions { drop_queue: false }).await.unwrap());
                }
                sql => rig.db.sql(sql).await,
            }
            for i in 0..3 {
                rig.db.sql(&format!("insert into t values (200 + {i}, 'maybe unseen')")).await;
                rig.worker.drain(BUDGET).await.unwrap();
                let drift = status(&rig.worker).await.unwrap().drift;
                assert!(drift.len() == 1 && drift[0].kind == DriftKind::CaptureMissing, "{how}: {drift:?}");
                assert!(drift[0].line().contains("pgflume setup"), "{how}: {drift:?}");
                assert!(schema_reason(&rig).await.contains("pgflume setup"), "{how}");
            }
            set_up(&rig.db.url(), rig.worker.schema()).await;
            rebuilt(&rig).await;
            assert_equal(&rig).await;
            assert_eq!(schema_reason(&rig).await, "", "{how}");
            assert_eq!(status(&rig.worker).await.unwrap().drift, [], "{how}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_without_capture_says_so_by_a_nuke() {
    let rig = paired(Path::File).await;
    let url = PgUrl::parse(&rig.db.url()).unwrap();
    drop(teardown(&url, rig.worker.queue(), TeardownOptions { drop_queue: false }).await.unwrap());
    rig.drain().await;
    assert_ne!(schema_reason(&rig).await, "");
    nuke(&rig.worker, None, true).await.unwrap();
    rebuilt(&rig).await;
    assert_eq!(status(&rig.worker).await.unwrap().drift, []);
    assert_eq!(schema_reason(&rig).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn capture_that_comes_while_changes_are_followed_is_remembered_too() {
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    rig.db.sql(MAKE).await;
    let server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    until("it follows", async || server.call("GET", "/ready", None).await.status == 200).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let count = "SELECT count(*) FROM t";
    until("it has copied", async || file(&rig.home).exists() && rig.rows(count).await == ["50"]).await;
    rig.db.sql("drop schema pgflume cascade").await;
    until("it says so", async || {
        let answer = server.call("GET", "/ready", None).await;
        answer.status == 503 && answer.body.contains("was captured")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_database_does_not_take_its_replica_and_a_renamed_one_keeps_it() {
    for path in PATHS {
        for is_of_older_version in [false, true] {
            let rig = paired(path).await;
            if is_of_older_version {
                let owner = rig.rows("SELECT owner FROM _pgflume_head").await.swap_remove(0);
                let (system, rest) = owner.split_once('/').unwrap();
                let owner = format!("{}/{rest}", system.split('-').next().unwrap());
                write_by_hand(&rig, &format!("UPDATE _pgflume_head SET owner = '{owner}'")).await;
                let old = "split_part(source_id, '/', 1) || '/' || split_part(source_id, '/', 2)";
                rig.db.sql(&format!("update pgflume.progress set source_id = {old}")).await;
            }
            let head = rig.rows("SELECT epoch, seq, owner FROM _pgflume_head").await;
            let Rig { db, home, worker } = rig;
            let (name, cluster) = (db.name.clone(), db.cluster());
            let _original = db.leave();
            worker.let_go(); // a database that somebody is in is not copied
            let copy = Db::named(format!("{name}_copy"), cluster, &name).await;
            copy.sql("update t set v = 'of the copy'; insert into t values (1000, 'of the copy')").await;
            let theirs = Rig::with(copy, home, worker.schema().clone());
            for _ in 0..2 {
                let error = refusal(&theirs.worker).await;
                assert!(error.contains("another database"), "{error}");
                assert_ne!(unready(&theirs.worker).await.len(), 0);
            }
            assert_eq!(theirs.rows("SELECT epoch, seq, owner FROM _pgflume_head").await, head, "{path:?}");
            // The other one goes on, under another name, too.
            let Rig { home, db: copy, .. } = theirs;
            let ours = Rig { db: Db::existing(&name, cluster).await, home, worker };
            ours.db.sql("insert into t values (60, 'new')").await;
            assert_eq!(ours.drain().await.queued, 0);
            assert_equal(&ours).await;
            let Rig { db, home, worker } = ours;
            let _before = db.leave();
            worker.let_go();
            let renamed = format!("{name}_renamed");
            until("nobody is connected", async || {
                let others = format!("select count(*) from pg_stat_activity where datname = '{name}'");
                copy.one(&others).await == "0"
            })
            .await;
            copy.sql(&format!("alter database {name} rename to {renamed}")).await;
            let ours = Rig::with(Db::existing(&renamed, cluster).await, home, worker.schema().clone());
            ours.db.sql("insert into t values (61, 'newer')").await;
            assert_eq!(ours.drain().await.queued, 0);
            assert_equal(&ours).await;
            let epoch = ours.db.one("select epoch from pgflume.progress").await;
            assert!(head[0].starts_with(&epoch) && healed_from(&ours).await.is_none(), "nothing was paired anew");
            assert!(ours.rows("SELECT owner FROM _pgflume_head").await[0].ends_with(&renamed));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_that_leaves_the_tables_empty_does_so_too_where_it_is_cut_short_twice() {
    let rig = paired(Path::File).await;
    let url = format!("file:{}", file(&rig.home).display());
    for place in ["reset", "announced"] {
        let died = pgflume(&rig, &url, TABLES, &["nuke", "--yes", "--no-refill"], &format!("{place}=return"));
        assert!(!died.status.success(), "{}", errors(&died));
    }
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["0"]);
    rig.db.sql("insert into t values (60, 'new')").await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT id FROM t").await, ["60"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_somebody_removed_make_the_tables_be_copied_again() {
    let rig = paired(Path::File).await;
    write_by_hand(&rig, "DELETE FROM t WHERE id < 10").await;
    rig.db.sql("delete from pgflume.shapes").await;
    rebuilt(&rig).await;
    assert_equal(&rig).await;
    assert_ne!(rig.db.one("select count(*) from pgflume.shapes").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_copy_has_taken_the_queue_says_how_to_take_it_back() {
    let (rig, copied) = (paired(Path::File).await, Home::new(Path::File));
    std::fs::copy(file(&rig.home), file(&copied)).unwrap();
    rig.db.sql("update t set v = 'new' where id = 1").await;
    worker_at(&rig, &copied).drain(BUDGET).await.unwrap();
    let error = refusal(&rig.worker).await;
    for part in ["this was the queue's replica", "another address", "take it back", "pgflume nuke", "QUEUE_NAME"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    nuke(&rig.worker, None, true).await.unwrap();
    rebuilt(&rig).await;
    assert_equal(&rig).await;
    let error = refusal(&worker_at(&rig, &copied)).await;
    assert!(error.contains("this was the queue's replica"), "{error}");
}
