//! Values of every type arrive as they are.

use super::{Rig, is_mysql};
use crate::support::PATHS;

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_arrive_to_the_last_digit() {
    // Type, value, column of the replica, what it shows.
    let json = "{\"b\": 1,  \"a\":[1.0]}";
    let mut all = vec![
        ("tinyint(1)", "7", "INTEGER", "7"),
        ("bigint", "-9223372036854775808", "INTEGER", "-9223372036854775808"),
        ("bigint unsigned", "18446744073709551615", "DECIMAL", "18446744073709551615"),
        ("int(5) unsigned zerofill", "42", "INTEGER", "42"),
        ("year", "2155", "INTEGER", "2155"),
        (
            "decimal(65,30)",
            "'12345678901234567890123456789012345.123456789012345678901234567890'",
            "DECIMAL",
            "12345678901234567890123456789012345.123456789012345678901234567890",
        ),
        ("float", "16777217", "REAL", "16777216.0"),
        ("float", "0.1", "REAL", "0.1"),
        ("double", "0.1", "REAL", "0.1"),
        ("double", "1.7976931348623157e308", "REAL", "1.79769313486232e+308"),
        ("bit(9)", "b'100000010'", "INTEGER", "258"),
        ("bit(64)", "b'1'", "BLOB", "x'0000000000000001'"),
        ("char(5)", "'a  '", "TEXT", "a"),
        ("varchar(9) character set latin1", "'ß'", "TEXT", "ß"),
        ("varchar(9) character set utf8mb3", "'é'", "TEXT", "é"),
        ("text", "'😀'", "TEXT", "😀"),
        ("enum('a','')", "''", "TEXT", ""),
        ("enum('a')", "'bad'", "TEXT", ""),
        ("set('a','b','c')", "'c,a'", "TEXT", "a,c"),
        ("binary(3)", "'a'", "BLOB", "x'610000'"),
        ("varbinary(3)", "x'00ff'", "BLOB", "x'00FF'"),
        ("blob", "x''", "BLOB", "x''"),
        // A text that is kept, or, of a MySQL, what it stands for.
        ("json", "'{\"b\": 1,  \"a\":[1.0]}'", "JSON", if is_mysql() { "{\"a\": [1.0], \"b\": 1}" } else { json }),
        ("date", "'0000-00-00'", "TEXT", "0000-00-00"),
        ("date", "'2026-00-00'", "TEXT", "2026-00-00"),
        ("datetime(6)", "'9999-12-31 23:59:59.999999'", "TEXT", "9999-12-31 23:59:59.999999"),
        ("datetime", "'2026-01-02 03:04:05'", "TEXT", "2026-01-02 03:04:05"),
        ("timestamp(3)", "'2026-01-02 03:04:05.06'", "TEXT", "2026-01-02 00:04:05.060"),
        ("time(1)", "'-837:59:59.5'", "TEXT", "-837:59:59.5"),
        ("time", "'838:59:59'", "TEXT", "838:59:59"),
        (
            "point",
            "st_geomfromtext('POINT(1 2)', 4326)",
            "BLOB",
            // By latitude and longitude, or, of a MySQL, the other way round.
            if is_mysql() {
                "x'E610000001010000000000000000000040000000000000F03F'"
            } else {
                "x'E61000000101000000000000000000F03F0000000000000040'"
            },
        ),
        ("uuid", "'123e4567-e89b-12d3-a456-426655440000'", "TEXT", "123e4567-e89b-12d3-a456-426655440000"),
        ("inet6", "'::1'", "TEXT", "::1"),
        ("int generated always as (id + 1) virtual", "default", "INTEGER", "2"),
    ];
    all.retain(|(kind, ..)| !is_mysql() || !["uuid", "inet6"].contains(kind));
    let (columns, values): (Vec<String>, Vec<&str>) =
        all.iter().enumerate().map(|(i, (kind, value, ..))| (format!("c{i} {kind}"), *value)).unzip();
    // Its zone is not ours.
    let tables = format!(
        "set time_zone = '+03:00', sql_mode = ''; create table t (id int primary key, {}, updated_at timestamp(6) not null default now(6)); insert into t values (1, {}, default); insert into t (id) values (2)",
        columns.join(", "),
        values.join(", ")
    );
    let of = |(i, (_, _, column, _)): (usize, &(&str, &str, &str, &str))| format!(r#""c{i}":"{column}""#);
    let json: Vec<String> = all.iter().enumerate().map(of).collect();
    let json = format!(r#"{{"t":{{"primaryKey":"id","columns":{{"id":"INTEGER",{}}}}}}}"#, json.join(","));
    for path in PATHS {
        let rig = Rig::new(path, &tables, &json).await;
        let passed = rig.pass().await;
        assert!(passed.problems.is_empty() && passed.dead == 0, "{passed:?}");
        for (i, (kind, value, _, expected)) in all.iter().enumerate() {
            let shown = format!(
                "SELECT CASE typeof(c{i}) WHEN 'blob' THEN 'x''' || hex(c{i}) || '''' ELSE CAST(c{i} AS TEXT) END FROM t WHERE id = 1"
            );
            assert_eq!(rig.rows(&shown).await, [*expected], "{kind} {value}");
        }
        // What `init` would declare is what this declares.
        let named = Rig::undefined(path, &tables).await;
        named.pass_of(named.named()).await;
        let names: Vec<String> = (0..all.len()).map(|i| format!("c{i}")).collect();
        let everything = format!("SELECT {} FROM t WHERE id = 1", names.join(", "));
        assert_eq!(named.rows(&everything).await, rig.rows(&everything).await);
        // The same values by their stamp, and by the binlog; the last one follows from the id.
        let names = names[..names.len() - 1].join(", ");
        let first = named.rows(&format!("SELECT {names} FROM t WHERE id = 1")).await;
        for (id, promise) in [(3, "stamped"), (4, "exact"), (5, "exact")] {
            if promise == "exact" {
                named.may_read_binlog(true).await;
            }
            named.sql(&format!("set time_zone = '-05:00', sql_mode = ''; insert into t ({names}, id) select {names}, {id} from t where id = 1")).await;
            let passed = named.pass_of(named.named()).await;
            assert_eq!((passed.rows, passed.promise), (1, Some(promise)), "{id}: {passed:?}");
            assert_eq!(named.rows(&format!("SELECT {names} FROM t WHERE id = {id}")).await, first, "{id}");
        }
        let report = named.pull().verify(&[], false).await.unwrap();
        assert_eq!((report.tables["t"].rows, report.tables["t"].differences()), (5, 0), "{report:?}");
    }
}
