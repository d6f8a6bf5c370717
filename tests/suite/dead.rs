//! Dead letters: one poison row stops its own key and nothing else, is found quickly, and can be shown, tried
//! again and dropped; a newer state of its key makes it obsolete. A table that takes nothing halts alone.

use crate::snapshot::{assert_equal, write_by_hand};
use crate::support::{Db, Home, PATHS, Path, Rig, config, schema};
use crate::volume::set_up;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::process::Command;
use std::sync::Arc;

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
                         "u":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const MAKE: &str = "create table t (id int primary key, v text); create table u (id int primary key, v text)";

/// A replica whose table `t` refuses the value `bad`.
async fn refusing(path: Path) -> Rig {
    let rig = Rig::new(path, schema(TABLES)).await;
    let table = "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT CHECK (v <> 'bad'))";
    write_by_hand(&rig, table).await;
    rig
}

async fn captured(path: Path) -> Rig {
    let rig = refusing(path).await;
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    rig
}

/// Runs `pgflume dead …` as an operator would.
fn dead(rig: &Rig, arguments: &[&str]) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TABLES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.arg("dead").args(arguments).env_clear().env("PGMQ_URL", rig.db.url()).env("SCHEMA_FILE", file.path());
    match rig.home.target() {
        Target::File(path) => command.env("LIBSQL_URL", path),
        Target::Remote { url, token } => {
            command.env("LIBSQL_URL", url).env("LIBSQL_AUTH_TOKEN", token.unwrap().expose())
        }
        Target::Given(_) => unreachable!(),
    };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

