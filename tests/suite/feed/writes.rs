//! Writes of clients and what they are fed, together: whoever wrote hears when that is there.

use super::{Fed, escaped};
use crate::parts::http::{self, Answer};
use crate::support::{Db, Path, until};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SECRET: &str = "a secret of the tests, which is long enough";
const TABLE: &str = "create table todos (id text primary key, org text not null, title text);
    insert into todos values ('0', 'a', 'first');
    alter table todos enable row level security;
    create policy own on todos for all using (org = current_setting('request.jwt.claims')::json->>'org')";
const DEFINED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"TEXT","org":"TEXT","title":"TEXT"},
    "feed":{"match":{"org":"org"},"filter":["title"]},
    "writable":{"columns":["org","title"],"ops":["insert","update","delete"],"conflict":"merge"}}}"#;

pub struct Rig {
    pub fed: Fed,
    role: String,
}

impl Rig {
    pub async fn start() -> Self {
        let db = Db::new().await;
        let (login, role) = (format!("pusher_{}", db.name), format!("member_{}", db.name));
        let pushes = db.url().replace("postgres@", &format!("{login}@"));
        let grants = format!(
            "create role {login} login noinherit; create role {role}; grant pgflume_push, {role} to {login};
             grant select, insert, update, delete on all tables in schema public to {role}"
        );
        let variables = [("FEED_JWT_SECRET", SECRET), ("PUSH_URL", &pushes)];
        Self { fed: Fed::on(db, Path::File, TABLE, &grants, DEFINED, &variables).await, role }
    }

    pub fn token(&self, subject: &str, org: &str) -> String {
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
        let claims = json!({"sub": subject, "org": org, "role": self.role, "exp": exp});
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()).unwrap()).unwrap()
    }

    async fn push(&self, token: &str, key: &str, query: &str, changes: Value) -> Answer {
        let url = format!("{}/v1/push{query}", self.fed.url);
        let headers = [
            ("authorization".to_owned(), format!("Bearer {token}")),
            ("content-type".to_owned(), "application/json".to_owned()),
            ("idempotency-key".to_owned(), key.to_owned()),
        ];
        let body = json!({"client": "c", "changes": changes}).to_string();
        let asked = move || http::request("POST", &url, &headers, body.as_bytes(), Duration::from_secs(60));
        let answer = tokio::task::spawn_blocking(asked).await.unwrap();
        answer.unwrap_or_else(|e| panic!("{e}: {}", self.fed.program.log()))
    }

    /// Where one is who has all.
    async fn arrived(&self, token: &str, condition: &str) -> String {
        let shape = format!("table=todos{condition}");
        let rows = self.fed.get_whole_as(Some(token), &format!("{shape}&offset=-1")).await;
        let end = self.fed.get_whole_as(Some(token), &format!("{shape}&{}", next(&rows))).await;
        format!("{shape}&{}", next(&end))
    }
}

fn next(answer: &Answer) -> String {
    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("{name}: {}", answer.body)).to_owned();
    format!("offset={}&handle={}", header("electric-offset"), header("electric-handle"))
}

fn new(id: &str, org: &str, title: &str) -> Value {
    json!([{"table": "todos", "op": "insert", "key": {"id": id}, "set": {"org": org, "title": title}}])
}

