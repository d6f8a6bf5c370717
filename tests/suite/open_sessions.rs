//! DDL beside sessions that stay open, as a pool keeps them: whatever is done to a captured table, by whichever
//! kind of trigger it is captured, no write of theirs fails, and every change is marked.

use crate::support::{Db, Home, Path, Rig, schema};
use pgflume::capture::{self, SetupOptions};
use pgflume::config::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
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
