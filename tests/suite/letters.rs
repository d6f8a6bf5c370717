//! What a dead letter must never do: be forgotten while its change is nowhere, take a key back when it is tried again,
//! or stand in the way of others. And what is noted of messages that others remove.

use crate::snapshot::{assert_equal, rebuilt, write_by_hand};
use crate::support::{Path, Rig, config, schema, until};
use crate::volume::set_up;
use pgflume::core::difference::VerifyReport;
use pgflume::operate::dead;
use pgflume::operate::status::status;
use pgflume::operate::verify::verify;
use pgflume::postgres::books::dead_letters::Choice;
use pgflume::replica::target::Target;
use pgflume::sync::compare::report::VerifyOptions;
use pgflume::sync::{Worker, pairing};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
                         "u":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const MAKE: &str = "create table t (id int primary key, v text); create table u (id int primary key, v text)";
const DEAD: &str = "pgmq.q_replicate_data_libsql_dead";
const BUDGET: Duration = Duration::from_secs(25);

/// A replica whose table `t` refuses the value `bad`.
async fn refusing() -> Rig {
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    write_by_hand(&rig, "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT CHECK (v <> 'bad'))").await;
    rig.drain().await;
    rig
}

async fn captured() -> Rig {
    let rig = refusing().await;
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig
}

/// From now on it takes everything.
async fn lift_constraint(rig: &Rig) {
    for sql in [
        "CREATE TABLE n (id INTEGER NOT NULL PRIMARY KEY, v TEXT)",
        "INSERT INTO n SELECT * FROM t",
        "DROP TABLE t",
        "ALTER TABLE n RENAME TO t",
    ] {
        write_by_hand(rig, sql).await;
    }
}

