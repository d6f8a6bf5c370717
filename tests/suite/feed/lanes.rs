//! Clients through whatever befalls them and their server, by lanes: packages that pin each other and move together.
//! Lanes A (TanStack DB) and C (PGlite) run always; B (a newer TanStack DB) and D (kept in SQLite) in `make soak`.

use super::Fed;
use super::client::{Client, here};
use crate::support::{Home, Path, schema, until};
use crate::volume::set_up;
use serde_json::{Value, json};
use tempfile::TempDir;

const TABLE: &str = "create table items (id int primary key, v text);
    insert into items select i, 'v' || i from generate_series(1, 3) i";
const FED: &str = r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"feed":{"public":true}}}"#;
const WIDER: &str = r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT","w":"INTEGER"},
    "feed":{"public":true}}}"#;

/// Packages, and a program that prints the rows of a table.
#[derive(Clone, Copy)]
struct Lane {
    packages: &'static str,
    program: &'static str,
    /// It is kept in a file, from where it goes on.
    is_kept: bool,
    /// Its columns are its own: it hears of none that it has not.
    has_columns: bool,
}

const A: Lane = Lane { packages: "feed", program: "tanstack.mjs", is_kept: false, has_columns: false };
const B: Lane = Lane { packages: "lane-b", ..A };
const C: Lane = Lane { program: "pglite.mjs", has_columns: true, ..A };
const D: Lane = Lane { packages: "lane-d", is_kept: true, ..A };

/// One client of a lane, which can be killed and started again.
struct Run<'a> {
    lane: Lane,
    url: &'a str,
    table: &'a str,
    folder: TempDir,
}

impl<'a> Run<'a> {
    fn new(lane: Lane, url: &'a str, table: &'a str) -> Self {
        Self { lane, url, table, folder: tempfile::tempdir().unwrap() }
    }

    async fn start(&self) -> Client {
        let file = self.folder.path().join("kept.db");
        let arguments = [self.url, self.table, file.to_str().unwrap()];
        let arguments = if self.lane.is_kept { &arguments[..] } else { &arguments[..2] };
        Client::of(self.lane.packages, &here().join(self.lane.program), arguments, &[]).await
    }
}

fn items(rows: &[(i32, &str)]) -> Value {
    rows.iter().map(|(id, v)| json!({"id": id, "v": v})).collect()
}

/// The position of a client that is where all are now is behind what the log tells.
async fn forget(fed: &Fed) {
    let Home::File { .. } = &fed.home else { panic!("a file") };
    let replica = pgflume::replica::Replica::open(&fed.home.target()).await.unwrap();
    let sql = "UPDATE _pgflume_feed_tables SET floor = (SELECT max(pos) + 1 FROM _pgflume_cuts)";
    replica.query(sql, vec![]).await.unwrap();
}

async fn befalls(lane: Lane) {
    let mut fed = Fed::start(Path::File, TABLE, FED).await;
    let url = fed.url.clone();
    let run = Run::new(lane, &url, "items");
    let mut client = run.start().await;
    client.shows(items(&[(1, "v1"), (2, "v2"), (3, "v3")])).await;
    fed.db
        .sql("update items set v = 'x' where id = 2; delete from items where id = 1; insert into items values (4, 'y')")
        .await;
    client.shows(items(&[(2, "x"), (3, "v3"), (4, "y")])).await;

    // The client is killed, and rows change and go before it is back.
    drop(client);
    fed.db
        .sql("delete from items where id = 3; update items set v = 'z' where id = 4; insert into items values (5, 'n')")
        .await;
    let mut client = run.start().await;
    client.shows(items(&[(2, "x"), (4, "z"), (5, "n")])).await;

    // The server is.
    fed.program.kill();
    fed.db.sql("delete from items where id = 2; insert into items values (6, 's')").await;
    fed.program.serve(&["--follow"]);
    client.shows(items(&[(4, "z"), (5, "n"), (6, "s")])).await;

    // Rows that do not follow from what was told.
    fed.db.sql("truncate items").await;
    client.shows(json!([])).await;
    fed.db.sql("insert into items values (7, 't')").await;
    client.shows(items(&[(7, "t")])).await;
    assert_eq!(fed.program.call("POST", "/nuke").await.status, 200);
    fed.db.sql("insert into items values (8, 'u')").await;
    client.shows(items(&[(7, "t"), (8, "u")])).await;

    // It is away for longer than the log is kept.
    drop(client);
    fed.db.sql("delete from items where id = 7; insert into items values (9, 'w')").await;
    until("the worker has it", async || fed.get_whole("table=items&offset=-1").await.body.contains("\"9\"")).await;
    fed.program.kill();
    forget(&fed).await;
    fed.program.serve(&["--follow"]);
    let mut client = run.start().await;
    client.shows(items(&[(8, "u"), (9, "w")])).await;
    // The same for one that is there.
    fed.program.kill();
    forget(&fed).await;
    fed.db.sql("delete from items where id = 8").await;
    fed.program.serve(&["--follow"]);
    client.shows(items(&[(9, "w")])).await;

    if lane.has_columns {
        return;
    }
    fed.program.kill();
    fed.db.sql("alter table items add column w int; update items set w = 1").await;
    set_up(&fed.db.url(), &schema(WIDER)).await;
    fed.program.write("schema.json", WIDER);
    fed.program.serve(&["--follow"]);
    client.shows(json!([{"id": 9, "v": "w", "w": 1}])).await;
    fed.db.sql("insert into items values (10, 'l', 2)").await;
    client.shows(json!([{"id": 9, "v": "w", "w": 1}, {"id": 10, "v": "l", "w": 2}])).await;
}

