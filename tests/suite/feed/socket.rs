//! `GET /v1/socket`: several shapes on one connection.

use super::client::{Client, here};
use super::tokens::{by_secret, now};
use super::{Fed, tokens};
use crate::support::{PATHS, Path, until};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const TABLES: &str = "create table todos (id bigint primary key, org text, title text);
    create table lists (id int primary key, title text)";
const FED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","title":"TEXT"},
    "feed":{"public":true,"filter":["org"]}},
    "lists":{"primaryKey":"id","columns":{"id":"INTEGER","title":"TEXT"},"feed":{"public":true}}}"#;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(fed: &Fed) -> Self {
        let url = format!("{}/v1/socket", fed.url.replace("http://", "ws://"));
        let opened = std::cell::RefCell::new(None);
        until("the server takes connections", async || {
            let socket = connect_async(&url).await.ok();
            opened.replace(socket).is_none() && opened.borrow().is_some()
        })
        .await;
        Self(opened.into_inner().unwrap().0)
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn subscribe(&mut self, id: &str, shape: Value) {
        let mut message = json!({"type": "subscribe", "id": id, "offset": "-1"});
        message.as_object_mut().unwrap().extend(shape.as_object().unwrap().clone());
        self.say(message).await;
    }

    async fn token(&mut self, claims: Value) {
        self.say(json!({"type": "token", "token": by_secret(&claims)})).await;
        let taken = self.hear().await;
        assert_eq!(taken["status"], 200, "{taken}");
    }

    /// The next message, or how it was closed.
    async fn next(&mut self) -> Result<Value, Option<CloseCode>> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something is said") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next message.
    async fn hear(&mut self) -> Value {
        self.next().await.expect("a message")
    }

    /// All of a shape, up to the end of what there is.
    async fn hear_all(&mut self, id: &str) -> Heard {
        let mut heard = Heard::default();
        loop {
            let message = self.hear().await;
            assert_eq!(message["id"], id, "{message}");
            if message["status"] == 503 {
                continue;
            }
            if heard.add(&message) {
                return heard;
            }
        }
    }

    async fn is_closed_by(&mut self, code: CloseCode) {
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(closed) => return assert_eq!(closed, Some(code)),
            }
        }
    }
}

/// What was heard of a shape.
#[derive(Default)]
struct Heard {
    told: Vec<String>,
    offset: Value,
    handle: Value,
    schema: Value,
}

impl Heard {
    /// Whether that was the end of what there is.
    fn add(&mut self, message: &Value) -> bool {
        let mut is_end = false;
        assert!(message["messages"].is_array(), "{message}");
        for message in message["messages"].as_array().unwrap() {
            let headers = &message["headers"];
            match headers["control"].as_str() {
                Some("up-to-date") => is_end = true,
                Some("must-refetch") => self.told.clear(),
                Some(_) => {}
                None => self.told.push(
                    format!("{} {} {}", headers["operation"], message["value"]["id"], message["value"]["title"])
                        .replace('"', ""),
                ),
            }
        }
        for (kept, name) in [(&mut self.offset, "offset"), (&mut self.handle, "handle"), (&mut self.schema, "schema")] {
            if !message[name].is_null() {
                *kept = message[name].clone();
            }
        }
        is_end
    }

