//! Four variables, a bare queue, Capgo's messages sent by hand, no `setup`, no source tables.

use crate::support::{Db, Home, PATHS, Path, Rig, SECRET, Server, config, repository_schema, schema};
use pgflume::replica::target::Target;

const INSERT_APP: &str = r#"{"record":{"id":"a1","app_id":"com.x","name":"One","retention":9007199254740993,
  "transfer_history":[{"from":"é","n":1.10}],"unlisted":{"x":1},"owner_org":null},"old_record":null,"type":"INSERT","table":"apps"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn sync_delivers_and_answers_as_the_contract_says() {
    for path in PATHS {
        let (db, home) = (Db::new().await, Home::new(path));
        let server = Server::start(config(&db.url(), home.target(), repository_schema())).await;
        db.send(INSERT_APP).await;
        db.send(r#"{"record":{"id":7,"app_id":"com.x","public":true},"old_record":null,"type":"INSERT","table":"channels"}"#).await;

        let answer = server.sync().await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let json = answer.json();
        assert_eq!((&json["success"], &json["processed"], &json["queued"]), (&true.into(), &2.into(), &0.into()));

        let rig = Rig::with(db, home, repository_schema());
        let rows = rig.rows("SELECT id, name, retention, transfer_history, owner_org FROM apps").await;
        assert_eq!(rows, [r#"a1|One|9007199254740993|[{"n": 1.10, "from": "é"}]|NULL"#], "{path:?}");
        assert_eq!(rig.rows("SELECT id, public, typeof(public) FROM channels").await, ["7|1|integer"]);
        assert_eq!(rig.db.queued().await, 0);

        rig.db
            .send(r#"{"record":{"id":"a1","app_id":"com.x","name":"Two"},"old_record":{"id":"a1","app_id":"com.x"},"type":"UPDATE","table":"apps"}"#)
            .await;
        rig.db.send(r#"{"record":null,"old_record":{"id":7},"type":"DELETE","table":"channels"}"#).await;
        assert_eq!(server.sync().await.json()["processed"], 2);
        let rows = rig.rows("SELECT name, retention FROM apps").await;
        assert_eq!(rows, ["Two|9007199254740993"], "columns that the image lacks are left untouched");
        assert_eq!(rig.rows("SELECT count(*) FROM channels").await, ["0"]);
        let idle = server.sync().await.json();
        assert_eq!((&idle["processed"], &idle["queued"]), (&0.into(), &0.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_capgos_worker_gets_wrong_is_right() {
    let tables = r#"{"c":{"primaryKey":["x","y"],"columns":{"x":"TEXT","y":"INTEGER","v":"TEXT"}},
                     "t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    for path in PATHS {
        let rig = Rig::new(path, schema(tables)).await;
        for message in [
            r#"{"type":"INSERT","table":"c","record":{"x":"a","y":1,"v":"one"},"old_record":null}"#,
            r#"{"type":"INSERT","table":"c","record":{"x":"a","y":2,"v":"two"},"old_record":null}"#,
            r#"{"type":"INSERT","table":"t","record":{"id":9223372036854775807,"v":"big"},"old_record":null}"#,
            r#"{"type":"INSERT","table":"nobody","record":{"id":1},"old_record":null}"#,
            r#"{"type":"INSERT","table":"t","record":null,"old_record":null}"#,
        ] {
            rig.db.send(message).await;
        }
        let done = rig.drain().await;
        assert_eq!((done.processed, done.skipped, done.dead), (5, 1, 1), "{path:?}");
        rig.db.send(r#"{"type":"UPDATE","table":"c","record":{"x":"a","y":3,"v":"moved"},"old_record":{"x":"a","y":1,"v":"one"}}"#).await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT x, y, v FROM c ORDER BY y").await, ["a|2|two", "a|3|moved"], "no old row is left");
        assert_eq!(rig.rows("SELECT id, v FROM t").await, ["9223372036854775807|big"]);
        let dead = rig.db.dead().await;
        assert_eq!(dead.len(), 1);
        assert!(dead[0].starts_with("the message has no record: an INSERT or UPDATE needs the new row ["), "{dead:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kinds_of_broken_message_among_good_ones_become_dead_letters_and_the_good_ones_arrive() {
    let broken = [
        "null",
        "[]",
        "7",
        "{}",
        r#"{"table":1}"#,
        r#"{"table":"apps"}"#,
        r#"{"type":"INSERT","table":"apps","record":"x"}"#,
        r#"{"type":"INSERT","table":"apps","record":{"name":"no key"}}"#,
        r#"{"type":"INSERT","table":"apps","record":{"app_id":"a","retention":"many"}}"#,
        r#"{"type":"DELETE","table":"apps"}"#,
        r#"{"v":2,"table":"apps","keys":[]}"#,
        r#"{"v":1,"table":"apps","keys":[["a","b"]]}"#,
        r#"{"type":"MERGE","table":"apps","record":{"app_id":"a"}}"#,
    ];
    for path in PATHS {
        let rig = Rig::new(path, repository_schema()).await;
        for (i, message) in broken.iter().enumerate() {
            rig.db.send(&format!(r#"{{"type":"INSERT","table":"apps","record":{{"app_id":"good{i}"}}}}"#)).await;
            rig.db.send(message).await;
        }
        let done = rig.drain().await;
        assert_eq!((done.processed, done.dead, done.queued), (26, 13, 0), "{path:?}");
        assert_eq!(rig.rows("SELECT count(*) FROM apps").await, ["13"]);
        let dead = rig.db.dead().await;
        assert_eq!(dead.len(), 13);
        assert!(dead.iter().all(|reason| reason.starts_with("the message ")), "{dead:?}");
        let kept = rig.db.one("select message->'message'->>'type' from pgmq.q_replicate_data_libsql_dead order by msg_id desc limit 1").await;
        assert_eq!(kept, "MERGE", "the message itself is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_hidden_by_another_workers_visibility_timeout_are_taken_in_order() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    for i in 0..50 {
        rig.db.send(&format!(r#"{{"type":"INSERT","table":"apps","record":{{"app_id":"a","name":"{i}"}}}}"#)).await;
        if i % 3 == 0 {
            rig.db.sql("select pgmq.read('replicate_data_libsql', 600, 1)").await;
        }
    }
    assert_eq!(rig.drain().await.processed, 50);
    assert_eq!(rig.rows("SELECT name FROM apps").await, ["49"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_capgos_worker_made_are_accepted() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let columns = rig.worker.schema().get("apps").unwrap().columns.iter();
    let list: Vec<_> =
        columns.map(|c| format!("{} {}", c.name, if c.name == "id" { "TEXT PRIMARY KEY" } else { "TEXT" })).collect();
    let old = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    old.execute(&format!("CREATE TABLE apps ({})", list.join(", ")), ()).await.unwrap();
    old.execute("INSERT INTO apps (id, app_id, name, icon_url) VALUES ('a1', 'com.x', 'old', 'kept')", ())
        .await
        .unwrap();
    drop(old);
    rig.db.send(r#"{"type":"UPDATE","table":"apps","record":{"id":"a1","app_id":"com.x","name":"new"},"old_record":{"id":"a1","app_id":"com.x"}}"#).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT name, icon_url FROM apps").await, ["new|kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_table_that_differs_from_the_schema_stops_the_drain_and_loses_nothing() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let old = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    old.execute("CREATE TABLE apps (id TEXT, nam TEXT PRIMARY KEY)", ()).await.unwrap();
    rig.db.send(INSERT_APP).await;
    let error = rig.worker.drain(std::time::Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(error.contains("\"apps\"") && error.contains("run `pgflume setup`"), "{error}");
    old.execute("DROP TABLE apps", ()).await.unwrap();
    let columns: Vec<_> =
        rig.worker.schema().get("apps").unwrap().columns.iter().map(|c| format!("{} JSON", c.name)).collect();
    old.execute(&format!("CREATE TABLE apps ({}, PRIMARY KEY (id))", columns.join(", ")), ()).await.unwrap();
    let error = rig.worker.drain(std::time::Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(error.contains("into numbers"), "{error}");
    assert_eq!(rig.db.queued().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_named_with_the_remedy() {
    let rig = Rig::new(Path::File, repository_schema()).await;
    rig.db.sql("select pgmq.drop_queue('replicate_data_libsql')").await;
    let server = Server::start(config(&rig.db.url(), rig.home.target(), repository_schema())).await;
    let answer = server.call("POST", "/sync", Some(SECRET)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.json()["error"].as_str().unwrap().contains("pgmq.create('replicate_data_libsql')"));
    assert_eq!(answer.header("retry-after"), Some("60"));
}
