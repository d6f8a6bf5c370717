//! Any text as `schema.json`: one that is accepted can be written again and is read as the same, and what
//! SQLite is told about it holds no name outside quotes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgflume::core::schema::{Schema, Table, ddl};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Schema::parse(text) {
        Ok(schema) => accepted(&schema),
        Err(error) => assert!(error.path.starts_with('$') && !error.problem.is_empty()),
    }
});

fn accepted(schema: &Schema) {
    let again = written(schema);
    assert_eq!(Schema::parse(&again).as_ref(), Ok(schema), "{again}");
    let mut names: BTreeSet<String> = schema.tables().map(|table| table.name.to_lowercase()).collect();
    for table in schema.tables() {
        assert!(!table.key.is_empty() && !table.columns.is_empty());
        quoted(&ddl::create_table(table), table.columns.len() + 1 + table.key.len());
        quoted(&ddl::drop_table(table), 1);
        quoted(&table.source.quoted(), 2);
        for column in &table.columns {
            quoted(&ddl::add_column(table, column), 2);
        }
        for index in &table.indexes {
            quoted(&ddl::create_index(table, index), 2 + index.len());
            let name = ddl::index_name(table, index);
            // SQLite has one namespace for both, and IF NOT EXISTS would leave the second one out.
            assert!(names.insert(name.to_lowercase()), "{name:?} is taken");
        }
    }
}

/// Without its `names` quoted identifiers, the SQL is made of fixed words.
fn quoted(sql: &str, names: usize) {
    let (mut rest, mut found) = (sql, 0);
    let mut words = String::new();
    while let Some((before, after)) = rest.split_once('"') {
        words.push_str(before);
        found += 1;
        let mut end = after;
        loop {
            let (_, tail) = end.split_once('"').expect("a quote is closed");
            match tail.strip_prefix('"') {
                Some(doubled) => end = doubled,
                None => break rest = tail,
            }
        }
    }
    words.push_str(rest);
    assert_eq!(found, names, "{sql}");
    assert!(words.chars().all(|c| c.is_ascii_uppercase() || " ,().".contains(c)), "{sql}");
}

fn written(schema: &Schema) -> String {
    let tables: Vec<String> = schema.tables().map(|t| format!("{}:{}", json!(t.name), definition(t))).collect();
    format!("{{{}}}", tables.join(","))
}

/// By hand, because the order of columns counts.
fn definition(table: &Table) -> String {
    let name = |&i: &usize| json!(table.columns[i].name);
    let columns: Vec<String> =
        table.columns.iter().map(|c| format!("{}:{}", json!(c.name), json!(c.kind.name()))).collect();
    let list = |positions: &[usize]| Value::Array(positions.iter().map(name).collect());
    let indexes: Vec<Value> = table.indexes.iter().map(|index| list(index)).collect();
    let filter = table.filter.as_ref().map(|filter| format!(r#","where":{}"#, json!(filter))).unwrap_or_default();
    format!(
        r#"{{"primaryKey":{},"columns":{{{}}},"indexes":{},"source":{},"lossy":{},"evolve":{}{filter}}}"#,
        list(&table.key),
        columns.join(","),
        json!(indexes),
        json!(table.source.written()),
        list(&table.lossy),
        table.evolve,
    )
}
