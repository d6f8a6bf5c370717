//! What the step recognises: lost acknowledgements, two workers, replaced and restored sides.

use crate::parts::{Fault, Proxy};
use crate::snapshot::rebuilt;
use crate::support::{Db, Home, PATHS, Path, Rig, config, repository_schema, schema};
use crate::volume::set_up;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::sync::Arc;
use std::time::Duration;

const BUDGET: Duration = Duration::from_secs(20);

fn insert(id: &str, name: &str) -> String {
    format!(r#"{{"type":"INSERT","table":"orgs","record":{{"id":"{id}","name":"{name}"}}}}"#)
}

/// A drain that applies and then cannot commit: its transaction dies before.
async fn drain_without_acknowledgement(rig: &Rig) {
    let die = "create function pgflume.die() returns trigger language plpgsql as $$begin
            raise exception 'no acknowledgement' using errcode = '57P01'; end$$;
        create trigger die before update of synced_at on pgflume.progress for each row execute function pgflume.die()";
    rig.db.sql(die).await;
    assert!(rig.worker.drain(Duration::ZERO).await.is_err());
    rig.db.sql("drop function pgflume.die cascade").await;
}

/// A rig whose worker reaches sqld through a proxy.
async fn through_a_proxy() -> (Rig, Proxy) {
    let home = Home::new(Path::Sqld);
    let Target::Remote { url, token } = home.target() else { unreachable!() };
    let proxy = Proxy::start(url.rsplit(':').next().unwrap().parse().unwrap());
    let db = Db::new().await;
    let target = Target::Remote { url: proxy.url(), token };
    let worker = Arc::new(Worker::new(config(&db.url(), target, repository_schema())));
    (Rig { db, home, worker }, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_applied_twice() {
    let (rig, proxy) = through_a_proxy().await;
    rig.db.send(&insert("a", "first")).await;
    rig.drain().await;
    rig.db.send(&insert("a", "second")).await;
    // The replica is opened, read twice (inventory, head), then written: cut the write's answer.
    let before = proxy.hits();
    for _ in 0..6 {
        proxy.set_once(Fault::CutAfterSend);
        let done = rig.worker.drain(BUDGET).await.unwrap();
        assert_eq!(done.queued, 0);
        rig.db.send(&insert("a", "third")).await;
    }
    assert!(proxy.hits() > before, "no answer was cut");
    rig.drain().await;
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["third"]);
    let (acknowledged, applied) =
        (rig.db.one("select seq from pgflume.progress").await, rig.rows("SELECT seq FROM _pgflume_head").await);
    assert_eq!([acknowledged], applied[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_were_applied_before_the_acknowledgement_was_lost_are_not_applied_again() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    rig.db.send(&insert("a", "first")).await;
    rig.drain().await;
    rig.db.send(&insert("a", "second")).await;
    drain_without_acknowledgement(&rig).await;
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["second"]);
    assert_eq!(rig.db.queued().await, 1, "the message is back");
    // Whoever writes the replica by hand shows whether the image is applied once more.
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    by_hand.execute("UPDATE orgs SET name = 'by hand'", ()).await.unwrap();
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["by hand"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_of_messages_that_name_no_row_heals_nothing() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    rig.drain().await;
    rig.db.send(r#"{"v":1,"table":"nobodys","keys":[["a"]]}"#).await;
    drain_without_acknowledgement(&rig).await;
    assert_eq!(rig.rows("SELECT seq FROM _pgflume_head").await, ["1"], "a batch without rows");
    // Nothing can be read here, so a healing would stop the drain.
    assert_eq!(rig.drain().await.queued, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_and_many_callers_deliver_each_message_once() {
    for path in PATHS {
        let rig = Rig::new(path, repository_schema()).await;
        let workers = [rig.worker.clone(), Arc::new(rig.second_worker()), Arc::new(rig.second_worker())];
        let mut calls = tokio::task::JoinSet::new();
        for i in 0..60 {
            rig.db.send(&insert(&format!("k{}", i % 7), &format!("{i:03}"))).await;
            let worker = workers[i % 3].clone();
            calls.spawn(async move { worker.drain(BUDGET).await.unwrap().processed });
        }
        let mut processed = 0;
        while let Some(done) = calls.join_next().await {
            processed += done.unwrap();
        }
        assert_eq!((processed, rig.db.queued().await), (60, 0), "{path:?}: a busy answer promises one more look");
        assert_eq!(rig.rows("SELECT max(name), count(*) FROM orgs").await, ["059|7"]);
        assert_eq!(rig.rows("SELECT name FROM orgs ORDER BY name").await.len(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_replica_of_tables_that_cannot_be_read_stops_the_drain_until_a_nuke() {
    let tables = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    let cases = [
        ("DELETE FROM _pgflume_head", "not the one"),
        ("UPDATE _pgflume_head SET epoch = 'x'", "not the one"),
        ("UPDATE _pgflume_head SET seq = seq - 1", "behind"),
        ("UPDATE _pgflume_head SET token = 'x'", "behind"),
        ("UPDATE _pgflume_head SET seq = seq + 1", "behind"),
    ];
    for (damage, expected) in cases {
        let rig = Rig::new(Path::File, schema(tables)).await;
        rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":1}}"#).await;
        rig.drain().await;
        let Target::File(path) = rig.home.target() else { unreachable!() };
        let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
        by_hand.execute(damage, ()).await.unwrap();
        rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":2}}"#).await;
        let error = rig.worker.drain(BUDGET).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("/nuke"), "{damage}: {error}");
        assert_eq!(rig.db.queued().await, 1, "{damage}: nothing is lost");
        pgflume::sync::pairing::nuke(&rig.worker, None, true).await.unwrap();
        assert_eq!(rig.drain().await.processed, 1);
        assert_eq!(rig.rows("SELECT id FROM t").await, ["2"], "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn diverged_sides_heal_by_a_resync_that_readers_do_not_notice() {
    let in_replica = [
        ("DELETE FROM _pgflume_head", "other_replica"),
        ("UPDATE _pgflume_head SET epoch = 'x'", "other_replica"),
        ("UPDATE _pgflume_head SET seq = seq - 1", "behind"),
        ("UPDATE _pgflume_head SET token = 'x'", "behind"),
        ("UPDATE _pgflume_head SET seq = seq + 1", "behind"),
    ];
    let in_postgres = [
        ("update pgflume.progress set source_id = 'another/1'", "other_source"),
        ("update pgflume.progress set queue_id = 1", "other_source"),
    ];
    let cases = in_replica.map(|(sql, name)| (true, sql, name)).into_iter();
    for (on_replica, damage, name) in cases.chain(in_postgres.map(|(sql, name)| (false, sql, name))) {
        let rig =
            Rig::new(Path::File, schema(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#)).await;
        rig.db.sql("create table t (id int primary key, v text); insert into t values (1, 'kept'), (2, 'lost')").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        let Target::File(path) = rig.home.target() else { unreachable!() };
        let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
        // What a restore does: a batch that is gone, and one that only the other side knows.
        by_hand.execute("DELETE FROM t WHERE id = 2", ()).await.unwrap();
        by_hand.execute("INSERT INTO t VALUES (3, 'of another life')", ()).await.unwrap();
        match on_replica {
            true => drop(by_hand.execute(damage, ()).await.unwrap()),
            false => rig.db.sql(damage).await,
        }
        rig.db.sql("insert into t values (4, 'new')").await;
        rebuilt(&rig).await;
        assert_eq!(rig.rows("SELECT v FROM t ORDER BY id").await, ["kept", "lost", "new"], "{damage}");
        let status = pgflume::operate::status::status(&rig.worker).await.unwrap();
        assert_eq!(status.last_sync.healed_from.as_deref(), Some(name), "{damage}");
        assert_eq!(rig.db.one("select reason from pgflume.resyncs").await, name, "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_never_paired_takes_no_replica_from_another() {
    let one = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(one)).await;
    let other = Rig::with(Db::new().await, Home::new(Path::File), schema(one));
    let other_worker = Worker::new(config(&other.db.url(), rig.home.target(), schema(one)));
    for db in [&rig.db, &other.db] {
        db.sql("create table t (id int primary key, v text)").await;
        set_up(&db.url(), rig.worker.schema()).await;
    }
    rig.db.sql("insert into t values (1, 'mine')").await;
    rig.drain().await;
    let error = other_worker.drain(BUDGET).await.unwrap_err().to_string();
    assert!(error.contains("the replica belongs to another") && error.contains("POST /nuke"), "{error}");
    rig.drain().await;
    assert_eq!(rig.rows("SELECT v FROM t").await, ["mine"]);
    // On purpose it may: then the first one says at once who is in the way, and takes nothing back by itself.
    for _ in 0..2 {
        pgflume::sync::pairing::nuke(&other_worker, None, true).await.unwrap();
        let error = rig.worker.drain(BUDGET).await.unwrap_err().to_string();
        assert!(error.contains("belongs to another queue or another database"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_postgres_without_readable_tables_stops_the_drain_and_loses_nothing() {
    let damages = [
        "update pgflume.progress set source_id = 'another/1'",
        "update pgflume.progress set queue_id = 1",
        // Restored to before the last batch, whose transaction it now has never had, or had committed.
        "update pgflume.progress set seq = seq - 1, token = (select 'parent')",
    ];
    for damage in damages {
        let rig = Rig::new(Path::File, repository_schema()).await;
        rig.db.send(&insert("a", "first")).await;
        rig.drain().await;
        let parent = rig.rows("SELECT parent FROM _pgflume_ledger ORDER BY seq DESC LIMIT 1").await.swap_remove(0);
        rig.db.sql(&damage.replace("'parent'", &format!("'{parent}'"))).await;
        rig.db.send(&insert("b", "second")).await;
        let error = rig.worker.drain(BUDGET).await.unwrap_err().to_string();
        assert!(error.contains("Postgres is not the one"), "{damage}: {error}");
        assert_eq!(rig.db.queued().await, 1);
        assert_eq!(rig.rows("SELECT name FROM orgs").await, ["first"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_contact_or_a_nuke_that_was_cut_short_is_finished() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    rig.db.send(&insert("a", "one")).await;
    rig.drain().await;
    // As a nuke leaves it that dies between the replica and the acknowledgement.
    rig.db.sql("update pgflume.progress set next_epoch = 'announced'").await;
    rig.db.send(&insert("a", "two")).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["two"], "an announcement alone changes nothing");
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    by_hand.execute("UPDATE _pgflume_head SET epoch = 'announced', seq = 0", ()).await.unwrap();
    rig.db.sql("update pgflume.progress set next_epoch = 'announced'").await;
    rig.db.send(&insert("a", "three")).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["three"]);
    assert_eq!(rig.db.one("select epoch || coalesce(next_epoch, '-') from pgflume.progress").await, "announced-");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_applied_that_postgres_has_not_flushed() {
    let rig = Rig::new(Path::File, schema(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#)).await;
    rig.db.sql("create table t (id int primary key)").await;
    rig.drain().await;
    for i in 0..20 {
        rig.db.sql(&format!("set synchronous_commit = off; insert into t values ({i});
            insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), '{{\"v\":1,\"table\":\"t\",\"keys\":[[\"{i}\"]]}}')")).await;
        rig.drain().await;
        let seen = rig.rows("SELECT lsn FROM _pgflume_ledger ORDER BY seq DESC LIMIT 1").await.swap_remove(0);
        assert_eq!(rig.db.one(&format!("select pg_current_wal_flush_lsn() >= '{seen}'")).await, "true");
    }
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["20"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_row_takes_no_truncate_along() {
    let tables = r#"{"a":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},"z":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    by_hand.execute("CREATE TABLE a (id TEXT NOT NULL PRIMARY KEY, v TEXT CHECK (v <> 'bad'))", ()).await.unwrap();
    rig.db.sql("create table z (id int primary key); insert into z values (1), (2)").await;
    rig.db.send(r#"{"v":1,"table":"z","keys":[["1"],["2"]]}"#).await;
    rig.drain().await;
    rig.db.sql("truncate z").await;
    rig.db.send(r#"{"v":1,"table":"z","truncate":true}"#).await;
    rig.db.send(r#"{"type":"INSERT","table":"a","record":{"id":"x","v":"bad"}}"#).await;
    assert_eq!(rig.drain().await.dead, 1);
    assert_eq!(rig.rows("SELECT count(*) FROM z").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_thousands_of_parts_keeps_its_ledger_and_too_many_rejections_halt_it() {
    let tables = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    by_hand.execute("CREATE TABLE a (id INTEGER NOT NULL PRIMARY KEY, v INTEGER CHECK (v > 0))", ()).await.unwrap();
    rig.db.sql("insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('type', 'INSERT', 'table', 'a',
        'record', jsonb_build_object('id', i, 'v', i % 2)) from generate_series(1, 5000) i").await;
    let done = rig.drain().await;
    assert_eq!((done.dead, done.paused.contains("a")), (0, true), "the table halts, and nothing is lost: {done:?}");
    assert!(done.queued > 0);
    by_hand.execute("ALTER TABLE a RENAME TO checked", ()).await.unwrap();
    by_hand.execute("CREATE TABLE a (id INTEGER NOT NULL PRIMARY KEY, v INTEGER)", ()).await.unwrap();
    by_hand.execute("INSERT INTO a SELECT * FROM checked", ()).await.unwrap();
    assert_eq!(rig.drain().await.queued, 0, "the ledger explains why the replica is ahead");
    assert_eq!(rig.rows("SELECT count(*) FROM a").await, ["5000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_mends_bookkeeping_that_cannot_be_read() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    rig.db.send(&insert("a", "one")).await;
    rig.drain().await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    by_hand.execute("UPDATE _pgflume_head SET seq = 'x'", ()).await.unwrap();
    assert!(rig.worker.drain(BUDGET).await.unwrap_err().to_string().contains("POST /nuke"));
    pgflume::sync::pairing::nuke(&rig.worker, None, true).await.unwrap();
    rig.db.send(&insert("a", "two")).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgres_after_the_replica_has_applied_gives_no_transaction_id_out_again() {
    let cluster = tokio::task::spawn_blocking(|| {
        pgflume::demo::postgres::Cluster::start(pgflume::demo::postgres::ClusterOptions::default())
    });
    let cluster = cluster.await.unwrap().unwrap();
    let home = Home::new(Path::File);
    let url = cluster.url("postgres");
    let connect = async || pgflume::postgres::PgUrl::parse(&url).unwrap().connect().await.unwrap();
    let client = connect().await;
    client.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
    client.batch_execute("select pgmq.create('replicate_data_libsql')").await.unwrap();
    let send = "select pgmq.send('replicate_data_libsql', '{\"type\":\"INSERT\",\"table\":\"orgs\",\"record\":{\"id\":\"a\"}}')";
    client.batch_execute(send).await.unwrap();
    let worker = Arc::new(Worker::new(config(&url, home.target(), repository_schema())));
    worker.drain(BUDGET).await.unwrap();
    // The acknowledgement waits, and there Postgres dies.
    client.batch_execute(send).await.unwrap();
    client.batch_execute("create function wait() returns trigger language plpgsql as $$begin perform pg_catalog.pg_sleep(600); return new; end$$;
        create trigger wait before update of synced_at on pgflume.progress for each row execute function wait()").await.unwrap();
    let drain = tokio::spawn({
        let worker = worker.clone();
        async move { worker.drain(Duration::ZERO).await }
    });
    loop {
        let waiting: i64 = client
            .query_one("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", &[])
            .await
            .unwrap()
            .get(0);
        if waiting > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    cluster.stop(pgflume::demo::postgres::Stop::Immediate).unwrap();
    assert!(drain.await.unwrap().is_err());
    cluster.start_again().unwrap();
    let client = connect().await;
    client.batch_execute("drop trigger wait on pgflume.progress").await.unwrap();
    let done = worker.drain(BUDGET).await.unwrap();
    assert_eq!(done.queued, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_beside_a_rejected_last_row_are_in_the_ledger_all_the_same() {
    let tables = r#"{"a":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let by_hand = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    by_hand.execute("CREATE TABLE a (id TEXT NOT NULL PRIMARY KEY, v TEXT CHECK (v <> 'bad'))", ()).await.unwrap();
    rig.drain().await;
    rig.db.send(r#"{"type":"INSERT","table":"a","record":{"id":"first","v":"image"}}"#).await;
    rig.db.send(r#"{"type":"INSERT","table":"a","record":{"id":"last","v":"bad"}}"#).await;
    drain_without_acknowledgement(&rig).await;
    by_hand.execute("UPDATE a SET v = 'by hand'", ()).await.unwrap();
    let done = rig.drain().await;
    assert_eq!((done.processed, done.dead, done.queued), (2, 1, 0));
    assert_eq!(rig.rows("SELECT id, v FROM a").await, ["first|by hand"], "it is not applied again");
}
