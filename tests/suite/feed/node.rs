//! `examples/node`: it keeps rows over restarts, its token is renewed, and its writes are done once.

use super::client::Client;
use super::writes::Rig;
use crate::support::until;
use serde_json::json;
use std::path::Path;

const TABLE: &str = "create table todos (id text primary key, org text not null, title text, n bigint);
    insert into todos values ('0', 'a', 'first', 9007199254740993), ('1', 'b', 'of others', 1);
    alter table todos enable row level security;
    create policy own on todos for all using (org = current_setting('request.jwt.claims')::json->>'org')";
const DEFINED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"TEXT","org":"TEXT","title":"TEXT","n":"INTEGER"},
    "feed":{"match":{"org":"org"}},
    "writable":{"columns":["org","title"],"ops":["insert","update","delete"],"conflict":"merge"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_for_node_follows_goes_on_and_writes() {
    let mut rig = Rig::of(TABLE, DEFINED).await;
    let folder = tempfile::tempdir().unwrap();
    let (state, tokens, feed) = (folder.path().join("todos.json"), rig.token_url("ann", "a"), rig.fed.url.clone());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/node/todos.mjs");
    let run = async |arguments: &[&str]| {
        let variables = [("FEED_URL", &*feed), ("TOKEN_URL", &*tokens), ("STATE", state.to_str().unwrap())];
        Client::of("follow", &program, arguments, &variables).await
    };
    let first = json!({"id": "0", "org": "a", "title": "first", "n": "9007199254740993"});
    let mut following = run(&[]).await;
    following.shows(json!([first])).await;
    let added = run(&["add", "a1", r#"{"org":"a","title":"Buy milk"}"#]).await.ends().await;
    assert_eq!(added["results"], json!([{"status": "applied"}]), "{added}");
    let of = |title: &str| json!({"id": "a1", "org": "a", "title": title, "n": null});
    following.shows(json!([first, of("Buy milk")])).await;
    let stale = run(&["set", "a1", r#"{"title":"mine"}"#, r#"{"title":"older"}"#]).await.ends().await;
    assert_eq!(stale["results"], json!([{"status": "conflict", "now": of("Buy milk")}]));

    // Killed, and away while rows change: it goes on from where it was, and never asks for all.
    drop(following);
    let kept = std::fs::read_to_string(&state).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["rows"].as_array().unwrap().len(), 2, "{kept}");
    rig.fed.db.sql("delete from todos where id = '0'; update todos set title = 'Buy bread' where id = 'a1'").await;
    let mut following = run(&[]).await;
    following.shows(json!([of("Buy bread")])).await;
    let now = || serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&state).unwrap()).unwrap();
    assert_eq!(now()["handle"], kept["handle"]);

    // A write while the worker is down is done when it is back, once.
    rig.fed.program.kill();
    let adding = run(&["add", "a2", r#"{"org":"a","title":"late"}"#]).await;
    rig.fed.db.sql("insert into todos values ('a3', 'a', 'meanwhile', null)").await;
    rig.fed.program.serve(&["--follow"]);
    let added = adding.ends().await;
    assert_eq!(added["results"], json!([{"status": "applied"}]), "{added}");
    let late = json!({"id": "a2", "org": "a", "title": "late", "n": null});
    let meanwhile = json!({"id": "a3", "org": "a", "title": "meanwhile", "n": null});
    following.shows(json!([of("Buy bread"), late, meanwhile])).await;
    assert_eq!(run(&["remove", "a3"]).await.ends().await["results"][0]["status"], "applied");
    following.shows(json!([of("Buy bread"), late])).await;

    // What it has does not follow from what is told: it begins anew.
    rig.fed.db.sql("truncate todos").await;
    following.shows(json!([])).await;
    until("it is written down", async || now()["handle"] != kept["handle"]).await;
    rig.fed.db.sql("insert into todos values ('9', 'a', 'new', null)").await;
    following.shows(json!([{"id": "9", "org": "a", "title": "new", "n": null}])).await;
}
