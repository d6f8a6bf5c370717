//! Values of all kinds, from JSON into Postgres and back in what is told of a conflict.

use super::{Written, statuses};
use serde_json::{Value, json};

const TABLE: &str = "
    create type mood as enum ('sad', 'fine'); create domain short as text check (length(value) < 5);
    create table things (id bigint primary key, v {TYPE});
    grant all on things to public";

fn definition(kind: &str) -> String {
    format!(
        r#"{{"things":{{"primaryKey":"id","columns":{{"id":"INTEGER","v":"{kind}"}},"lossy":["v"],
            "writable":{{"columns":["v"],"ops":["insert","update"],"unchecked":true}}}}}}"#
    )
}

/// Type, its kind in schema.json, a value as JSON text, what Postgres has then as text, and what is told of it.
const CASES: &[(&str, &str, &str, &str, &str)] = &[
    ("bigint", "INTEGER", "9007199254740993", "9007199254740993", r#""9007199254740993""#),
    ("bigint", "INTEGER", r#""9223372036854775807""#, "9223372036854775807", r#""9223372036854775807""#),
    ("int", "INTEGER", "-7", "-7", "-7"),
    (
        "numeric",
        "DECIMAL",
        "1.100000000000000000000000001",
        "1.100000000000000000000000001",
        r#""1.100000000000000000000000001""#,
    ),
    ("numeric", "DECIMAL", r#""NaN""#, "NaN", r#""NaN""#),
    ("float8", "REAL", "0.1", "0.1", "0.1"),
    ("float8", "REAL", r#""Infinity""#, "Infinity", r#""Infinity""#),
    ("boolean", "BOOLEAN", "true", "true", "true"),
    ("boolean", "BOOLEAN", r#""f""#, "false", "false"),
    ("text", "TEXT", r#""\u00e4 \"x\"""#, "ä \"x\"", r#""ä \"x\"""#),
    ("text", "TEXT", r#""""#, "", r#""""#),
    ("short", "TEXT", r#""abc""#, "abc", r#""abc""#),
    ("mood", "TEXT", r#""fine""#, "fine", r#""fine""#),
    (
        "uuid",
        "TEXT",
        r#""A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11""#,
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#,
    ),
    ("bytea", "BLOB", r#""\\x00ff10""#, r"\x00ff10", r#""\\x00ff10""#),
    (
        "timestamptz",
        "TEXT",
        r#""2026-11-30T12:00:00.123456+02:00""#,
        "2026-11-30 10:00:00.123456+00",
        r#""2026-11-30T10:00:00.123456+00:00""#,
    ),
    ("timestamptz", "TEXT", r#""2026-11-30 12:00:00""#, "2026-11-30 12:00:00+00", r#""2026-11-30T12:00:00+00:00""#),
    ("date", "TEXT", r#""infinity""#, "infinity", r#""infinity""#),
    ("interval", "TEXT", r#""1 day 2 hours""#, "1 day 02:00:00", r#""1 day 02:00:00""#),
    ("json", "JSON", r#"{"b": 1.10,  "a":[null]}"#, r#"{"b": 1.10,  "a":[null]}"#, r#"{"b": 1.10,  "a":[null]}"#),
    ("jsonb", "JSON", r#"{"b":1.10,"a":[null]}"#, r#"{"a": [null], "b": 1.10}"#, r#"{"a": [null], "b": 1.10}"#),
    ("jsonb", "JSON", r#""text""#, r#""text""#, r#""text""#),
    ("int[]", "JSON", "[1,null,3]", "{1,NULL,3}", "[1,null,3]"),
    ("int[]", "JSON", r#""{1,2}""#, "{1,2}", "[1,2]"),
    ("text[]", "JSON", r#"["a,b","\"c"]"#, r#"{"a,b","\"c"}"#, r#"["a,b","\"c"]"#),
];

#[tokio::test(flavor = "multi_thread")]
async fn values_arrive_to_the_last_digit_and_come_back() {
    let mut types: Vec<(&str, &str)> = CASES.iter().map(|case| (case.0, case.1)).collect();
    types.dedup();
    for (of, kind) in types {
        let written = Written::with(&TABLE.replace("{TYPE}", of), &definition(kind)).await;
        written.db.sql("set timezone = 'UTC'; set intervalstyle = 'postgres'").await;
        for (i, (_, _, value, kept, told)) in CASES.iter().filter(|case| case.0 == of).enumerate() {
            let made = written.ann(&format!("a{i}"), raw("insert", i, value, "")).await;
            assert_eq!(statuses(&made), ["applied"], "{of} {value}: {made}");
            let found = written.db.one(&format!("select v from things where id = {i}")).await;
            assert_eq!(found, *kept, "{of} {value}");
            // A base is understood as the value was, and what is told is understood as a base.
            for (j, base) in [value, told].into_iter().enumerate() {
                let same = written.ann(&format!("b{i}{j}"), raw("update", i, value, base)).await;
                assert_eq!(statuses(&same), ["applied"], "{of}: {base} is what it is");
            }
            let nulled = written.ann(&format!("c{i}"), raw("update", i, "null", told)).await;
            assert_eq!(statuses(&nulled), ["applied"], "{of} {told}");
            let back = written.ann(&format!("d{i}"), raw("update", i, value, "null")).await;
            assert_eq!(statuses(&back), ["applied"], "{of} {value}");
            let key = json!({"id": i.to_string()});
            let late =
                json!([{"table": "things", "op": "update", "key": key, "set": {"v": null}, "base": {"v": other(of)}}]);
            let late = written.ann(&format!("e{i}"), late).await;
            let now: Value = serde_json::from_str(&format!(r#"{{"id":"{i}","v":{told}}}"#)).unwrap();
            assert_eq!(late["results"], json!([{"status": "conflict", "now": now}]), "{of} {value}");
        }
    }
}

/// Another value of a type.
fn other(of: &str) -> Value {
    match of {
        "bigint" | "int" | "numeric" | "float8" => json!(424_242),
        "boolean" => Value::Null,
        "mood" => json!("sad"),
        "uuid" => json!("00000000-0000-0000-0000-000000000000"),
        "bytea" => json!("\\x01"),
        "timestamptz" | "date" => json!("1999-01-01"),
        "interval" => json!("3 days"),
        "int[]" => json!([9]),
        "text[]" => json!(["other"]),
        "json" | "jsonb" => json!({"other": true}),
        _ => json!("oth"),
    }
}

/// A change with these JSON texts, which no parser of ours has touched.
fn raw(op: &str, id: usize, value: &str, base: &str) -> Value {
    let base = if base.is_empty() { String::new() } else { format!(r#","base":{{"v":{base}}}"#) };
    let text = format!(r#"[{{"table":"things","op":"{op}","key":{{"id":{id}}},"set":{{"v":{value}}}{base}}}]"#);
    Value::String(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_value_of_its_type_is_refused_for_good() {
    for (of, kind, value, code) in [
        ("int", "INTEGER", "3000000000", "22003"),
        ("int", "INTEGER", r#""x""#, "22P02"),
        ("boolean", "BOOLEAN", r#""maybe""#, "22P02"),
        ("mood", "TEXT", r#""angry""#, "22P02"),
        ("short", "TEXT", r#""too long""#, "23514"),
        ("timestamptz", "TEXT", r#""yesterday evening""#, "22007"),
        ("int[]", "JSON", r#"{"a":1}"#, "22P02"),
        ("bytea", "BLOB", r#""\\x0""#, "22023"),
        ("regclass", "TEXT", r#""nosuch""#, "42P01"),
        ("text", "TEXT", r#""\ud800""#, "22P02"),
    ] {
        let written = Written::with(&TABLE.replace("{TYPE}", of), &definition(kind)).await;
        let answer = written.ann("1", raw("insert", 1, value, "")).await;
        assert_eq!(answer["results"], json!([{"status": "rejected", "code": code}]), "{of} {value}");
        assert_eq!(statuses(&written.ann("2", raw("insert", 1, "null", "")).await), ["applied"], "{of}");
    }
}
