//! Tables of syncs that pull, by plain requests.

use super::contract::{next, told};
use super::escaped;
use crate::parts::Program;
use crate::parts::http::Answer;
use crate::parts::mysql_server::is_mysql;
use crate::restores::Backup;
use crate::support::{Home, PATHS, Path, until};
use crate::{mysql, pulls};
use pgflume::demo::postgres::free_port;
use pgflume::replica::target::Target;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const TABLE: &str = "create table todos (id bigint primary key, org text, title text);
    insert into todos values (1, 'a', 'one'), (2, 'b', 'two')";
const FED: &str = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","title":"TEXT"},
    "feed":{"public":true,"filter":["org"]}}}"#;

/// So seldom that a test says when.
const SELDOM: &str = "1h";

/// A worker that pulls, and feeds clients.
struct Pulling {
    program: Program,
    url: String,
    file: String,
}

impl Pulling {
    fn start(source: &str, home: &Home, json: &str, every: &str) -> Self {
        let url = format!("127.0.0.1:{}", free_port().unwrap());
        let mut program = Program::new(json, &[("FEED_BIND", &url)]);
        let edge = match home.target() {
            Target::File(path) => json!({"url": format!("file:{}", path.display())}),
            Target::Remote { url, token } => {
                program.set("EDGE_TOKEN", token.unwrap().expose());
                json!({"url": url, "token": "${EDGE_TOKEN}"})
            }
            Target::Given(_) => unreachable!("homes are files and servers"),
        };
        let sync = json!({"from": "shop", "to": "edge", "schema": "schema.json", "every": every});
        let file = json!({"connections": {"shop": {"url": source}, "edge": edge}, "syncs": {"p": sync}}).to_string();
        program.write("pgflume.json", &file);
        program.serve(&[]);
        Self { program, url: format!("http://{url}"), file }
    }

    async fn get(&self, query: &str) -> Answer {
        super::get(&self.program, &self.url, query).await
    }

    async fn get_whole(&self, query: &str) -> Answer {
        super::get_whole(&self.program, &self.url, query).await
    }

    /// A pass, now.
    async fn pass(&self) {
        let answer = self.program.call("POST", "/syncs/p/sync").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Another worker of the same sync, with these definitions.
    fn other(&self, json: &str) -> Program {
        let mut program = Program::new(json, &[]);
        program.write("pgflume.json", &self.file);
        if let Some(token) = self.program.variable("EDGE_TOKEN") {
            program.set("EDGE_TOKEN", &token);
        }
        program
    }

    /// All rows of a shape, and where that leaves a client.
    async fn arrive(&self, shape: &str) -> (Vec<Value>, String) {
        let first = self.get_whole(&format!("{shape}&offset=-1")).await;
        let (mut at, mut rows) = (next(&first), first.json().as_array().unwrap().clone());
        until("the client has all", async || {
            let answer = self.get(&format!("{shape}&{at}")).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.body);
            if answer.status == 200 {
                at = next(&answer);
                rows.extend(answer.json().as_array().unwrap().clone());
            }
            answer.header("electric-up-to-date").is_some()
        })
        .await;
        rows.retain(|message| message["headers"]["operation"].is_string());
        (rows, at)
    }

