//! JSON at its limits: nesting, escapes that other parsers refuse, numbers that no double holds.

use super::{assert_equal, drained};
use crate::support::{PATHS, Rig, schema};
use crate::volume::set_up;

const DOCS: &str = r#"{"docs":{"primaryKey":"id","columns":{"id":"TEXT","j":"JSON","b":"JSON","t":"TEXT"}}}"#;

const LEVELS: usize = 5_000;

fn nested() -> String {
    format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS))
}

fn nested_objects() -> String {
    format!("{}1{}", r#"{"a": "#.repeat(LEVELS), "}".repeat(LEVELS))
}

#[tokio::test(flavor = "multi_thread")]
async fn json_arrives_as_postgres_writes_it_however_deep_and_odd() {
    for path in PATHS {
        let rig = Rig::new(path, schema(DOCS)).await;
        rig.db.sql("create table docs (id text primary key, j json, b jsonb, t text)").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let insert = "insert into docs (id, j, b) values ($1, $2::text::json, $3::text::jsonb)";
        let digits = "1234567890".repeat(200);
        let (deep, objects) = (nested(), nested_objects());
        let cases: [(&str, &str, &str); 6] = [
            ("nested", &deep, &deep),
            ("objects", &objects, &objects),
            ("nul", r#"{"a":"\u0000"}"#, "null"),
            ("surrogates", r#"["\ud800", "\udc00\ud800", "\uD83D\uDE00"]"#, r#"["\uD83D\uDE00"]"#),
            ("numbers", &format!("[1e400, -0, 1.10, {digits}]"), &format!("[1e400, 1.10, {digits}]")),
            ("twins", r#"{"a" : 1,"a":2}"#, r#"{"a":1,"a":2}"#),
        ];
        for (id, j, b) in cases {
            rig.db.client.execute(insert, &[&id, &j, &b]).await.unwrap();
        }
        assert_eq!(drained(&rig).await, 0);
        assert_equal(&rig).await;
        rig.db.sql("update docs set t = 'changed'; delete from docs where id = 'nul'").await;
        assert_eq!(drained(&rig).await, 0);
        assert_equal(&rig).await;
        assert_eq!(rig.rows("SELECT j FROM docs WHERE id = 'nested'").await, [nested()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_may_be_nested_as_deep_as_postgres_takes_them() {
    for path in PATHS {
        let rig = Rig::new(path, schema(DOCS)).await;
        let image = |id: &str, column: &str, extra: &str| {
            format!(
                r#"{{"type":"INSERT","table":"docs","record":{{"id":{id},"{column}":{}{extra}}},"old_record":null}}"#,
                nested_objects()
            )
        };
        rig.db.send(&image("\"json\"", "j", "")).await;
        rig.db.send(&image("\"text\"", "t", "")).await;
        rig.db.send(&image("\"unlisted\"", "other", "")).await;
        rig.db.send(&image("null", "j", "")).await;
        rig.db.send(&image("{}", "id", "")).await;
        rig.db.send(&format!(r#"{{"type":"INSERT","table":"other","record":{}}}"#, nested_objects())).await;
        rig.db.send(&nested()).await;
        let done = rig.drain().await;
        assert_eq!((done.processed, done.skipped, done.queued), (7, 1, 0));
        assert_eq!(
            rig.rows(
                "SELECT id FROM docs WHERE coalesce(j, t) = ?1"
                    .replace("?1", &format!("'{}'", nested_objects()))
                    .as_str()
            )
            .await,
            ["json", "text"]
        );
        let dead = rig.db.dead().await;
        assert!(dead.iter().any(|reason| reason.contains("lacks the key column \"id\"")), "{dead:?}");
        assert!(dead.iter().any(|reason| reason.contains("is not an object")), "{dead:?}");
    }
}