fn image(id: u32, v: &str) -> String {
    format!(r#"{{"type":"UPDATE","table":"t","record":{{"id":{id},"v":"{v}"}},"old_record":{{"id":{id}}}}}"#)
}

async fn with_nothing_but_its_role(rig: &Rig) -> Worker {
    let role = format!("worker_{}", rig.db.name);
    rig.db.sql(&format!("create role {role} login; grant pgflume_worker to {role}")).await;
    let url = rig.db.url().replace("postgres@", &format!("{role}@"));
    Worker::new(config(&url, rig.home.target(), schema(TABLES)))
}

async fn verified(rig: &Rig) -> VerifyReport {
    let options = VerifyOptions { tables: vec!["t".to_owned()], ..VerifyOptions::default() };
    verify(&rig.second_worker(), options, Arc::default()).await.unwrap()
}

/// `pgflume sync` as a process of its own, with failpoints.
fn start(rig: &Rig, at: &str) -> Child {
    let file = rig.db.name.clone() + ".json";
    let path = std::env::temp_dir().join(file);
    std::fs::write(&path, TABLES).unwrap();
    let Target::File(replica) = rig.home.target() else { unreachable!() };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.arg("sync").env_clear().env("PGMQ_URL", rig.db.url()).env("SCHEMA_FILE", path);
    command.env("LIBSQL_URL", replica).env("FAILPOINTS", at).spawn().unwrap()
}

/// It ends there, and so does its session, which holds its messages until then.
async fn crash(rig: &Rig, at: &str) {
    let sessions = async || -> i64 {
        let sql = "select count(*) from pg_stat_activity where datname = current_database()";
        rig.db.one(sql).await.parse().unwrap()
    };
    let before = sessions().await;
    assert!(!start(rig, at).wait().unwrap().success());
    until("Postgres ends its session", async || sessions().await <= before).await;
}

async fn retry_and_drain(rig: &Rig) {
    dead::retry(&rig.worker, &Choice::default()).await.unwrap();
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_beside_a_message_of_two_keys_that_is_refused_takes_nothing_of_the_other_back() {
    let rig = refusing().await;
    rig.db.send(&image(1, "good")).await;
    rig.db.send(r#"{"type":"UPDATE","table":"t","record":{"id":2,"v":"bad"},"old_record":{"id":1,"v":"good"}}"#).await;
    rig.db.send(&image(1, "newer")).await;
    // All is applied, and the letter is lost with the step.
    crash(&rig, "advanced=return").await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT id, v FROM t").await, ["1|newer"]);
    assert_eq!(rig.db.dead().await.len(), 1, "one letter, though both of its keys are of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_two_keys_stays_until_both_have_newer_states() {
    let rig = refusing().await;
    rig.db.send(&image(1, "good")).await;
    rig.drain().await;
    let moved = r#"{"type":"UPDATE","table":"t","record":{"id":2,"v":"bad"},"old_record":{"id":1,"v":"good"}}"#;
    rig.db.send(moved).await;
    rig.drain().await;
    rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":1,"v":"another"},"old_record":null}"#).await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 1, "row 2 was never applied");
    lift_constraint(&rig).await;
    let done = dead::retry(&rig.worker, &Choice::default()).await.unwrap();
    assert_eq!((done.sent, done.stay), (0, 1), "the whole message would take key 1 back");
    rig.db.send(&image(2, "newer")).await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 0);
    assert_eq!(rig.rows("SELECT id, v FROM t ORDER BY id").await, ["1|another", "2|newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_image_in_a_later_take_of_the_same_step_supersedes_a_letter() {
    let rig = refusing().await;
    rig.db.send(&image(1, "bad")).await;
    rig.db.sql(r#"insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('type','INSERT','table','t','record',jsonb_build_object('id',i,'v','x')) from generate_series(1000,3000) i"#).await;
    rig.db.send(&image(1, "newer")).await;
    rig.drain().await;
    lift_constraint(&rig).await;
    retry_and_drain(&rig).await;
    assert_eq!(rig.rows("SELECT v FROM t WHERE id = 1").await, ["newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_acknowledgement_supersedes_letters_too() {
    let rig = refusing().await;
    rig.db.send(&image(1, "bad")).await;
    assert_eq!(rig.drain().await.dead, 1);
    rig.db.send(&image(1, "newer")).await;
    crash(&rig, "applied=return").await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 0);
    lift_constraint(&rig).await;
    retry_and_drain(&rig).await;
    assert_eq!(rig.rows("SELECT v FROM t WHERE id = 1").await, ["newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_for_a_step_that_may_supersede_its_letter() {
    let rig = refusing().await;
    rig.db.send(&image(1, "bad")).await;
    assert_eq!(rig.drain().await.dead, 1);
    lift_constraint(&rig).await;
    rig.db.send(&image(1, "newer")).await;
    let mut step = start(&rig, "applied=sleep(3000)");
    let started = Instant::now();
    while rig.rows("SELECT v FROM t WHERE id = 1").await != ["newer"] {
        assert!(started.elapsed() < Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
    dead::retry(&rig.worker, &Choice::default()).await.unwrap();
    assert!(step.wait().unwrap().success());
    rig.drain().await;
    assert_eq!(rig.rows("SELECT v FROM t WHERE id = 1").await, ["newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_did_not_fit_is_superseded_by_one_that_does() {
    let old = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}}}"#;
    let new = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(old)).await;
    rig.db.send(r#"{"type":"UPDATE","table":"t","record":{"id":1,"v":"abc"},"old_record":{"id":1}}"#).await;
    rig.db.send(r#"{"type":"UPDATE","table":"t","record":{"id":1,"v":7},"old_record":{"id":1}}"#).await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 0);
    // The other way round it waits, and is right when it is tried again.
    rig.db.send(r#"{"type":"UPDATE","table":"t","record":{"id":1,"v":"last"},"old_record":{"id":1}}"#).await;
    rig.drain().await;
    assert_eq!(rig.db.dead().await.len(), 1);
    lift_constraint(&rig).await;
    let worker = Worker::new(config(&rig.db.url(), rig.home.target(), schema(new)));
    dead::retry(&worker, &Choice::default()).await.unwrap();
    worker.drain(BUDGET).await.unwrap();
    assert_eq!(rig.rows("SELECT v FROM t").await, ["last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_others_neither_stop_a_drain_nor_hide_new_ones() {
    let rig = captured().await;
    for foreign in [
        r#"{"msg_id": 1e30, "table": "t", "keys": [["1"]]}"#,
        r#"{"table": null, "key": null, "reason": null}"#,
        r#"{"table": "t", "key": null, "reason": null}"#,
        r#"{"table": "t", "key": ["1"], "keys": 7}"#,
        r#"{"table": "t", "keys": [[1, {}]], "superseded": "x"}"#,
        "[]",
    ] {
        rig.db.sql(&format!("insert into {DEAD} (vt, message) values (now(), '{foreign}')")).await;
    }
    rig.db.sql("insert into t values (5, 'bad'), (6, 'good')").await;
    assert_eq!(rig.drain().await.dead, 1);
    assert_eq!(rig.db.one(&format!("select count(*) from {DEAD} where message->>'reason' is not null")).await, "1");
    assert_eq!(dead::list(&rig.worker, &Choice::default(), 100).await.unwrap().len(), 7);
    assert_eq!(dead::drop_letters(&rig.worker, &Choice::default()).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_with_an_id_that_the_queue_never_gave_out_fails_no_write() {
    let rig = captured().await;
    let last: i64 = rig.db.one("select last_value from pgmq.q_replicate_data_libsql_msg_id_seq").await.parse().unwrap();
    let letter = format!(
        r#"{{"table":"x","msg_id":{},"message":{{"type":"INSERT","table":"x","record":{{"id":1}}}}}}"#,
        last + 2
    );
    rig.db.sql(&format!("insert into {DEAD} (vt, message) values (now(), '{letter}')")).await;
    assert_eq!(dead::retry(&rig.worker, &Choice::default()).await.unwrap().sent, 1);
    for id in 1..4 {
        rig.db.sql(&format!("insert into t values ({id}, 'a')")).await;
    }
    rig.drain().await;
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_takes_nothing_is_known_by_a_few_rows_and_over_drains() {
    let rig = captured().await;
    rig.db.sql("insert into t values (0, 'good')").await;
    rig.drain().await;
    rig.db.sql("insert into t select i, 'bad' from generate_series(1, 900) i; delete from t where id = 0").await;
    let done = rig.drain().await;
    assert_eq!((done.dead, done.paused.len()), (0, 1), "a deleted key is no row");
    let rig = captured().await;
    let mut is_paused = false;
    for i in 0..20 {
        rig.db.sql(&format!("insert into t values ({i}, 'bad')")).await;
        is_paused |= !rig.drain().await.paused.is_empty();
    }
    assert!(is_paused && rig.db.dead().await.len() < 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_an_image_that_cannot_be_understood_excuses_its_row() {
    let rig =
        Rig::new(Path::File, schema(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}}}"#)).await;
    rig.db.sql("create table t (id int primary key, v numeric); insert into t values (1, 1.5)").await;
    rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":1,"v":1.5}}"#).await;
    assert_eq!(rig.drain().await.dead, 1);
    let report = verified(&rig).await;
    assert_eq!((report.tables["t"].rows, report.tables["t"].dead), (1, 1), "{report:?}");
    assert!(report.is_equal(), "{report:?}");
    rig.db.sql("update t set v = 2").await;
    let report = verified(&rig).await;
    assert_eq!((report.tables["t"].dead, report.tables["t"].missing), (0, 1), "its row fits by now: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_removes_nothing_is_no_loss() {
    let rig = captured().await;
    for nothing in [
        "select pgmq.delete('replicate_data_libsql', 999999)",
        "select * from pgmq.pop('replicate_data_libsql')",
        "delete from pgmq.q_replicate_data_libsql where false",
    ] {
        rig.db.sql(nothing).await;
    }
    assert_eq!(rig.db.one("select count(*) from pgflume.losses").await, "0");
    rig.db.sql("insert into t values (1, 'a'); insert into t values (2, 'a')").await;
    rig.db.sql("delete from pgmq.q_replicate_data_libsql").await;
    assert_eq!(rig.db.one("select count(*) from pgflume.losses").await, "1", "one note a transaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_remembered_for_a_table_that_cannot_be_read_just_then() {
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    rig.db.sql(&format!("{MAKE}; insert into t values (1, 'a')")).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    let worker = with_nothing_but_its_role(&rig).await;
    rig.db.sql("revoke select on t from pgflume_worker; update t set v = 'b'; insert into t values (2, 'c')").await;
    worker.drain(BUDGET).await.unwrap();
    rig.db.sql("select pgmq.purge_queue('replicate_data_libsql')").await;
    worker.drain(BUDGET).await.unwrap();
    rig.db.sql("grant select on t to pgflume_worker").await;
    while worker.drain(BUDGET).await.unwrap().rebuilding > 0 {}
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_fills_a_captured_table_that_cannot_be_read_just_then_when_it_can() {
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    rig.db.sql(&format!("{MAKE}; insert into t values (1, 'a')")).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    let worker = with_nothing_but_its_role(&rig).await;
    rig.db.sql("revoke select on t from pgflume_worker").await;
    pairing::nuke(&worker, None, true).await.unwrap();
    let done = worker.drain(BUDGET).await.unwrap();
    assert!(done.stuck.contains("t") && done.rebuilding == 1, "it says that the table waits: {done:?}");
    rig.db.sql("grant select on t to pgflume_worker").await;
    while worker.drain(BUDGET).await.unwrap().rebuilding > 0 {}
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_behind_a_skipped_message_is_no_divergence() {
    let rig = captured().await;
    rig.db.send(r#"{"type":"INSERT","table":"nobody","record":{"id":1}}"#).await;
    crash(&rig, "applied=return").await;
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(status(&rig.worker).await.unwrap().last_sync.healed_from, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_a_newer_version_says_that_setup_is_needed() {
    let rig = captured().await;
    let role = format!("worker_{}", rig.db.name);
    rig.db.sql(&format!("create role {role} login; grant pgflume_worker to {role}; comment on schema pgflume is 'pgflume, bookkeeping 4'")).await;
    let url = rig.db.url().replace("postgres@", &format!("{role}@"));
    let error = Worker::new(config(&url, rig.home.target(), schema(TABLES))).drain(BUDGET).await.unwrap_err();
    assert!(error.to_string().contains("run `pgflume setup` of this version"), "{error}");
}
