//! DDL beside sessions that stay open, as a pool keeps them: whatever is done to a captured table, by whichever
//! kind of trigger it is captured, no write of theirs fails, and every change is marked.

use crate::support::{Db, Home, Path, Rig, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use std::fmt::Write as _;
use tokio_postgres::Client;

/// DDL, and whether the copied table can still be read by the same schema.json. `T` is the table.
const DDL: [(&str, bool); 18] = [
    ("alter table T alter v type bigint", true),
    ("alter table T alter w type varchar(50)", true),
    ("alter table T alter w type json using to_json(w)", true),
    ("alter table T alter v type text using v::text", false),
    ("alter table T alter id type bigint", true),
    ("alter table T alter id type text", false),
    ("alter table T alter id type bigint, alter v type bigint, alter w type varchar", true),
    ("alter table T alter v type bigint; alter table T alter v type int", true),
    ("alter table T add c int default 5", true),
    ("alter table T drop extra", true),
    ("alter table T drop extra, drop other, alter n type numeric(12, 4)", true),
    ("alter table T drop w", false),
    ("alter table T rename w to w2", false),
    ("alter table T drop v; alter table T add v text", false),
    ("alter table T alter v set default 3, add check (v > -1000)", true),
    ("create index on T (v); alter table T alter n type numeric(12, 4)", true),
    ("create domain d_T as int; alter table T alter v type d_T", true),
    ("create type e_T as enum ('w'); create domain d_T as e_T; alter table T alter w type d_T using 'w'", true),
];

const KINDS: [&str; 3] = ["s", "r", "p"];

fn tables() -> impl Iterator<Item = (String, &'static str, bool)> {
    let kinds = KINDS.into_iter().flat_map(|kind| DDL.iter().enumerate().map(move |(i, ddl)| (kind, i, ddl)));
    kinds.map(|(kind, i, (ddl, fits))| (format!("{kind}{i}"), *ddl, *fits))
}

/// One table for each kind of trigger and DDL.
async fn rig() -> Rig {
    let db = Db::new().await;
    let mut json = String::from("{");
    for (name, ..) in tables() {
        let columns =
            "id int, r int default 1, v int, w text, n numeric(10, 2), extra int, other int, primary key (id, r)";
        let made = if name.starts_with('p') {
            format!(
                "create table {name} ({columns}) partition by list (r); create table {name}_1 partition of {name} for values in (1, 2)"
            )
        } else {
            format!("create table {name} ({columns})")
        };
        db.sql(&format!("{made}; insert into {name} select g, 1, g, 'w', 1.5, 1, 1 from generate_series(1, 20) g"))
            .await;
        let comma = if json.len() > 1 { "," } else { "" };
        write!(
            json,
            r#"{comma}"{name}": {{"primaryKey": ["id", "r"], "columns": {{"id": "INTEGER", "r": "INTEGER", "v": "INTEGER", "w": "TEXT", "n": "DECIMAL"}}}}"#
        )
        .unwrap();
    }
    json.push('}');
    let options = SetupOptions {
        row_triggers: tables().map(|(name, ..)| name).filter(|name| name.starts_with('r')).collect(),
        ..SetupOptions::default()
    };
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    capture::setup(&PgUrl::parse(&db.url()).unwrap(), &schema(&json), &queue, &options).await.unwrap();
    Rig::with(db, Home::new(Path::File), schema(&json))
}

/// Inserts, updates and deletes; the key of the update and the delete are given.
async fn write(session: &Client, table: &str, inserted: i32, updated: i32, deleted: i32) -> Result<(), String> {
    for sql in [
        format!("insert into {table} (id, n) values ('{inserted}', 2), ('{}', 2)", inserted + 1),
        format!("update {table} set n = n + 1 where id = '{updated}'"),
        format!("update {table} set n = n + 1 where id in ('{updated}', '{}')", updated + 1),
        format!("update {table} set id = '{}' where id = '{updated}'", inserted + 2),
        format!("delete from {table} where id = '{deleted}'"),
    ] {
        session.batch_execute(&sql).await.map_err(|e| format!("{sql}: {e:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_of_an_open_session_fails_after_ddl_whatever_the_kind_of_trigger() {
    let rig = rig().await;
    rig.drain().await;
    let session = PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap();
    let mut failed = Vec::new();
    for (name, ddl, _) in tables() {
        // Twice: a session that has fired the trigger once may plan anew the second time.
        for round in 0..2 {
            write(&session, &name, 100 + 10 * round, 1 + 2 * round, 10 + round).await.unwrap();
        }
        let before = rig.db.one("select coalesce(max(msg_id), 0) from pgmq.q_replicate_data_libsql").await;
        rig.db.sql(&ddl.replace('T', &name)).await;
        for round in 0..2 {
            failed.extend(write(&session, &name, 200 + 10 * round, 5 + round, 12 + round).await.err());
        }
        let marked = format!(
            "select string_agg(distinct k->>0, ',' order by k->>0)
             from pgmq.q_replicate_data_libsql q, jsonb_array_elements(q.message->'keys') k where q.msg_id > {before}"
        );
        let marked = rig.db.one(&marked).await;
        assert_eq!(marked, "12,13,200,201,202,210,211,212,5,6,7", "{ddl} of {name}");
    }
    assert!(failed.is_empty(), "{} writes failed: {failed:#?}", failed.len());
    rig.drain().await;
    for (name, ddl, _) in tables().filter(|(.., fits)| *fits) {
        let there = rig.rows(&format!("SELECT id, v, w, n FROM {name} ORDER BY id")).await;
        let wanted = format!(
            "select concat_ws('|', id, coalesce(v::text, 'NULL'), coalesce(w::text, 'NULL'), n) from {name} order by id"
        );
        assert_eq!(there, rig.db.all(&wanted).await, "{ddl} of {name}");
    }
}

/// DDL that takes a type away, or its `=`. `T` is the table; its columns are `m`, an enum `m_T`, and `n`, a numeric.
const TYPE_DDL: [&str; 7] = [
    "create type m_T_new as enum ('a', 'b', 'c'); alter table T alter m drop default, alter m type m_T_new using m::text::m_T_new;
     drop type m_T; alter type m_T_new rename to m_T",
    "alter table T drop n; alter table T add n json default '1'",
    "alter table T drop n; alter table T add n point default '(1,1)'",
    "alter table T drop n; alter table T add n xml default '<a/>'",
    "create cast (m_T as text) with inout as implicit",
    "alter table T alter n type text using 'x'; alter table T drop m; alter table T add m json default '1'",
    "alter table T alter m drop default, alter m type text",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_write_fails_when_a_type_goes_or_loses_its_equality() {
    let db = Db::new().await;
    let mut json = Vec::new();
    let mut tables = Vec::new();
    for (key, kind) in [("id, r", "s"), ("id, r", "r"), ("id, r", "p"), ("id, r, m", "s"), ("id, r, m", "r")] {
        for (i, ddl) in TYPE_DDL.into_iter().enumerate() {
            let (name, has_enum) = (format!("{kind}{}_{i}", key.len()), key.contains('m'));
            if has_enum && ddl.contains("drop m;") {
                continue;
            }
            let rest = if kind == "p" {
                format!("partition by list (r); create table {name}_1 partition of {name} default")
            } else {
                String::new()
            };
            db.sql(&format!(
                "create type m_{name} as enum ('a', 'b', 'c');
                 create table {name} (id int, r int default 1, m m_{name} default 'a', n numeric, primary key ({key})) {rest};
                 insert into {name} select g, 1, 'a', 1 from generate_series(1, 20) g"
            ))
            .await;
            let key = key.split(", ").map(|k| format!("\"{k}\"")).collect::<Vec<_>>().join(", ");
            json.push(format!(
                r#""{name}": {{"primaryKey": [{key}], "columns": {{"id": "INTEGER", "r": "INTEGER", "m": "TEXT", "n": "TEXT"}}}}"#
            ));
            tables.push((name, ddl));
        }
    }
    let json = schema(&format!("{{{}}}", json.join(",")));
    let options = SetupOptions {
        row_triggers: tables.iter().map(|(name, _)| name.clone()).filter(|name| name.starts_with('r')).collect(),
        ..SetupOptions::default()
    };
    let (url, queue) = (PgUrl::parse(&db.url()).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
    capture::setup(&url, &json, &queue, &options).await.unwrap();
    let session = url.connect().await.unwrap();
    let mut failed = Vec::new();
    let updates = |name: &str, id: i32| {
        [
            format!("insert into {name} (id, m) values ({}, 'a')", id + 100),
            format!("update {name} set m = m, r = r where id = {id}"),
            format!("update {name} set m = case m::text when 'a' then 'b' else 'a' end::m_{name} where id = {id}"),
            format!("update {name} set r = 2 where id in ({}, {})", id + 1, id + 2),
            format!("delete from {name} where id = {}", id + 3),
        ]
    };
    for (name, ddl) in &tables {
        for sql in updates(name, 1) {
            session.batch_execute(&sql).await.unwrap();
        }
        let before = db.one("select coalesce(max(msg_id), 0) from pgmq.q_replicate_data_libsql").await;
        db.sql(&ddl.replace('T', name)).await;
        let fresh = url.connect().await.unwrap();
        for (session, id) in [(&session, 5), (&fresh, 11)] {
            for sql in updates(name, id) {
                // A column of another type takes no such value.
                let sql = if ddl.contains("add m json") {
                    sql.replace(&format!("case m::text when 'a' then 'b' else 'a' end::m_{name}"), "'7'")
                        .replace(", 'a')", ", '7')")
                } else {
                    sql
                };
                failed.extend(session.batch_execute(&sql).await.err().map(|e| format!("{sql} after {ddl}: {e:?}")));
            }
        }
        let marked = format!(
            "select string_agg(distinct k->>0, ',' order by k->>0)
             from pgmq.q_replicate_data_libsql q, jsonb_array_elements(q.message->'keys') k where q.msg_id > {before}"
        );
        assert_eq!(db.one(&marked).await, "105,11,111,12,13,14,5,6,7,8", "{ddl} of {name}: {failed:?}");
    }
    assert!(failed.is_empty(), "{} writes failed: {failed:#?}", failed.len());
}
