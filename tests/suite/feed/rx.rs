//! Collections of RxDB: with RxDB itself, by the program of docs/rxdb.md, and by plain requests.

use super::client::Client;
use super::writes::Rig;
use crate::parts::http::{self, Answer};
use crate::support::until;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use std::time::Duration;

/// The program of the page.
fn replicate() -> String {
    let page = include_str!("../../../docs/rxdb.md");
    page.split_once("```js\n").unwrap().1.split_once("```").unwrap().0.to_owned()
}

async fn collection(rig: &Rig, subject: &str) -> Client {
    let programs = [("client.mjs", include_str!("rxdb/client.mjs").to_owned()), ("replicate.mjs", replicate())];
    let url = format!("{}/v1/rx/todos", rig.fed.url);
    Client::start_of("rxdb", &programs, &[&url, &rig.token(subject, "a")]).await
}

async fn call(rig: &Rig, path: &str, token: Option<&str>, body: &Value) -> Answer {
    let url = format!("{}/v1/rx/{path}", rig.fed.url);
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    headers.extend(token.map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
    let body = body.to_string();
    let asked = move || http::request("POST", &url, &headers, body.as_bytes(), Duration::from_secs(60));
    tokio::task::spawn_blocking(asked).await.unwrap().unwrap()
}

async fn rows(rig: &Rig, expected: &str) {
    until("Postgres has the rows", async || {
        let rows = "select string_agg(id || ' ' || org || ' ' || title, ', ' order by id) from todos";
        rig.fed.db.one(rows).await == expected
    })
    .await;
}

fn document(id: &str, title: &str) -> Value {
    json!({"id": id, "org": "a", "title": title})
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_of_rxdb_have_the_rows_and_write_them() {
    let mut rig = Rig::start().await;
    rig.fed.db.sql("insert into todos values ('x', 'b', 'of others')").await;
    let (mut ann, mut bob) = (collection(&rig, "ann").await, collection(&rig, "bob").await);
    let first = document("0", "first");
    ann.shows(json!([first])).await;
    bob.shows(json!([first])).await;
    // Live, both ways.
    rig.fed.db.sql("insert into todos values ('1', 'a', 'one'); insert into todos values ('2', 'a', 'two')").await;
    ann.shows(json!([first, document("1", "one"), document("2", "two")])).await;
    rig.fed.db.sql("delete from todos where id = '1'; update todos set org = 'b' where id = '2'").await;
    ann.shows(json!([first])).await;
    bob.shows(json!([first])).await;
    ann.command(&json!({"insert": document("3", "three")}));
    bob.shows(json!([first, document("3", "three")])).await;
    bob.command(&json!({"patch": ["3", {"title": "drei"}]}));
    bob.command(&json!({"remove": "0"}));
    ann.shows(json!([document("3", "drei")])).await;
    rows(&rig, "2 b two, 3 a drei, x b of others").await;
    // Two who change the same: the later one hears of the earlier.
    bob.command(&json!({"pause": null}));
    bob.command(&json!({"patch": ["3", {"title": "bob's"}]}));
    bob.shows(json!([document("3", "bob's")])).await;
    ann.command(&json!({"patch": ["3", {"title": "ann's"}]}));
    rows(&rig, "2 b two, 3 a ann's, x b of others").await;
    bob.command(&json!({"start": null}));
    bob.shows(json!([document("3", "ann's")])).await;
    // What a policy refuses is taken back.
    ann.command(&json!({"insert": {"id": "9", "org": "b", "title": "not hers"}}));
    ann.shows(json!([document("3", "ann's"), {"id": "9", "org": "b", "title": "not hers"}])).await;
    ann.shows(json!([document("3", "ann's")])).await;
    // The server is killed, and rows change on both sides before it is back.
    rig.fed.program.kill();
    rig.fed.db.sql("insert into todos values ('4', 'a', 'four')").await;
    ann.command(&json!({"insert": document("5", "five")}));
    rig.fed.program.serve(&["--follow"]);
    let all = json!([document("3", "ann's"), document("4", "four"), document("5", "five")]);
    ann.shows(all.clone()).await;
    bob.shows(all).await;
    // What it was told of leads nowhere any more: rows that are gone meanwhile are found by what does not come.
    bob.command(&json!({"pause": null}));
    rig.fed.db.sql("delete from todos where id = '3'").await;
    ann.shows(json!([document("4", "four"), document("5", "five")])).await;
    assert_eq!(rig.fed.program.call("POST", "/nuke").await.status, 200);
    bob.command(&json!({"insert": document("6", "six")}));
    bob.command(&json!({"start": null}));
    let all = json!([document("4", "four"), document("5", "five"), document("6", "six")]);
    bob.shows(all.clone()).await;
    ann.shows(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pulled_or_pushed_is_refused_and_says_why() {
    let rig = Rig::start().await;
    let token = rig.token("ann", "a");
    let start = json!({"checkpoint": null, "limit": 10});
    until("the table is whole", async || call(&rig, "todos/pull", Some(&token), &start).await.status == 200).await;
    let row = |new: Value, assumed: Value| json!([{"newDocumentState": new, "assumedMasterState": assumed}]);
    for (path, token, body, status) in [
        ("todos/pull", None, start.clone(), 401),
        ("todos/pull", Some("x.y.z"), start.clone(), 401),
        ("nope/pull", Some(&*token), start.clone(), 400),
        ("todos/pull?columns=nope", Some(&*token), start.clone(), 400),
        ("todos/pull?where=org%20%3D%20%27b%27", Some(&*token), start.clone(), 400),
        ("todos/pull", Some(&*token), json!({"checkpoint": "x"}), 400),
        ("todos/pull", Some(&*token), json!({"checkpoint": {"handle": "h", "offset": "x"}}), 400),
        ("todos/pull", Some(&*token), json!([]), 400),
        ("todos/push", None, json!([]), 401),
        ("todos/push", Some(&*token), json!({}), 400),
        ("todos/push", Some(&*token), row(json!({"id": "7", "nope": 1}), Value::Null), 400),
        ("todos/push", Some(&*token), json!(vec![json!({"newDocumentState": {"id": "7"}}); 101]), 400),
    ] {
        let answer = call(&rig, path, token, &body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
    }
    // A checkpoint of nowhere is the beginning.
    let from = json!({"checkpoint": {"handle": "made-up", "offset": "1_0"}});
    let pulled = call(&rig, "todos/pull", Some(&token), &from).await.json();
    assert_eq!((&pulled["isAnew"], &pulled["documents"][0]["title"]), (&json!(true), &json!("first")), "{pulled}");
    // What was assumed wrongly is told as it is, and what is wanted already is no conflict.
    let document = |title: &str| json!({"id": "0", "org": "a", "title": title, "_deleted": false});
    let conflict = call(&rig, "todos/push", Some(&token), &row(document("mine"), document("wrong"))).await;
    assert_eq!(conflict.json(), json!([document("first")]), "{}", conflict.body);
    for _ in 0..2 {
        let taken = call(&rig, "todos/push", Some(&token), &row(document("mine"), document("first"))).await;
        assert_eq!(taken.json(), json!([]), "{}", taken.body);
    }
    let gone = json!({"id": "8", "_deleted": true});
    let lost = json!({"id": "8", "org": "a", "title": "never there"});
    let conflict = call(&rig, "todos/push", Some(&token), &row(lost.clone(), json!({"id": "8", "org": "a"}))).await;
    assert_eq!(conflict.json(), json!([gone]), "{}", conflict.body);
}

/// Longer in `make soak`.
#[tokio::test(flavor = "multi_thread")]
async fn collections_equal_the_rows_after_random_rounds() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (rounds, seed) = (number("RX_ROUNDS").unwrap_or(4), number("RX_SEED").unwrap_or_else(rand::random));
    println!("RX_SEED={seed} RX_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut rig = Rig::start().await;
    let clients = [collection(&rig, "ann").await, collection(&rig, "bob").await];
    for round in 0..rounds {
        for i in 0..random.random_range(1..12) {
            let (id, title) = (random.random_range(0..8), format!("{round}.{i}"));
            let client = &clients[random.random_range(0..2)];
            match random.random_range(0..8) {
                0 => {
                    rig.fed
                        .db
                        .sql(&format!("insert into todos values ('{id}', 'a', '{title}') on conflict do nothing"))
                        .await
                }
                1 => rig.fed.db.sql(&format!("update todos set title = '{title}' where id = '{id}'")).await,
                2 => rig.fed.db.sql(&format!("delete from todos where id = '{id}'")).await,
                3 => {
                    rig.fed
                        .db
                        .sql(&format!(
                            "update todos set org = case org when 'a' then 'b' else 'a' end where id = '{id}'"
                        ))
                        .await
                }
                4 => client.command(&json!({"remove": id.to_string()})),
                5 => client.command(&json!({"upsert": document(&id.to_string(), &title)})),
                _ => client.command(&json!({"patch": [id.to_string(), {"title": title}]})),
            }
        }
        match random.random_range(0..6) {
            0 => {
                rig.fed.program.kill();
                rig.fed.program.serve(&["--follow"]);
            }
            1 => assert_eq!(rig.fed.program.call("POST", "/nuke").await.status, 200),
            _ => {}
        }
        let rows = "select coalesce(json_agg(t order by id), '[]')::text from todos t where org = 'a'";
        until(&format!("all have the same after round {round} of {seed}"), async || {
            let there: Value = serde_json::from_str(&rig.fed.db.one(rows).await).unwrap();
            clients.iter().all(|client| client.said().as_ref() == Some(&there))
        })
        .await;
    }
}
