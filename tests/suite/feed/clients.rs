//! Clients that others make, on Node.

use super::Fed;
use crate::parts::process::{Process, tail};
use crate::support::{PATHS, Path, until};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program of a client, which prints its rows.
pub struct Client {
    process: Process,
    folder: TempDir,
}

impl Client {
    async fn start(program: &str, arguments: &[&str]) -> Self {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/feed");
        let text = std::fs::read_to_string(here.join(program)).unwrap();
        Self::start_of("feed", &[(program, text)], arguments).await
    }

    /// The first of these programs, with what is installed by this name.
    pub async fn start_of(parts: &'static str, programs: &[(&str, String)], arguments: &[&str]) -> Self {
        let parts = crate::examples::installed(parts).await;
        // Modules are looked for where the program lies.
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in programs {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let program = programs[0].0;
        std::os::unix::fs::symlink(parts.join("node_modules"), folder.path().join("node_modules")).unwrap();
        let mut command = Command::new("node");
        command.arg(folder.path().join(program)).args(arguments);
        let process = Process::spawn(&mut command, &folder.path().join("log"), None);
        Self { process, folder }
    }

    /// The rows that it printed last.
    pub fn rows(&self) -> Option<Value> {
        let log = tail(&self.folder.path().join("log"));
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).next_back()
    }

    /// Has a program that reads its commands do this.
    pub fn command(&self, command: &Value) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.path().join("commands"));
        writeln!(file.unwrap(), "{command}").unwrap();
    }

    pub async fn shows(&mut self, rows: Value) {
        let what = format!("a client shows {rows}");
        let shown = until(&what, async || {
            assert!(self.process.ended().is_none(), "{}", tail(&self.folder.path().join("log")));
            self.rows().as_ref() == Some(&rows)
        });
        let shown = tokio::time::timeout(PATIENCE, shown).await;
        assert!(shown.is_ok(), "{what}: {}", tail(&self.folder.path().join("log")));
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_tanstack_db_follows_a_table() {
    follows_a_table("tanstack.mjs").await;
}

/// Which commits a change to a table with a primary key: a row that is told twice as new ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_pglite_follows_a_table() {
    follows_a_table("pglite.mjs").await;
}

async fn follows_a_table(program: &str) {
    let json = r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"feed":{"public":true}}}"#;
    let tables = "create table items (id int primary key, v text); insert into items select i, 'v' || i from generate_series(1, 3) i";
    let fed = Fed::start(Path::File, tables, json).await;
    let mut client = Client::start(program, &[&fed.url, "items"]).await;
    client.shows(json!([{"id": 1, "v": "v1"}, {"id": 2, "v": "v2"}, {"id": 3, "v": "v3"}])).await;
    fed.db
        .sql("update items set v = 'x' where id = 2; delete from items where id = 1; insert into items values (4, 'y')")
        .await;
    client.shows(json!([{"id": 2, "v": "x"}, {"id": 3, "v": "v3"}, {"id": 4, "v": "y"}])).await;
    fed.db.sql("truncate items; insert into items values (7, 'z')").await;
    client.shows(json!([{"id": 7, "v": "z"}])).await;
}
