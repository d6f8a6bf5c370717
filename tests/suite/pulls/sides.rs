//! What happens to either side between two passes: restored, replaced, emptied, shared with another worker.

use super::{Rig, armed, own_cluster};
use crate::restores::{Backup, copy};
use crate::support::{Db, Home, PATHS, Path, until};
use pgflume::core::error::ErrorKind;
use pgflume::demo::postgres::{Cluster, Stop};
use pgflume::postgres::PgUrl;
use pgflume::provider::postgres::PostgresProvider;
use pgflume::pull::Pull;
use std::sync::Arc;

const TABLES: &str = "create table t (id int primary key, v text);
    insert into t select i, 'old' from generate_series(1, 300) i";
const JSON: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_fell_back_brings_its_place_along() {
    for path in PATHS {
        let mut rig = Rig::new(path, TABLES, JSON).await;
        rig.pass().await;
        let backup = Backup::of(&mut rig.home);
        rig.db.sql("update t set v = 'new' where id < 10; delete from t where id = 20").await;
        rig.pass().await;
        rig.db.sql("insert into t values (1000, 'later')").await;
        rig.pass().await;
        backup.restore(&mut rig.home);
        let done = rig.pass().await;
        rig.assert_equal("t", &["id", "v"]).await;
        assert_eq!((done.rows, done.removed), (10, 1), "only what it lost: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_emptied_or_lost_a_table_is_filled() {
    let mut rig = Rig::new(Path::File, TABLES, JSON).await;
    rig.pass().await;
    rig.replica("DROP TABLE t").await;
    rig.pass().await;
    rig.assert_equal("t", &["id", "v"]).await;
    rig.home = Home::new(Path::File);
    rig.pass().await;
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_behind_the_name_is_compared_and_nothing_of_the_old_one_stays() {
    for path in PATHS {
        // Older than what the replica has, by its transactions, and with other rows.
        let other = Rig::new(Path::File, TABLES, JSON).await;
        other.db.sql("delete from t where id > 250; update t set v = 'other' where id < 5; insert into t values (900, 'other')").await;
        let rig = Rig::new(path, TABLES, JSON).await;
        rig.pass().await;
        let moved = Pull::new("p".into(), Arc::new(other.provider()), rig.home.target(), false);
        let done = moved.pass().await.unwrap();
        assert_eq!((done.rows, done.removed), (5, 50), "only what differs is written: {done:?}");
        let there = other.source("select concat_ws('|', id, v) from t order by id").await;
        assert_eq!(rig.rows("SELECT id, v FROM t ORDER BY id").await, there);
    }
}

/// A Postgres that can be put back.
struct Lossy {
    cluster: &'static Cluster,
    copy: tempfile::TempDir,
}

impl Lossy {
    fn data(&self) -> std::path::PathBuf {
        self.cluster.directory().join("data")
    }

    fn keep(&self) {
        self.cluster.stop(Stop::Fast).unwrap();
        copy(&self.data(), &self.copy.path().join("data"));
        self.cluster.start_again().unwrap();
    }

    fn put_back(&self) {
        self.cluster.stop(Stop::Immediate).unwrap();
        std::fs::remove_dir_all(self.data()).unwrap();
        copy(&self.copy.path().join("data"), &self.data());
        self.cluster.start_again().unwrap();
    }
}

async fn lossy() -> (Lossy, Rig) {
    let cluster: &'static Cluster = Box::leak(Box::new(own_cluster()));
    let rig = Rig::on(Db::on(cluster, "template1").await, Path::File, TABLES, JSON).await;
    (Lossy { cluster, copy: tempfile::tempdir().unwrap() }, rig)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_put_back_is_read_anew() {
    let _armed = armed();
    let (lossy, mut rig) = lossy().await;
    rig.pass().await;
    lossy.keep();
    rig.db = Db::existing(&rig.db.name.clone(), lossy.cluster).await;
    // Much WAL, so that the copy is older by it whatever it writes when it starts.
    rig.db.sql("update t set v = 'lost'; insert into t select i, 'lost' from generate_series(1000, 20000) i").await;
    rig.pass().await;
    lossy.put_back();
    rig.db = Db::existing(&rig.db.name.clone(), lossy.cluster).await;
    rig.db.sql("update t set v = 'after' where id = 3; delete from t where id = 4").await;
    rig.pass().await;
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_behind_the_replica_is_waited_for_and_then_followed() {
    let (lossy, mut rig) = lossy().await;
    let standby = own_cluster();
    let data = standby.directory().join("data");
    standby.stop(Stop::Fast).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    lossy.cluster.stop(Stop::Fast).unwrap();
    copy(&lossy.data(), &data);
    lossy.cluster.start_again().unwrap();
    rig.db = Db::existing(&rig.db.name.clone(), lossy.cluster).await;
    let primary = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", lossy.cluster.port());
    std::fs::write(data.join("postgresql.auto.conf"), primary).unwrap();
    std::fs::write(data.join("standby.signal"), "").unwrap();
    standby.start_again().unwrap();
    let on_standby = PgUrl::parse(&standby.url(&rig.db.name)).unwrap().connect().await.unwrap();
    on_standby.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    rig.db.sql("update t set v = 'new' where id < 10; delete from t where id = 20").await;
    rig.pass().await;
    let url = rig.reader_url().replace(&lossy.cluster.port().to_string(), &standby.port().to_string());
    let provider = || PostgresProvider { url: PgUrl::parse(&url).unwrap(), ..rig.provider() };
    let pull = || Pull::new("p".into(), Arc::new(provider()), rig.home.target(), false).with_retries(0);
    let behind = pull().pass().await.unwrap_err();
    assert!(*behind.kind() == ErrorKind::Retry && behind.to_string().contains("a standby that lags"), "{behind}");
    rig.assert_equal("t", &["id", "v"]).await;
    on_standby.batch_execute("select pg_wal_replay_resume()").await.unwrap();
    until("it has caught up", async || pull().pass().await.is_ok()).await;
    rig.db
        .sql("update t set v = 'newer' where id < 5; delete from t where id = 21; insert into t values (999, 'x')")
        .await;
    until("it brings what is replayed", async || {
        pull().pass().await.unwrap();
        rig.rows("SELECT v FROM t WHERE id = 999").await == ["x"]
    })
    .await;
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_ids_that_went_far_or_around_lose_nothing() {
    let (lossy, mut rig) = lossy().await;
    rig.pass().await;
    // The file of the commit log that the next id lies in.
    const FAR: u32 = 0x7000_0000;
    const IDS_OF_A_FILE: u32 = 4 * 8192 * 32;
    let reset = |arguments: &[&str]| {
        lossy.cluster.stop(Stop::Fast).unwrap();
        let program = lossy.cluster.bin_dir().join("pg_resetwal");
        let mut command = std::process::Command::new(program);
        command.args(arguments).arg("-D").arg(lossy.data());
        as_owner(&mut command, &lossy.data());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    reset(&["-x", &FAR.to_string()]);
    let segment = lossy.data().join("pg_xact").join(format!("{:04X}", FAR / IDS_OF_A_FILE));
    std::fs::write(&segment, vec![0; 256 * 1024]).unwrap();
    give_to_owner(&segment, &lossy.data());
    lossy.cluster.start_again().unwrap();
    rig.db = Db::existing(&rig.db.name.clone(), lossy.cluster).await;
    rig.db.sql("update t set v = 'far' where id = 1; delete from t where id = 2").await;
    let done = rig.pass().await;
    assert_eq!((done.rows, done.removed), (1, 1), "only what has changed: {done:?}");
    rig.assert_equal("t", &["id", "v"]).await;
    // More than ids of 32 bits can tell apart: everything is read, and nothing differs.
    reset(&["-e", "1"]);
    lossy.cluster.start_again().unwrap();
    rig.db = Db::existing(&rig.db.name.clone(), lossy.cluster).await;
    rig.db.sql("update t set v = 'around' where id = 3; delete from t where id = 4").await;
    rig.pass().await;
    rig.assert_equal("t", &["id", "v"]).await;
    let idle = rig.pass().await;
    assert_eq!((idle.rows, idle.removed), (0, 0), "{idle:?}");
}

/// Runs a program as whoever owns the data: Postgres' own refuse to run as root.
fn as_owner(command: &mut std::process::Command, data: &std::path::Path) {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    let owner = std::fs::metadata(data).unwrap();
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(owner.uid()).gid(owner.gid());
    }
}

fn give_to_owner(file: &std::path::Path, data: &std::path::Path) {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(data).unwrap();
    if std::fs::metadata(file).unwrap().uid() != owner.uid() {
        std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_of_one_sync_bring_each_change_once_and_end_equal() {
    for path in PATHS {
        let rig = Arc::new(Rig::new(path, TABLES, JSON).await);
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let rig = rig.clone();
                tokio::spawn(async move {
                    let mut rows = 0;
                    for _ in 0..10 {
                        rows += rig.pull().pass().await.map_or(0, |done| done.rows);
                    }
                    rows
                })
            })
            .collect();
        for i in 0..40 {
            rig.db
                .sql(&format!("update t set v = 'v{i}' where id % 40 = {i}; delete from t where id = {i} + 100"))
                .await;
        }
        for worker in workers {
            worker.await.unwrap();
        }
        rig.pass().await;
        rig.assert_equal("t", &["id", "v"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_syncs_share_a_replica_but_no_table() {
    let rig = Rig::new(Path::File, TABLES, JSON).await;
    let other = Rig::new(
        Path::File,
        "create table u (id int primary key); insert into u values (1), (2)",
        r#"{"u":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#,
    )
    .await;
    rig.pass().await;
    let second = |provider: PostgresProvider| Pull::new("q".into(), Arc::new(provider), rig.home.target(), false);
    second(other.provider()).pass().await.unwrap();
    assert_eq!(rig.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)").await, ["300|2"]);
    let refused = second(rig.provider()).pass().await.unwrap_err().to_string();
    assert!(refused.contains("\"t\"") && refused.contains("belongs to the sync \"p\""), "{refused}");
    // And what nobody has pulled is somebody's.
    let strangers = Rig::new(Path::File, TABLES, JSON).await;
    strangers.replica("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").await;
    strangers.replica("INSERT INTO t VALUES (7, 'mine'), (100000, 'mine')").await;
    let refused = strangers.pull().pass().await.unwrap_err().to_string();
    assert!(refused.contains("--adopt"), "{refused}");
    Pull::new("p".into(), Arc::new(strangers.provider()), strangers.home.target(), true).pass().await.unwrap();
    strangers.assert_equal("t", &["id", "v"]).await;
}
