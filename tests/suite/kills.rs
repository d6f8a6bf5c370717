//! The binary dies at every place that `failpoint` names, on both write paths, with more writes before it runs
//! again: nothing is lost, nothing is applied twice, and nothing has to be healed.

use crate::parts::http::{get_status, request};
use crate::parts::process::{Process, tail};
use crate::snapshot::{assert_equal, write_by_hand};
use crate::support::{Db, Home, Path, Rig, SECRET, schema, until};
use crate::volume::set_up;
use pgflume::core::failpoint::{
    ADVANCED, ALTERED, ANNOUNCED, APPLIED, BURIED, COMMITTED, COMPARED, DURABLE, LATE, LOCKED, NAMES, PAIRED, READ,
    RESET, SENT, TAKEN,
};
use pgflume::demo::postgres::free_port;
use pgflume::replica::target::Target;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{self, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CAPTURED: &str = r#""t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "checked":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}"#;
const IMAGED: &str = r#""imaged":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}"#;

/// `t` and `checked` are captured by marks, `imaged` by a trigger that sends images.
const TABLES: &str = "
    create table t (id int primary key, v text);
    create table checked (id int primary key, v text);
    create table imaged (id int primary key, v text);
    create function image() returns trigger language plpgsql security definer set search_path = '' as $$begin
        perform pgmq.send('replicate_data_libsql', jsonb_build_object('record', to_jsonb(new), 'old_record', to_jsonb(old), 'type', tg_op, 'table', tg_table_name));
        return null; end$$;
    create trigger image after insert or update or delete on imaged for each row execute function image();
    insert into t select i, 'old' from generate_series(1, 3000) i;
    insert into checked select i, 'fine' from generate_series(1, 20) i;
    insert into imaged select i, 'old' from generate_series(1, 20) i";

const SIGABRT: i32 = 6;
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// A drain; the copy of a table is asked for before it.
    Sync,
    Resync,
    /// `verify --repair`, of a replica that somebody damaged.
    Repair,
    /// `serve`, and `POST /nuke`.
    Nuke,
    /// `serve --follow`, which has no end.
    Follow,
}
use Run::{Follow, Nuke, Repair, Resync, Sync};

/// What is written before: a step sends images, marks and pages on their own, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Few,
    /// Marks of several batches.
    Many,
    /// A message that nobody understands, and a row that the replica rejects.
    Poison,
}
use Writes::{Few, Many, Poison};

/// One after the other: what is run, at which place it dies, and at which visit to it.
type Kills = &'static [(Run, &'static str, u32)];

const CASES: [(Writes, Kills); 36] = [
    (Few, &[(Sync, ANNOUNCED, 1), (Sync, RESET, 1), (Sync, PAIRED, 1)]), // first contact
    (Few, &[(Sync, LOCKED, 1)]),
    (Few, &[(Sync, TAKEN, 1)]),
    (Few, &[(Sync, DURABLE, 1)]),
    (Few, &[(Sync, READ, 1)]),
    (Few, &[(Sync, READ, 2)]),
    (Few, &[(Sync, READ, 3)]),
    (Few, &[(Sync, SENT, 1)]),
    (Few, &[(Sync, SENT, 2)]),
    (Few, &[(Sync, SENT, 3)]),
    (Few, &[(Sync, APPLIED, 1)]),
    (Few, &[(Sync, APPLIED, 2)]),
    (Few, &[(Sync, APPLIED, 3)]),
    (Few, &[(Sync, ADVANCED, 1)]),
    (Few, &[(Sync, COMMITTED, 1)]),
    (Few, &[(Sync, APPLIED, 2), (Sync, LATE, 1)]),
    (Few, &[(Sync, ADVANCED, 1), (Sync, LATE, 1), (Sync, LATE, 1)]),
    (Few, &[(Sync, ADVANCED, 1), (Sync, APPLIED, 1), (Sync, COMMITTED, 1)]),
    (Many, &[(Sync, READ, 4)]),
    (Many, &[(Sync, SENT, 3)]),
    (Many, &[(Sync, SENT, 4)]),
    (Many, &[(Sync, APPLIED, 3)]),
    (Many, &[(Sync, APPLIED, 4), (Sync, LATE, 1)]),
    (Few, &[(Resync, SENT, 1)]),
    (Few, &[(Resync, APPLIED, 2)]),
    (Few, &[(Resync, ADVANCED, 1)]),
    (Few, &[(Repair, COMPARED, 1)]),
    (Few, &[(Repair, COMPARED, 2), (Repair, COMPARED, 1)]),
    (Poison, &[(Sync, BURIED, 1)]),
    (Poison, &[(Sync, APPLIED, 2)]),
    (Poison, &[(Sync, ADVANCED, 1), (Sync, LATE, 1), (Sync, BURIED, 1)]),
    (Poison, &[(Sync, COMMITTED, 1)]),
    (Few, &[(Nuke, ANNOUNCED, 1)]),
    (Few, &[(Nuke, RESET, 1)]),
    (Few, &[(Nuke, PAIRED, 1)]),
    (Few, &[(Nuke, RESET, 1), (Sync, PAIRED, 1), (Sync, APPLIED, 1)]),
];

