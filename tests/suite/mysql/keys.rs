//! Keys that a collation takes for one.

use super::{Rig, is_mysql};
use crate::support::{PATHS, Path};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changed_only_its_case_or_its_blanks_is_changed_to_the_byte() {
    let tables = "create table t (k varchar(20) collate utf8mb4_general_ci primary key, v int, updated_at timestamp(6) not null default now(6) on update now(6));
        insert into t (k, v) values ('a', 1), ('b', 2), ('strasse', 3), ('e', 4)";
    let json = r#"{"t":{"primaryKey":"k","columns":{"k":"TEXT","v":"INTEGER"}}}"#;
    for path in PATHS {
        let rig = Rig::new(path, tables, json).await;
        rig.pass().await;
        rig.sql("update t set k = 'A' where k = 'a'; update t set k = 'b ' where k = 'b'; update t set k = 'straße' where v = 3; update t set k = 'É' where v = 4").await;
        rig.pass().await;
        assert_eq!(
            rig.rows("SELECT '[' || k || ']', v FROM t ORDER BY v").await,
            ["[A]|1", "[b ]|2", "[straße]|3", "[É]|4"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_keys_of_every_kind_are_read_in_pages_and_what_is_gone_is_found() {
    let mut kinds = vec![
        ("ints", "bigint", "cast(seq as signed) * 7 - 5000", "INTEGER"),
        ("unsigned_ints", "bigint unsigned", "18446744073709551615 - seq", "DECIMAL"),
        ("decimals", "decimal(30,10)", "seq / 7", "DECIMAL"),
        ("texts", "varchar(40) collate utf8mb4_unicode_ci", "concat(char(97 + seq % 26), 'ß', seq)", "TEXT"),
        ("latin", "varchar(40) character set latin1", "concat('é', seq)", "TEXT"),
        ("bytes", "varbinary(16)", "left(unhex(sha2(seq, 256)), 16)", "BLOB"),
        ("padded", "binary(8)", "concat(char(seq % 256), char(seq div 256))", "BLOB"),
        ("dates", "date", "date_add('1000-01-01', interval seq day)", "TEXT"),
        ("moments", "datetime(6)", "date_add('2024-01-01', interval seq * 1001 microsecond)", "TEXT"),
        ("stamps", "timestamp(3)", "date_add('2024-01-01', interval seq * 1000 microsecond)", "TEXT"),
        ("times", "time(2)", "sec_to_time(cast(seq as signed) * 100 - 200000)", "TEXT"),
        ("bits", "bit(20)", "seq", "INTEGER"),
        ("uuids", "uuid", "concat('00000000-0000-4000-8000-', lpad(hex(seq), 12, '0'))", "TEXT"),
        ("addresses", "inet6", "concat('::', hex(seq))", "TEXT"),
    ];
    kinds.retain(|(_, kind, ..)| !is_mysql() || !["uuid", "inet6"].contains(kind));
    let mut tables = String::new();
    let mut json = Vec::new();
    for &(name, kind, value, column) in &kinds {
        tables += &format!(
            "create table {name} (id {kind} primary key, v int); insert into {name} select {value}, seq from seq_1_to_3000;"
        );
        json.push(format!(r#""{name}":{{"primaryKey":"id","columns":{{"id":"{column}","v":"INTEGER"}}}}"#));
    }
    tables +=
        "create table pairs (a enum('z','y','x') not null, b set('p','q') not null, c int, primary key (a, b, c));
        insert into pairs select 1 + seq % 3, seq % 4, seq from seq_1_to_3000";
    json.push(r#""pairs":{"primaryKey":["a","b","c"],"columns":{"a":"TEXT","b":"TEXT","c":"INTEGER"}}"#.into());
    for path in PATHS {
        let rig = Rig::new(path, &tables, &format!("{{{}}}", json.join(","))).await;
        let first = rig.pass().await;
        assert!(first.problems.is_empty(), "{first:?}");
        let tables = kinds.len() as u64 + 1;
        assert_eq!(first.rows, 3000 * tables);
        for (name, ..) in &kinds {
            assert_eq!(rig.rows(&format!("SELECT count(*), sum(v) FROM {name}")).await, ["3000|4501500"], "{name}");
            rig.sql(&format!("delete from {name} where v in (3, 2999); update {name} set v = 0 where v = 17")).await;
        }
        rig.sql("delete from pairs where c in (3, 2999)").await;
        let second = rig.pass().await;
        assert!(second.problems.is_empty(), "{second:?}");
        assert_eq!((second.rows, second.removed), (tables - 1, 2 * tables), "{second:?}");
        for (name, ..) in &kinds {
            assert_eq!(rig.rows(&format!("SELECT count(*), sum(v) FROM {name}")).await, ["2998|4498481"], "{name}");
        }
        assert_eq!(rig.rows("SELECT count(*) FROM pairs").await, ["2998"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_an_enum_are_keys_whatever_stands_in_them() {
    let rig = Rig::undefined(
        Path::File,
        r"create table t (k enum('a\\b', 'it''s', 'x,y', 'line\nbreak') primary key, v int); insert into t values (1, 1), (2, 2), (3, 3), (4, 4)",
    )
    .await;
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems.is_empty(), "{passed:?}");
    rig.sql("delete from t where v = 1; update t set v = -v").await;
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems.is_empty() && passed.removed == 1, "{passed:?}");
    assert_eq!(rig.rows("SELECT k, v FROM t ORDER BY v").await, ["line\nbreak|-4", "x,y|-3", "it's|-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_may_hold_what_looks_like_a_parameter_within_quotes_only() {
    let tables = "create table t (id int primary key, v varchar(20)); insert into t values (1, 'a?:b'), (2, 'c')";
    let json =
        |filter: &str| format!(r#"{{"t":{{"primaryKey":"id","columns":{{"id":"INTEGER"}},"where":"{filter}"}}}}"#);
    let rig = Rig::new(Path::File, tables, &json("v = 'a?:b'")).await;
    assert!(rig.pass().await.problems.is_empty());
    assert_eq!(rig.rows("SELECT id FROM t").await, ["1"]);
    for filter in ["v = ?", "id = :id"] {
        let rig = Rig::new(Path::File, tables, &json(filter)).await;
        let passed = rig.pass().await;
        assert!(passed.problems["t"].contains("outside of quotes"), "{filter}: {passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_whose_names_hold_brackets_are_read_in_pages() {
    let tables = "create table t (`a)` int not null, `b(` enum('x', 'y') not null, `c?` int not null, v int, primary key (`a)`, `b(`, `c?`));
        insert into t select seq % 7, 1 + seq % 2, seq, seq from seq_1_to_3000;
        create table u (`a)` int primary key); insert into u select seq from seq_1_to_3000";
    let rig = Rig::undefined(Path::File, tables).await;
    for sql in ["select 1", "delete from t where v % 100 = 0; delete from u where `a)` > 2990"] {
        rig.sql(sql).await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
    }
    assert_eq!(rig.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)").await, ["2970|2990"]);
}
