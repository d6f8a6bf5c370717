//! Sides that lost something: a replica without its last batches, a Postgres at an earlier point, a queue that
//! somebody else emptied. Each is noticed, reported, and healed by what is kept or by a resync.

use crate::snapshot::{assert_equal, rebuilt};
use crate::support::{Db, Home, PATHS, Path, Rig, config, schema};
use crate::volume::set_up;
use pgflume::demo::compare::compare;
use pgflume::demo::postgres::{Cluster, ClusterOptions, Stop};
use pgflume::operate::status::{Status, status};
use pgflume::postgres::PgUrl;
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use pgflume::sync::{Drained, Worker};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const MAKE: &str = "create table t (id int primary key, v text)";
const BUDGET: Duration = Duration::from_secs(20);

pub fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// A copy of a replica as it is now, and the way back to it.
pub struct Backup {
    place: PathBuf,
    copy: TempDir,
}

impl Backup {
    pub fn of(home: &mut Home) -> Self {
        let copied = tempfile::tempdir().unwrap();
        let place = match home {
            Home::File(dir) => dir.path().to_owned(),
            Home::Sqld(sqld) => {
                sqld.kill();
                sqld.directory()
            }
        };
        copy(&place, &copied.path().join("copy"));
        if let Home::Sqld(sqld) = home {
            sqld.start_again();
        }
        Self { place, copy: copied }
    }

    pub fn restore(&self, home: &mut Home) {
        if let Home::Sqld(sqld) = home {
            sqld.kill();
        }
        std::fs::remove_dir_all(&self.place).unwrap();
        copy(&self.copy.path().join("copy"), &self.place);
        if let Home::Sqld(sqld) = home {
            sqld.start_again();
        }
    }
}

/// A rig that keeps acknowledged messages.
async fn keeping(path: Path, tables: &str, retention: Duration) -> Rig {
    let (db, home) = (Db::new().await, Home::new(path));
    let mut config = config(&db.url(), home.target(), schema(tables));
    config.retention = retention;
    Rig { db, home, worker: Arc::new(Worker::new(config)) }
}