#[test]
fn every_place_has_a_case() {
    let places: BTreeSet<&str> = CASES.iter().flat_map(|(_, kills)| kills.iter().map(|kill| kill.1)).collect();
    // `setup` has a test of its own: `pairs.rs`.
    let all: BTreeSet<&str> = NAMES.into_iter().filter(|name| *name != ALTERED).collect();
    assert_eq!(places, all, "a place without a case, or a case without a place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_place_loses_nothing_and_repeats_nothing_in_a_file() {
    die_everywhere(Path::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_place_loses_nothing_and_repeats_nothing_on_a_server() {
    die_everywhere(Path::Sqld).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_purged_after_a_step_s_snapshot_does_not_look_empty_to_it() {
    let stage = Stage::set(Path::File).await;
    assert!(stage.run(0, Sync, None).await.success(), "{}", tail(&stage.log()));
    stage.rig.db.sql("insert into t values (70000, 'marked')").await;
    let purge = async {
        stage.logs("failpoint locked: the process stalls").await;
        stage.rig.db.sql("select pgmq.purge_queue('replicate_data_libsql')").await;
    };
    let sync = stage.run(0, Sync, Some(format!("{LOCKED}=return(700)")));
    let (ended, ()) = futures_util::join!(sync, purge);
    assert!(ended.success(), "{}", tail(&stage.log()));
    // At that snapshot the message was there, so a drain that says that nothing is left has to have applied it.
    assert_eq!(stage.rig.rows("SELECT v FROM t WHERE id = 70000").await, ["marked"]);
}

/// A fault of pgflume's own, once.
#[tokio::test(flavor = "multi_thread")]
async fn following_begins_again_after_a_panic() {
    let stage = Stage::set(Path::File).await;
    assert!(stage.run(0, Sync, None).await.success(), "{}", tail(&stage.log()));
    let (mut command, log) = (stage.command(0, Follow, free_port().unwrap()), stage.log());
    command.env("FAILPOINTS", format!("{TAKEN}=1*panic"));
    let _process = Process::spawn(&mut command, &log, None);
    stage.rig.db.sql("insert into t values (70000, 'marked')").await;
    stage.logs("following broke off").await;
    until("it arrives", async || stage.rig.rows("SELECT v FROM t WHERE id = 70000").await == ["marked"]).await;
}

async fn die_everywhere(path: Path) {
    let stage = Stage::set(path).await;
    let mut spared = 0;
    for (number, case) in CASES.iter().enumerate() {
        spared += u32::from(stage.play(number, case).await);
    }
    assert!(spared >= 10, "only {spared} kills came after images were applied");
}

/// One database, queue and replica for all cases: each begins where the one before ended.
struct Stage {
    rig: Rig,
    /// Alone: nothing else may be written into the replica's.
    directory: TempDir,
}

impl Stage {
    async fn set(path: Path) -> Self {
        let rig = Rig::with(Db::new().await, Home::new(path), schema(&format!("{{{CAPTURED},{IMAGED}}}")));
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("schema.json"), format!("{{{CAPTURED},{IMAGED}}}")).unwrap();
        rig.db.sql(TABLES).await;
        set_up(&rig.db.url(), &schema(&format!("{{{CAPTURED}}}"))).await;
        let checked = "CREATE TABLE checked (id INTEGER NOT NULL PRIMARY KEY, v TEXT CHECK (v <> 'poison'))";
        write_by_hand(&rig, checked).await;
        Self { rig, directory }
    }

    /// Whether images had been applied when it died, and were not applied again.
    async fn play(&self, number: usize, (writes, kills): &(Writes, Kills)) -> bool {
        let (db, first) = (&self.rig.db, kills[0].0);
        self.write(number, *writes).await;
        match first {
            Sync => pgflume::operate::resync::request(&self.rig.worker, &["t"]).await.unwrap(),
            Repair => self.damage().await,
            Resync | Nuke | Follow => {}
        }
        let mut is_applied = false;
        for kill in *kills {
            self.kill(number, *kill).await;
            // A copy, which both others make, sets the row right.
            if !is_applied && matches!(first, Sync | Resync) && self.image().await == [format!("case {number}")] {
                write_by_hand(&self.rig, "UPDATE imaged SET v = 'by hand' WHERE id = 1").await;
                is_applied = true;
            }
        }
        db.sql(&between(number)).await;
        let ended = self.run(number, if first == Repair { Repair } else { Sync }, None).await;
        let told = format!("case {number}, {kills:?}: {ended}\n{}", tail(&self.log()));
        assert!(ended.success(), "{told}");
        let expected = if is_applied { "by hand".into() } else { format!("case {number}") };
        assert_eq!(self.image().await, [expected], "{told}");
        if is_applied {
            write_by_hand(&self.rig, &format!("UPDATE imaged SET v = 'case {number}' WHERE id = 1")).await;
        }
        self.take_back(number, *writes).await;
        assert_eq!(db.queued().await, 0, "{told}");
        assert_equal(&self.rig).await;
        assert_eq!(db.one("select count(*) from pgflume.resyncs where phase <> 'done'").await, "0", "{told}");
        assert_eq!(db.one("select healed_from from pgflume.progress").await, "NULL", "{told}");
        is_applied
    }

    async fn write(&self, number: usize, writes: Writes) {
        let few = format!(
            "update t set v = 'case {number}' where id % 10 = {number} % 10; insert into t values (10000 + {number}, 'new');
             delete from t where id = {number}; update t set id = 20000 + {number} where id = 1000 + {number};
             update imaged set v = 'case {number}' where id = 1"
        );
        self.rig.db.sql(&few).await;
        match writes {
            Few => {}
            Many => {
                self.rig.db.sql("insert into t select 100000 + i, 'many' from generate_series(1, 45000) i").await;
            }
            Poison => {
                self.rig.db.sql("update checked set v = case id when 7 then 'poison' else 'again' end").await;
                self.rig.db.send(r#"{"table":"t","keys":"nonsense"}"#).await;
            }
        }
    }

    /// Nothing but what was poisoned is among the dead letters, once; it is taken back.
    async fn take_back(&self, number: usize, writes: Writes) {
        let dead = self.rig.db.dead().await;
        if writes != Poison {
            return assert!(dead.is_empty(), "case {number}: {dead:?}");
        }
        assert_eq!(dead.len(), 2, "case {number}: {dead:?}");
        let sql = "delete from pgmq.q_replicate_data_libsql_dead; update checked set v = 'fine' where v = 'poison'";
        self.rig.db.sql(sql).await;
        assert!(self.run(number, Sync, None).await.success(), "case {number}: {}", tail(&self.log()));
    }

    async fn damage(&self) {
        for sql in [
            "UPDATE t SET v = 'damaged' WHERE id % 50 = 3",
            "DELETE FROM t WHERE id = 777",
            "INSERT INTO t VALUES (777777, 'extra')",
            "UPDATE imaged SET v = 'damaged' WHERE id = 3",
            "UPDATE checked SET v = 'damaged' WHERE id = 3",
        ] {
            write_by_hand(&self.rig, sql).await;
        }
    }

    async fn image(&self) -> Vec<String> {
        self.rig.rows("SELECT v FROM imaged WHERE id = 1").await
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("pgflume.log")
    }

    /// Waits until the binary has said this.
    async fn logs(&self, words: &str) {
        let began = Instant::now();
        while !std::fs::read_to_string(self.log()).unwrap_or_default().contains(words) {
            assert!(began.elapsed() < LIMIT, "no {words:?}:\n{}", tail(&self.log()));
            tokio::time::sleep(POLL).await;
        }
    }

    async fn kill(&self, number: usize, (run, place, visit): (Run, &'static str, u32)) {
        let stop = if visit == 1 { "return".to_owned() } else { format!("{}*off->return", visit - 1) };
        let ended = self.run(number, run, Some(format!("{place}={stop}"))).await;
        let told = || format!("case {number}: {run:?} at {place}, visit {visit}: {ended}\n{}", tail(&self.log()));
        assert_eq!(ended.signal(), Some(SIGABRT), "{}", told());
    }

    /// Runs the binary to its end.
    async fn run(&self, number: usize, run: Run, failpoints: Option<String>) -> ExitStatus {
        let port = free_port().unwrap();
        let (mut command, log) = (self.command(number, run, port), self.log());
        command.envs(failpoints.map(|failpoints| ("FAILPOINTS", failpoints)));
        let ended = tokio::task::spawn_blocking(move || {
            let (mut process, began) = (Process::spawn(&mut command, &log, None), Instant::now());
            if run == Nuke {
                let url = format!("http://127.0.0.1:{port}");
                process.wait_until("serving", || get_status(&format!("{url}/health")) == Some(200));
                let signed = [("x-webhook-signature".to_owned(), SECRET.to_owned())];
                request("POST", &format!("{url}/nuke"), &signed, b"", LIMIT).ok();
            }
            loop {
                match process.ended() {
                    Some(status) => return status,
                    None => assert!(began.elapsed() < LIMIT, "{run:?} does not end:\n{}", tail(&log)),
                }
                std::thread::sleep(POLL);
            }
        });
        ended.await.unwrap()
    }

    fn command(&self, number: usize, run: Run, port: u16) -> process::Command {
        let mut command = process::Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.env_clear().current_dir(self.directory.path());
        let port = port.to_string();
        match run {
            Sync => command.arg("sync"),
            Resync => command.args(["resync", "t"]),
            Repair => command.args(["verify", "--repair"]),
            Nuke => command.args(["serve", "--port", &port]),
            Follow => command.args(["serve", "--follow", "--port", &port]),
        };
        let (url, token) = match self.rig.home.target() {
            Target::File(path) => (path.display().to_string(), None),
            Target::Remote { url, token } => (url, token),
            Target::Given(_) => unreachable!(),
        };
        command.envs(token.map(|token| ("LIBSQL_AUTH_TOKEN", token.expose().to_owned())));
        // On one path the even ones keep messages, on the other the odd ones.
        let keeps = number.is_multiple_of(2) == matches!(self.rig.home, Home::File(_));
        command.env("RETENTION", if keeps { "1h" } else { "0" });
        command.env("PGMQ_URL", self.rig.db.url()).env("LIBSQL_URL", url).env("SCHEMA_FILE", "schema.json");
        command.env("WEBHOOK_SIGNATURE", SECRET).env("RUST_LOG", "info");
        command
    }
}

/// What others write while no worker runs.
fn between(number: usize) -> String {
    format!(
        "update t set v = 'between {number}' where id % 10 = ({number} + 1) % 10; delete from t where id = 10000 + {number} or id > 100000;
         update imaged set v = 'between {number}' where id = 2"
    )
}