const TYPES: &str = "create type mood as enum ('sad', 'it''s \"ok\"');
    create table kinds (id int primary key, big bigint, num numeric, txt text, uid uuid, at timestamptz, day date,
        ok boolean, raw bytea, doc json, docb jsonb, list int[], texts text[], feels mood, small smallint, f double precision);
    insert into kinds values
        (1, 9223372036854775807, 12345678901234567890.0123456789, E'ünï \\n\"\\\\ \\U0001F600', '6ecd8c99-4036-403d-bf84-cf8400f67836',
         '2026-11-30 12:00:00.123456+02', '2026-11-30', true, '\\x00ff27', '{\"b\": 1,  \"a\": [null, 1.50]}', '{\"b\": 1, \"a\": \"x\"}',
         '{1,null,-3}', '{\"a,b\",\"c \\\"d\\\"\",null,\"\"}', 'it''s \"ok\"', -32768, 0.1),
        (2, -9223372036854775808, -0.00, '', '00000000-0000-0000-0000-000000000000', '1969-12-31 23:59:59Z', '0001-01-01',
         false, '', 'null', '[]', '{}', '{}', 'sad', 0, 1e300);
    insert into kinds (id) values (3)";
const KINDS: &str = r#"{"kinds":{"primaryKey":"id","columns":{"id":"INTEGER","big":"INTEGER","num":"TEXT","txt":"TEXT","uid":"TEXT",
    "at":"TEXT","day":"TEXT","ok":"BOOLEAN","raw":"BLOB","doc":"JSON","docb":"JSON","list":"TEXT","texts":"TEXT","feels":"TEXT",
    "small":"INTEGER","f":"REAL"},"feed":{"public":true}}}"#;
/// As Postgres prints each; times as ISO 8601, which its JSON has.
const PRINTED: &str =
    "select jsonb_agg(to_jsonb(k) || jsonb_build_object('big', big::text, 'num', num::text, 'uid', uid::text,
    'day', day::text, 'raw', raw::text, 'feels', feels::text, 'txt', txt) order by id)::text from kinds k";

async fn is_told_each_type(lane: Lane) {
    let fed = Fed::start(Path::File, TYPES, KINDS).await;
    let printed = async || {
        fed.db.sql("set time zone 'UTC'").await;
        let rows = fed.db.one(PRINTED).await;
        serde_json::from_str::<Value>(&rows).unwrap()
    };
    let run = Run::new(lane, &fed.url, "kinds");
    let mut client = run.start().await;
    client.shows(printed().await).await;
    // Told as changes, they are the same.
    fed.db.sql("delete from kinds").await;
    client.shows(json!([])).await;
    fed.db.sql(TYPES.split_once(';').unwrap().1.split_once(';').unwrap().1).await;
    client.shows(printed().await).await;
    fed.db.sql("update kinds set small = 7").await;
    client.shows(printed().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_tanstack_db_holds_what_postgres_has_whatever_befalls_it() {
    befalls(A).await;
}

/// Which commits a change to a table with a primary key: a row that is told twice as new ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_pglite_holds_what_postgres_has_whatever_befalls_it() {
    befalls(C).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_each_type_are_as_postgres_prints_them() {
    is_told_each_type(A).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "packages of another lane, in make soak"]
async fn a_newer_tanstack_db_does_as_well() {
    befalls(B).await;
    is_told_each_type(B).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "packages of another lane, in make soak"]
async fn a_collection_that_is_kept_in_sqlite_does_as_well() {
    befalls(D).await;
    is_told_each_type(D).await;
}

/// What was kept is shown before anybody is asked, and only what came since is asked for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "packages of another lane, in make soak"]
async fn a_collection_that_is_kept_goes_on_from_where_it_was() {
    let mut fed = Fed::start(Path::File, TABLE, FED).await;
    let url = fed.url.clone();
    let run = Run::new(D, &url, "items");
    let mut client = run.start().await;
    client.shows(items(&[(1, "v1"), (2, "v2"), (3, "v3")])).await;
    drop(client);
    fed.program.kill();
    let mut client = run.start().await;
    client.shows(items(&[(1, "v1"), (2, "v2"), (3, "v3")])).await;
    fed.db.sql("delete from items where id = 1; update items set v = 'x' where id = 3").await;
    fed.program.serve(&["--follow"]);
    client.shows(items(&[(2, "v2"), (3, "x")])).await;
}