    /// Ids of rows that a client is told of by now, if any.
    async fn new_ids(&self, table: &str, at: &mut String) -> BTreeSet<String> {
        let answer = self.get_whole(&format!("table={table}&{at}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        *at = next(&answer);
        let rows = answer.json();
        let ids = rows.as_array().unwrap().iter().filter_map(|row| row["value"]["id"].as_str());
        ids.map(str::to_owned).collect()
    }

    /// What a client is told next, and where that leaves it.
    async fn hears(&self, shape: &str, at: &mut String) -> Vec<String> {
        let (mut heard, mut here) = (Vec::new(), at.clone());
        until("it is told", async || {
            let answer = self.get(&format!("{shape}&{here}")).await;
            if answer.status == 200 {
                here = next(&answer);
                heard = told(&answer);
                assert_eq!(heard.pop().as_deref(), Some("up-to-date"));
            }
            !heard.is_empty()
        })
        .await;
        *at = here;
        heard
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_given_rows_of_a_sync_that_pulls_and_what_becomes_of_them() {
    for path in PATHS {
        let rig = pulls::Rig::new(path, TABLE, FED).await;
        let worker = Pulling::start(&rig.reader_url(), &rig.home, FED, "200ms");
        let all = "table=public.todos";
        let of_a = format!("table=todos&where={}&params%5B1%5D=a", escaped("org = $1"));
        let (rows, mut at) = worker.arrive(all).await;
        assert_eq!(
            rows[0],
            json!({"key": "\"public\".\"todos\"/\"1\"", "value": {"id": "1", "org": "a", "title": "one"},
                "headers": {"operation": "insert", "relation": ["public", "todos"]}})
        );
        let schema: Value =
            serde_json::from_str(worker.get_whole("table=todos&offset=-1").await.header("electric-schema").unwrap())
                .unwrap();
        assert_eq!(schema["id"], json!({"type": "int8", "pk_index": 0, "not_null": true}));
        let (rows, mut at_of_a) = worker.arrive(&of_a).await;
        assert_eq!((rows.len(), &rows[0]["value"]["id"]), (1, &json!("1")));
        for (sql, expected, expected_of_a) in [
            ("insert into todos values (3, 'a', 'three')", &["insert 3 three"][..], &["insert 3 three"][..]),
            ("update todos set org = 'a' where id = 2", &["update 2 two"], &["insert 2 two"]),
            ("update todos set org = 'c' where id = 1", &["update 1 one"], &["delete 1 null"]),
            ("delete from todos where id = 3", &["delete 3 null"], &["delete 3 null"]),
        ] {
            rig.db.sql(sql).await;
            assert_eq!(worker.hears(all, &mut at).await, expected, "{sql}");
            assert_eq!(worker.hears(&of_a, &mut at_of_a).await, expected_of_a, "{sql}");
        }
        let live = format!("{all}&{at}&live=true");
        let (heard, ()) = futures_util::join!(worker.get(&live), async {
            rig.db.sql("insert into todos values (4, 'd', 'four')").await;
        });
        assert_eq!(told(&heard), ["insert 4 four", "up-to-date"]);
        at = next(&heard);
        assert_eq!(worker.program.call("POST", "/syncs/p/nuke").await.status, 200);
        until("what was nuked is another", async || worker.get(&format!("{all}&{at}")).await.status == 409).await;
        assert_eq!(worker.arrive(all).await.0.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_together_arrives_together() {
    let json = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}},
        "b":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}}}"#;
    let tables = "create table a (id int primary key); create table b (id int primary key)";
    let rig = pulls::Rig::new(Path::File, tables, json).await;
    let worker = Pulling::start(&rig.reader_url(), &rig.home, json, "100ms");
    let (_, mut a) = worker.arrive("table=a").await;
    let (_, mut b) = worker.arrive("table=b").await;
    let (mut of_a, mut of_b) = (BTreeSet::<String>::new(), BTreeSet::<String>::new());
    let mut id = 0;
    until("twenty have come", async || {
        id += 1;
        rig.db.sql(&format!("begin; insert into a values ({id}); insert into b values ({id}); commit")).await;
        // Who is asked later has all that the other had.
        of_a.extend(worker.new_ids("a", &mut a).await);
        of_b.extend(worker.new_ids("b", &mut b).await);
        assert!(of_a.is_subset(&of_b), "{of_a:?} {of_b:?}");
        of_a.extend(worker.new_ids("a", &mut a).await);
        assert!(of_b.is_subset(&of_a), "{of_b:?} {of_a:?}");
        of_a.len() >= 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_left_half_done_is_told_when_another_has_ended_it() {
    let many = "create table todos (id bigint primary key, org text, title text);
        insert into todos select i, 'a', 'old' from generate_series(1, 25000) i";
    for path in PATHS {
        let rig = pulls::Rig::new(path, many, FED).await;
        let worker = Pulling::start(&rig.reader_url(), &rig.home, FED, SELDOM);
        let (rows, mut at) = worker.arrive("table=todos").await;
        assert_eq!(rows.len(), 25_000);
        // Each batch of it is written, and none closes the pass.
        rig.db.sql("update todos set title = 'new'; delete from todos where id = 5").await;
        let dying = worker.other(FED);
        let died = dying.command(&["sync", "p"]).env("FAILPOINTS", "applied=1*off->return").output().unwrap();
        assert!(String::from_utf8_lossy(&died.stderr).contains("the process ends"), "{died:?}");
        let new = rig.rows("SELECT count(*) FROM todos WHERE title = 'new'").await;
        assert!(!["0", "25000"].contains(&new[0].as_str()), "{new:?}");
        let between = worker.get(&format!("table=todos&{at}")).await;
        assert_eq!(between.status, 503, "{}", between.body);
        worker.pass().await;
        let heard = worker.hears("table=todos", &mut at).await;
        assert_eq!(heard.iter().filter(|message| message.starts_with("update")).count(), 24_999);
        assert!(heard.contains(&"delete 5 null".to_owned()) && heard.len() == 25_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_wrote_that_feeds_nobody_is_not_missed() {
    let unfed = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","org":"TEXT","title":"TEXT"}}}"#;
    for path in PATHS {
        let rig = pulls::Rig::new(path, TABLE, FED).await;
        let worker = Pulling::start(&rig.reader_url(), &rig.home, FED, SELDOM);
        let (_, at) = worker.arrive("table=todos").await;
        rig.db.sql("update todos set title = 'unheard' where id = 2").await;
        worker.other(unfed).said(&["sync", "p"]).await;
        assert_eq!(rig.rows("SELECT title FROM todos WHERE id = 2").await, ["unheard"]);
        assert_eq!(worker.get(&format!("table=todos&{at}")).await.status, 503);
        worker.pass().await;
        assert_eq!(worker.get_whole(&format!("table=todos&{at}")).await.status, 409);
        let (rows, _) = worker.arrive("table=todos").await;
        assert_eq!(rows[1]["value"]["title"], "unheard");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_more_than_a_replica_has_that_was_put_back_begins_anew() {
    let mut rig = pulls::Rig::new(Path::File, TABLE, FED).await;
    let mut worker = Pulling::start(&rig.reader_url(), &rig.home, FED, SELDOM);
    let (_, mut early) = worker.arrive("table=todos").await;
    worker.program.kill();
    let backup = Backup::of(&mut rig.home);
    worker.program.serve(&[]);
    rig.db.sql("update todos set org = 'x' where id = 1").await;
    worker.pass().await;
    let mut late = early.clone();
    assert_eq!(worker.hears("table=todos", &mut late).await, ["update 1 one"]);
    worker.program.kill();
    backup.restore(&mut rig.home);
    // What the late one was told is not to be seen any more by what comes next.
    rig.db.sql("update todos set org = 'a' where id = 1; update todos set title = 'zwei' where id = 2").await;
    worker.program.serve(&[]);
    worker.pass().await;
    assert_eq!(worker.get_whole(&format!("table=todos&{late}")).await.status, 409);
    assert_eq!(worker.hears("table=todos", &mut early).await.last().map(String::as_str), Some("update 2 zwei"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nobody_may_read_holds_back_no_other() {
    let json = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}},
        "b":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}}}"#;
    let tables = "create table a (id int primary key); create table b (id int primary key)";
    let rig = pulls::Rig::new(Path::File, tables, json).await;
    let worker = Pulling::start(&rig.reader_url(), &rig.home, json, "200ms");
    let (_, mut a) = worker.arrive("table=a").await;
    let (_, mut b) = worker.arrive("table=b").await;
    rig.db
        .sql(&format!("revoke select on b from {}; insert into b values (1); insert into a values (1)", rig.reader()))
        .await;
    assert_eq!(worker.hears("table=a", &mut a).await, ["insert 1 null"]);
    until("of the other nothing is said", async || worker.get(&format!("table=b&{b}")).await.status == 503).await;
    rig.db.sql("insert into a values (2)").await;
    assert_eq!(worker.hears("table=a", &mut a).await, ["insert 2 null"]);
    rig.grant().await;
    assert_eq!(worker.hears("table=b", &mut b).await, ["insert 1 null"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_comparison_repairs_is_told_and_nothing_else() {
    for path in PATHS {
        let rig = pulls::Rig::new(path, TABLE, FED).await;
        let worker = Pulling::start(&rig.reader_url(), &rig.home, FED, SELDOM);
        let (_, mut at) = worker.arrive("table=todos").await;
        rig.replica("UPDATE todos SET title = 'wrong' WHERE id = 2").await;
        let asked = worker.program.call("POST", "/syncs/p/resync").await;
        assert!(asked.status < 300, "{}", asked.body);
        assert_eq!(worker.hears("table=todos", &mut at).await, ["update 2 two"]);
        assert_eq!(rig.rows("SELECT k.value -> 0 FROM _pgflume_feed, json_each(touched) AS k").await, ["[2]"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_follower_does_not_look_at_stays_as_of_the_last_whole_pass() {
    // Of a key of this type the log does not tell.
    let kind = if is_mysql() { "varchar(9) character set utf16" } else { "inet6" };
    let tables = format!(
        "create table told (id int primary key, v varchar(20)); create table untold (id {kind} primary key);
         insert into untold values ('::1')"
    );
    let json = r#"{"told":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"feed":{"public":true}},
        "untold":{"primaryKey":"id","columns":{"id":"TEXT"},"feed":{"public":true}}}"#;
    let rig = mysql::Rig::new(Path::File, &tables, json).await;
    rig.sql(&format!("grant replication slave, binlog monitor on *.* to {}@'%'", rig.name)).await;
    let worker = Pulling::start(&rig.plain_url(), &rig.home, json, SELDOM);
    let (_, mut told) = worker.arrive("table=told").await;
    let (_, mut untold) = worker.arrive("table=untold").await;
    rig.sql("insert into told values (1, 'one'); insert into untold values ('::2')").await;
    assert_eq!(worker.hears("table=told", &mut told).await, ["insert 1 null"]);
    let (rows, _) = worker.arrive("table=untold").await;
    assert_eq!(rows.len(), 1, "as of the last whole pass: {rows:?}");
    assert_eq!(worker.get(&format!("table=untold&{untold}")).await.status, 200);
    worker.pass().await;
    assert_eq!(worker.hears("table=untold", &mut untold).await, ["insert ::2 null"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_told_as_far_as_its_stamps_do() {
    let tables = "create table base (id int primary key, title text, at timestamptz not null default now());
        insert into base select i, 'old' from generate_series(1, 3) i; create view todos as select * from base";
    let json =
        r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","title":"TEXT","at":"TEXT"},"feed":{"public":true}}}"#;
    for path in PATHS {
        let rig = pulls::Rig::new(path, tables, json).await;
        let worker = Pulling::start(&rig.reader_url(), &rig.home, json, "200ms");
        let (rows, mut at) = worker.arrive("table=todos").await;
        assert_eq!(rows.len(), 3);
        for (sql, expected) in [
            ("update base set title = 'new', at = now() where id = 2", "update 2 new"),
            ("delete from base where id = 1", "delete 1 null"),
            ("insert into base values (9, 'nine')", "insert 9 nine"),
        ] {
            rig.db.sql(sql).await;
            assert_eq!(worker.hears("table=todos", &mut at).await, [expected], "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_mysql_are_fed_with_types_that_clients_know() {
    let tables = "create table todos (id int unsigned primary key, title varchar(20), done tinyint(1) not null, n bigint unsigned,
        kind enum('a', 'b'), at datetime(3), updated_at timestamp(6) not null default now(6) on update now(6));
        insert into todos values (1, 'one', 1, 18446744073709551615, 'b', '2026-01-02 03:04:05.678', default)";
    let json = r#"{"todos":{"primaryKey":"id","columns":{"id":"INTEGER","title":"TEXT","done":"BOOLEAN","n":"DECIMAL","kind":"TEXT",
        "at":"TEXT","updated_at":"TEXT"},"feed":{"public":true,"columns":["id","title","done","n","kind","at"],"filter":["title"]}}}"#;
    for path in PATHS {
        let rig = mysql::Rig::new(path, tables, json).await;
        let worker = Pulling::start(&rig.plain_url(), &rig.home, json, "200ms");
        let (rows, mut at) = worker.arrive("table=todos").await;
        assert_eq!(
            rows[0]["value"],
            json!({"id": "1", "title": "one", "done": "true", "n": "18446744073709551615", "kind": "b", "at": "2026-01-02 03:04:05.678"})
        );
        let first = worker.get_whole("table=todos&offset=-1").await;
        let schema: Value = serde_json::from_str(first.header("electric-schema").unwrap()).unwrap();
        let types: Vec<&str> = ["id", "title", "done", "n", "kind", "at"]
            .iter()
            .map(|column| schema[*column]["type"].as_str().unwrap())
            .collect();
        assert_eq!(types, ["int8", "varchar", "bool", "numeric", "text", "timestamp"]);
        for (sql, expected) in [
            ("insert into todos (id, title, done) values (2, 'two', 0)", "insert 2 two"),
            ("update todos set title = 'zwei' where id = 2", "update 2 zwei"),
            ("delete from todos where id = 1", "delete 1 null"),
        ] {
            rig.sql(sql).await;
            assert_eq!(worker.hears("table=todos", &mut at).await, [expected], "{sql}");
        }
    }
}
