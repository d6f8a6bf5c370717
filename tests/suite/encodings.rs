//! Databases of other encodings than UTF-8: what is sent to Postgres has only characters that each of them has.

use crate::support::{Db, Home, Path, Rig, cluster, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::operate::verify::verify;
use pgflume::operate::{dead, resync, status};
use pgflume::postgres::PgUrl;
use pgflume::postgres::books::dead_letters::Choice;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::sync::compare::report::VerifyOptions;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// Files whose words are for people, and reach no server.
const FOR_PEOPLE: [&str; 5] = ["src/config/", "src/postgres/url.rs", "src/postgres/init/", "src/cli/", "src/http/"];

fn sources(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(path.to_str().unwrap()));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn all_sql_and_whatever_may_be_sent_beside_it_is_ascii() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut wrong = Vec::new();
    for path in sources(&format!("{root}/sql")) {
        let text = fs::read_to_string(&path).unwrap();
        wrong.extend(text.lines().filter(|line| !line.is_ascii()).map(|line| format!("{}: {line}", path.display())));
    }
    for path in sources(&format!("{root}/src")) {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if FOR_PEOPLE.iter().any(|part| name.starts_with(part)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
        let is_code = |line: &&str| !line.trim_start().starts_with("//") && !line.is_ascii();
        wrong.extend(code.filter(is_code).map(|line| format!("{name}: {line}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latin1_database_is_set_up_drained_asked_and_compared() {
    for encoding in ["LATIN1", "LATIN2", "EUC_JP"] {
        let admin = PgUrl::parse(&cluster().url("postgres")).unwrap().connect().await.unwrap();
        let template = format!("template_{}", encoding.to_lowercase());
        let made = format!("create database {template} encoding '{encoding}' template template0 locale 'C'");
        admin.batch_execute(&made).await.unwrap();
        let bare = PgUrl::parse(&cluster().url(&template)).unwrap().connect().await.unwrap();
        bare.batch_execute(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await.unwrap();
        drop(bare);
        let db = Db::on(cluster(), &template).await;
        db.sql(&format!("select pgmq.create('{DEFAULT_QUEUE}')")).await;
        db.sql("create table ok (id text primary key, v text); insert into ok values (U&'k\\00e9', 'x'), ('b', null)")
            .await;
        let json = r#"{"ok": {"primaryKey": "id", "columns": {"id": "TEXT", "v": "TEXT"}}}"#;
        let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
        capture::setup(&url, &schema(json), &queue, &SetupOptions::default()).await.unwrap();
        let rig = Rig::with(db, Home::new(Path::File), schema(json));
        rig.drain().await;
        // A long key is cut where a dead letter shows it.
        rig.db.sql("insert into ok values (repeat('z', 400), 'y'); update ok set v = U&'\\00e9' where id = 'b'").await;
        rig.db.send(r#"{"what": "is this"}"#).await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT id FROM ok WHERE v = 'é'").await, ["b"], "{encoding}");
        let status = status::status(&rig.worker).await.unwrap();
        assert_eq!((status.queued, status.dead), (0, 1), "{encoding}");
        assert_eq!(dead::list(&rig.worker, &Choice::default(), 10).await.unwrap().len(), 1, "{encoding}");
        let report = verify(
            &rig.second_worker(),
            VerifyOptions { tables: vec!["ok".into()], ..VerifyOptions::default() },
            Arc::default(),
        )
        .await
        .unwrap();
        assert!(report.is_equal(), "{encoding}");
        resync::request(&rig.worker, &[]).await.unwrap();
        rig.drain().await;
        assert_eq!(rig.rows("SELECT count(*) FROM ok").await, ["3"], "{encoding}");
    }
}
