//! `docs/schema-v1.json`, which editors check a `schema.json` against: it agrees with what pgflume reads.

use boon::{Compiler, SchemaIndex, Schemas};
use pgflume::core::schema::Schema;
use serde_json::Value;

struct JsonSchema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl JsonSchema {
    /// Compiled, and so checked against the schema of schemas itself.
    fn load() -> Self {
        let json: Value = serde_json::from_str(include_str!("../../docs/schema-v1.json")).unwrap();
        assert_eq!(json["$id"], pgflume::postgres::init::JSON_SCHEMA);
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource(pgflume::postgres::init::JSON_SCHEMA, json).unwrap();
        let index = compiler.compile(pgflume::postgres::init::JSON_SCHEMA, &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn takes(&self, text: &str) -> bool {
        let value: Value = serde_json::from_str(text).unwrap();
        self.schemas.validate(&value, self.index).is_ok()
    }
}

#[test]
fn the_files_of_this_repository_are_valid() {
    let json_schema = JsonSchema::load();
    for text in [
        include_str!("../../schema.json"),
        include_str!("../../src/demo/shop.json"),
        include_str!("../../compose/schema.json"),
    ] {
        assert!(json_schema.takes(text), "{text}");
        Schema::parse(text).unwrap();
    }
}

#[test]
fn it_says_what_pgflume_says() {
    let json_schema = JsonSchema::load();
    let ok = r#""primaryKey":"id","columns":{"id":"TEXT","n":"INTEGER"}"#;
    let with = |member: &str| format!(r#"{{"t": {{{ok}, {member}}}}}"#);
    let typed = |kind: &str| format!(r#"{{"t": {{"primaryKey":"id","columns":{{"id":{kind}}}}}}}"#);
    let named = |name: &str| format!(r#"{{"{name}": {{{ok}}}}}"#);
    let mut good = vec![named("t"), named("ü ö.\\\""), named(&"a".repeat(63)), with(r#""evolve": true"#)];
    good.extend(["INTEGER", "REAL", "TEXT", "BOOLEAN", "JSON", "BLOB", "DECIMAL"].map(|t| typed(&format!("\"{t}\""))));
    good.extend(
        [
            r#""public.t""#,
            r#""netto.t""#,
            r#""Pgmq.t""#,
            r#""\"pgmq.x\".t""#,
            r#""\"my.schema\".\"T\"\"x\"""#,
            r#""a b.c d""#,
        ]
        .map(|s| with(&format!("\"source\": {s}"))),
    );
    good.extend([r#"[]"#, r#"["id"]"#, r#"["id", ["n", "id"]]"#].map(|i| with(&format!("\"indexes\": {i}"))));
    good.extend([r#"[]"#, r#"["n"]"#].map(|l| with(&format!("\"lossy\": {l}"))));
    good.push(with(r#""where": " not deleted""#));
    good.extend(
        [
            r#""public": true"#,
            r#""public": true, "columns": ["n"], "filter": ["n"]"#,
            r#""public": true, "filter": []"#,
            r#""match": {"n": "org"}, "columns": [], "filter": []"#,
        ]
        .map(|feed| with(&format!("\"feed\": {{{feed}}}"))),
    );
    good.extend(
        [
            r#""columns": [], "ops": ["delete"]"#,
            r#""columns": ["n"], "ops": ["insert", "update"], "conflict": "merge", "unchecked": true"#,
            r#""columns": ["n"], "ops": ["update"], "conflict": "custom", "function": "app.\"a.b\"""#,
        ]
        .map(|writable| with(&format!("\"writable\": {{{writable}}}"))),
    );
    good.push(
        r#"{"t": {"primaryKey":"id","columns":{"id":"TEXT","at":"TEXT"},
            "writable": {"columns": ["at"], "ops": ["update"], "conflict": "last-write-wins", "stamp": "at"}}}"#
            .into(),
    );
    good.push(format!(r#"{{"$schema": "x", "t": {{{ok}}}}}"#));
    good.push(r#"{"t": {"primaryKey":["b","a"],"columns":{"a":"TEXT","b":"TEXT"}}}"#.into());
    let mut bad = vec!["[]".to_owned(), "{}".into(), r#"{"$schema": "x"}"#.into(), r#"{"t": 1}"#.into()];
    bad.extend(["_pgflume_x", "_PGFLUME_x", "sqlite_x", "SQLite_x", ""].map(named));
    bad.push(named(&"a".repeat(64)));
    bad.extend([r#""VARCHAR""#, r#""text""#, "1", "null"].map(typed));
    bad.extend(
        [r#""pgmq.t""#, r#""\"pg_catalog\".t""#, r#""information_schema.t""#, r#""\"net\".t""#]
            .map(|s| with(&format!("\"source\": {s}"))),
    );
    bad.extend(
        [r#""t""#, r#""a.b.c""#, r#"".t""#, r#""t.""#, r#""\"a.b""#, "1"].map(|s| with(&format!("\"source\": {s}"))),
    );
    bad.extend([r#""id""#, "[1]", "[[]]", r#"["n", "n"]"#].map(|i| with(&format!("\"indexes\": {i}"))));
    bad.extend([r#""n""#, "[1]", r#"["n", "n"]"#].map(|l| with(&format!("\"lossy\": {l}"))));
    bad.extend(
        [
            "",
            r#""public": false"#,
            r#""publik": true"#,
            r#""public": true, "filter": "n""#,
            r#""public": true, "columns": [1]"#,
            r#""public": true, "match": {"n": "org"}"#,
            r#""match": {}"#,
            r#""match": {"n": ""}"#,
            r#""match": {"n": ["org"]}"#,
            r#""match": ["n"]"#,
        ]
        .map(|feed| with(&format!("\"feed\": {{{feed}}}"))),
    );
    bad.extend([r#""feed": true"#, r#""feed": []"#, r#""writable": true"#].map(with));
    bad.extend(
        [
            "",
            r#""ops": ["update"]"#,
            r#""columns": ["n"]"#,
            r#""columns": ["n"], "ops": []"#,
            r#""columns": "n", "ops": ["update"]"#,
            r#""columns": ["n", "n"], "ops": ["update"]"#,
            r#""columns": ["n"], "ops": ["upsert"]"#,
            r#""columns": ["n"], "ops": ["update", "update"]"#,
            r#""columns": ["n"], "ops": ["update"], "conflict": "mine""#,
            r#""columns": ["n"], "ops": ["update"], "stamp": "n""#,
            r#""columns": ["n"], "ops": ["update"], "conflict": "last-write-wins""#,
            r#""columns": ["n"], "ops": ["update"], "function": "a.f""#,
            r#""columns": ["n"], "ops": ["update"], "conflict": "custom""#,
            r#""columns": ["n"], "ops": ["update"], "conflict": "custom", "function": "f""#,
            r#""columns": ["n"], "ops": ["update"], "conflict": "custom", "function": "pgflume.f""#,
            r#""columns": ["n"], "ops": ["update"], "unchecked": "yes""#,
            r#""columns": ["n"], "ops": ["update"], "open": true"#,
        ]
        .map(|writable| with(&format!("\"writable\": {{{writable}}}"))),
    );
    bad.extend([r#""where": """#, r#""where": " ""#, r#""where": 1"#, r#""evolve": "yes""#, r#""color": 1"#].map(with));
    bad.extend(
        [
            r#"{"columns":{"id":"TEXT"}}"#,
            r#"{"primaryKey":"id"}"#,
            r#"{"primaryKey":[],"columns":{"id":"TEXT"}}"#,
            r#"{"primaryKey":["id","id"],"columns":{"id":"TEXT"}}"#,
            r#"{"primaryKey":"id","columns":{}}"#,
            r#"{"primaryKey":"id","columns":[]}"#,
        ]
        .map(|t| format!(r#"{{"t": {t}}}"#)),
    );
    for (texts, expected) in [(good, true), (bad, false)] {
        for text in texts {
            assert_eq!(Schema::parse(&text).is_ok(), expected, "pgflume: {text}");
            assert_eq!(json_schema.takes(&text), expected, "JSON Schema: {text}");
        }
    }
}

#[test]
fn what_only_pgflume_can_see_is_refused_by_pgflume() {
    let json_schema = JsonSchema::load();
    for text in [
        r#"{"t": {"primaryKey":"x","columns":{"id":"TEXT"}}}"#,
        r#"{"t": {"primaryKey":"id","columns":{"id":"TEXT","ID":"TEXT"}}}"#,
        r#"{"t": {"primaryKey":"id","columns":{"id":"TEXT"},"lossy":["x"]}}"#,
        r#"{"t": {"primaryKey":"id","columns":{"id":"TEXT"}}, "T": {"primaryKey":"id","columns":{"id":"TEXT"}}}"#,
    ] {
        assert!(json_schema.takes(text) && Schema::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_schema_of_pgflume_json_says_what_pgflume_says() {
    use pgflume::config::file::{ConfigFile, JSON_SCHEMA};
    let json: Value = serde_json::from_str(include_str!("../../docs/pgflume-v1.json")).unwrap();
    assert_eq!(json["$id"], JSON_SCHEMA);
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource(JSON_SCHEMA, json).unwrap();
    let index = compiler.compile(JSON_SCHEMA, &mut schemas).unwrap();
    let sync = |sync: &str| format!(r#"{{"connections": {{"a": {{"url": "file:x"}}}}, "syncs": {{"s": {sync}}}}}"#);
    let cases = [
        ("{}".to_owned(), true),
        (r#"{"$schema": "x", "connections": {}, "syncs": {}}"#.to_owned(), true),
        (sync(r#"{"from": "postgres", "to": "a", "tables": ["*"], "exclude": "x", "every": "5s", "compare": "never"}"#), true),
        (sync(r#"{"from": "postgres", "queue": "q", "schema": "x.json", "retries": 0, "enabled": false}"#), true),
        (sync(r#"{"from": "postgres", "changed": {"t": "updated_at"}, "schemaEvery": "1m", "retryDelay": "1s"}"#), true),
        (r#"{"connections": {"a": {"url": {"file": "x"}, "user": "u", "password": "${P}", "token": "$$", "limit": "5/s"}}}"#.to_owned(), true),
        (sync("{}"), false),
        (sync(r#"{"from": "postgres", "queue": "q"}"#), false),
        (sync(r#"{"from": "postgres", "schema": "x", "tables": ["t"]}"#), false),
        (sync(r#"{"from": "postgres", "every": 5}"#), false),
        (sync(r#"{"from": "postgres", "every": "often"}"#), false),
        (sync(r#"{"from": "postgres", "retries": 101}"#), false),
        (sync(r#"{"from": "postgres", "enabled": "yes"}"#), false),
        (sync(r#"{"from": "postgres", "queue": "Q", "schema": "x"}"#), false),
        (sync(r#"{"from": "postgres", "follow": true}"#), false),
        (r#"{"syncs": {"list": {"from": "postgres"}}}"#.to_owned(), false),
        (r#"{"connections": {"a b": {"url": "x"}}}"#.to_owned(), false),
        (r#"{"connections": {"a": {}}}"#.to_owned(), false),
        (r#"{"connections": {"a": {"url": "x$y"}}}"#.to_owned(), false),
        (r#"{"connections": {"a": {"url": "x", "limit": "5"}}}"#.to_owned(), false),
        (r#"{"sync": {}}"#.to_owned(), false),
    ];
    for (text, expected) in cases {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schemas.validate(&value, index).is_ok(), expected, "the schema: {text}");
        let read = ConfigFile::parse(std::path::Path::new("pgflume.json"), &text);
        assert_eq!(read.is_ok(), expected, "pgflume: {text} {read:?}");
    }
}