/// Whether the answer says that it sees a transaction, by the rule of Postgres' `pg_visible_in_snapshot`.
fn sees(answer: &Answer, xid: i64) -> bool {
    let messages = answer.json();
    let snapshots =
        messages.as_array().unwrap().iter().filter(|message| message["headers"]["control"] == "snapshot-end");
    let number = |value: &Value| value.as_str().unwrap().parse::<i64>().unwrap();
    let all: Vec<bool> = snapshots
        .map(|message| {
            let headers = &message["headers"];
            let is_running = headers["xip_list"].as_array().unwrap().iter().any(|one| number(one) == xid);
            xid < number(&headers["xmin"]) || xid < number(&headers["xmax"]) && !is_running
        })
        .collect();
    assert!(all.len() <= 1, "one an answer: {messages}");
    all == [true]
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_hears_when_it_is_there_and_where() {
    let rig = Rig::start().await;
    let (ann, bob) = (rig.token("ann", "a"), rig.token("bob", "b"));
    let at = rig.arrived(&ann, "").await;
    // What it wrote is a row of its own shape.
    let live = format!("{at}&live=true");
    let (told, pushed) =
        futures_util::join!(rig.fed.get_as(Some(&ann), &live), rig.push(&ann, "1", "", new("1", "a", "x")));
    let xid = pushed.json()["txid"].as_i64().unwrap_or_else(|| panic!("{}", pushed.body));
    assert_eq!(told.json()[0]["value"]["title"], "x", "{}", told.body);
    assert!(sees(&told, xid), "{xid}: {}", told.body);
    // And one of no shape of its own: it hears of that, too, and others do not.
    let narrow = format!("&where={}", escaped("title = 'nothing'"));
    let (at, of_bob) = (rig.arrived(&ann, &narrow).await, rig.arrived(&bob, &narrow).await);
    let began = Instant::now();
    let (at, of_bob) = (format!("{at}&live=true"), format!("{of_bob}&live=true"));
    let (told, other, pushed) = futures_util::join!(
        rig.fed.get_as(Some(&ann), &at),
        rig.fed.get_as(Some(&bob), &of_bob),
        rig.push(&ann, "2", "", new("2", "a", "y"))
    );
    let xid = pushed.json()["txid"].as_i64().unwrap();
    assert!(told.status == 200 && sees(&told, xid), "{xid}: {}", told.body);
    assert_eq!(other.status, 200);
    assert!(began.elapsed() >= Duration::from_secs(19), "nobody woke the other: {}", other.body);
    // Whoever waits is told the position, from which on rows are there.
    let pushed = rig.push(&ann, "3", "?wait=10000", new("3", "a", "z")).await;
    let pos: i64 = pushed.json()["pos"].as_str().unwrap_or_else(|| panic!("{}", pushed.body)).parse().unwrap();
    let rows = rig.fed.get_as(Some(&ann), "table=todos&offset=-1").await;
    let offset: i64 = rows.header("electric-offset").unwrap().split('_').next().unwrap().parse().unwrap();
    assert!(offset >= pos && rows.body.contains("\"z\""), "{offset} {pos} {}", rows.body);
    let again = rig.push(&ann, "3", "?wait=10000", new("3", "a", "z")).await;
    assert_eq!((&again.json()["duplicate"], again.json()["pos"].is_string()), (&json!(true), true));
    assert_eq!(rig.push(&ann, "4", "?wait=x", new("4", "a", "z")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_or_reads_for_another() {
    let rig = Rig::start().await;
    let (ann, eve) = (rig.token("ann", "a"), rig.token("eve", "e"));
    rig.arrived(&ann, "").await;
    let forged = rig.push(&eve, "1", "", new("1", "a", "forged")).await;
    assert_eq!(forged.json()["results"][0]["status"], "rejected", "{}", forged.body);
    let change = json!([{"table": "todos", "op": "update", "key": {"id": "0"}, "set": {"title": "mine"}, "base": {"title": "first"}}]);
    let changed = rig.push(&eve, "2", "", change).await;
    assert_eq!(changed.json()["results"][0], json!({"status": "conflict", "now": null}), "{}", changed.body);
    for (token, status) in [("", 401), ("x", 401)] {
        assert_eq!(rig.push(token, "3", "", new("3", "a", "x")).await.status, status);
    }
    until("nothing came of it", async || {
        let rows = rig.fed.get_as(Some(&ann), "table=todos&offset=-1").await;
        rows.status == 200 && rows.body.contains("first") && !rows.body.contains("forged")
    })
    .await;
}
