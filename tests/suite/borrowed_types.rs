//! Types, functions and casts that a table borrows from elsewhere: the worker may name what it has to, and runs
//! nobody's cast.

use crate::support::{Db, Home, Path, Rig, config, schema};
use futures_util::TryStreamExt;
use pgflume::core::error::Error;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions, SetupReport};
use pgflume::sync::Worker;
use std::sync::Arc;
use std::time::Duration;

async fn setup(db: &Db, json: &str) -> Result<SetupReport, Error> {
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    capture::setup(&PgUrl::parse(&db.url()).unwrap(), &schema(json), &queue, &SetupOptions::default()).await
}

/// Key types, a value and another, and what else has to be there.
const KEYS: [(&str, &str, &str, &str); 6] = [
    ("types.mood", "a", "b", "create type types.mood as enum ('a', 'b')"),
    ("types.code", "x", "y", "create domain types.code as text check (value <> '')"),
    ("types.citext", "A", "b", "create extension citext schema types"),
    ("types.soft", "A", "b", "create extension citext schema more; create domain types.soft as more.citext"),
    ("types.ltree", "a.b", "a.c", "create extension ltree schema types"),
    ("types.moods", "{a}", "{b}", "create type more.mood as enum ('a', 'b'); create domain types.moods as more.mood[]"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_type_in_another_schema_is_read_by_the_least_role() {
    for (number, (key, one, two, made)) in KEYS.into_iter().enumerate() {
        let db = Db::new().await;
        let role = format!("{}_key_{number}", db.name);
        db.sql("create schema types; create schema more; revoke all on schema types, more from public").await;
        db.sql(&format!(
            "{made}; create table k (a int, id {key}, v int, primary key (a, id)); create role {role} login"
        ))
        .await;
        let json = r#"{"k": {"primaryKey": ["a", "id"], "columns": {"a": "INTEGER", "id": "TEXT", "v": "INTEGER"}}}"#;
        setup(&db, json).await.unwrap();
        db.sql(&format!("grant pgflume_worker to {role}; insert into k values (1, '{one}', 1)")).await;
        let home = Home::new(Path::File);
        let url = db.url().replacen("//postgres", &format!("//{role}"), 1);
        assert!(url.contains(&role), "{url}");
        let worker = Arc::new(Worker::new(config(&url, home.target(), schema(json))));
        let rig = Rig { db, home, worker };
        rig.drain().await;
        rig.db.sql(&format!("insert into k values (1, '{two}', 2); update k set v = 3 where v = 1")).await;
        let done = rig.worker.drain(Duration::from_secs(25)).await.unwrap();
        assert!(done.paused.is_empty() && done.dead == 0 && done.queued == 0, "{key}: {done:?}");
        assert_eq!(rig.rows("SELECT id, v FROM k ORDER BY v").await, [format!("{two}|2"), format!("{one}|3")], "{key}");
        let (url, queue) = (PgUrl::parse(&rig.db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
        let script = capture::print(&url, &schema(json), &queue, &SetupOptions::default()).await.unwrap();
        assert!(script.contains("grant usage on schema \"types\" to pgflume_worker"), "{key}");
        rig.db.sql(&format!("drop owned by {role}; drop role {role}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_over_an_enum_is_written_as_a_column_and_refused_as_a_key() {
    let db = Db::new().await;
    db.sql("create type mood as enum ('a', 'b'); create domain moody as mood; create table k (id moody primary key, v int);
            create table c (id int primary key, v moody); insert into c values (1, 'a')").await;
    let refused =
        setup(&db, r#"{"k": {"primaryKey": "id", "columns": {"id": "TEXT"}}}"#).await.unwrap_err().to_string();
    assert!(refused.contains("$.k.columns.id: is a domain over an enum"), "{refused}");
    let json = r#"{"c": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "TEXT"}}}"#;
    setup(&db, json).await.unwrap();
    let rig = Rig::with(db, Home::new(Path::File), schema(json));
    rig.db
        .sql("update c set v = 'b'; insert into c values (2, 'a'), (3, 'b'); update c set v = 'a' where id > 1")
        .await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT * FROM c ORDER BY id").await, ["1|b", "2|a", "3|a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_calls_and_names_is_opened_to_the_least_role() {
    let db = Db::new().await;
    let role = format!("{}_filter", db.name);
    db.sql(&format!(
        "create schema rules; create schema types; revoke all on schema rules, types from public; create role {role} login;
         create type types.mood as enum ('a', 'b');
         create function rules.inner_one(v int) returns bool immutable language sql begin atomic select v > 0; end;
         create function rules.is_wanted(v int) returns bool immutable language sql begin atomic select rules.inner_one(v); end;
         revoke all on function rules.is_wanted(int), rules.inner_one(int) from public;
         create table k (id int primary key, v int, m types.mood)"
    ))
    .await;
    let json = r#"{"k": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "INTEGER"},
        "where": "rules.is_wanted(v) and m = 'a'::types.mood"}}"#;
    setup(&db, json).await.unwrap();
    db.sql(&format!("grant pgflume_worker to {role}")).await;
    let home = Home::new(Path::File);
    let url = db.url().replacen("//postgres", &format!("//{role}"), 1);
    let worker = Arc::new(Worker::new(config(&url, home.target(), schema(json))));
    let rig = Rig { db, home, worker };
    rig.drain().await;
    rig.db.sql("insert into k values (1, 1, 'a'), (2, -1, 'a'), (3, 1, 'b')").await;
    let done = rig.drain().await;
    assert!(done.paused.is_empty() && done.queued == 0, "{done:?}");
    assert_eq!(rig.rows("SELECT id FROM k").await, ["1"]);
    rig.db.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_setup_cannot_open_is_named_with_the_statement_that_does() {
    // Its installer becomes a member of pgflume_capture, which stops the set-ups of everybody else in the cluster.
    let cluster = Box::leak(Box::new(crate::support::own_cluster()));
    let db = Db::named("opened".to_owned(), cluster, "with_pgmq").await;
    let role = format!("{}_installs", db.name);
    db.sql(&format!(
        "create role pgflume_capture; create role pgflume_worker; create schema types; create type types.mood as enum ('a'); create role {role} login createrole;
         grant usage on schema types to {role}; grant all on schema public to {role};
         grant pgflume_capture, pgflume_worker to {role};
         grant create on database {} to {role};",
        db.name
    ))
    .await;
    let json = r#"{"k": {"primaryKey": "id", "columns": {"id": "TEXT"}}}"#;
    let url = db.url().replacen("//postgres", &format!("//{role}"), 1);
    let owner = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    owner.batch_execute("create table k (id types.mood primary key)").await.unwrap();
    db.sql(&format!("alter table pgmq.q_replicate_data_libsql owner to {role}; grant all on schema pgmq to {role}; grant all on all tables in schema pgmq to {role}")).await;
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    let printed =
        capture::print(&PgUrl::parse(&url).unwrap(), &schema(json), &queue, &SetupOptions::default()).await.unwrap();
    assert!(printed.contains("grant usage on schema \"types\" to pgflume_worker`"), "{printed}");
    db.sql(&format!("reassign owned by {role} to postgres; drop owned by {role}; drop role {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cast_of_somebodys_own_is_refused_and_one_of_an_extension_is_not() {
    let db = Db::new().await;
    db.sql(
        "create type mood as enum ('a', 'b'); create type pair as (x int, y mood);
         create function spell(mood) returns text language plpgsql as $$ begin raise exception 'I was run'; end $$;
         create function draw(mood) returns json language plpgsql as $$ begin raise exception 'I was run'; end $$;
         create domain moody as mood;
         create extension citext; create extension hstore; create extension isn;
         create table k (id mood primary key, v int); create table d (id int primary key, v moody);
         create table j (id int primary key, v pair, l mood[]); create table e (id citext primary key, h hstore, i isbn13)",
    )
    .await;
    let all = r#"{"k": {"primaryKey": "id", "columns": {"id": "TEXT", "v": "INTEGER"}},
        "d": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "TEXT"}},
        "j": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "JSON", "l": "JSON"}, "lossy": ["v"]},
        "e": {"primaryKey": "id", "columns": {"id": "TEXT", "h": "TEXT", "i": "TEXT"}}}"#;
    setup(&db, all).await.unwrap();
    db.sql("create cast (mood as text) with function spell(mood)").await;
    let refused = setup(&db, all).await.unwrap_err().to_string();
    for path in ["$.k.columns.id", "$.d.columns.v"] {
        assert!(refused.contains(path), "{path}: {refused}");
    }
    assert!(
        refused.contains("drop cast (public.mood as text)") && !refused.contains("$.j") && !refused.contains("$.e")
    );
    db.sql("drop cast (mood as text); create cast (mood as json) with function draw(mood)").await;
    let refused = setup(&db, all).await.unwrap_err().to_string();
    for path in ["$.j.columns.v", "$.j.columns.l"] {
        assert!(refused.contains(path), "{path}: {refused}");
    }
    assert!(!refused.contains("$.k") && !refused.contains("$.d") && !refused.contains("$.e"), "{refused}");
    db.sql("drop cast (mood as json)").await;
    setup(&db, all).await.unwrap();
}

/// What a table's owner may do to a column `C` of the table `bob.T` after setup: a type of his own, and casts of it
/// that are functions of his.
const RETYPED: [&str; 5] = [
    "create type bob.k_TC as enum ('a', 'b'); alter table bob.T alter C type bob.k_TC using 'a'",
    "create type bob.k_TC as enum ('a', 'b'); alter table bob.T drop C; alter table bob.T add C bob.k_TC not null default 'a'",
    "create type bob.k_TC as (x int); alter table bob.T alter C type bob.k_TC using row(1)",
    "create type bob.k_TC as range (subtype = int); alter table bob.T alter C type bob.k_TC using '[1,2)'",
    "create type bob.e_TC as enum ('a', 'b'); create type bob.k_TC as (x bob.e_TC);
     alter table bob.T alter C type bob.k_TC using row('a')",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_cast_of_a_tables_owner_runs_with_the_rights_of_the_capture() {
    let db = Db::new().await;
    db.sql(&format!(
        "create role {0}_bob login; create schema bob authorization {0}_bob; grant usage on schema bob to public;
         create table bob.ran (who text, cast_to text); grant insert on bob.ran to public; grant select on bob.ran to {0}_bob",
        db.name
    ))
    .await;
    let own = ["int8", "text", "bool", "char(3)", "inet"];
    let values = ["7", "a", "t", "x", "10.0.0.1"];
    let (mut json, mut rows) = (Vec::new(), Vec::new());
    let mut tables = Vec::new();
    for kind in ["s", "r"] {
        for (i, ddl) in RETYPED.into_iter().enumerate() {
            for (own, value) in own.into_iter().zip(values) {
                let name = format!("{kind}{i}{}", &own[..3]);
                let v = if i == 1 { "w" } else { "v" };
                db.sql(&format!(
                    "create table bob.{name} (n int, id {own} not null, {v} {own}, z int, primary key (n, id));
                     alter table bob.{name} owner to {}_bob; insert into bob.{name} select g, '{value}', '{value}', 1 from generate_series(1, 9) g",
                    db.name
                ))
                .await;
                json.push(format!(
                    r#""{name}": {{"source": "bob.{name}", "primaryKey": ["n", "id"], "columns": {{"n": "INTEGER", "id": "TEXT", "{v}": "TEXT"}}}}"#
                ));
                if kind == "r" {
                    rows.push(name.clone());
                }
                tables.push((name, ddl, v));
            }
        }
    }
    let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
    let options = SetupOptions { row_triggers: rows.into_iter().collect(), ..SetupOptions::default() };
    capture::setup(&url, &schema(&format!("{{{}}}", json.join(","))), &queue, &options).await.unwrap();
    let bob = db.url().replacen("//postgres", &format!("//{}_bob", db.name), 1);
    let bob = PgUrl::parse(&bob).unwrap().connect().await.unwrap();
    let run = |sql: String| {
        let bob = &bob;
        async move { bob.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")) }
    };
    for (name, ddl, v) in tables {
        for column in ["id", v] {
            run(ddl
                .replace(".T", &format!(".{name}"))
                .replace("_TC", &format!("_{name}{column}"))
                .replace(" C ", &format!(" {column} "))
                .replace(" C;", &format!(" {column};")))
            .await;
            for to in ["text", "int8", "bool", "bpchar", "inet", "json", "jsonb"] {
                let kind = format!("bob.k_{name}{column}");
                let value = match to {
                    "text" | "bpchar" => "'a'",
                    "int8" => "1",
                    "bool" => "true",
                    "inet" => "'10.0.0.1'",
                    _ => "'1'",
                };
                run(format!(
                    "create function bob.\"f {name}{column} {to}\"({kind}) returns {to} language plpgsql volatile as $$ begin
                         insert into bob.ran values (current_user, '{name}.{column} {to}'); return {value}::{to}; end $$;
                     create cast ({kind} as {to}) with function bob.\"f {name}{column} {to}\"({kind}) as implicit"
                ))
                .await;
            }
        }
        let before = db.one("select coalesce(max(msg_id), 0) from pgmq.q_replicate_data_libsql").await;
        run(format!(
            "update bob.{name} set {v} = {v}, z = 2 where n = 1; update bob.{name} set n = n + 100 where n = 2"
        ))
        .await;
        run(format!("update bob.{name} set n = n + 100 where n in (3, 4); delete from bob.{name} where n = 5")).await;
        run(format!("delete from bob.{name} where n in (6, 7)")).await;
        run(format!("insert into bob.{name} (n, id, {v}) select n + 1000, id, {v} from bob.{name} where n = 8")).await;
        run(format!("insert into bob.{name} (n, id, {v}) select n + 2000, id, {v} from bob.{name} where n in (8, 9)"))
            .await;
        let marked = format!(
            "select string_agg(distinct k->>0, ',' order by k->>0)
             from pgmq.q_replicate_data_libsql q, jsonb_array_elements(q.message->'keys') k where q.msg_id > {before}"
        );
        assert_eq!(db.one(&marked).await, "1008,102,103,104,2,2008,2009,3,4,5,6,7", "{ddl} of {name}");
    }
    assert_eq!(
        db.all("select who || ' ' || cast_to from bob.ran where who <> session_user").await,
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cast_to_json_runs_in_the_trigger_with_images() {
    let db = Db::new().await;
    db.sql("create table other (id int primary key)").await;
    setup(&db, r#"{"other": {"primaryKey": "id", "columns": {"id": "INTEGER"}}}"#).await.unwrap();
    db.sql(&format!(
        "create role {0}_bob; create schema bob authorization {0}_bob; grant usage on schema bob to public; set role {0}_bob;
         create type bob.mood as enum ('a', 'b'); create type bob.span as range (subtype = int); create domain bob.moody as bob.mood;
         create type bob.pair as (x int, y bob.mood); create type bob.plain as (x int, y text); create domain bob.small as int;
         create table bob.i (id int primary key, m bob.mood, l bob.mood[], d bob.moody, s bob.span, p bob.pair, q bob.plain, n bob.small, t text[], \"a'\\b\" bool);
         create function bob.evil(bob.mood) returns json language plpgsql as $$ begin raise exception 'I was run'; end $$;
         create function bob.evil(bob.span) returns json language plpgsql as $$ begin raise exception 'I was run'; end $$;
         reset role; create trigger i after insert or update or delete on bob.i for each row
         execute function pgflume.trigger_http_queue_post_to_function_libsql()",
        db.name
    ))
    .await;
    let write = "insert into bob.i values (1, 'a', '{a,NULL,b}', 'b', '[1,3)', row(1, 'a'), row(1, 'x'), 4, '{x,y}', true); insert into bob.i values (2);
                 update bob.i set m = 'b' where id = 1; delete from bob.i";
    let images = "select message from pgmq.q_replicate_data_libsql where message ? 'record' order by msg_id";
    db.sql("insert into bob.i values (1, 'a', '{a,NULL,b}', 'b', '[1,3)', null, row(1, 'x'), 4, '{x,y}', true); insert into bob.i values (2)")
        .await;
    let wanted = db.all("select to_jsonb(i) from bob.i order by id").await;
    let without = db
        .all("select message->'record' from pgmq.q_replicate_data_libsql where message ? 'record' order by msg_id")
        .await;
    assert_eq!(without, wanted);
    db.sql("truncate bob.i; delete from pgmq.q_replicate_data_libsql").await;
    db.sql("create cast (bob.mood as json) with function bob.evil(bob.mood); create cast (bob.span as json) with function bob.evil(bob.span)").await;
    db.sql(write).await;
    let found = db.all(images).await;
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(
        found[0].contains(r#""l": ["a", null, "b"], "m": "a""#) && found[0].contains(r#""old_record": null"#),
        "{}",
        found[0]
    );
    assert!(found[0].contains(r#""q": {"x": 1, "y": "x"}"#) && found[0].contains(r#""s": "[1,3)""#), "{}", found[0]);
    assert!(
        found[3].contains(r#""record": null, "old_record": {"#) || found[3].contains(r#""record": null"#),
        "{}",
        found[3]
    );
}

/// What somebody else makes between two reads of the worker, each time at once taken away again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cast_made_between_the_look_and_the_read_is_not_run() {
    let db = Db::new().await;
    db.sql(
        "create type mood as enum ('a', 'b'); create type span as range (subtype = int);
         create function evil(mood) returns text language plpgsql as $$ begin raise exception 'I was run'; end $$;
         create function evil_json(mood) returns json language plpgsql as $$ begin raise exception 'I was run'; end $$;
         create function evil_json(span) returns json language plpgsql as $$ begin raise exception 'I was run'; end $$;
         create function evil_from(text) returns mood language plpgsql as $$ begin raise exception 'I was run'; end $$;
         create table k (id mood primary key, v mood, l mood[], j mood, s span)",
    )
    .await;
    let json =
        r#"{"k": {"primaryKey": "id", "columns": {"id": "TEXT", "v": "TEXT", "l": "JSON", "j": "JSON", "s": "JSON"}}}"#;
    setup(&db, json).await.unwrap();
    let rig = Rig::with(db, Home::new(Path::File), schema(json));
    rig.drain().await;
    let parsed = schema(json);
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    let client = rig.db.pinned().await;
    let catalog = pgflume::postgres::catalog::read(&client, &parsed, &queue).await.unwrap();
    rig.db
        .sql(
            "insert into k values ('a', 'b', '{a,NULL}', 'a', '[1,3)'), ('b', null, null, null, null);
             create cast (mood as text) with function evil(mood) as assignment;
             create cast (mood as json) with function evil_json(mood);
             create cast (span as json) with function evil_json(span);
             create cast (text as mood) with function evil_from(text)",
        )
        .await;
    let source = catalog.tables.get("k").unwrap();
    client.begin("", "").await.unwrap();
    let keys = ["a", "b"].map(|k| vec![k.to_owned()]);
    let mut reading = Box::pin(pgflume::postgres::rows::read(&client, source, &keys, true).await.unwrap());
    let mut rows = 0;
    while let Some(found) = reading.try_next().await.unwrap() {
        assert!(found.cells.unwrap().is_ok());
        rows += 1;
    }
    assert_eq!(rows, 2);
    drop(reading);
    client.rollback().await.unwrap();
    rig.db
        .sql("drop cast (mood as text); drop cast (mood as json); drop cast (span as json); drop cast (text as mood)")
        .await;
    rig.drain().await;
    assert_eq!(
        rig.rows("SELECT * FROM k ORDER BY id").await,
        [r#"a|b|["a", null]|"a"|"[1,3)""#, "b|NULL|NULL|NULL|NULL"]
    );
}
