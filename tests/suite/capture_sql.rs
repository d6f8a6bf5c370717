//! The SQL of the capture of ten kinds of tables, as files: whoever changes a template sees in a diff what it makes of
//! them. `BLESS=1` writes the files anew.

use crate::support::{Db, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What every step begins and ends with.
const BEGINNING: &str = include_str!("../../sql/ours.sql");
const END: &str = include_str!("../../sql/private.sql");

const TABLES: &str = r#"
create table plain (id int8 primary key, name text, amount numeric, at timestamptz);
create table composite (tenant uuid, day date, v int4, notes text, primary key (tenant, day));
create table text_key (slug text primary key, score float8, tags text[]);
create table partitioned (id int8, region text, v text, primary key (id, region)) partition by list (region);
create table partitioned_east partition of partitioned for values in ('east');
create table partitioned_rest partition of partitioned default;
create table filtered (id int4 primary key, title text, hidden bool, kind text);
create type mood as enum ('sad', 'glad');
create table wide (id uuid primary key, a_bool bool, a_bytea bytea, a_char bpchar(3), a_date date, a_float4 float4,
    a_inet inet, a_interval interval, a_json json, a_jsonb jsonb, a_money money, a_mood mood, a_name name, a_numeric numeric,
    a_point point, a_range int4range, a_smallint int2, a_text text, a_time time, a_timestamp timestamp,
    a_timestamptz timestamptz, a_uuid uuid, a_varchar varchar(10), an_array int4[], an_xml xml);
create table evolving (id int8 primary key, v text);
create table by_row (id timestamptz primary key, v text, j jsonb);
create table only_key (feeling mood primary key);
create table "it's ""odd""" ("the ""id""" int8 primary key, "v\1" text, w int4);
"#;

const SCHEMA: &str = r#"{
"plain": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT", "amount": "TEXT", "at": "TEXT"}},
"composite": {"primaryKey": ["day", "tenant"], "columns": {"tenant": "TEXT", "day": "TEXT", "v": "INTEGER", "notes": "TEXT"}},
"text_key": {"primaryKey": "slug", "columns": {"slug": "TEXT", "score": "REAL", "tags": "TEXT"}},
"partitioned": {"primaryKey": ["id", "region"], "columns": {"id": "INTEGER", "region": "TEXT", "v": "TEXT"}},
"filtered": {"primaryKey": "id", "columns": {"id": "INTEGER", "title": "TEXT"}, "where": "not hidden and kind operator(pg_catalog.=) 'book'"},
"wide": {"primaryKey": "id", "columns": {"id": "TEXT", "a_bool": "INTEGER", "a_bytea": "BLOB", "a_char": "TEXT", "a_date": "TEXT",
    "a_float4": "REAL", "a_inet": "TEXT", "a_interval": "TEXT", "a_json": "TEXT", "a_jsonb": "TEXT", "a_money": "TEXT",
    "a_mood": "TEXT", "a_name": "TEXT", "a_numeric": "TEXT", "a_point": "TEXT", "a_range": "TEXT", "a_smallint": "INTEGER",
    "a_text": "TEXT", "a_time": "TEXT", "a_timestamp": "TEXT", "a_timestamptz": "TEXT", "a_uuid": "TEXT", "a_varchar": "TEXT",
    "an_array": "TEXT", "an_xml": "TEXT"}},
"evolving": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "TEXT"}, "evolve": true},
"by_row": {"primaryKey": "id", "columns": {"id": "TEXT", "v": "TEXT", "j": "TEXT"}},
"only_key": {"primaryKey": "feeling", "columns": {"feeling": "TEXT"}},
"odd": {"primaryKey": "the \"id\"", "columns": {"the \"id\"": "INTEGER", "v\\1": "TEXT"}, "source": "public.\"it's \"\"odd\"\"\""},
"odd's twin": {"primaryKey": "the \"id\"", "columns": {"the \"id\"": "INTEGER", "w": "INTEGER"}, "source": "public.\"it's \"\"odd\"\"\""}
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_for_a_table_is_what_the_files_say() {
    let db = Db::new().await;
    db.sql(TABLES).await;
    let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
    let options = SetupOptions { row_triggers: ["by_row".to_owned()].into_iter().collect(), ..SetupOptions::default() };
    let script = capture::print(&url, &schema(SCHEMA), &queue, &options).await.unwrap();
    let made = captures(&script);
    let wanted: BTreeSet<_> = made.keys().map(|name| format!("{name}.sql")).collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        made.iter().for_each(|(name, sql)| std::fs::write(file(name), sql).unwrap());
        files().difference(&wanted).for_each(|name| std::fs::remove_file(folder().join(name)).unwrap());
    }
    assert_eq!(files(), wanted, "BLESS=1 writes them");
    for (name, sql) in &made {
        let known = std::fs::read_to_string(file(name)).unwrap();
        assert!(
            known == *sql,
            "{name} has changed: BLESS=1 writes it, look at the diff:\n{}",
            first_change(&known, sql)
        );
    }
    // What the files hold is what Postgres takes.
    capture::setup(&url, &schema(SCHEMA), &queue, &options).await.unwrap();
}

/// By table, what the script installs for it.
fn captures(script: &str) -> BTreeMap<String, String> {
    let steps = script.split("\n-- ======== ").filter_map(|step| step.strip_prefix("capture of "));
    let capture = |step: &str| {
        let name = step.split(" by ").next().unwrap().split('.').nth(1).unwrap();
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let sql = step.split_once(BEGINNING).unwrap().1.split_once(END).unwrap().0;
        (words.collect::<Vec<_>>().join("_"), sql.to_owned())
    };
    steps.map(capture).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/capture_sql")
}

fn file(name: &str) -> PathBuf {
    folder().join(format!("{name}.sql"))
}

fn files() -> BTreeSet<String> {
    let found = std::fs::read_dir(folder()).unwrap();
    found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn first_change(known: &str, made: &str) -> String {
    let lines = known.lines().zip(made.lines()).find(|(known, made)| known != made);
    lines.map_or_else(|| "the end".to_owned(), |(known, made)| format!("- {known}\n+ {made}"))
}