fn image(id: u32, v: &str) -> String {
    format!(r#"{{"type":"UPDATE","table":"t","record":{{"id":{id},"v":"{v}"}},"old_record":{{"id":{id}}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_row_in_ten_thousand_is_found_by_splitting_and_the_others_arrive_in_the_same_drain() {
    for path in PATHS {
        let rig = captured(path).await;
        rig.db.sql("insert into t select i, case when i = 6789 then 'bad' else 'good' end from generate_series(1, 10000) i; insert into u values (1, 'other')").await;
        let done = rig.drain().await;
        assert_eq!((done.dead, done.queued, done.rows), (1, 0, 10_000), "{path:?}");
        // Each halving leaves one part that is applied; log2(10000) is 13.3.
        assert!(done.batches <= 20, "{path:?}: {} batches", done.batches);
        assert_eq!(rig.rows("SELECT count(*), sum(id = 6789) FROM t").await, ["9999|0"]);
        let reason = rig.db.dead().await.swap_remove(0);
        for part in ["\"t\"", "(6789)", "target", "CHECK", "pgflume dead retry"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        let (_, listed) = dead(&rig, &["list"]);
        assert!(listed.contains("(6789)") && listed.lines().count() == 1, "{listed}");
        // A retry reads the row as it is now.
        rig.db.sql("alter table t disable trigger user; update t set v = 'fixed' where id = 6789").await;
        let (is_done, said) = dead(&rig, &["retry", "--table", "t"]);
        assert!(is_done && said.contains("1 on the queue again"), "{said}");
        rig.drain().await;
        assert_eq!(rig.rows("SELECT v FROM t WHERE id = 6789").await, ["fixed"]);
        assert_eq!(rig.db.dead().await.len(), 0);
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_when_a_newer_state_of_its_key_was_applied() {
    let rig = captured(Path::File).await;
    rig.db.sql("insert into t values (1, 'bad'), (2, 'bad')").await;
    assert_eq!(rig.drain().await.dead, 2);
    rig.db.sql("update t set v = 'good' where id = 1; delete from t where id = 2").await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 0);
    assert_equal(&rig).await;
    // The same row again is the same letter, not a second one, and none is lost.
    rig.db.sql("insert into t values (3, 'bad')").await;
    rig.drain().await;
    rig.db.sql("update t set v = 'bad' || '' where id = 3; update t set id = 3 where id = 3").await;
    rig.db.send(r#"{"v":1,"table":"t","keys":[["3"]]}"#).await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_image_never_goes_over_a_newer_one() {
    let rig = refusing(Path::File).await;
    rig.db.send(&image(1, "bad")).await;
    assert_eq!(rig.drain().await.dead, 1);
    // Tried again while a newer one waits: the old one has its place before it.
    write_by_hand(&rig, "DROP TABLE t").await;
    write_by_hand(&rig, "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT)").await;
    rig.db.send(&image(1, "newer")).await;
    assert!(dead(&rig, &["retry", "--all"]).0);
    rig.drain().await;
    assert_eq!(rig.rows("SELECT v FROM t").await, ["newer"]);
    // And once a newer one was applied, the letter is gone.
    write_by_hand(&rig, "DROP TABLE t").await;
    write_by_hand(&rig, "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT CHECK (v <> 'bad'))").await;
    rig.db.send(&image(1, "bad")).await;
    rig.db.send(&image(2, "good")).await;
    assert_eq!(rig.drain().await.dead, 1);
    rig.db.send(&image(1, "newest")).await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 0);
    assert_eq!(rig.rows("SELECT v FROM t ORDER BY id").await, ["newest", "good"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_shown_and_dropped_and_wrong_numbers_are_refused() {
    let rig = refusing(Path::File).await;
    rig.drain().await;
    for message in [r#"{"table":"t"}"#, "[]", &image(7, "bad")] {
        rig.db.send(message).await;
    }
    rig.db.sql("insert into pgmq.q_replicate_data_libsql_dead (vt, message) values (now(), '\"by hand\"')").await;
    rig.drain().await;
    let (is_done, listed) = dead(&rig, &["list"]);
    assert!(is_done && listed.lines().count() == 4, "{listed}");
    let (_, json) = dead(&rig, &["list", "--json", "--table", "t"]);
    let letters: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 2, "{json}");
    assert!(letters.iter().any(|l| l["class"] == "target") && letters.iter().any(|l| l["class"] == "message"));
    let id = letters.iter().find(|l| l["class"] == "target").unwrap()["id"].to_string();
    let (_, shown) = dead(&rig, &["show", &id]);
    assert!(shown.contains("\"v\": \"bad\""), "{shown}");
    for wrong in [&["show", "999"][..], &["retry"], &["drop"], &["retry", "--all", "1"], &["drop", "--all"]] {
        let (is_done, said) = dead(&rig, wrong);
        assert!(!is_done && !said.is_empty(), "{wrong:?}: {said}");
    }
    let (_, said) = dead(&rig, &["drop", &id, "--yes"]);
    assert!(said.contains("1 dropped"), "{said}");
    let (_, said) = dead(&rig, &["retry", "--all"]);
    assert!(said.contains("2 on the queue again") && said.contains("1 cannot be tried again"), "{said}");
    let (_, said) = dead(&rig, &["drop", "--all", "--yes"]);
    assert!(said.contains("1 dropped"), "{said}");
    assert_eq!(rig.drain().await.dead, 2, "they are as wrong as before");
    assert_eq!(dead(&rig, &["drop", "--table", "nobody", "--yes"]).1.trim(), "0 dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_takes_nothing_halts_alone_with_one_message_and_no_dead_letters() {
    for (path, is_captured) in [(Path::File, true), (Path::Sqld, true), (Path::File, false)] {
        let rig = Rig::new(path, schema(TABLES)).await;
        write_by_hand(&rig, "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT CHECK (v = 'never'))").await;
        if is_captured {
            rig.db.sql(MAKE).await;
            set_up(&rig.db.url(), rig.worker.schema()).await;
            rig.drain().await;
            rig.db
                .sql("insert into t select i, 'x' from generate_series(1, 10000) i; insert into u select * from t")
                .await;
        } else {
            for table in ["t", "u"] {
                rig.db.sql(&format!("insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('type', 'INSERT', 'table', '{table}',
                    'record', jsonb_build_object('id', i, 'v', 'x')) from generate_series(1, 10000) i")).await;
            }
        }
        let done = rig.drain().await;
        assert_eq!(done.dead, 0, "{path:?} {is_captured}");
        assert_eq!(done.paused.iter().collect::<Vec<_>>(), ["t"]);
        assert!(done.queued > 0);
        assert_eq!(rig.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)").await, ["0|10000"]);
        let reasons = pgflume::operate::status::unready(&rig.worker).await;
        assert!(reasons.get("table").is_some_and(|r| r.contains("\"t\"")), "{reasons:?}");
        // Newer changes of it wait with the others, those of other tables arrive.
        if is_captured {
            rig.db.sql("update t set v = 'newer' where id = 1; update u set v = 'newer' where id = 1").await;
        } else {
            rig.db.send(&image(1, "newer")).await;
            rig.db.send(&image(1, "newer").replace("\"t\"", "\"u\"")).await;
        }
        rig.drain().await;
        assert_eq!(rig.rows("SELECT v FROM u WHERE id = 1").await, ["newer"]);
        write_by_hand(&rig, "DROP TABLE t").await;
        write_by_hand(&rig, "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT)").await;
        while rig.drain().await.queued > 0 {}
        assert_eq!(rig.rows("SELECT count(*), sum(v = 'newer') FROM t").await, ["10000|1"], "{path:?} {is_captured}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_poison_rows_together_halt_no_table_that_takes_others() {
    for range in ["id <= 30", "id > 9970", "id between 500 and 530 or id = 1"] {
        let rig = captured(Path::File).await;
        rig.db.sql(&format!("insert into t select i, 'good' from generate_series(1, 10000) i; alter table t disable trigger user; update t set v = 'bad' where {range}")).await;
        let bad: u64 = rig.db.one("select count(*) from t where v = 'bad'").await.parse().unwrap();
        let done = rig.drain().await;
        assert_eq!((done.dead, done.queued), (bad, 0), "{range}");
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, [(10_000 - bad).to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_in_the_replica_while_a_drain_runs_comes_back_with_all_its_rows() {
    for path in PATHS {
        let rig = Rig::new(path, schema(TABLES)).await;
        rig.db.sql(MAKE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rig.drain().await;
        rig.db.sql("insert into t select i, 'x' from generate_series(1, 5000) i; insert into u select * from t").await;
        // A trigger of the replica drops nothing; another writer does, between the opening and the first batch.
        let second = rig.second_worker();
        let (drained, ()) = tokio::join!(second.drain(std::time::Duration::from_secs(25)), async {
            write_by_hand(&rig, "DROP TABLE t").await;
        });
        drop(drained);
        while {
            let done = rig.drain().await;
            done.queued > 0 || done.rebuilding > 0
        } {}
        assert_eq!(rig.db.dead().await.len(), 0);
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_retried_by_a_worker_that_has_nothing_but_its_role() {
    let rig = captured(Path::File).await;
    rig.db.sql("insert into t values (1, 'bad')").await;
    rig.drain().await;
    let role = format!("retrier_{}", rig.db.name);
    rig.db.sql(&format!("create role {role} login; grant pgflume_worker to {role}")).await;
    let url = rig.db.url().replace("postgres@", &format!("{role}@"));
    let (home, tables) = (Home::new(Path::File), schema(TABLES));
    let worker = Arc::new(Worker::new(config(&url, home.target(), tables)));
    let done = pgflume::operate::dead::retry(&worker, &pgflume::postgres::books::dead_letters::Choice::default())
        .await
        .unwrap();
    assert_eq!((done.sent, done.stay), (1, 0));
    let db: &Db = &rig.db;
    assert_eq!((db.queued().await, db.dead().await.len()), (1, 0));
}
