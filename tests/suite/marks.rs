//! Marks sent by hand: the worker reads the marked rows at its snapshot.

use crate::support::{Db, Home, PATHS, Path, Rig, schema};

const ITEMS: &str = r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT"}}}"#;

async fn items(path: Path) -> Rig {
    let rig = Rig::new(path, schema(ITEMS)).await;
    rig.db.sql("create table items (id int primary key, name text, unlisted text)").await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marked_key_becomes_what_the_row_is_now_or_goes() {
    for path in PATHS {
        let rig = items(path).await;
        rig.db.sql("insert into items values (1, 'one'), (2, 'two')").await;
        rig.db.send(r#"{"v":1,"table":"items","keys":[["1"],["2"],["3"]]}"#).await;
        let done = rig.drain().await;
        assert_eq!((done.processed, done.rows), (1, 3));
        assert_eq!(rig.rows("SELECT * FROM items ORDER BY id").await, ["1|one", "2|two"], "{path:?}");
        rig.db.sql("delete from items where id = 1; update items set name = 'new'").await;
        rig.db.send(r#"{"v":1,"table":"items","keys":[["2"],["1"],["2"]]}"#).await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT * FROM items").await, ["2|new"], "{path:?}");
        let fresh = rig.rows("SELECT queued, caught_up_at > '2026', applied_at > '2026' FROM _pgflume_freshness").await;
        assert_eq!(fresh, ["0|1|1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_postgres_cannot_read_becomes_a_dead_letter_and_the_others_arrive() {
    let rig = items(Path::File).await;
    rig.db.sql("insert into items select i, 'row' from generate_series(1, 3000) i").await;
    let keys: Vec<_> = (1..=3000).map(|i| format!("[\"{i}\"]")).collect();
    rig.db.send(&format!(r#"{{"v":1,"table":"items","keys":[["secret-x"],{}]}}"#, keys.join(","))).await;
    let done = rig.drain().await;
    assert_eq!((done.dead, done.rows), (1, 3000));
    assert_eq!(rig.rows("SELECT count(*) FROM items").await, ["3000"]);
    let reason = rig.db.dead().await.swap_remove(0);
    assert!(reason.contains("\"items\"") && reason.contains("class source"), "{reason}");
    assert_eq!(rig.db.one("select message->'key'->>0 from pgmq.q_replicate_data_libsql_dead").await, "secret-x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_fit_its_column_stops_its_own_key_only() {
    let rig =
        Rig::new(Path::File, schema(r#"{"n":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}}}"#)).await;
    rig.db
        .sql("create table n (id int primary key, v numeric); insert into n values (1, 5), (2, 5.5), (3, null)")
        .await;
    rig.db.send(r#"{"v":1,"table":"n","keys":[["1"],["2"],["3"]]}"#).await;
    assert_eq!(rig.drain().await.dead, 1);
    assert_eq!(rig.rows("SELECT * FROM n ORDER BY id").await, ["1|5", "3|NULL"]);
    let dead = rig.db.dead().await;
    assert!(dead[0].contains("\"v\"") && dead[0].contains("DECIMAL"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_target_rejects_waits_and_the_rest_of_the_batch_arrives() {
    for (path, rows) in [(Path::Sqld, 400)] {
        let rig = items(path).await;
        rig.db.sql(&format!("insert into items select i, case when i = 77 then repeat('x', 6000000) else 'fine' end from generate_series(1, {rows}) i")).await;
        let keys: Vec<_> = (1..=rows).map(|i| format!("[\"{i}\"]")).collect();
        rig.db.send(&format!(r#"{{"v":1,"table":"items","keys":[{}]}}"#, keys.join(","))).await;
        let image =
            format!(r#"{{"type":"INSERT","table":"items","record":{{"id":1000,"name":"{}"}}}}"#, "y".repeat(5_500_000));
        let done = rig.drain().await;
        assert_eq!((done.dead, done.queued), (1, 0));
        assert_eq!(rig.rows("SELECT count(*), sum(id = 77) FROM items").await, ["399|0"]);
        assert_eq!(
            rig.db
                .one("select message->>'class' || ' ' || (message->'key'->>0) from pgmq.q_replicate_data_libsql_dead")
                .await,
            "target 77"
        );
        rig.db.send(&image).await;
        rig.db.send(r#"{"type":"INSERT","table":"items","record":{"id":1001,"name":"ok"}}"#).await;
        assert_eq!(rig.drain().await.dead, 1);
        assert_eq!(rig.rows("SELECT name FROM items WHERE id >= 1000").await, ["ok"]);
        assert_eq!(rig.db.one("select message->'message'->'record'->>'id' from pgmq.q_replicate_data_libsql_dead order by msg_id desc limit 1").await, "1000");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_a_table_that_cannot_be_read_wait_and_everything_else_goes_on() {
    let rig = Rig::new(Path::File, schema(r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER"}},"gone":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#)).await;
    rig.db.sql("create table items (id int primary key); insert into items values (1)").await;
    rig.db.send(r#"{"v":1,"table":"gone","keys":[["5"]]}"#).await;
    rig.db.send(r#"{"v":1,"table":"items","keys":[["1"]]}"#).await;
    rig.db.send(r#"{"type":"INSERT","table":"gone","record":{"id":9}}"#).await;
    let done = rig.drain().await;
    assert_eq!((done.processed, done.queued, done.paused.len()), (2, 1, 1));
    assert_eq!(rig.rows("SELECT id FROM items UNION ALL SELECT id FROM gone").await, ["1", "9"]);
    rig.db.sql("create table gone (id int primary key); insert into gone values (5)").await;
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT id FROM gone ORDER BY id").await, ["5", "9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_empties_the_replica_or_leaves_what_came_since() {
    for path in PATHS {
        let rig = items(path).await;
        rig.db.sql("insert into items select i, 'x' from generate_series(1, 25000) i").await;
        let keys: Vec<_> = (1..=25000).map(|i| format!("[\"{i}\"]")).collect();
        for chunk in keys.chunks(5000) {
            rig.db.send(&format!(r#"{{"v":1,"table":"items","keys":[{}]}}"#, chunk.join(","))).await;
        }
        assert_eq!(rig.drain().await.rows, 25000);
        rig.db.sql("truncate items; insert into items values (7, 'again'), (30000, 'new')").await;
        rig.db.send(r#"{"v":1,"table":"items","truncate":true}"#).await;
        rig.db.send(r#"{"v":1,"table":"items","keys":[["7"],["30000"]]}"#).await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT * FROM items ORDER BY id").await, ["7|again", "30000|new"], "{path:?}");
        rig.db.sql("truncate items").await;
        rig.db.send(r#"{"v":1,"table":"items","truncate":true}"#).await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT count(*) FROM items").await, ["0"], "{path:?}");
    }
}

const MARK: &str =
    "select jsonb_build_object('v', 1, 'table', 't', 'keys', jsonb_agg(jsonb_build_array(k::text))) from t";

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_are_found_again() {
    let cases = [
        ("numeric", "DECIMAL", "'1.0'", "'1.00'", "1.0", "1.00"),
        ("char(5)", "TEXT", "'ab'", "'cd'", "ab", "cd"),
        (
            "timestamptz",
            "TEXT",
            "'2024-02-29 12:00:00.123456+00'",
            "'infinity'",
            "2024-02-29T12:00:00.123456+00:00",
            "infinity",
        ),
        (
            "uuid",
            "TEXT",
            "'7f000001-0000-4000-8000-000000000001'",
            "'7f000001-0000-4000-8000-000000000002'",
            "7f000001-0000-4000-8000-000000000001",
            "7f000001-0000-4000-8000-000000000002",
        ),
        ("bytea", "BLOB", "'\\x00ff'", "'\\x'", "x'00ff'", "x''"),
        ("float8", "REAL", "0.1", "1e-300", "0.1", "1e-300"),
        ("bool", "BOOLEAN", "true", "false", "1", "0"),
        ("public.ci", "TEXT", "'Ab'", "'aB'", "Ab", "aB"),
        ("public.pos", "INTEGER", "9223372036854775807", "1", "9223372036854775807", "1"),
    ];
    for path in PATHS {
        for (kind, sqlite, before, after, stored, then) in cases {
            let definition = format!(r#"{{"t":{{"primaryKey":"k","columns":{{"k":"{sqlite}","v":"TEXT"}}}}}}"#);
            let rig = Rig::new(path, schema(&definition)).await;
            rig.db
                .sql(
                    "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                        create domain ci as text collate nocase; create domain pos as bigint check (value > 0)",
                )
                .await;
            rig.db
                .sql(&format!("create table t (k {kind} primary key, v text); insert into t values ({before}, 'v')"))
                .await;
            let first = rig.db.one(MARK).await;
            rig.db.send(&first).await;
            rig.drain().await;
            assert_eq!(rig.rows("SELECT k, v FROM t").await, [format!("{stored}|v")], "{kind} {path:?}");
            rig.db.sql(&format!("update t set k = {after}")).await;
            let second = rig.db.one(MARK).await;
            rig.db.send(&first).await;
            rig.db.send(&second).await;
            rig.drain().await;
            assert_eq!(rig.rows("SELECT k, v FROM t").await, [format!("{then}|v")], "{kind} {path:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_type_arrives_the_same_by_mark_and_by_image() {
    let definition = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","i":"INTEGER","n":"DECIMAL","f":"REAL","g":"REAL","b":"BLOB","o":"BOOLEAN",
        "j":"JSON","jb":"JSON","a":"JSON","tx":"TEXT","ts":"TEXT","tz":"TEXT","d":"TEXT","u":"TEXT","iv":"TEXT","e":"TEXT","oi":"INTEGER"}}}"#;
    let digits = "1234567890".repeat(100);
    for path in PATHS {
        let rig = Rig::new(path, schema(definition)).await;
        rig.db.sql("create type mood as enum ('sad', 'it''s ok'); create table t (id int primary key, i int8, n numeric, f float8, g float4, b bytea, o bool,
            j json, jb jsonb, a int[], tx text, ts timestamp, tz timestamptz, d date, u uuid, iv interval, e mood, oi bool)").await;
        rig.db.sql(&format!("insert into t values
            (1, 9007199254740993, {digits}.{digits}, 0.1, 0.1, '\\x00ff', true, '{{\"b\":1,  \"a\":2}}', '{{\"b\":1.00,\"a\":[null]}}', '{{1,null,3}}',
             E'é😀\\n\"\\\\', '2024-02-29 12:00:00.123456', '2024-02-29 12:00:00.123456+02', '2024-02-29', '7f000001-0000-4000-8000-000000000001', '1 day 02:03', 'it''s ok', true),
            (2, -9223372036854775808, 1.10, 'NaN', '-Infinity', '', false, 'null', 'null', '{{}}', '', 'infinity', '-infinity', 'infinity', null, '0', 'sad', false),
            (3, null, 'NaN', 5e-324, 3.4028235e38, null, null, null, null, null, null, null, null, null, null, null, null, null)")).await;
        rig.db.send(r#"{"v":1,"table":"t","keys":[["1"],["2"],["3"]]}"#).await;
        rig.drain().await;
        let select = "SELECT i, n, f, g, b, o, j, jb, a, tx, ts, tz, d, u, iv, e, oi FROM t ORDER BY id";
        let read = rig.rows(select).await;
        assert_eq!(read, [
            format!("9007199254740993|{digits}.{digits}|0.1|0.1|x'00ff'|1|{{\"b\":1,  \"a\":2}}|{{\"a\": [null], \"b\": 1.00}}|[1, null, 3]|é😀\n\"\\|2024-02-29T12:00:00.123456|2024-02-29T10:00:00.123456+00:00|2024-02-29|7f000001-0000-4000-8000-000000000001|1 day 02:03:00|it's ok|1"),
            "-9223372036854775808|1.10|NaN|-Infinity|x''|0|null|null|[]||infinity|-infinity|infinity|NULL|00:00:00|sad|0".to_owned(),
            "NULL|NaN|5e-324|3.4028235e38|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL".to_owned(),
        ], "{path:?}");
        // The same rows as Capgo's trigger sends them. jsonb has no order of its own, and no JSON null beside NULL.
        let rig2 = Rig::with(Db::new().await, Home::new(path), schema(definition));
        for image in rig.db.all("select jsonb_build_object('record', to_jsonb(t), 'old_record', null, 'type', 'INSERT', 'table', 't') from (select *, set_config('timezone', 'UTC', false) from t) t").await {
            rig2.db.send(&image).await;
        }
        assert_eq!(rig2.drain().await.dead, 0);
        let expected: Vec<_> = read
            .iter()
            .map(|r| r.replace("{\"b\":1,  \"a\":2}", "{\"a\": 2, \"b\": 1}").replace("|null|null|", "|NULL|NULL|"))
            .collect();
        assert_eq!(rig2.rows(select).await, expected, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stops_matching_where_leaves_the_replica() {
    let rig = Rig::new(
        Path::File,
        schema(r#"{"items":{"primaryKey":"id","columns":{"id":"INTEGER"},"where":"not deleted -- soft"}}"#),
    )
    .await;
    rig.db
        .sql("create table items (id int primary key, deleted bool); insert into items values (1, false), (2, true)")
        .await;
    let mark = r#"{"v":1,"table":"items","keys":[["1"],["2"]]}"#;
    rig.db.send(mark).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT id FROM items").await, ["1"]);
    rig.db.sql("update items set deleted = not deleted").await;
    rig.db.send(mark).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT id FROM items").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_keys_are_read_and_moved() {
    let definition = r#"{"c":{"primaryKey":["region","n"],"columns":{"v":"TEXT","n":"INTEGER","region":"TEXT"}}}"#;
    for path in PATHS {
        let rig = Rig::new(path, schema(definition)).await;
        rig.db
            .sql(
                "create table c (region text, n bigint, v text, primary key (region, n));
                    insert into c values ('eu', 1, 'a'), ('eu', 2, 'b'), ('us', 1, 'c')",
            )
            .await;
        rig.db.send(r#"{"v":1,"table":"c","keys":[["eu","1"],["us","1"],["eu","2"],["us","2"]]}"#).await;
        assert_eq!(rig.drain().await.rows, 4);
        rig.db.sql("update c set region = 'mars' where region = 'us'; delete from c where n = 2").await;
        rig.db.send(r#"{"v":1,"table":"c","keys":[["us","1"],["mars","1"],["eu","2"]]}"#).await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT region, n, v FROM c ORDER BY region").await, ["eu|1|a", "mars|1|c"], "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_quotes_and_semicolons_are_only_names() {
    let name = r#"we"ird'; drop table x; --"#;
    let json = serde_json::json!({name: {"primaryKey": "i\"d;", "columns": {"i\"d;": "INTEGER", "se lect": "REAL"}, "indexes": [["se lect", "i\"d;"]]}});
    for path in PATHS {
        let rig = Rig::new(path, schema(&json.to_string())).await;
        rig.db.sql(r#"create table "we""ird'; drop table x; --" ("i""d;" int primary key, "se lect" float8); insert into "we""ird'; drop table x; --" values (1, 0.3)"#).await;
        rig.db.send(&serde_json::json!({"v": 1, "table": name, "keys": [["1"], ["2"]]}).to_string()).await;
        assert_eq!(rig.drain().await.dead, 0);
        assert_eq!(rig.rows(r#"SELECT * FROM "we""ird'; drop table x; --""#).await, ["1|0.3"], "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_younger_than_a_mark_of_its_table_stands() {
    for path in PATHS {
        let rig = items(path).await;
        rig.db.send(r#"{"v":1,"table":"items","keys":[["1"]]}"#).await;
        rig.db.send(r#"{"type":"INSERT","table":"items","record":{"id":1,"name":"image"}}"#).await;
        rig.db.send(r#"{"v":1,"table":"items","truncate":true}"#).await;
        rig.db.send(r#"{"type":"INSERT","table":"items","record":{"id":2,"name":"later"}}"#).await;
        assert_eq!(rig.drain().await.processed, 4);
        assert_eq!(rig.rows("SELECT * FROM items").await, ["2|later"], "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_that_cannot_be_read_or_locked_stops_no_other() {
    let table = |extra: &str| format!(r#"{{"primaryKey":"id","columns":{{"id":"INTEGER"}}{extra}}}"#);
    let definition = format!(
        r#"{{"good":{},"wrong_where":{},"view":{},"checked":{},"locked":{}}}"#,
        table(""),
        table(r#","where":"nobody > 1""#),
        table(""),
        table(""),
        table("")
    );
    let rig = Rig::new(Path::File, schema(&definition)).await;
    rig.db.sql("create table good (id int primary key); create table wrong_where (id int primary key); create table locked (id int primary key);
        create materialized view view as select 1 as id; create domain positive as int check (value > 0); create table checked (id positive primary key);
        insert into good values (1); insert into checked values (7)").await;
    let admin = pgflume::postgres::PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap();
    admin.batch_execute("begin; alter table locked add column x int").await.unwrap();
    for name in ["wrong_where", "view", "checked", "locked", "good"] {
        rig.db.send(&format!(r#"{{"v":1,"table":"{name}","keys":[["-1"],["1"],["7"]]}}"#)).await;
    }
    let done = rig.drain().await;
    let paused: Vec<_> = done.paused.iter().map(String::as_str).collect();
    assert_eq!(
        (paused, done.dead, done.queued),
        (vec!["locked", "view", "wrong_where"], 0, 3),
        "a key that the domain refuses is just none"
    );
    assert_eq!(rig.rows("SELECT id FROM good UNION ALL SELECT id FROM checked").await, ["1", "7"]);
    admin.batch_execute("rollback").await.unwrap();
    assert_eq!(rig.drain().await.queued, 2, "a table that is free again is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fills_up_in_the_middle_of_a_query_goes_on() {
    for path in PATHS {
        let rig = items(path).await;
        // 1,000 keys a query and 40 KB a row: the batch is full long before the query's last row.
        rig.db.sql("insert into items select i, repeat(md5(i::text), 1250) from generate_series(1, 1500) i").await;
        let keys: Vec<_> = (1..=1500).map(|i| format!("[\"{i}\"]")).collect();
        rig.db.send(&format!(r#"{{"v":1,"table":"items","keys":[{}]}}"#, keys.join(","))).await;
        let done = tokio::time::timeout(std::time::Duration::from_secs(60), rig.drain()).await.expect("it hangs");
        assert!(done.rows == 1500 && done.batches > 3, "{done:?}");
        assert_eq!(rig.rows("SELECT count(*), sum(length(name)) FROM items").await, ["1500|60000000"], "{path:?}");
    }
}

/// Keys side by side are read as one range: neither rows between them nor what is missing may be mistaken.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_lie_close_together_are_read_as_themselves() {
    let json =
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"where":"v is distinct from 'hidden'"}}"#;
    for path in PATHS {
        let rig = Rig::new(path, schema(json)).await;
        rig.db
            .sql(
                "create table t (id int primary key, v text);
                 insert into t select i, 'v' || i from generate_series(-300, 300) i where i % 7 <> 0;
                 update t set v = 'hidden' where id % 11 = 0",
            )
            .await;
        let mark = async |keys: &str| {
            let list = format!("select jsonb_build_array(k) from ({keys}) q(k)");
            rig.db.sql(&format!("insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('v', 1, 'table', 't', 'keys', (select jsonb_agg(jsonb_build_array) from ({list}) l))")).await;
        };
        // Every second key of a range; all of another; some that are out of the type's range or no integers at all.
        mark("select i::text from generate_series(1, 299, 2) i").await;
        rig.drain().await;
        let there = "select id || v from t where v <> 'hidden' and id between 1 and 299 and id % 2 = 1 order by id";
        assert_eq!(rig.rows("SELECT id || v FROM t ORDER BY id").await, rig.db.all(there).await, "{path:?}");
        rig.db
            .sql("delete from t where id between 101 and 140; update t set v = 'again' where id between 141 and 160")
            .await;
        mark("select i::text from generate_series(-300, 300) i").await;
        assert_eq!(rig.drain().await.dead, 0);
        let all = "select id || v from t where v <> 'hidden' order by id";
        assert_eq!(rig.rows("SELECT id || v FROM t ORDER BY id").await, rig.db.all(all).await, "{path:?}");
        mark("select i::text from generate_series(2147483600, 2147483699) i union all select '0' || i from generate_series(1, 50) i union all values ('x')").await;
        assert_eq!(rig.drain().await.dead, 52 + 1, "those beyond an integer, and the one that is none");
        assert_eq!(rig.rows("SELECT id || v FROM t ORDER BY id").await, rig.db.all(all).await, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_null_becomes_a_dead_letter() {
    let rig = items(Path::File).await;
    rig.db.sql("insert into pgmq.q_replicate_data_libsql (vt, message) values (now(), null)").await;
    let done = rig.drain().await;
    assert_eq!((done.processed, done.queued, done.dead), (1, 0, 1));
}

/// A row between two marked ones is nobody's business.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_row_that_nobody_marked_stops_none_beside_it() {
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"},"where":"10 / v > 0"}}"#;
    let rig = Rig::new(Path::File, schema(json)).await;
    rig.db.sql("create table t (id int primary key, v int); insert into t select i, case when i = 51 then 0 else 1 end from generate_series(1, 200) i").await;
    for _ in 0..2 {
        rig.db
            .sql(
                "insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('v', 1, 'table', 't', 'keys',
                 (select jsonb_agg(jsonb_build_array(i::text)) from generate_series(1, 200) i where i <> 51))",
            )
            .await;
        let done = rig.drain().await;
        assert_eq!((done.queued, done.dead), (0, 0));
    }
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["199"]);
}
