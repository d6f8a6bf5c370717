//! Statuses, headers and messages, as a client written by the protocol's description reads them.

use super::{Fed, escaped};
use crate::parts::http::Answer;
use crate::support::{PATHS, Path, until};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TABLE: &str =
    "create table todos (id bigint primary key, org text, title text, done boolean not null default false)";
const FED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","title":"TEXT","done":"BOOLEAN"},
    "feed":{"public":true,"filter":["org"]}}}"#;

/// Where an answer leaves its client.
pub fn next(answer: &Answer) -> String {
    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("{name}: {}", answer.body)).to_owned();
    format!("offset={}&handle={}", header("electric-offset"), header("electric-handle"))
}

/// Operations of an answer, each with the key's id and the title.
pub fn told(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let of = |message: &Value| match message["headers"]["operation"].as_str() {
        Some(operation) => {
            format!("{operation} {} {}", message["value"]["id"], message["value"]["title"]).replace('"', "")
        }
        None => message["headers"]["control"].as_str().unwrap().to_owned(),
    };
    answer.json().as_array().unwrap().iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_given_rows_and_then_what_becomes_of_them() {
    for path in PATHS {
        let fed = Fed::start(
            path,
            &format!("{TABLE}; insert into todos values (1, 'a', 'one', true), (2, 'b', 'two', false)"),
            FED,
        )
        .await;
        let rows = fed.get_whole("table=todos&offset=-1").await;
        assert_eq!(told(&rows), ["insert 1 one", "insert 2 two"]);
        assert_eq!(
            rows.json()[0],
            json!({"key": "\"public\".\"todos\"/\"1\"", "value": {"id": "1", "org": "a", "title": "one", "done": "true"},
                "headers": {"operation": "insert", "relation": ["public", "todos"]}})
        );
        let schema: Value = serde_json::from_str(rows.header("electric-schema").unwrap()).unwrap();
        assert_eq!(schema["id"], json!({"type": "int8", "pk_index": 0, "not_null": true}));
        assert_eq!((&schema["done"]["type"], &schema["org"]["type"]), (&json!("bool"), &json!("text")));
        assert_eq!(rows.header("access-control-allow-origin"), Some("*"));
        assert!(rows.header("access-control-expose-headers").unwrap().contains("electric-handle"));
        let mut at = next(&rows);
        let end = fed.get(&format!("table=todos&{at}")).await;
        assert_eq!((told(&end), end.header("electric-up-to-date").is_some()), (vec!["up-to-date".to_owned()], true));
        at = next(&end);
        for (sql, expected) in [
            ("insert into todos values (3, 'a', 'three', false)", "insert 3 three"),
            ("update todos set title = 'drei' where id = 3", "update 3 drei"),
            ("delete from todos where id = 1", "delete 1 null"),
        ] {
            let (asked, ()) =
                futures_util::join!(async { fed.get(&format!("table=todos&live=true&{at}")).await }, fed.db.sql(sql));
            assert_eq!(told(&asked), [expected, "up-to-date"], "{sql}");
            assert!(asked.header("electric-cursor").is_some());
            at = next(&asked);
        }
        // Three changes of one row are told as one, and one that came and went not at all.
        fed.db.sql("begin; insert into todos values (9, 'a', 'x'); commit; delete from todos where id = 9; update todos set org = 'c' where id = 2; update todos set title = 'zwei' where id = 2").await;
        until("they are told", async || {
            let answer = fed.get(&format!("table=todos&{at}")).await;
            answer.status == 200 && told(&answer) == ["update 2 zwei", "up-to-date"]
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_tells_rows_that_enter_and_leave_and_no_others() {
    let fed = Fed::start(
        Path::File,
        &format!("{TABLE}; insert into todos values (1, 'a', 'one'), (2, 'b', 'two'), (3, null, 'three')"),
        FED,
    )
    .await;
    let of_a = format!("table=public.todos&columns=id,title&where={}&params%5B1%5D=a", escaped("org = $1"));
    let rows = fed.get_whole(&format!("{of_a}&offset=-1")).await;
    assert_eq!(
        (told(&rows), &rows.json()[0]["value"]),
        (vec!["insert 1 one".to_owned()], &json!({"id": "1", "title": "one"}))
    );
    let mut at = next(&fed.get(&format!("{of_a}&{}", next(&rows))).await);
    for (sql, expected) in [
        ("update todos set org = 'a' where id = 2", "insert 2 two"),
        ("update todos set org = 'b' where id = 1", "delete 1 null"),
        (
            "update todos set title = 'x' where org is null; delete from todos where id = 1; update todos set title = 'zwei' where id = 2",
            "update 2 zwei",
        ),
    ] {
        fed.db.sql(sql).await;
        until("it is told", async || {
            let answer = fed.get(&format!("{of_a}&{at}")).await;
            let is_told = answer.status == 200 && told(&answer).len() > 1;
            if is_told {
                assert_eq!(told(&answer), [expected, "up-to-date"], "{sql}");
                at = next(&answer);
            }
            is_told
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_what_no_longer_follows_begins_anew() {
    let fed = Fed::start(Path::File, &format!("{TABLE}; insert into todos values (1, 'a', 'one')"), FED).await;
    let rows = fed.get_whole("table=todos&offset=-1").await;
    let at = next(&rows);
    let conflict = async |query: &str| {
        let answer = fed.get_whole(query).await;
        assert_eq!(
            (answer.status, &answer.json()[0]["headers"]["control"]),
            (409, &json!("must-refetch")),
            "{query}: {}",
            answer.body
        );
        let handle = answer.header("electric-handle").unwrap().to_owned();
        assert!(!query.contains(&handle), "another handle");
    };
    conflict("table=todos&offset=1_0&handle=made-up").await;
    conflict(&format!("table=todos&{at}&where={}", escaped("org = 'b'"))).await;
    fed.db.sql("truncate todos").await;
    until("the table is another", async || fed.get(&format!("table=todos&{at}")).await.status == 409).await;
    fed.db.sql("insert into todos values (2, 'a', 'two')").await;
    let rows = std::cell::RefCell::new(None);
    until("it is filled again", async || {
        let got = fed.get("table=todos&offset=-1").await;
        let is_filled = got.status == 200 && !told(&got).is_empty();
        rows.replace(Some(got));
        is_filled
    })
    .await;
    let rows = rows.into_inner().unwrap();
    assert_eq!(told(&rows), ["insert 2 two"]);
    let at = next(&fed.get(&format!("table=todos&{}", next(&rows))).await);
    assert_eq!(fed.program.call("POST", "/nuke").await.status, 200);
    until("the replica is another", async || fed.get(&format!("table=todos&{at}")).await.status == 409).await;
    assert_eq!(told(&fed.get_whole("table=todos&offset=-1").await), ["insert 2 two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_refused_and_says_why() {
    let tables =
        format!("{TABLE}; create table secrets (id int primary key, v text); insert into secrets values (1, 'hush')");
    let fed_json =
        FED.replace(r#"{"todos""#, r#"{"secrets":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},"todos""#);
    let fed = Fed::start(Path::File, &tables, &fed_json).await;
    for (query, about) in [
        ("offset=-1", "table"),
        ("table=secrets&offset=-1", "table"),
        ("table=pg_catalog.pg_authid&offset=-1", "table"),
        ("table=todos", "offset"),
        ("table=todos&offset=x", "offset"),
        ("table=todos&offset=1_0", "handle"),
        ("table=todos&offset=-1&live=true", "live"),
        ("table=todos&offset=-1&columns=id,nope", "columns"),
        ("table=todos&offset=-1&columns=title", "columns"),
        ("table=todos&offset=-1&where=title%20%3D%20%27x%27", "where"),
        ("table=todos&offset=-1&where=1%3D1", "where"),
        ("table=todos&offset=-1&where=org%20%3D%20%27a%27%20OR%20true", "where"),
        ("table=todos&offset=-1&log=changes_only", "log"),
    ] {
        let answer = fed.get(query).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert!(answer.json()["errors"][about][0].is_string(), "{query}: {}", answer.body);
        assert!(!answer.body.contains("hush"), "{query}: {}", answer.body);
    }
    // The worker's own paths are not here.
    let health = crate::parts::http::get_status(&format!("{}/v1/health", fed.url));
    let status = crate::parts::http::get_status(&format!("{}/status", fed.url));
    assert_eq!((health, status), (Some(200), Some(404)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_waits_holds_back_no_other() {
    let json = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}},
        "b":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}}}"#;
    let fed =
        Fed::start(Path::File, "create table a (id int primary key); create table b (id int primary key)", json).await;
    let ids = async |query: &str| {
        let answer = fed.get(query).await;
        let rows = if answer.status == 200 { answer.json() } else { json!([]) };
        let ids: Vec<String> =
            rows.as_array().unwrap().iter().filter_map(|row| row["value"]["id"].as_str()).map(str::to_owned).collect();
        (ids, answer)
    };
    let mut at = Vec::new();
    for table in ["a", "b"] {
        let rows = fed.get_whole(&format!("table={table}&offset=-1")).await;
        let end = fed.get_whole(&format!("table={table}&{}", next(&rows))).await;
        at.push(format!("table={table}&{}", next(&end)));
    }
    let locker = fed.db.pinned().await;
    locker
        .batch_execute("begin; lock table public.b in access exclusive mode; insert into public.b values (1)")
        .await
        .unwrap();
    // Its marks cannot be read.
    fed.db.send(r#"{"v":1,"table":"b","keys":[["1"]]}"#).await;
    for id in 1..4 {
        fed.db.sql(&format!("insert into a values ({id})")).await;
        until("it is told", async || {
            let (ids, answer) = ids(&at[0]).await;
            let is_told = ids == [id.to_string()];
            if is_told {
                at[0] = format!("table=a&{}", next(&answer));
            }
            is_told
        })
        .await;
    }
    assert_ne!(fed.db.queued().await, 0);
    locker.batch_execute("commit").await.unwrap();
    until("the other is told, too", async || ids(&at[1]).await.0 == ["1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_as_they_come_on_one_connection() {
    let fed = Fed::start(Path::File, TABLE, FED).await;
    let rows = fed.get_whole("table=todos&offset=-1").await;
    let end = fed.get_whole(&format!("table=todos&{}", next(&rows))).await;
    let address = fed.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!("GET /v1/shape?table=todos&live=true&live_sse=true&{} HTTP/1.1\r\nHost: x\r\n\r\n", next(&end));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = String::new();
    for id in 1..4 {
        fed.db.sql(&format!("insert into todos (id, title) values ({id}, 'no {id}')")).await;
        while !said.contains(&format!("no {id}")) {
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(read > 0, "it ended: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }
    assert!(said.contains("text/event-stream") && said.contains("data: {"), "{said}");
    // Whoever stops it, ends it.
    fed.program.signal("TERM");
    let rest = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut said)).await;
    rest.expect("the stream ends").unwrap();
}
