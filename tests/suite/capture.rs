//! What a write puts on the queue: every test makes tables, sets up, writes, and looks at the marks.

use crate::support::{Db, schema};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};

/// A database with these tables, captured.
async fn captured(tables: &str, json: &str) -> Db {
    let db = Db::new().await;
    db.sql(tables).await;
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    setup(&PgUrl::parse(&db.url()).unwrap(), &schema(json), &queue, &SetupOptions::default()).await.unwrap();
    db
}

/// The messages since the last look, in order, without their version.
async fn marks(db: &Db) -> Vec<String> {
    let sql = "with gone as (delete from pgmq.q_replicate_data_libsql returning msg_id, message)
               select (message->>'table') || ' ' || coalesce(message->>'keys', 'truncate') from gone
               where message->>'v' = '1' order by msg_id";
    let rows = db.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The keys of all messages since the last look, sorted, as `["1"]`.
async fn keys(db: &Db) -> Vec<String> {
    let sql = "with gone as (delete from pgmq.q_replicate_data_libsql returning message)
               select k::text from gone, jsonb_array_elements(message->'keys') k order by k::text collate \"C\"";
    db.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

const ITEMS: &str = r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_write_marks_its_keys() {
    let db = captured("create table items (id int primary key, name text)", ITEMS).await;
    db.sql("insert into items values (1, 'a'), (2, 'b')").await;
    assert_eq!(marks(&db).await, [r#"items [["1"], ["2"]]"#]);
    db.sql("update items set name = 'c' where id = 2").await;
    assert_eq!(marks(&db).await, [r#"items [["2"]]"#]);
    db.sql("delete from items where id = 1").await;
    assert_eq!(marks(&db).await, [r#"items [["1"]]"#]);
    db.sql("truncate items").await;
    assert_eq!(marks(&db).await, ["items truncate"]);
    db.sql("insert into items values (3, 'a') on conflict (id) do update set name = 'b'").await;
    db.sql("insert into items values (3, 'a') on conflict (id) do update set name = 'b2'").await;
    db.sql(
        "merge into items i using (values (3), (4)) v(id) on i.id = v.id
            when matched then delete when not matched then insert values (v.id, 'm')",
    )
    .await;
    let mut found = marks(&db).await;
    found.sort();
    assert_eq!(found, [r#"items [["3"]]"#, r#"items [["3"]]"#, r#"items [["3"]]"#, r#"items [["4"]]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_touches_no_row_or_is_rolled_back_marks_nothing() {
    let db = captured("create table items (id int primary key, name text)", ITEMS).await;
    db.sql("insert into items select 1, 'a' where false").await;
    db.sql("update items set name = 'x'; delete from items").await;
    db.sql("begin; insert into items values (1, 'a'); rollback").await;
    assert!(marks(&db).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_marked_as_it_was_and_as_it_is() {
    let json = r#"{"pairs": {"primaryKey": ["b", "a"], "columns": {"a": "TEXT", "b": "INTEGER", "v": "TEXT"}}}"#;
    let db = captured("create table pairs (a text, b int, v text, primary key (a, b) deferrable)", json).await;
    db.sql("insert into pairs values ('x', 1, 'one'), ('y', 2, 'two')").await;
    assert_eq!(marks(&db).await, [r#"pairs [["1", "x"], ["2", "y"]]"#], "in the order of schema.json");
    db.sql("update pairs set a = 'z' where b = 1").await;
    assert_eq!(keys(&db).await, [r#"["1", "x"]"#, r#"["1", "z"]"#]);
    db.sql("update pairs set b = 5").await;
    assert_eq!(keys(&db).await, [r#"["1", "z"]"#, r#"["2", "y"]"#, r#"["5", "y"]"#, r#"["5", "z"]"#]);
    db.sql("update pairs set a = case a when 'y' then 'z' else 'y' end").await;
    assert_eq!(keys(&db).await, [r#"["5", "y"]"#, r#"["5", "z"]"#], "a swap marks both");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_update_of_what_is_replicated_or_filtered_by_marks() {
    let json = r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}, "where": "kind = 1"}}"#;
    let db = captured("create table items (id int primary key, name text, kind int, note text)", json).await;
    db.sql("insert into items values (1, 'a', 1, 'n')").await;
    marks(&db).await;
    db.sql("update items set note = 'other'; update items set name = name, kind = kind").await;
    assert!(marks(&db).await.is_empty());
    db.sql("update items set kind = 2").await;
    assert_eq!(marks(&db).await, [r#"items [["1"]]"#]);
    db.sql("update items set name = null; update items set name = null; update items set name = ''").await;
    assert_eq!(marks(&db).await.len(), 2, "null is a value like any other");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_value_in_other_digits_is_a_change() {
    let json = r#"{"v": {"primaryKey": "id", "columns":
        {"id": "INTEGER", "n": "DECIMAL", "f": "REAL", "i": "TEXT", "j": "JSON", "b": "JSON", "l": "JSON"}}}"#;
    let db = captured(
        "create table v (id int primary key, n numeric, f float8, i interval, j json, b jsonb, l numeric[])",
        json,
    )
    .await;
    db.sql(r#"insert into v values (1, 1.1, 0, '1 day', '{"a":1}', '1.0', '{1.0}')"#).await;
    marks(&db).await;
    for change in ["n = 1.10", "f = '-0'", "i = '24:00:00'", r#"j = '{"a": 1}'"#, "b = '1.00'", "l = '{1.00}'"] {
        db.sql(&format!("update v set {change}")).await;
        assert_eq!(marks(&db).await, [r#"v [["1"]]"#], "{change}");
        db.sql(&format!("update v set {change}")).await;
        assert!(marks(&db).await.is_empty(), "{change} again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writers_settings_change_nothing() {
    let columns = r#""id": "TEXT", "d": "TEXT", "f": "REAL", "b": "BLOB", "i": "TEXT", "m": "TEXT""#;
    let json = format!(r#"{{"k": {{"primaryKey": ["id", "d", "f", "b", "i", "m"], "columns": {{{columns}}}}}}}"#);
    let table = "create table k (id timestamptz, d date, f float8, b bytea, i interval, m money, primary key (id, d, f, b, i, m))";
    let db = captured(table, &json).await;
    let insert = r"insert into public.k values ('2024-02-29 12:00:00+00', '2024-02-29', 0.1::float8 + 0.2, '\x00ff', '1 day 02:03', 1)";
    db.sql(insert).await;
    let expected =
        [r#"["2024-02-29 12:00:00+00", "2024-02-29", "0.30000000000000004", "\\x00ff", "1 day 02:03:00", "$1.00"]"#];
    assert_eq!(keys(&db).await, expected);
    db.sql(
        "set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set extra_float_digits = -10;
            set bytea_output = 'escape'; set intervalstyle = 'sql_standard'; set search_path = '';
            set standard_conforming_strings = off; set quote_all_identifiers = on",
    )
    .await;
    db.sql("delete from public.k").await;
    assert_eq!(keys(&db).await, expected);
    db.sql(&insert.replace(r"\x", r"\\x")).await;
    assert_eq!(keys(&db).await, expected);
    db.sql("update public.k set f = 0.3::float8").await;
    assert_eq!(keys(&db).await.len(), 2, "a last bit that the writer's settings would not show");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_on_the_queue_may_write() {
    let db = captured(
        "create table items (id int primary key, name text); grant insert, update, delete, select on items to public",
        ITEMS,
    )
    .await;
    let role = format!("writer_{}", db.name);
    db.sql(&format!("create role {role}; set role {role}")).await;
    db.sql("insert into items values (1, 'a'); update items set name = 'b'; delete from items").await;
    assert!(db.client.batch_execute("select * from pgmq.q_replicate_data_libsql").await.is_err());
    assert!(db.client.batch_execute("select pgflume.get_libsql_webhook_signature()").await.is_err());
    db.sql("reset role").await;
    assert_eq!(marks(&db).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_cut_into_messages_of_500() {
    let db = captured("create table items (id int primary key, name text)", ITEMS).await;
    for write in [
        "insert into items select g, 'n' from generate_series(1, 3000) g",
        "update items set name = 'm'",
        "delete from items",
    ] {
        db.sql(write).await;
        let sizes = db.all("select jsonb_array_length(message->'keys') from pgmq.q_replicate_data_libsql").await;
        assert_eq!(sizes, ["500"; 6], "{write}");
        let distinct = db
            .one("select count(distinct k) from pgmq.q_replicate_data_libsql, jsonb_array_elements(message->'keys') k")
            .await;
        assert_eq!(distinct, "3000", "{write}");
        marks(&db).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_keys_are_cut_by_their_bytes() {
    let json = r#"{"docs": {"primaryKey": "path", "columns": {"path": "TEXT"}}}"#;
    let db = captured("create table docs (path text primary key)", json).await;
    db.sql("insert into docs select g || repeat('x', 2000) from generate_series(1, 1000) g").await;
    let sizes = "select max(octet_length(message::text)), min(jsonb_array_length(message->'keys')), count(*) from pgmq.q_replicate_data_libsql";
    let row = db.client.query_one(sizes, &[]).await.unwrap();
    assert!(row.get::<_, i32>(0) < 40_000 && row.get::<_, i64>(2) > 50, "{row:?}");
    assert_eq!(keys(&db).await.len(), 1000);
    db.sql("insert into docs select g::text from generate_series(1, 3000) g").await;
    let most = db.one("select max(jsonb_array_length(message->'keys')) from pgmq.q_replicate_data_libsql").await;
    assert!(most.parse::<i32>().unwrap() <= 500, "{most}");
    assert_eq!(keys(&db).await.len(), 3000);
    db.sql("insert into docs values (repeat('long', 50000))").await;
    assert_eq!(keys(&db).await[0].len(), 200_004, "one huge key is a message of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_captured_wherever_they_are_written() {
    let json = r#"{"events": {"primaryKey": ["id", "r"], "columns": {"id": "INTEGER", "r": "INTEGER", "v": "TEXT"}}}"#;
    let tables = "create table events (id int, r int, v text, note text, primary key (id, r)) partition by list (r);
                  create table events_1 partition of events for values in (1);
                  create table events_2 partition of events for values in (2) partition by range (id);
                  create table events_2a partition of events_2 for values from (0) to (1000)";
    let db = captured(tables, json).await;
    db.sql("insert into events_1 values (1, 1, 'a'); insert into events values (2, 2, 'b')").await;
    assert_eq!(marks(&db).await, [r#"events [["1", "1"]]"#, r#"events [["2", "2"]]"#]);
    db.sql("update events set r = 1 where id = 2").await;
    assert_eq!(keys(&db).await, [r#"["2", "1"]"#, r#"["2", "2"]"#], "a row that moves is a delete and an insert");
    db.sql("update events set note = 'x'; update events_1 set v = v").await;
    assert!(marks(&db).await.is_empty());
    db.sql("update events set v = 'c' where id = 2; update events_1 set id = 7 where id = 2; delete from events where id = 1").await;
    assert_eq!(
        marks(&db).await,
        [r#"events [["2", "1"]]"#, r#"events [["2", "1"], ["7", "1"]]"#, r#"events [["1", "1"]]"#]
    );
    db.sql("truncate events_2a").await;
    assert_eq!(marks(&db).await, ["events truncate"]);
    db.sql("truncate events").await;
    assert!(marks(&db).await.iter().all(|m| m == "events truncate"));

    db.sql("create table events_3 partition of events for values in (3); set session_replication_role = replica").await;
    db.sql("insert into events_3 values (3, 3, 'new'); insert into events_2a values (4, 2, 'old')").await;
    assert_eq!(marks(&db).await.len(), 2, "a later partition is captured too, whatever the session's replication role");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_partitioned_table_may_still_add_partitions() {
    let json = r#"{"events": {"primaryKey": "id", "columns": {"id": "INTEGER"}}}"#;
    let db = Db::new().await;
    let role = format!("owner_{}", db.name);
    db.sql(&format!(
        "create role {role}; grant create on schema public to {role}; set role {role};
                     create table events (id int primary key) partition by range (id); reset role"
    ))
    .await;
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    setup(&PgUrl::parse(&db.url()).unwrap(), &schema(json), &queue, &SetupOptions::default()).await.unwrap();
    db.sql(&format!("set role {role}; create table events_1 partition of events for values from (0) to (10); insert into events values (1); reset role")).await;
    assert_eq!(marks(&db).await, [r#"events [["1"]]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cascades_mark_every_level() {
    let json = r#"{"a": {"primaryKey": "id", "columns": {"id": "INTEGER"}},
                   "b": {"primaryKey": "id", "columns": {"id": "INTEGER", "a": "INTEGER"}},
                   "c": {"primaryKey": "id", "columns": {"id": "INTEGER", "b": "INTEGER"}}}"#;
    let tables = "create table a (id int primary key);
                  create table b (id int primary key, a int references a on delete cascade on update cascade);
                  create table c (id int primary key, b int references b on delete set null)";
    let db = captured(tables, json).await;
    db.sql("insert into a values (1); insert into b values (10, 1), (11, 1); insert into c values (100, 10)").await;
    marks(&db).await;
    db.sql("update a set id = 2").await;
    let mut found = marks(&db).await;
    found.sort();
    assert_eq!(found, [r#"a [["1"], ["2"]]"#, r#"b [["10"], ["11"]]"#]);
    db.sql("delete from a").await;
    let mut found = marks(&db).await;
    found.sort();
    assert_eq!(found[0], r#"a [["2"]]"#);
    assert!(found.contains(&r#"c [["100"]]"#.to_owned()), "{found:?}");
    assert_eq!(found.iter().filter(|m| m.starts_with('b')).count(), 1, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_content_makes_a_write_fail() {
    let json = r#"{"docs": {"primaryKey": "id", "columns": {"id": "INTEGER", "j": "JSON", "t": "TEXT", "b": "BLOB"}}}"#;
    let db = captured("create table docs (id int primary key, j json, t text, b bytea)", json).await;
    db.sql(r#"insert into docs values (1, '{"a": "\u0000"}', 't', '\x00')"#).await;
    db.sql(r#"update docs set j = '{"a": "\u0000b"}'"#).await;
    db.sql("update docs set b = convert_to(repeat('x', 50000000), 'UTF8')").await;
    assert_eq!(marks(&db).await.len(), 3);
    db.sql("update docs set t = repeat(md5('x'), 10000); update docs set t = t || 'old'").await;
    assert_eq!(marks(&db).await.len(), 2);
    db.sql("update docs set t = 'old', b = null; update docs set t = 'old'").await;
    assert_eq!(marks(&db).await.len(), 1, "a long value that becomes a short one is a change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_schema_cannot_hijack_the_trigger() {
    let db = captured("create table items (id int primary key, name text); grant all on items to public", ITEMS).await;
    let role = format!("mallory_{}", db.name);
    db.sql(&format!("create role {role}; set role {role}")).await;
    db.sql("create domain pg_temp.text as pg_catalog.text check (false); create domain pg_temp.jsonb as pg_catalog.jsonb check (false);
            create domain pg_temp.int4 as pg_catalog.int4 check (false);
            create temporary table new_rows (id int, name varchar); create temporary table old_rows (id int, name varchar);
            create function pg_temp.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz';
            create function pg_temp.row_number() returns pg_catalog.int8 language sql as 'select 1/0::pg_catalog.int8';
            set search_path = pg_temp").await;
    db.sql("insert into public.items values (1, 'a'); update public.items set name = 'b'; delete from public.items; reset role; reset search_path").await;
    assert_eq!(marks(&db).await, [r#"items [["1"]]"#, r#"items [["1"]]"#, r#"items [["1"]]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_a_replication_session_are_captured() {
    let db = captured("create table items (id int primary key, name text)", ITEMS).await;
    db.sql("set session_replication_role = replica; insert into items values (1, 'a'); update items set name = 'b'; delete from items; truncate items").await;
    assert_eq!(marks(&db).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_may_hold_anything() {
    let tables =
        r#"create table "o'x; drop table y; -- $body$ \' {{queue}}" ("k""1; --" text primary key, "$1 \ '" int)"#;
    let json = r#"{"o'x; \\' {{part}} $body$": {"primaryKey": "k\"1; --", "columns": {"k\"1; --": "TEXT", "$1 \\ '": "INTEGER"},
                   "source": "public.\"o'x; drop table y; -- $body$ \\' {{queue}}\""}}"#;
    let db = captured(tables, json).await;
    for setting in ["on", "off"] {
        db.sql(&format!("set standard_conforming_strings = {setting}")).await;
        db.sql(r#"insert into "o'x; drop table y; -- $body$ \' {{queue}}" values ('a"b''c$body$', 1)"#).await;
        db.sql(r#"update "o'x; drop table y; -- $body$ \' {{queue}}" set "$1 \ '" = 2"#).await;
        db.sql(r#"delete from "o'x; drop table y; -- $body$ \' {{queue}}"; truncate "o'x; drop table y; -- $body$ \' {{queue}}""#).await;
        let found = marks(&db).await;
        assert_eq!(found[0], r#"o'x; \' {{part}} $body$ [["a\"b'c$body$"]]"#);
        assert_eq!(found[1..], [found[0].as_str(), &found[0], r"o'x; \' {{part}} $body$ truncate"]);
        db.client.batch_execute("discard plans").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_may_feed_two_tables() {
    let json = r#"{"all": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}, "source": "public.items"},
                   "ids": {"primaryKey": "code", "columns": {"code": "TEXT"}, "source": "public.items"}}"#;
    let db = captured("create table items (id int primary key, name text, code text not null unique)", json).await;
    db.sql("insert into items values (1, 'a', 'x'); update items set name = 'b'; delete from items").await;
    assert_eq!(
        marks(&db).await,
        [r#"all [["1"]]"#, r#"ids [["x"]]"#, r#"all [["1"]]"#, r#"all [["1"]]"#, r#"ids [["x"]]"#]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collation_that_ignores_case_hides_no_change() {
    let loose = "create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    if Db::new().await.client.batch_execute(loose).await.is_err() {
        return; // this Postgres was built without ICU, and has no such collations
    }
    let json = r#"{"names": {"primaryKey": "name", "columns": {"name": "TEXT", "v": "TEXT"}}}"#;
    let tables = "create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                  create table names (name text collate loose primary key, v text collate loose)";
    let db = captured(tables, json).await;
    db.sql("insert into names values ('a', 'v')").await;
    marks(&db).await;
    db.sql("update names set v = 'V'").await;
    assert_eq!(marks(&db).await, [r#"names [["a"]]"#]);
    db.sql("update names set name = 'A'").await;
    assert_eq!(keys(&db).await, [r#"["A"]"#, r#"["a"]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_all_kinds_may_be_keys() {
    let types = "create type mood as enum ('ok', 'not ok'); create domain code as text; create domain small as int check (value < 100); create type pair as (a int, b text);";
    for (ty, value, other, text) in [
        (
            "uuid",
            "'00000000-0000-0000-0000-00000000000A'",
            "'00000000-0000-0000-0000-00000000000b'",
            "00000000-0000-0000-0000-00000000000a",
        ),
        ("mood", "'not ok'", "'ok'", "not ok"),
        ("code", "'x'", "'y'", "x"),
        ("small", "7", "8", "7"),
        ("char(5)", "'ab'", "'cd'", "ab"),
        ("boolean", "true", "false", "true"),
        ("numeric", "1.0", "1.1", "1.0"),
        ("int[]", "'{1,2}'", "'{1}'", "{1,2}"),
        ("int4range", "'[1,5)'", "'[1,6)'", "[1,5)"),
        ("pair", "row(1, 'a b')", "row(2, 'a')", r#"(1,\"a b\")"#),
        ("inet", "'10.0.0.1/8'", "'10.0.0.1'", "10.0.0.1/8"),
        ("timestamp", "'2024-01-01'", "'infinity'", "2024-01-01 00:00:00"),
    ] {
        let json = r#"{"k": {"primaryKey": "id", "columns": {"id": "TEXT", "v": "INTEGER"}}}"#;
        let db = captured(&format!("{types} create table k (id {ty} primary key, v int)"), json).await;
        db.sql(&format!("insert into k values ({value}, 1)")).await;
        db.sql("update k set v = 2").await;
        db.sql(&format!("update k set id = {other}")).await;
        let found = keys(&db).await;
        let key = format!("[\"{text}\"]");
        assert_eq!((found.len(), found.iter().filter(|k| **k == key).count()), (4, 3), "{ty}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_numeric_key_that_gains_a_digit_is_marked_under_both_texts() {
    let json = r#"{"k": {"primaryKey": "id", "columns": {"id": "DECIMAL"}}}"#;
    let db = captured("create table k (id numeric primary key)", json).await;
    db.sql("insert into k values (1.0)").await;
    marks(&db).await;
    db.sql("update k set id = 1.00").await;
    assert_eq!(keys(&db).await, [r#"["1.0"]"#, r#"["1.00"]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_and_many_are_marked_by_the_same_keys() {
    let types = "create type mood as enum ('ok', 'not ok'); create domain code as text; create domain small as int2; create type pair as (a int, b text);";
    for (ty, values) in [
        ("int2", ["-32768", "1"]),
        ("int4", ["-2147483648", "1"]),
        ("int8", ["-9223372036854775808", "1"]),
        ("oid", ["0", "4294967295"]),
        ("uuid", ["00000000-0000-0000-0000-00000000000A", "00000000-0000-0000-0000-00000000000b"]),
        ("small", ["-5", "5"]),
        ("boolean", ["true", "false"]),
        ("timestamptz", ["2024-02-29 12:00+01", "-infinity"]),
        ("numeric", ["1.10", "NaN"]),
        ("mood", ["ok", "not ok"]),
        ("code", [r#"a"],["b"#, r"\"]),
        ("char(3)", ["a", ""]),
        ("int[]", ["{1,NULL}", "{}"]),
        ("pair", [r#"(1,"a b")"#, "(2,)"]),
    ] {
        let name = r#"o"'\ {{queue}} $body$"#;
        let mut json = serde_json::json!({});
        json[name] =
            serde_json::json!({"primaryKey": "id", "columns": {"id": "TEXT", "v": "INTEGER"}, "source": "public.k"});
        let db = captured(&format!("{types} create table k (id {ty} primary key, v int)"), &json.to_string()).await;
        let mut found = Vec::new();
        let [one, other] = values;
        let write = |values: String| format!("insert into k (id) values {values}; update k set v = 1; delete from k;");
        let alone = [one, other].map(|value| write(format!("('{value}')"))).concat();
        for writes in [write(format!("('{one}'), ('{other}')")), alone] {
            db.sql(&writes).await;
            let tables = db.all("select distinct message->>'table' from pgmq.q_replicate_data_libsql").await;
            assert_eq!(tables, [name], "{ty}");
            found.push(keys(&db).await);
        }
        assert_eq!(found[0].len(), 6, "{ty}: {found:?}");
        assert_eq!(found[0], found[1], "{ty}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_more_than_a_million_rows_is_marked_to_the_last() {
    let db = captured("create table items (id int primary key, name text)", ITEMS).await;
    for write in ["insert into items select g from generate_series(1, 1000001) g", "delete from items"] {
        db.sql(write).await;
        let sizes =
            "select count(*) || ' ' || max(jsonb_array_length(message->'keys')) from pgmq.q_replicate_data_libsql";
        assert_eq!(db.one(sizes).await, "2001 500", "{write}");
        let distinct =
            "select count(distinct k) from pgmq.q_replicate_data_libsql, jsonb_array_elements(message->'keys') k";
        assert_eq!(db.one(distinct).await, "1000001", "{write}");
        db.sql("truncate pgmq.q_replicate_data_libsql").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_type_has_changed_since_is_marked_as_it_is() {
    let db = captured("create table items (id int primary key, name text)", ITEMS).await;
    db.sql("insert into items values (1), (2); alter table items alter id type text").await;
    keys(&db).await;
    for write in
        [r#"insert into items values ('p"q'), ('a"],["b'), (E'T\\t')"#, "delete from items where id !~ '^[0-9]'"]
    {
        db.sql(write).await;
        assert_eq!(keys(&db).await, [r#"["T\\t"]"#, r#"["a\"],[\"b"]"#, r#"["p\"q"]"#], "{write}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_may_have_the_names_of_what_the_trigger_uses_and_go_away() {
    let columns = ["found", "tg_op", "new", "old_rows", "t", "r", "m", "k1", "c1", "block", "done"];
    let list: Vec<_> = columns.iter().map(|c| format!(r#", "{c}": "JSON""#)).collect();
    let json = format!(r#"{{"items": {{"primaryKey": "id", "columns": {{"id": "INTEGER"{}}}}}}}"#, list.concat());
    let list: Vec<_> = columns.iter().map(|c| format!(r#", "{c}" json default '1'"#)).collect();
    let db = captured(&format!("create table items (id int primary key, note int{})", list.concat()), &json).await;
    db.sql("insert into items values (1); insert into items values (2), (3); delete from items where id = 3").await;
    keys(&db).await;
    for column in columns {
        db.sql(&format!(r#"update items set "{column}" = '2' where id = 1; update items set "{column}" = '2'"#)).await;
        assert_eq!(keys(&db).await, [r#"["1"]"#, r#"["2"]"#], "{column}: each row when it changed, not again");
    }
    for column in columns {
        let changes = ["update items set note = 1 where id = 1", "update items set note = 2"];
        for ddl in [format!(r#"alter table items rename "{column}" to gone"#), "alter table items drop gone".to_owned()]
        {
            db.sql(&format!("{ddl}; {}", changes.join("; "))).await;
            assert_eq!(keys(&db).await, [r#"["1"]"#, r#"["1"]"#, r#"["2"]"#], "{ddl}: nobody can tell what changed");
        }
        db.sql(&format!(r#"alter table items add "{column}" json; {}"#, changes.join("; "))).await;
        assert!(keys(&db).await.is_empty(), "{column} is back");
    }
}
