//! Changes that no mark tells of: partitions that come and go, expressions, types, functions, triggers that were off
//! for a time. The next drain, of whatever process, notices each, and both sides are equal at its end. What leaves
//! rows as they are has no table copied.

use crate::support::{Db, Home, Path, Rig, newest_cluster, schema, start_cluster};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::demo::postgres::Stop;
use pgflume::operate::status;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::postgres::drift::DriftKind;
use std::fmt::Write as _;

/// A table `T`, its columns in `schema.json` beside `id`, and what is done to it, a statement each.
struct Case {
    what: &'static str,
    made: &'static str,
    columns: &'static str,
    filter: &'static str,
    done: &'static [&'static str],
}

const fn case(what: &'static str, made: &'static str, columns: &'static str, done: &'static [&'static str]) -> Case {
    Case { what, made, columns, filter: "", done }
}

const BY_DAY: &str = "create table T (id int, day date, primary key (id, day)) partition by range (day);
    create table T_1 partition of T for values from ('2024-01-01') to ('2024-02-01');
    create table T_2 partition of T for values from ('2024-02-01') to ('2024-03-01');
    insert into T values (1, '2024-01-05'), (2, '2024-02-05')";
const DAY: &str = r#""day": "TEXT""#;
const PLAIN: &str =
    "create table T (id int primary key, v int, w text); insert into T values (1, 10, 'a'), (2, 20, 'b')";
const VALUES: &str = r#""v": "INTEGER", "w": "TEXT""#;

const CASES: [Case; 43] = [
    case("a partition dropped", BY_DAY, DAY, &["drop table T_1"]),
    case("a partition detached", BY_DAY, DAY, &["alter table T detach partition T_1"]),
    case("a partition detached beside others", BY_DAY, DAY, &["alter table T detach partition T_1 concurrently"]),
    case(
        "a partition attached with rows",
        BY_DAY,
        DAY,
        &[
            "create table T_3 (id int not null, day date not null)",
            "insert into T_3 values (3, '2024-03-01')",
            "alter table T attach partition T_3 for values from ('2024-03-01') to ('2024-04-01')",
        ],
    ),
    case(
        "a partition made, filled and attached in one transaction",
        BY_DAY,
        DAY,
        &["create table T_3 (like T); insert into T_3 values (3, '2024-03-01'); alter table T attach partition T_3 for values from ('2024-03-01') to ('2024-04-01')"],
    ),
    case(
        "a partition truncated that was made after setup",
        BY_DAY,
        DAY,
        &[
            "create table T_3 partition of T for values from ('2024-03-01') to ('2024-04-01')",
            "insert into T values (3, '2024-03-01')",
            "DRAIN",
            "truncate T_3",
        ],
    ),
    case(
        "a partition swapped",
        BY_DAY,
        DAY,
        &["create table T_n (like T); insert into T_n values (9, '2024-01-09'); alter table T detach partition T_1; alter table T attach partition T_n for values from ('2024-01-01') to ('2024-02-01')"],
    ),
    case(
        "a partition detached, written and attached again",
        BY_DAY,
        DAY,
        &["alter table T detach partition T_1; update T_1 set id = 7; alter table T attach partition T_1 for values from ('2024-01-01') to ('2024-02-01')"],
    ),
    case(
        "a tree of partitions attached with rows",
        BY_DAY,
        DAY,
        &[
            "create table T_3 (id int not null, day date not null) partition by list (id)",
            "create table T_31 partition of T_3 default",
            "insert into T_3 values (3, '2024-03-01')",
            "alter table T attach partition T_3 for values from ('2024-03-01') to ('2024-04-01')",
        ],
    ),
    case(
        "a partition under one that stays, attached with rows",
        "create table T (id int primary key, v int) partition by range (id);
         create table T_1 partition of T for values from (0) to (100) partition by range (id);
         create table T_11 partition of T_1 for values from (0) to (50); insert into T values (1, 1)",
        r#""v": "INTEGER""#,
        &["create table T_12 as select 60 as id, 6 as v; alter table T_12 alter id set not null; alter table T_1 attach partition T_12 for values from (50) to (100)"],
    ),
    case(
        "a partition's row trigger off for a time",
        BY_DAY,
        DAY,
        &["alter table T_1 disable trigger all; update T_1 set id = 7; alter table T_1 enable always trigger pgflume_replicate_data_libsql_row; alter table T_1 enable always trigger pgflume_replicate_data_libsql_truncate"],
    ),
    case(
        "a partition's truncate trigger off for a time",
        BY_DAY,
        DAY,
        &["alter table T_1 disable trigger pgflume_replicate_data_libsql_truncate; truncate T_1; alter table T_1 enable always trigger pgflume_replicate_data_libsql_truncate"],
    ),
    case(
        "triggers off, rows loaded, triggers on as before",
        PLAIN,
        VALUES,
        &[
            "alter table T disable trigger user",
            "update T set v = 11 where id = 1; delete from T where id = 2; insert into T values (3, 30, 'c')",
            "alter table T enable always trigger pgflume_replicate_data_libsql_insert, enable always trigger pgflume_replicate_data_libsql_update, enable always trigger pgflume_replicate_data_libsql_delete, enable always trigger pgflume_replicate_data_libsql_truncate",
        ],
    ),
    case(
        "the same in one transaction",
        PLAIN,
        VALUES,
        &["alter table T disable trigger pgflume_replicate_data_libsql_update; update T set v = 11; alter table T enable always trigger pgflume_replicate_data_libsql_update"],
    ),
    case("a column rewritten to its own type", PLAIN, VALUES, &["alter table T alter v type int using v * 2"]),
    case(
        "a column of a partitioned table rewritten to its own type",
        "create table T (id int primary key, v int) partition by hash (id); create table T_1 partition of T for values with (modulus 1, remainder 0);
         insert into T values (1, 10)",
        r#""v": "INTEGER""#,
        &["alter table T alter v type int using v * 2"],
    ),
    case(
        "a label renamed",
        "create type mood_T as enum ('a', 'b'); create table T (id int primary key, m mood_T); insert into T values (1, 'a')",
        r#""m": "TEXT""#,
        &["alter type mood_T rename value 'a' to 'z'"],
    ),
    case(
        "a label renamed in an array of a domain",
        "create type mood_T as enum ('a', 'b'); create domain d_T as mood_T; create table T (id int primary key, m d_T[]); insert into T values (1, '{a}')",
        r#""m": "JSON""#,
        &["alter type mood_T rename value 'a' to 'z'"],
    ),
    case(
        "a label renamed in a composite",
        "create type mood_T as enum ('a', 'b'); create type pair_T as (x int, m mood_T); create table T (id int primary key, m pair_T); insert into T values (1, '(1,a)')",
        r#""m": "TEXT""#,
        &["alter type mood_T rename value 'a' to 'z'"],
    ),
    case(
        "a label renamed in a range",
        "create type mood_T as enum ('a', 'b'); create type span_T as range (subtype = mood_T); create table T (id int primary key, m span_T); insert into T values (1, '[a,b]')",
        r#""m": "TEXT""#,
        &["alter type mood_T rename value 'b' to 'z'"],
    ),
    case(
        "an attribute added to a composite",
        "create type pair_T as (x int, y int); create table T (id int primary key, m pair_T); insert into T values (1, '(1,2)')",
        r#""m": "TEXT""#,
        &["alter type pair_T add attribute z int"],
    ),
    case(
        "a key's label renamed",
        "create type mood_T as enum ('a', 'b'); create table T (id mood_T primary key, v int); insert into T values ('a', 1)",
        r#""v": "INTEGER""#,
        &["alter type mood_T rename value 'a' to 'z'"],
    ),
    Case {
        what: "a filter's function replaced",
        made: "create function wants_T(v int) returns bool immutable language sql as 'select v > 15'; create table T (id int primary key, v int);
               insert into T values (1, 10), (2, 20)",
        columns: r#""v": "INTEGER""#,
        filter: "public.wants_T(v)",
        done: &["create or replace function wants_T(v int) returns bool immutable language sql as 'select v < 15'"],
    },
    Case {
        what: "a function replaced that a filter's function calls",
        made: "create function inner_T(v int) returns bool immutable language plpgsql as 'begin return v > 15; end';
               create function wants_T(v int) returns bool immutable language sql begin atomic select inner_T(v); end;
               create table T (id int primary key, v int); insert into T values (1, 10), (2, 20)",
        columns: r#""v": "INTEGER""#,
        filter: "public.wants_T(v)",
        done: &["create or replace function inner_T(v int) returns bool immutable language plpgsql as 'begin return v < 15; end'"],
    },
    Case {
        what: "a better fitting overload of a filter's function",
        made: "create function wants_T(v bigint) returns bool immutable language sql as 'select v > 15'; create table T (id int primary key, v int);
               insert into T values (1, 10), (2, 20)",
        columns: r#""v": "INTEGER""#,
        filter: "public.wants_T(v)",
        done: &["create function wants_T(v int) returns bool immutable language sql as 'select v < 15'"],
    },
    Case {
        what: "an operator's function replaced that a filter uses",
        made: "create function near_T(a int, b int) returns bool immutable language sql as 'select a > b'; create operator public.<<<> (leftarg = int, rightarg = int, function = near_T);
               create table T (id int primary key, v int); insert into T values (1, 10), (2, 20)",
        columns: r#""v": "INTEGER""#,
        filter: "v operator(public.<<<>) 15",
        done: &["create or replace function near_T(a int, b int) returns bool immutable language sql as 'select a < b'"],
    },
    Case {
        what: "a column of the filter, not replicated, rewritten",
        made: "create table T (id int primary key, v int, f int); insert into T values (1, 10, 1), (2, 20, 0)",
        columns: r#""v": "INTEGER""#,
        filter: "f = 1",
        done: &["alter table T alter f type int using 1 - f"],
    },
    case(
        "an inheritance child that came with rows",
        PLAIN,
        VALUES,
        &["create table T_c () inherits (T)", "insert into T_c values (5, 50, 'e')", "DRAIN", "alter table T_c no inherit T"],
    ),
    case(
        "put under another table and written through it",
        PLAIN,
        VALUES,
        &["create table T_above (id int not null, v int, w text)", "alter table T inherit T_above", "update T_above set v = 12"],
    ),
    case(
        "put into a partitioned table and written through it",
        PLAIN,
        VALUES,
        &["create table T_above (id int not null, v int, w text) partition by range (id)", "alter table T_above attach partition T default", "update T_above set v = 12"],
    ),
    case("unlogged for a time", PLAIN, VALUES, &["alter table T set unlogged", "DRAIN", "alter table T set logged"]),
    case(
        "a type made anew under its name",
        "create type mood_T as enum ('a', 'b'); create table T (id int primary key, m mood_T); insert into T values (1, 'a')",
        r#""m": "TEXT""#,
        &["create type new_T as enum ('a', 'b'); alter table T alter m type new_T using 'b'; drop type mood_T; alter type new_T rename to mood_T"],
    ),
    Case {
        what: "a column that only the filter uses, dropped and made anew",
        made: "create table T (id int primary key, v int, deleted bool not null default true); insert into T values (1, 10), (2, 20)",
        columns: r#""v": "INTEGER""#,
        filter: "not deleted",
        done: &["alter table T drop column deleted", "alter table T add column deleted bool not null default false"],
    },
    Case {
        what: "columns that only the filter uses, which swap their names",
        made: "create table T (id int primary key, v int, a bool, b bool); insert into T values (1, 10, true, false), (2, 20, false, true)",
        columns: r#""v": "INTEGER""#,
        filter: "a",
        done: &["alter table T rename a to c", "alter table T rename b to a", "alter table T rename c to b"],
    },
    case(
        "a trigger's function replaced and put back",
        PLAIN,
        VALUES,
        &[r#"do $$ declare was text := pg_get_functiondef('pgflume."replicate_data_libsql.public.T.insert"'::regproc); begin
             create or replace function pgflume."replicate_data_libsql.public.T.insert"() returns trigger language plpgsql as 'begin return null; end';
             insert into T values (3, 30, 'c');
             execute was; end $$"#],
    ),
    case(
        "a row trigger's function replaced and put back",
        BY_DAY,
        DAY,
        &[r#"do $$ declare was text := pg_get_functiondef('pgflume."replicate_data_libsql.public.T.row"'::regproc); begin
             create or replace function pgflume."replicate_data_libsql.public.T.row"() returns trigger language plpgsql as 'begin return null; end';
             insert into T values (3, '2024-02-06');
             execute was; end $$"#],
    ),
    case(
        "a new partition whose row trigger was off for a time",
        BY_DAY,
        DAY,
        &[
            "create table T_3 partition of T for values from ('2024-03-01') to ('2024-04-01')",
            "alter table T_3 disable trigger user",
            "insert into T values (3, '2024-03-01')",
            "alter table T_3 enable always trigger pgflume_replicate_data_libsql_row",
        ],
    ),
    case(
        "the same in the transaction that makes it",
        BY_DAY,
        DAY,
        &["create table T_3 partition of T for values from ('2024-03-01') to ('2024-04-01'); alter table T_3 disable trigger user; insert into T values (3, '2024-03-01'); alter table T_3 enable always trigger pgflume_replicate_data_libsql_row"],
    ),
    case(
        "a partition attached with rows as it was made, each of its columns altered later",
        BY_DAY,
        DAY,
        &[
            "create table T_3 (like T); insert into T_3 values (3, '2024-03-01'); alter table T attach partition T_3 for values from ('2024-03-01') to ('2024-04-01')",
            "alter table T_3 alter id set statistics 50, alter day set statistics 50",
        ],
    ),
    Case {
        what: "a text search configuration of a filter altered",
        made: "create text search configuration cfg_T (copy = simple); create table T (id int primary key, v text); insert into T values (1, 'running'), (2, 'x')",
        columns: r#""v": "TEXT""#,
        filter: "to_tsvector('public.cfg_T'::regconfig, v) @@ 'run'::tsquery",
        done: &["alter text search configuration cfg_T alter mapping for asciiword with english_stem"],
    },
    Case {
        what: "a collation of a filter made anew",
        made: "create collation c_T (provider = icu, locale = 'und'); create table T (id int primary key, v text); insert into T values (1, 'a'), (2, 'A')",
        columns: r#""v": "TEXT""#,
        filter: "v = 'a' collate public.c_T",
        done: &["drop collation c_T", "create collation c_T (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"],
    },
    Case {
        what: "a better fitting operator than a filter's",
        made: "create function same_T(a text, b text) returns bool immutable language sql as 'select a = b'; create operator public.=== (leftarg = text, rightarg = text, function = same_T);
               create table T (id int primary key, v varchar); insert into T values (1, 'a'), (2, 'b')",
        columns: r#""v": "TEXT""#,
        filter: "v operator(public.===) 'a'::varchar",
        done: &["create function other_T(a varchar, b varchar) returns bool immutable language sql as 'select a <> b'; create operator public.=== (leftarg = varchar, rightarg = varchar, function = other_T)"],
    },
    Case {
        what: "a function replaced that the text of a filter's function names",
        made: "create function inner_T(v int) returns bool immutable language plpgsql as 'begin return v > 15; end';
               create function middle_T(v int) returns bool immutable language sql as 'select public.inner_T(v)';
               create function wants_T(v int) returns bool immutable language plpgsql as 'begin return public.middle_T(v); end';
               create table T (id int primary key, v int); insert into T values (1, 10), (2, 20)",
        columns: r#""v": "INTEGER""#,
        filter: "public.wants_T(v)",
        done: &["create or replace function inner_T(v int) returns bool immutable language plpgsql as 'begin return v < 15; end'"],
    },
];

fn queue() -> QueueName {
    QueueName::parse(DEFAULT_QUEUE).unwrap()
}

async fn set_up(db: &Db, json: &str) {
    capture::setup(&PgUrl::parse(&db.url()).unwrap(), &schema(json), &queue(), &SetupOptions::default()).await.unwrap();
}

/// Everything in the replica, and a drain that has nothing more to do.
async fn rig(db: Db, cases: &[Case]) -> Rig {
    let mut json = String::from("{");
    for (number, case) in cases.iter().enumerate() {
        let name = format!("t{number}");
        db.sql(&case.made.replace('T', &name)).await;
        let key = if case.columns == DAY { r#"["id", "day"]"# } else { r#""id""# };
        let id = if case.what.contains("key's label") { "TEXT" } else { "INTEGER" };
        let filter = match case.filter {
            "" => String::new(),
            filter => format!(r#", "where": "{}""#, filter.replace('T', &name)),
        };
        let comma = if number > 0 { "," } else { "" };
        write!(
            json,
            r#"{comma}"{name}": {{"primaryKey": {key}, "columns": {{"id": "{id}", {}}}{filter}}}"#,
            case.columns
        )
        .unwrap();
    }
    json.push('}');
    set_up(&db, &json).await;
    let rig = Rig::with(db, Home::new(Path::File), schema(&json));
    rig.drain().await;
    rig.drain().await;
    rig
}

/// Does what is done, as far as a drain, and goes on behind it.
async fn act(rig: &Rig, cases: &[Case]) {
    let mut open: Vec<(String, &[&str])> =
        cases.iter().enumerate().map(|(number, case)| (format!("t{number}"), case.done)).collect();
    while open.iter().any(|(_, done)| !done.is_empty()) {
        for (name, done) in &mut open {
            while let Some((first, rest)) = done.split_first() {
                *done = rest;
                match *first {
                    "DRAIN" => break,
                    sql => rig.db.sql(&sql.replace('T', name)).await,
                }
            }
        }
        drain_as_cron(rig).await;
    }
}

/// Another process each time, and one that follows would not know less.
async fn drain_as_cron(rig: &Rig) {
    let drained = rig.second_worker().drain(std::time::Duration::from_secs(25)).await.unwrap();
    assert_eq!(drained.queued, 0, "{drained:?}");
}

/// What both sides have, a line a table.
async fn compare(rig: &Rig, cases: &[Case]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let name = format!("t{number}");
        let table = rig.worker.schema().get(&name).unwrap();
        let columns: Vec<_> = table.columns.iter().map(|c| c.name.clone()).collect();
        let list = columns.join(", ");
        let there = rig.rows(&format!("SELECT {list} FROM {name} ORDER BY id")).await;
        let json = case.columns.contains("JSON");
        let text = |c: &String| if json && c == "m" { format!("to_jsonb({c})::text") } else { format!("{c}::text") };
        let texts: Vec<_> = columns.iter().map(|c| format!("coalesce({}, 'NULL')", text(c))).collect();
        let filter = if case.filter.is_empty() { "true".into() } else { case.filter.replace('T', &name) };
        let wanted = rig
            .db
            .all(&format!("select concat_ws('|', {}) from {name} where {filter} order by id", texts.join(", ")))
            .await;
        if there != wanted {
            wrong.push(format!("{}: {there:?} in place of {wanted:?}", case.what));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_mark_tells_of_is_noticed_by_the_next_drain() {
    let rig = rig(Db::new().await, &CASES).await;
    assert!(compare(&rig, &CASES).await.is_empty());
    act(&rig, &CASES).await;
    let wrong = compare(&rig, &CASES).await;
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), CASES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_with_another_expression_is_noticed() {
    let db = Db::on(newest_cluster(), "with_pgmq").await;
    let cases = [
        case("stored", "create table T (id int primary key, v int, w int generated always as (v * 2) stored); insert into T (id, v) values (1, 10)",
            r#""v": "INTEGER", "w": "INTEGER""#, &["alter table T alter w set expression as (v * 3)"]),
        case("virtual", "create table T (id int primary key, v int, w int generated always as (v * 2) virtual); insert into T (id, v) values (1, 10)",
            r#""v": "INTEGER", "w": "INTEGER""#, &["alter table T alter w set expression as (v * 3)"]),
        case("of a partitioned table", "create table T (id int primary key, v int, w int generated always as (v * 2) stored) partition by hash (id);
            create table T_1 partition of T for values with (modulus 1, remainder 0); insert into T (id, v) values (1, 10)",
            r#""v": "INTEGER", "w": "INTEGER""#, &["alter table T alter w set expression as (v * 3)"]),
        Case { what: "of the filter", made: "create table T (id int primary key, v int, w int generated always as (v * 2) virtual); insert into T (id, v) values (1, 10), (2, 30)",
            columns: r#""v": "INTEGER""#, filter: "w > 30", done: &["alter table T alter w set expression as (60 - v)"] },
    ];
    let rig = rig(db, &cases).await;
    act(&rig, &cases).await;
    assert_eq!(compare(&rig, &cases).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_rows_and_capture_as_they_are_has_nothing_copied() {
    let cases = [
        case(
            "statistics and order",
            PLAIN,
            VALUES,
            &["analyze T", "vacuum T", "vacuum full T", "vacuum freeze T", "cluster T using T_pkey"],
        ),
        case(
            "what new rows get",
            PLAIN,
            VALUES,
            &[
                "alter table T alter v set statistics 50, alter v set default 7, alter w set not null",
                "alter table T add check (v > -1)",
                "create index on T (w)",
            ],
        ),
        case(
            "columns that are not replicated",
            PLAIN,
            VALUES,
            &[
                "alter table T add x int default 5",
                "alter table T alter x type bigint using x * 2",
                "alter table T drop x",
            ],
        ),
        case(
            "rights and remarks",
            PLAIN,
            VALUES,
            &["grant select on T to public", "comment on table T is 'x'", "alter table T replica identity full"],
        ),
        case(
            "a label more",
            "create type mood_T as enum ('a', 'b'); create table T (id int primary key, m mood_T); insert into T values (1, 'a')",
            r#""m": "TEXT""#,
            &["alter type mood_T add value 'c' before 'b'"],
        ),
        case(
            "a domain's constraint",
            "create domain d_T as text; create table T (id int primary key, m d_T); insert into T values (1, 'a')",
            r#""m": "TEXT""#,
            &["alter domain d_T add constraint c check (value <> 'x')", "alter domain d_T set default 'q'"],
        ),
        case(
            "a partition more",
            BY_DAY,
            DAY,
            &[
                "create table T_3 partition of T for values from ('2024-03-01') to ('2024-04-01'); insert into T values (3, '2024-03-02')",
                "create table T_4 (like T); alter table T attach partition T_4 for values from ('2024-04-01') to ('2024-05-01')",
                "vacuum full T_1",
                "alter table T_3 alter id set statistics 50",
                "DRAIN",
                "insert into T values (4, '2024-04-01')",
            ],
        ),
        case("a truncate with its mark", BY_DAY, DAY, &["truncate T_1"]),
    ];
    let rig = rig(Db::new().await, &cases).await;
    let asked = "select string_agg(name || ' ' || reason, ', ' order by name) from pgflume.resyncs where phase <> 'done' or reason <> 'setup'";
    assert_eq!(rig.db.one(asked).await, "NULL");
    act(&rig, &cases).await;
    assert_eq!(compare(&rig, &cases).await, Vec::<String>::new());
    let copied = rig.db.one(asked).await;
    // The mark of a truncated leaf asks for a sweep by itself.
    assert_eq!(copied, "t7 truncate");
    // So does setup, once more and when it writes other functions.
    let json = serde_json::json!({"t1": {"primaryKey": "id", "columns": {"id": "INTEGER", "w": "TEXT"}}}).to_string();
    let before = rig.db.one("select requested_at from pgflume.resyncs where name = 't1'").await;
    set_up(&rig.db, &json).await;
    let narrow = Rig::with(rig.db, rig.home, schema(&json));
    drain_as_cron(&narrow).await;
    assert_eq!(narrow.db.one("select requested_at from pgflume.resyncs where name = 't1'").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_swallowed_marks_at_the_queue_is_noticed_when_it_is_gone_again() {
    const Q: &str = "pgmq.q_replicate_data_libsql";
    for (done, undone) in [
        (format!("create rule swallow as on insert to {Q} do instead nothing"), format!("drop rule swallow on {Q}")),
        (
            format!(
                "create function swallow() returns trigger language plpgsql as 'begin return null; end'; create trigger swallow before insert on {Q} for each row execute function swallow()"
            ),
            format!("drop trigger swallow on {Q}"),
        ),
        (
            format!("alter table {Q} disable trigger user; update t0 set v = 99; delete from {Q}"),
            format!("alter table {Q} enable trigger user"),
        ),
    ] {
        let cases = [case("plain", PLAIN, VALUES, &[])];
        let rig = rig(Db::new().await, &cases).await;
        rig.db.sql(&done).await;
        match rig.second_worker().drain(std::time::Duration::from_secs(25)).await {
            Ok(drained) => assert_eq!(drained.queued, 0, "{done}"),
            Err(refused) => assert!(refused.to_string().contains("rule swallow"), "{done}: {refused}"),
        }
        rig.db.sql("update t0 set v = 77").await;
        rig.db.sql(&undone).await;
        drain_as_cron(&rig).await;
        assert_eq!(compare(&rig, &cases).await, Vec::<String>::new(), "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_that_emptied_tables_while_they_were_unlogged_is_noticed() {
    let cluster = tokio::task::spawn_blocking(|| Box::leak(Box::new(start_cluster(None)))).await.unwrap();
    let cases = [
        case("a table", PLAIN, VALUES, &[]),
        case("a partition", BY_DAY, DAY, &[]),
        case("one that was only restarted", PLAIN, VALUES, &[]),
    ];
    let mut rig = rig(Db::on(cluster, "with_pgmq").await, &cases).await;
    rig.db.sql("alter table t0 set unlogged; alter table t1_1 set unlogged").await;
    cluster.stop(Stop::Immediate).unwrap();
    cluster.start_again().unwrap();
    rig.db = Db::existing(&rig.db.name, cluster).await;
    assert_eq!(rig.db.one("select count(*) from t0").await, "0", "the crash has emptied it");
    rig.db.sql("insert into t0 values (3, 30, 'c'); alter table t0 set logged; alter table t1_1 set logged").await;
    drain_as_cron(&rig).await;
    assert_eq!(compare(&rig, &cases).await, Vec::<String>::new());
    assert_eq!(rig.db.one("select reason from pgflume.resyncs where name = 't2'").await, "setup");
}

/// The guards of the queue tell, or that they were others for a time.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_marks_off_the_queue_or_rewrites_them_is_noticed() {
    const Q: &str = "pgmq.q_replicate_data_libsql";
    for done in [
        format!("set session_replication_role = replica; delete from {Q}; reset session_replication_role"),
        format!("set session_replication_role = replica; truncate {Q}; reset session_replication_role"),
        format!("set pgflume.step = on; delete from {Q}; reset pgflume.step"),
        format!("update {Q} set message = jsonb_set(message, '{{keys}}', '[]')"),
        format!(
            "set session_replication_role = replica; update {Q} set message = jsonb_set(message, '{{keys}}', '[]'); reset session_replication_role"
        ),
        format!(
            "do $$ declare was text := pg_get_functiondef('pgflume.note_loss'::regproc); begin
            create or replace function pgflume.note_loss() returns trigger language plpgsql as 'begin return null; end';
            delete from {Q}; execute was; end $$"
        ),
    ] {
        let cases = [case("plain", PLAIN, VALUES, &[])];
        let rig = rig(Db::new().await, &cases).await;
        rig.db.sql("update t0 set v = 99").await;
        rig.db.sql(&done).await;
        drain_as_cron(&rig).await;
        assert_eq!(compare(&rig, &cases).await, Vec::<String>::new(), "{done}");
    }
}

/// PGMQ's own reading takes nothing and rewrites nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_the_queue_by_pgmq_is_no_loss() {
    let cases = [case("plain", PLAIN, VALUES, &[])];
    let rig = rig(Db::new().await, &cases).await;
    rig.db.sql("update t0 set v = 99; select pgmq.read('replicate_data_libsql', 0, 10)").await;
    rig.db.sql("select pgmq.set_vt('replicate_data_libsql', msg_id, 0) from pgmq.q_replicate_data_libsql").await;
    assert_eq!(rig.db.one("select count(*) from pgflume.losses").await, "0");
    drain_as_cron(&rig).await;
    assert_eq!(compare(&rig, &cases).await, Vec::<String>::new());
    assert_eq!(rig.db.one("select reason from pgflume.resyncs").await, "setup");
}

/// The worker looks while it is so, and again when setup has fixed it: what came in between has no mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_was_tampered_with_is_drift_and_setup_has_the_table_copied() {
    const UPDATE: &str = "pgflume.\"replicate_data_libsql.public.t0.update\"";
    const TRIGGER: &str = "pgflume_replicate_data_libsql_update";
    let cases = [case("plain", PLAIN, VALUES, &[]), case("swapped", PLAIN, VALUES, &[])];
    for done in [
        format!("create or replace function {UPDATE}() returns trigger language plpgsql as 'begin return null; end'"),
        format!(
            "create or replace trigger {TRIGGER} after update on t0 for each statement when (false) execute function {UPDATE}()"
        ),
        format!(
            "create or replace trigger {TRIGGER} after update of w on t0 for each statement execute function {UPDATE}(); alter table t0 enable always trigger {TRIGGER}"
        ),
        format!(
            "create or replace trigger {TRIGGER} after delete on t0 for each statement execute function {UPDATE}(); alter table t0 enable always trigger {TRIGGER}"
        ),
        format!("alter table t0 disable trigger {TRIGGER}"),
        format!("drop trigger {TRIGGER} on t0"),
        "alter table t0 rename to tx; alter table t1 rename to t0; alter table tx rename to t1".into(),
    ] {
        let rig = rig(Db::new().await, &cases).await;
        rig.db.sql(&done).await;
        drain_as_cron(&rig).await;
        let drift = status::status(&rig.worker).await.unwrap().drift;
        assert!(drift.iter().any(|d| d.table == "t0" && d.kind == DriftKind::CaptureMissing), "{done}: {drift:?}");
        rig.db.sql("update t0 set v = 44").await;
        let queue = queue();
        let (url, definition) = (PgUrl::parse(&rig.db.url()).unwrap(), rig.worker.schema());
        capture::setup(&url, definition, &queue, &SetupOptions::default()).await.unwrap();
        drain_as_cron(&rig).await;
        assert_eq!(compare(&rig, &cases).await, Vec::<String>::new(), "{done}");
        assert_eq!(status::status(&rig.worker).await.unwrap().drift, [], "{done}");
    }
}

/// What setup writes down and what is read later is written alike, whatever the database makes of names.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_quotes_all_names_drifts_from_nothing() {
    let made = "create table T (id int primary key, at point, w text); insert into T values (1, '(1,2)', 'a')";
    let rig = rig(Db::new().await, &[case("point", made, r#""at": "TEXT", "w": "TEXT""#, &[])]).await;
    let asked = "select reason from pgflume.resyncs";
    for value in ["on", "off"] {
        rig.db.sql(&format!("alter database {} set quote_all_identifiers = {value}", rig.db.name)).await;
        drain_as_cron(&rig).await;
        assert_eq!(status::status(&rig.second_worker()).await.unwrap().drift, [], "{value}");
        assert_eq!(rig.db.one(asked).await, "setup", "nothing is copied again");
        let json =
            serde_json::json!({"t0": {"primaryKey": "id", "columns": {"id": "INTEGER", "at": "TEXT", "w": "TEXT"}}});
        set_up(&rig.db, &json.to_string()).await;
    }
    assert_eq!(status::status(&rig.second_worker()).await.unwrap().drift, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_rows_can_change_unseen_is_drift_that_says_what_to_do() {
    const CHILD: &str = "create table above (id int not null, v int, w text); alter table t0 inherit above";
    for (done, kind, problem, remedy) in [
        ("alter table t0 set unlogged", DriftKind::SourceUnsafe, "unlogged", "set logged"),
        ("create table c () inherits (t0)", DriftKind::SourceUnsafe, "inheritance children", "no inherit"),
        (CHILD, DriftKind::SourceUnsafe, "through the table above it", "pgflume setup"),
        (
            "alter table t0 rename to was; create view t0 as select * from was",
            DriftKind::SourceUnsafe,
            "no table any more",
            "set \"source\"",
        ),
        (
            "create or replace function pgflume.\"replicate_data_libsql.public.t0.update\"() returns trigger language plpgsql as 'begin return null; end'",
            DriftKind::CaptureMissing,
            "runs another function",
            "pgflume setup",
        ),
        (
            "alter function pgflume.\"replicate_data_libsql.public.t0.update\"() owner to postgres",
            DriftKind::CaptureMissing,
            "runs another function",
            "pgflume setup",
        ),
    ] {
        let rig = rig(Db::new().await, &[case("plain", PLAIN, VALUES, &[])]).await;
        assert_eq!(status::status(&rig.worker).await.unwrap().drift, []);
        rig.db.sql(done).await;
        let drift = status::status(&rig.worker).await.unwrap().drift;
        let found = drift.iter().find(|d| d.kind == kind && d.problem.contains(problem) && d.remedy.contains(remedy));
        assert!(found.is_some(), "{done}: {drift:?}");
        assert!(status::unready(&rig.worker).await.contains_key("schema"), "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cast_that_somebody_makes_later_is_run_by_nobody() {
    let made = "create type mood_T as enum ('a', 'b'); create table T (id mood_T primary key, v int); insert into T values ('a', 1)";
    let cases =
        [case("a key's label, not renamed", made, r#""v": "INTEGER""#, &[]), case("another", PLAIN, VALUES, &[])];
    let mut cases = cases;
    cases[0].what = "a key's label";
    let rig = rig(Db::new().await, &cases).await;
    rig.db
        .sql(
            "create table called (by text); grant insert on called to public;
             create function spell(mood_t0) returns text language plpgsql as $$ begin insert into public.called values (current_user); return 'x'; end $$;
             create cast (mood_t0 as text) with function spell(mood_t0)",
        )
        .await;
    rig.db.sql("insert into t0 values ('b', 2); update t1 set v = 5").await;
    let done = rig.second_worker().drain(std::time::Duration::from_secs(25)).await.unwrap();
    assert!(done.paused.contains("t0") && done.queued == 1, "{done:?}");
    assert_eq!(rig.rows("SELECT v FROM t1 ORDER BY id").await, ["5", "5"], "the others go on");
    assert_eq!(rig.db.one("select count(*) from called").await, "0");
    let reasons = status::unready(&rig.worker).await;
    assert!(reasons["schema"].contains("drop cast (public.mood_t0 as text)"), "{reasons:?}");
    rig.db.sql("drop cast (mood_t0 as text)").await;
    drain_as_cron(&rig).await;
    assert_eq!(rig.rows("SELECT id, v FROM t0 ORDER BY id").await, ["a|1", "b|2"]);
    assert_eq!(rig.db.one("select count(*) from called").await, "0");
}
