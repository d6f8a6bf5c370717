//! Clients that others make, on Node.

use super::Fed;
use super::client::Client;
use crate::support::PATHS;
use serde_json::json;

const TABLE: &str =
    "create table todos (id int primary key, org text, big bigint, at timestamptz, list int[], doc jsonb, ok boolean)";
const FED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","big":"INTEGER","at":"TEXT","list":"TEXT","doc":"JSON","ok":"BOOLEAN"},
    "feed":{"public":true,"filter":["org"]}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_client_follows_a_table_through_whatever_befalls_it() {
    for path in PATHS {
        let first = "insert into todos values (1, 'a', 9007199254740993, '2026-11-30 12:00:00+00', '{1,2}', '{\"x\": [1]}', true)";
        let mut fed = Fed::start(path, &format!("{TABLE}; {first}"), FED).await;
        let mut all = Client::start("plain.mjs", &[&fed.url, "todos"]).await;
        let mut of_b = Client::start("plain.mjs", &[&fed.url, "todos", "org = 'b'", "id,org"]).await;
        let one = json!({"id": 1, "org": "a", "big": "9007199254740993n", "at": "2026-11-30T12:00:00+00:00", "list": [1, 2], "doc": {"x": [1]}, "ok": true});
        all.shows(json!([one])).await;
        of_b.shows(json!([])).await;
        let mut by_events = Client::start("plain.mjs", &[&fed.url, "todos", "org = 'b'", "id,org", "sse"]).await;
        by_events.shows(json!([])).await;
        fed.db.sql("insert into todos (id, org) values (2, 'b'), (3, 'c')").await;
        by_events.shows(json!([{"id": 2, "org": "b"}])).await;
        of_b.shows(json!([{"id": 2, "org": "b"}])).await;
        fed.db.sql("update todos set org = 'b' where id = 3; delete from todos where id = 2; update todos set ok = false where id = 1").await;
        of_b.shows(json!([{"id": 3, "org": "b"}])).await;
        let mut one = one;
        one["ok"] = json!(false);
        let three = json!({"id": 3, "org": "b", "big": null, "at": null, "list": null, "doc": null, "ok": null});
        all.shows(json!([one, three])).await;
        // The server is killed, and the rows change before it is back.
        fed.program.kill();
        fed.db.sql("update todos set org = 'd' where id = 3; insert into todos (id, org) values (4, 'b')").await;
        fed.program.serve(&["--follow"]);
        of_b.shows(json!([{"id": 4, "org": "b"}])).await;
        fed.db.sql("truncate todos; insert into todos (id, org) values (5, 'b')").await;
        of_b.shows(json!([{"id": 5, "org": "b"}])).await;
        assert_eq!(fed.program.call("POST", "/nuke").await.status, 200);
        fed.db.sql("insert into todos (id, org) values (6, 'b')").await;
        of_b.shows(json!([{"id": 5, "org": "b"}, {"id": 6, "org": "b"}])).await;
        fed.db.sql("delete from todos where id = 5").await;
        of_b.shows(json!([{"id": 6, "org": "b"}])).await;
        by_events.shows(json!([{"id": 6, "org": "b"}])).await;
    }
}
