//! `docs/push.md`: its definition is read, its SQL is run, and what it shows is what is answered.

use super::{Written, statuses};
use crate::support::{Db, schema};
use pgflume::core::claims::Claims;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::push::Push;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../../docs/push.md");

/// The blocks of a language, in their order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let blocks = PAGE.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_says_is_what_happens() {
    let cluster = crate::intruders::cluster_of_its_own();
    let db = Db::named("page".to_owned(), cluster, "with_pgmq").await;
    let (sql, json) = (blocks("sql"), blocks("json"));
    let schema = schema(json[0]);
    db.sql(sql[0]).await;
    let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
    capture::setup(&url, &schema, &queue, &SetupOptions::default()).await.unwrap();
    db.sql(sql[1]).await;
    let pushes = Written::pushes_at(&db.url(), "pgflume_clients", &schema);
    pushes.check().await.unwrap();
    let claims: Value = serde_json::from_str(json[1]).unwrap();
    let claims = Claims::new(claims.as_object().unwrap().clone());
    db.sql("insert into todos (id, org, title) values ('a1', 'acme', 'Buy milk')").await;
    let push = Push::read(pushes.writables(), json[2], "k").unwrap();
    let answer = serde_json::to_value(pushes.push(&push, &claims).await.unwrap()).unwrap();
    let shown: Value = serde_json::from_str(json[3]).unwrap();
    assert!(answer["txid"].is_u64() && shown["txid"].is_u64());
    assert_eq!(
        json!([answer["results"], answer["duplicate"], answer["pos"]]),
        json!([shown["results"], shown["duplicate"], shown["pos"]])
    );
    let late = Push::read(pushes.writables(), json[2], "another key").unwrap();
    let late = serde_json::to_value(pushes.push(&late, &claims).await.unwrap()).unwrap();
    assert_eq!(statuses(&late), ["applied"], "it writes what is there");
    let shown: Value = serde_json::from_str(json[4]).unwrap();
    db.sql("update todos set title = 'Buy bread'").await;
    let conflict = Push::read(pushes.writables(), json[2], "a third key").unwrap();
    let conflict = serde_json::to_value(pushes.push(&conflict, &claims).await.unwrap()).unwrap();
    assert_eq!(conflict, shown);
}