    /// What to go on from.
    fn place(&self, table: &str) -> Value {
        json!({"table": table, "offset": self.offset, "handle": self.handle})
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_shapes_are_told_on_one_connection_of_one_position() {
    for path in PATHS {
        let rows = "insert into todos values (1, 'a', 'one'), (2, 'b', 'two'); insert into lists values (1, 'home')";
        let fed = Fed::start(path, &format!("{TABLES}; {rows}"), FED).await;
        let mut socket = Socket::open(&fed).await;
        socket.subscribe("all", json!({"table": "todos"})).await;
        let all = socket.hear_all("all").await;
        assert_eq!(all.told, ["insert 1 one", "insert 2 two"]);
        assert_eq!(all.schema["id"], json!({"type": "int8", "pk_index": 0, "not_null": true}));
        socket.subscribe("b", json!({"table": "todos", "columns": ["id"], "where": "org = $1", "params": ["b"]})).await;
        assert_eq!(socket.hear_all("b").await.told, ["insert 2 null"]);
        socket.subscribe("lists", json!({"table": "lists"})).await;
        assert_eq!(socket.hear_all("lists").await.told, ["insert 1 home"]);
        // One transaction is at one position of all of them.
        fed.db
            .sql("begin; insert into todos values (3, 'b', 'three'); insert into lists values (2, 'away'); commit")
            .await;
        let mut told = std::collections::BTreeMap::new();
        while told.len() < 3 {
            let message = socket.hear().await;
            let mut heard = Heard::default();
            if heard.add(&message) && !heard.told.is_empty() {
                told.insert(message["id"].as_str().unwrap().to_owned(), (heard.told, heard.offset));
            }
        }
        assert_eq!(told["all"].0, ["insert 3 three"]);
        assert_eq!(told["b"].0, ["insert 3 null"]);
        assert_eq!(told["lists"].0, ["insert 2 away"]);
        assert!(told["all"].1 == told["b"].1 && told["all"].1 == told["lists"].1, "{told:?}");
        // Of what is not wanted any more, nothing more is told.
        socket.say(json!({"type": "unsubscribe", "id": "all"})).await;
        socket.say(json!({"type": "unsubscribe", "id": "never"})).await;
        socket.subscribe("lists", json!({"table": "lists"})).await;
        assert_eq!(socket.hear().await["errors"]["id"][0], "is that of another shape of this connection");
        fed.db.sql("update todos set title = 'drei' where id = 3; delete from lists where id = 1").await;
        let mut last = Value::Null;
        while last != "lists" {
            let message = socket.hear().await;
            assert_ne!(message["id"], "all", "{message}");
            let mut heard = Heard::default();
            heard.add(&message);
            if heard.told == ["delete 1 null"] {
                last = message["id"].clone();
            }
        }
        // Whoever stops the server closes it, with a word.
        fed.program.signal("TERM");
        socket.is_closed_by(CloseCode::Away).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_goes_on_from_where_it_was_and_begins_anew_where_that_is_no_more() {
    let mut fed = Fed::start(Path::File, &format!("{TABLES}; insert into todos values (1, 'a', 'one')"), FED).await;
    let mut socket = Socket::open(&fed).await;
    socket.subscribe("t", json!({"table": "todos"})).await;
    let at = socket.hear_all("t").await;
    assert_eq!(at.told, ["insert 1 one"]);
    fed.program.kill();
    assert_eq!(socket.next().await, Err(None));
    fed.db.sql("insert into todos values (2, 'a', 'two'); delete from todos where id = 1").await;
    fed.program.serve(&["--follow"]);
    let mut socket = Socket::open(&fed).await;
    socket.subscribe("t", at.place("todos")).await;
    let mut heard = socket.hear_all("t").await;
    while heard.told.is_empty() {
        heard = socket.hear_all("t").await;
    }
    heard.told.sort();
    assert_eq!(heard.told, ["delete 1 null", "insert 2 two"]);
    let known = heard.handle.clone();
    // It is told that its rows are gone, and what there is, by itself.
    fed.db.sql("truncate todos").await;
    let anew = loop {
        let message = socket.hear().await;
        if message["status"] == 409 {
            break message;
        }
    };
    fed.db.sql("insert into todos values (7, 'a', 'seven')").await;
    let mut heard = Heard::default();
    while heard.told.is_empty() {
        let message = socket.hear().await;
        if message["status"] != 503 {
            heard.add(&message);
        }
    }
    assert_eq!(heard.told, ["insert 7 seven"]);
    assert_eq!(anew["messages"][0]["headers"]["control"], "must-refetch");
    assert_ne!(anew["handle"], known);
    assert_eq!(heard.schema["id"]["type"], "int8");
    // So it is told whoever comes with what never was.
    socket.subscribe("x", json!({"table": "lists", "offset": "1_0", "handle": "made-up"})).await;
    let message = socket.hear().await;
    assert_eq!((&message["id"], &message["status"]), (&json!("x"), &json!(409)), "{message}");
    assert!(socket.hear_all("x").await.told.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_wrong_is_refused_and_says_why() {
    let fed = Fed::start(Path::File, TABLES, FED).await;
    let mut socket = Socket::open(&fed).await;
    for (text, about) in [
        ("", "message"),
        ("nonsense", "message"),
        (r#"{"type":"subscribe"}"#, "id"),
        (r#"{"type":"unsubscribe"}"#, "id"),
        (r#"{"type":"token"}"#, "token"),
        (r#"{"type":"token","token":"x"}"#, "token"),
        (r#"{"type":"subscribe","id":"x"}"#, "table"),
        (r#"{"type":"subscribe","id":"x","table":"nope","offset":"-1"}"#, "table"),
        (r#"{"type":"subscribe","id":"x","table":"todos"}"#, "offset"),
        (r#"{"type":"subscribe","id":"x","table":"todos","offset":"1_0"}"#, "handle"),
        (r#"{"type":"subscribe","id":"x","table":"todos","offset":"-1","columns":["nope"]}"#, "columns"),
        (r#"{"type":"subscribe","id":"x","table":"todos","offset":"-1","where":"1=1"}"#, "where"),
        (r#"{"type":"subscribe","id":"x","table":"todos","offset":"-1","where":"org = $1","params":[[]]}"#, "params"),
    ] {
        socket.0.send(Message::text(text)).await.unwrap();
        let answer = socket.hear().await;
        assert_eq!(answer["status"], 400, "{text}: {answer}");
        assert!(answer["errors"][about][0].is_string(), "{text}: {answer}");
        assert_eq!(answer["id"].is_string(), text.contains("\"id\""), "{text}: {answer}");
    }
    // It goes on all the same, with so many shapes and no more.
    for i in 0..51 {
        socket.subscribe(&i.to_string(), json!({"table": "lists"})).await;
    }
    let mut refused = Value::Null;
    while refused["status"] != 400 {
        refused = socket.hear().await;
    }
    assert_eq!(
        (&refused["id"], &refused["errors"]["id"][0]),
        (&json!("50"), &json!("is one too many: a connection carries 50 shapes"))
    );
    for (message, code) in
        [(Message::binary(&b"{}"[..]), CloseCode::Unsupported), (Message::text("x".repeat(70_000)), CloseCode::Size)]
    {
        let mut other = Socket::open(&fed).await;
        other.0.send(message).await.unwrap();
        other.is_closed_by(code).await;
    }
    let plain = crate::parts::http::get_status(&format!("{}/v1/socket", fed.url));
    assert_eq!(plain, Some(400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_and_other_claims_are_other_rows() {
    let tables = format!("{}; {TABLES}; insert into lists values (1, 'home')", tokens::TABLE);
    let json = format!("{},{}", tokens::FED.strip_suffix('}').unwrap(), &FED[1..]);
    let fed = Fed::with(Path::File, &tables, &json, &[("FEED_JWT_SECRET", tokens::SECRET)]).await;
    let of = |orgs: &str, seconds: u64| json!({"sub": "ann", "orgs": orgs, "exp": now() + seconds});
    let mut socket = Socket::open(&fed).await;
    let notes = json!({"table": "notes"});
    socket.subscribe("n", notes.clone()).await;
    let refused = socket.hear().await;
    assert_eq!((&refused["id"], &refused["status"]), (&json!("n"), &json!(401)), "{refused}");
    socket.say(json!({"type": "token", "token": "x.y.z"})).await;
    assert_eq!(socket.hear().await["status"], 401);
    socket.token(json!({"sub": "ann", "exp": now() + 600})).await;
    socket.subscribe("n", notes.clone()).await;
    assert_eq!(socket.hear().await["status"], 403);
    socket.token(of("a", 600)).await;
    socket.subscribe("n", notes.clone()).await;
    assert_eq!(socket.hear_all("n").await.told, ["insert 1 one", "insert 3 three"]);
    socket.subscribe("l", json!({"table": "lists"})).await;
    assert_eq!(socket.hear_all("l").await.told, ["insert 1 home"]);
    // The same claims: it goes on.
    socket.token(of("a", 700)).await;
    fed.db.sql("update notes set title = 'drei' where id = 3").await;
    let mut heard = Heard::default();
    while heard.told.is_empty() {
        let message = socket.hear().await;
        assert_ne!(message["status"], 409, "{message}");
        if message["id"] == "n" {
            heard.add(&message);
        }
    }
    assert_eq!(heard.told, ["update 3 drei"]);
    // Other claims: what it had is forgotten, and is not told any more.
    socket.token(of("b", 3)).await;
    let message = socket.hear().await;
    assert_eq!((&message["id"], &message["status"]), (&json!("n"), &json!(409)), "{message}");
    assert_eq!(socket.hear_all("n").await.told, ["insert 2 two"]);
    fed.db.sql("update notes set title = 'x' where id = 1; update notes set title = 'zwei' where id = 2").await;
    let mut heard = Heard::default();
    while heard.told.is_empty() {
        let message = socket.hear().await;
        if message["id"] == "n" {
            heard.add(&message);
        }
    }
    assert_eq!(heard.told, ["update 2 zwei"]);
    // It ends with its token, and what anybody may read goes on.
    let ended = socket.hear().await;
    assert_eq!((&ended["id"], &ended["status"]), (&json!("n"), &json!(401)), "{ended}");
    fed.db.sql("update notes set title = 'y' where id = 2; insert into lists values (2, 'away')").await;
    assert_eq!(socket.hear_all("l").await.told, ["insert 2 away"]);
    // Claims that lack something end what is read by them, and where nothing is left, the connection.
    socket.token(of("b", 600)).await;
    socket.subscribe("n", notes.clone()).await;
    assert_eq!(socket.hear_all("n").await.told, ["insert 2 y"]);
    socket.token(json!({"sub": "ann", "exp": now() + 600})).await;
    let ended = socket.hear().await;
    assert_eq!((&ended["id"], &ended["status"]), (&json!("n"), &json!(403)), "{ended}");
    let mut short = Socket::open(&fed).await;
    short.token(of("a", 2)).await;
    short.subscribe("n", notes).await;
    short.is_closed_by(CloseCode::Policy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_reads_slowly_costs_little_and_holds_up_nobody() {
    let rows = "insert into todos select i, 'a', repeat(md5(i::text), 60) from generate_series(1, 30000) i";
    let fed = Fed::start(Path::File, &format!("{TABLES}; {rows}"), FED).await;
    fed.get_whole("table=todos&offset=-1").await;
    let before = fed.program.memory_mib();
    let mut slow = Socket::open(&fed).await;
    for id in ["a", "b", "c", "d"] {
        slow.subscribe(id, json!({"table": "todos"})).await;
    }
    let mut other = Socket::open(&fed).await;
    other.subscribe("l", json!({"table": "lists"})).await;
    other.hear_all("l").await;
    for id in 0..20 {
        fed.db
            .sql(&format!(
                "insert into lists values ({id}, 'x'); update todos set title = title || 'x' where id < 3000"
            ))
            .await;
        let mut heard = Heard::default();
        while heard.told.is_empty() {
            heard = other.hear_all("l").await;
        }
        assert_eq!(heard.told, [format!("insert {id} x")]);
    }
    let grown = fed.program.memory_mib().saturating_sub(before);
    assert!(grown < 150, "{grown} MiB more");
    // It hears all of it in the end, and each part is of a size.
    let mut ends = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    while ends.len() < 4 {
        let message = slow.hear().await;
        assert!(message.to_string().len() < 70_000);
        let mut heard = Heard::default();
        if heard.add(&message) {
            ends.insert(message["id"].to_string());
        }
        if message["id"] == "a" {
            ids.extend(message["messages"].as_array().unwrap().iter().map(|row| row["key"].to_string()));
        }
    }
    assert_eq!(ids.len(), 30_001, "and what is no row");
}

/// The WebSocket that Node has, and that of a browser.
#[tokio::test(flavor = "multi_thread")]
async fn node_and_a_browser_follow_by_their_own_websocket_and_go_on_when_the_worker_is_back() {
    let mut fed = Fed::start(Path::File, TABLES, FED).await;
    fed.db.sql("insert into todos values (1, 'a', 'one'); insert into lists values (7, 'seven')").await;
    let address = format!("{}/v1/socket", fed.url.replace("http://", "ws://"));
    let parts = crate::dashboard::browser().await;
    let (program, parts) = (here().join("socket.mjs"), parts.to_str().unwrap().to_owned());
    let in_node = [("ADDRESS", &*address), ("NODE_OPTIONS", "--experimental-websocket")];
    let in_browser = [("ADDRESS", &*address), ("PARTS", &*parts)];
    let mut both =
        [Client::of("feed", &program, &[], &in_node).await, Client::of("feed", &program, &[], &in_browser).await];
    for client in &mut both {
        client.shows(json!(["lists 7 seven", "todos 1 one"])).await;
    }
    fed.db.sql("update todos set title = 'first'; insert into lists values (8, 'eight')").await;
    for client in &mut both {
        client.shows(json!(["lists 7 seven", "lists 8 eight", "todos 1 first"])).await;
    }
    fed.program.kill();
    fed.db.sql("delete from lists where id = 7; insert into todos values (2, 'b', 'meanwhile')").await;
    fed.program.serve(&["--follow"]);
    for client in &mut both {
        client.shows(json!(["lists 8 eight", "todos 1 first", "todos 2 meanwhile"])).await;
    }
}