async fn healed_from(rig: &Rig) -> Option<String> {
    status(&rig.worker).await.unwrap().last_sync.healed_from
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_last_batches_is_caught_up_from_what_is_kept() {
    for path in PATHS {
        let mut rig = keeping(path, TABLES, Duration::from_secs(3600)).await;
        rig.db.sql(&format!("{MAKE}; insert into t select i, 'old' from generate_series(1, 50) i")).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        rig.db.sql("insert into t values (51, 'before')").await;
        rig.drain().await;
        let backup = Backup::of(&mut rig.home);
        for sql in [
            "update t set v = 'new' where id < 10",
            "delete from t where id = 20",
            "insert into t select i, 'more' from generate_series(60, 3000) i",
            "update t set id = 99999 where id = 30",
        ] {
            rig.db.sql(sql).await;
            rig.drain().await;
        }
        backup.restore(&mut rig.home);
        rig.db.sql("update t set v = 'newest' where id = 51").await;
        rig.drain().await;
        assert_equal(&rig).await;
        let healed = healed_from(&rig).await.unwrap();
        assert!(healed.starts_with("behind") && healed.contains("kept"), "{path:?}: {healed}");
        assert_eq!(
            rig.db.one("select phase || reason from pgflume.resyncs").await,
            "donesetup",
            "nothing was resynced"
        );
        // And once more, from the same copy, which is now two losses old.
        backup.restore(&mut rig.home);
        rig.drain().await;
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_a_replica_lost_are_applied_again_in_their_order() {
    let mut rig = keeping(Path::File, TABLES, Duration::from_secs(3600)).await;
    let image = |id: u32, v: &str| {
        format!(r#"{{"type":"UPDATE","table":"t","record":{{"id":{id},"v":"{v}"}},"old_record":{{"id":{id}}}}}"#)
    };
    rig.db.send(&image(1, "first")).await;
    rig.drain().await;
    let backup = Backup::of(&mut rig.home);
    for v in ["second", "third"] {
        rig.db.send(&image(1, v)).await;
        rig.db.send(&image(2, v)).await;
        rig.drain().await;
    }
    rig.db.send(r#"{"type":"DELETE","table":"t","record":null,"old_record":{"id":2}}"#).await;
    rig.drain().await;
    rig.db.send(&image(1, "fourth")).await;
    backup.restore(&mut rig.home);
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT id, v FROM t ORDER BY id").await, ["1|fourth"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_a_replica_lost_are_copied_again() {
    let mut rig = keeping(Path::File, TABLES, Duration::from_secs(3600)).await;
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("insert into t values (1, 'one')").await;
    rig.drain().await;
    let backup = Backup::of(&mut rig.home);
    // Rows that no message names.
    rig.db
        .sql("alter table t disable trigger user; insert into t select i, 'silent' from generate_series(2, 900) i")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    pgflume::operate::resync::request(&rig.worker, &["t"]).await.unwrap();
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["900"]);
    backup.restore(&mut rig.home);
    rebuilt(&rig).await;
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_than_what_is_kept_and_an_empty_replica_are_resynced() {
    for path in PATHS {
        for is_empty in [false, true] {
            let mut rig = keeping(path, TABLES, Duration::from_secs(3600)).await;
            rig.db.sql(&format!("{MAKE}; insert into t select i, 'old' from generate_series(1, 50) i")).await;
            set_up(&rig.db.url(), rig.worker.schema()).await;
            let empty = Backup::of(&mut rig.home);
            rebuilt(&rig).await;
            let backup = Backup::of(&mut rig.home);
            rig.db.sql("update t set v = 'new' where id < 10; delete from t where id = 20").await;
            rig.drain().await;
            rig.db.sql("delete from pgflume.kept").await; // its window is over
            if is_empty {
                empty.restore(&mut rig.home)
            } else {
                backup.restore(&mut rig.home)
            }
            rebuilt(&rig).await;
            assert_equal(&rig).await;
            let expected = if is_empty { "other_replica" } else { "behind" };
            assert_eq!(healed_from(&rig).await.as_deref(), Some(expected), "{path:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_forgotten_after_its_window_and_nothing_is_kept_without_one() {
    let rig = keeping(Path::File, TABLES, Duration::from_secs(1)).await;
    for _ in 0..3 {
        rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":1}}"#).await;
        rig.drain().await;
        rig.db.sql("update pgflume.kept set at = at - interval '1 min'").await;
    }
    assert_eq!(rig.db.one("select count(distinct after_seq) from pgflume.kept").await, "1", "the last step's own");
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":1}}"#).await;
    rig.drain().await;
    assert_eq!(rig.db.one("select count(*) from pgflume.kept").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_somebody_else_removes_are_noticed_and_their_tables_copied_again() {
    let removals = [
        "select pgmq.purge_queue('replicate_data_libsql')",
        "delete from pgmq.q_replicate_data_libsql",
        "select pgmq.archive('replicate_data_libsql', (select min(msg_id) from pgmq.q_replicate_data_libsql))",
    ];
    for removal in removals {
        let rig = Rig::new(Path::File, schema(TABLES)).await;
        rig.db.sql(&format!("{MAKE}; insert into t values (1, 'a')")).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        rig.db.sql("insert into t values (2, 'b')").await;
        rig.db.sql(removal).await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        assert_eq!(healed_from(&rig).await.as_deref(), Some("messages_removed"), "{removal}");
        assert_eq!(rig.db.one("select count(*) from pgflume.losses").await, "0");
    }
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    rig.db.sql(&format!("{MAKE}; insert into t values (1, 'a')")).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("insert into t values (2, 'b')").await;
    rig.drain().await;
    assert_eq!(healed_from(&rig).await, None, "the worker's own taking is no loss");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_recreated_is_noticed_and_healed() {
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    rig.db.sql(&format!("{MAKE}; insert into t values (1, 'a')")).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("insert into t values (2, 'b')").await;
    rig.db.sql("select pgmq.drop_queue('replicate_data_libsql'); select pgmq.create('replicate_data_libsql')").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    assert_equal(&rig).await;
    assert_eq!(healed_from(&rig).await.as_deref(), Some("other_source"));
}

/// A Postgres of its own, that can be copied and put back.
struct Place {
    cluster: Cluster,
    home: Home,
    worker: Arc<Worker>,
    backup: TempDir,
}

impl Place {
    async fn new() -> Self {
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(ClusterOptions::default())).await.unwrap().unwrap();
        let (home, url) = (Home::new(Path::File), cluster.url("postgres"));
        let worker = Arc::new(Worker::new(config(&url, home.target(), schema(TABLES))));
        let place = Self { cluster, home, worker, backup: tempfile::tempdir().unwrap() };
        place.sql(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await;
        place.sql(&format!("{MAKE}; insert into t select i, 'old' from generate_series(1, 50) i")).await;
        set_up(&url, place.worker.schema()).await;
        while place.drain().await.rebuilding > 0 {}
        place
    }

    async fn sql(&self, sql: &str) {
        let client = PgUrl::parse(&self.cluster.url("postgres")).unwrap().connect().await.unwrap();
        client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    async fn drain(&self) -> Drained {
        self.worker.drain(BUDGET).await.unwrap()
    }

    fn data(&self) -> PathBuf {
        self.cluster.directory().join("data")
    }

    /// A crash-consistent copy.
    fn back_up(&self) {
        self.cluster.stop(Stop::Immediate).unwrap();
        copy(&self.data(), &self.backup.path().join("data"));
        self.cluster.start_again().unwrap();
    }

    fn restore(&self, is_promoted: bool) {
        self.cluster.stop(Stop::Immediate).unwrap();
        std::fs::remove_dir_all(self.data()).unwrap();
        copy(&self.backup.path().join("data"), &self.data());
        if is_promoted {
            std::fs::write(self.data().join("standby.signal"), "").unwrap();
        }
        self.cluster.start_again().unwrap();
    }

    async fn promote(&self) {
        self.sql("select pg_promote(true, 60)").await;
    }

    async fn assert_equal(&self) {
        let client = PgUrl::parse(&self.cluster.url("postgres"))
            .unwrap()
            .pinned(pgflume::postgres::Purpose::Demo)
            .await
            .unwrap();
        let replica = Replica::open(&self.home.target()).await.unwrap();
        for verdict in compare(&client, &replica, self.worker.schema(), self.worker.queue()).await.unwrap() {
            assert!(verdict.is_equal(), "{verdict:?}");
        }
    }

    async fn status(&self) -> Status {
        status(&self.worker).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_restored_to_an_earlier_point_is_noticed_and_the_replica_follows_it() {
    for is_promoted in [false, true] {
        let place = Place::new().await;
        place.back_up();
        place
            .sql("insert into t values (51, 'lost'); update t set v = 'lost' where id < 5; delete from t where id = 7")
            .await;
        place.drain().await;
        place.restore(is_promoted);
        if is_promoted {
            place.promote().await;
        }
        place.sql("insert into t values (52, 'kept')").await;
        while place.drain().await.rebuilding > 0 {}
        place.assert_equal().await;
        assert_eq!(place.status().await.last_sync.healed_from.as_deref(), Some("other_source"), "{is_promoted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_may_be_restored_to_different_times_as_often_as_it_takes() {
    let place = Place::new().await;
    place.back_up();
    let Target::File(path) = place.home.target() else { unreachable!() };
    // The replica begins an epoch that the copy of Postgres has never heard of.
    std::fs::remove_file(&path).unwrap();
    place.sql("insert into t values (51, 'lost with Postgres')").await;
    while place.drain().await.rebuilding > 0 {}
    let later = tempfile::tempdir().unwrap();
    copy(path.parent().unwrap(), &later.path().join("copy"));
    for turn in 0..3 {
        place.restore(false);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        copy(&later.path().join("copy"), path.parent().unwrap());
        place.sql(&format!("insert into t values (60, 'turn {turn}')")).await;
        while place.drain().await.rebuilding > 0 {}
        place.assert_equal().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_nothing_the_replica_has_needs_no_resync() {
    let place = Place::new().await;
    place.sql("insert into t values (51, 'kept')").await;
    place.drain().await;
    place.back_up();
    // Lost with the old primary, and seen by nobody.
    place.sql("insert into t values (52, 'lost')").await;
    place.restore(true);
    place.promote().await;
    place.sql("insert into t values (53, 'new')").await;
    place.drain().await;
    place.assert_equal().await;
    let status = place.status().await;
    assert_eq!(status.last_sync.healed_from, None);
    assert!(status.tables["t"].resync.as_ref().is_none_or(|r| r.reason == "setup"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_postgres_whose_messages_are_all_there_takes_them_again() {
    let place = Place::new().await;
    place.sql("insert into t values (51, 'kept'); update t set v = 'kept' where id < 5").await;
    place.back_up();
    // The acknowledgement is lost with everything after it, the messages are back.
    place.drain().await;
    place.restore(true);
    place.promote().await;
    place.sql("update t set v = 'new' where id = 51").await;
    assert_eq!(place.drain().await.queued, 0);
    place.assert_equal().await;
    assert_eq!(place.status().await.last_sync.healed_from, None, "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_lost_in_part_tells_so_in_ready_and_metrics_until_it_is_healed() {
    let mut rig = keeping(Path::File, TABLES, Duration::ZERO).await;
    rig.db.sql(&format!("{MAKE}; insert into t select i, 'old' from generate_series(1, 50) i")).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    let backup = Backup::of(&mut rig.home);
    rig.db.sql("delete from t where id = 20").await;
    rig.drain().await;
    backup.restore(&mut rig.home);
    let Target::File(path) = rig.home.target() else { unreachable!() };
    assert!(path.exists());
    // The budget is spent at once: the sides are known to differ, and nothing is copied yet.
    rig.worker.drain(Duration::ZERO).await.unwrap();
    let reasons = pgflume::operate::status::unready(&rig.worker).await;
    assert!(reasons.get("resync").is_some_and(|r| r.contains("behind")), "{reasons:?}");
    rebuilt(&rig).await;
    assert_eq!(pgflume::operate::status::unready(&rig.worker).await.len(), 0);
    assert_equal(&rig).await;
}
