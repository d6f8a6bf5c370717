//! Queue messages → marks and changes. Takes a message's text and the schema, gives a type that cannot
//! be wrong, or the reason why it is a dead letter. No IO, and no JSON value survives it.

use crate::core::batch::{Change, Row};
use crate::core::schema::{Schema, Table};
use crate::core::value::{Cell, Key, from_json, unescaped};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// A key as Postgres' text of the primary key's columns.
pub type MarkedKey = Vec<String>;

/// The message that marks keys.
pub fn mark_of(table: &str, keys: &[MarkedKey]) -> String {
    serde_json::json!({"v": 1, "table": table, "keys": keys}).to_string()
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// These keys may have changed: read them.
    Marks(Arc<Table>, Vec<MarkedKey>),
    /// The table was truncated.
    Truncate(Arc<Table>),
    /// A row's image, and the keys it concerns as text in case the table is captured by marks.
    Image(Arc<Table>, Change, Vec<MarkedKey>),
    /// Its table is not replicated.
    Skipped(String),
}

/// Why a message cannot be understood or applied; for its dead letter. Holds no row value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The table, if it could be read.
    pub table: Option<String>,
    /// What is wrong, with the remedy.
    pub reason: String,
    /// The keys that the message concerns, as far as they could be read.
    pub keys: Vec<MarkedKey>,
}

/// Either format: ours has `v`, Capgo's has `type`.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    v: Option<&'a RawValue>,
    #[serde(borrow)]
    table: Option<&'a RawValue>,
    #[serde(borrow)]
    keys: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    r#type: Option<&'a RawValue>,
    record: Option<&'a RawValue>,
    old_record: Option<&'a RawValue>,
}

/// A row's members in the order of the message: for a dozen columns a scan beats hashing.
struct Record<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl Record<'_> {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Record<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> serde::de::Visitor<'de> for RecordVisitor {
    type Value = Record<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Record<'de>, A::Error> {
        let mut members = Vec::with_capacity(16);
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Record(members))
    }
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads one message.
pub fn parse(text: &str, schema: &Schema) -> Result<Message, Problem> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| {
        problem(
            None,
            "is not an object of the form {\"v\":1,\"table\":...,\"keys\":...} or {\"type\":...,\"table\":...,\"record\":...}",
        )
    })?;
    let Some(name) = envelope.table.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()) else {
        return Err(problem(None, "names no table: the member \"table\" must be a string"));
    };
    let Some(table) = schema.get(&name) else {
        return Ok(Message::Skipped(name));
    };
    match envelope.v.map(RawValue::get) {
        None => image(table, &envelope),
        Some("1") => mark(table, &envelope),
        Some(_) => Err(problem(Some(table), "has a version that is not 1: upgrade pgflume, then retry it")),
    }
}

fn problem(table: Option<&Arc<Table>>, reason: impl Into<String>) -> Problem {
    Problem { table: table.map(|t| t.name.clone()), reason: reason.into(), keys: Vec::new() }
}

fn mark(table: &Arc<Table>, envelope: &Envelope<'_>) -> Result<Message, Problem> {
    if envelope.truncate.map(RawValue::get) == Some("true") {
        return Ok(Message::Truncate(table.clone()));
    }
    let form = || problem(Some(table), format!("must have \"keys\", a list of lists of {} strings", table.key.len()));
    let keys: Vec<MarkedKey> = envelope.keys.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(form)?;
    if keys.iter().any(|key| key.len() != table.key.len() || key.iter().any(|part| part.contains('\0'))) {
        return Err(form());
    }
    Ok(Message::Marks(table.clone(), keys))
}

fn image(table: &Arc<Table>, envelope: &Envelope<'_>) -> Result<Message, Problem> {
    let kind = envelope.r#type.map(RawValue::get);
    let record = record(table, "record", envelope.record)?;
    let old_record = self::record(table, "old_record", envelope.old_record)?;
    let known = [&record, &old_record].into_iter().flatten().filter(|record| has_key(table, record));
    let keys = known.map(|record| marked(table, record)).collect();
    change(table, kind, record, old_record).map_err(|problem| Problem { keys, ..problem })
}

fn change(
    table: &Arc<Table>,
    kind: Option<&str>,
    record: Option<Record<'_>>,
    old_record: Option<Record<'_>>,
) -> Result<Message, Problem> {
    match kind {
        Some("\"INSERT\"" | "\"UPDATE\"") => {
            let record =
                record.ok_or_else(|| problem(Some(table), "has no record: an INSERT or UPDATE needs the new row"))?;
            let row = row(table, &record)?;
            let mut marks = vec![marked(table, &record)];
            let old = match &old_record {
                Some(old) if has_key(table, old) && kind == Some("\"UPDATE\"") => {
                    marks.push(marked(table, old));
                    Some(key(table, old)?)
                }
                _ => None,
            };
            marks.dedup();
            Ok(Message::Image(table.clone(), Change { gone: old.filter(|old| *old != row.0), row: Some(row) }, marks))
        }
        Some("\"DELETE\"") => {
            let old = old_record
                .or(record)
                .ok_or_else(|| problem(Some(table), "has no old_record: a DELETE needs the old row's key"))?;
            let gone = key(table, &old)?;
            Ok(Message::Image(table.clone(), Change { gone: Some(gone), row: None }, vec![marked(table, &old)]))
        }
        _ => Err(problem(Some(table), "has no known type: it must be INSERT, UPDATE or DELETE")),
    }
}

fn record<'a>(table: &Arc<Table>, name: &str, raw: Option<&'a RawValue>) -> Result<Option<Record<'a>>, Problem> {
    match raw {
        None => Ok(None),
        Some(raw) => serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_| problem(Some(table), format!("has a {name} that is neither an object nor null"))),
    }
}

fn row(table: &Arc<Table>, record: &Record<'_>) -> Result<Row, Problem> {
    let key = key(table, record)?;
    let mut columns = Vec::with_capacity(table.columns.len());
    let mut cells = Vec::with_capacity(table.columns.len());
    for (i, column) in table.columns.iter().enumerate() {
        if let Some(raw) = record.get(column.name.as_str()) {
            columns.push(i);
            cells.push(cell(table, i, raw)?);
        }
    }
    Ok((key, columns.into(), cells))
}

fn has_key(table: &Table, record: &Record<'_>) -> bool {
    table.key_columns().all(|c| record.get(c.name.as_str()).is_some_and(|raw| raw.get() != "null"))
}

fn key(table: &Arc<Table>, record: &Record<'_>) -> Result<Key, Problem> {
    table
        .key
        .iter()
        .map(|&i| {
            let name = &table.columns[i].name;
            match record.get(name.as_str()) {
                Some(raw) if raw.get() != "null" => cell(table, i, raw),
                _ => Err(problem(Some(table), format!("lacks the key column {name:?}, or it is null"))),
            }
        })
        .collect()
}

fn cell(table: &Arc<Table>, i: usize, raw: &RawValue) -> Result<Cell, Problem> {
    let column = &table.columns[i];
    from_json(column.kind, raw).map_err(|e| problem(Some(table), format!("column {:?} {e}", column.name)))
}

/// The key as text, for images of a table that is captured by marks. Call only where the key is there.
fn marked(table: &Table, record: &Record<'_>) -> MarkedKey {
    table
        .key_columns()
        .map(|c| {
            let json = record.get(c.name.as_str()).map_or("", |raw| raw.get());
            match unescaped(json) {
                Some(text) => text.to_owned(),
                None => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::parse(
            r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","a":"TEXT"}},
                          "c":{"primaryKey":["x","y"],"columns":{"x":"TEXT","y":"TEXT","n":"INTEGER"}}}"#,
        )
        .unwrap()
    }

    fn read(text: &str) -> Result<Message, Problem> {
        parse(text, &schema())
    }

    fn change(text: &str) -> Change {
        match read(text) {
            Ok(Message::Image(_, change, _)) => change,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn marks_are_read() {
        let t = schema().get("c").unwrap().clone();
        let keys = vec![vec!["a".to_owned(), "b".to_owned()]];
        assert_eq!(read(r#"{"v":1,"table":"c","keys":[["a","b"]]}"#), Ok(Message::Marks(t.clone(), keys)));
        assert_eq!(read(r#"{"v": 1, "table": "c", "truncate": true}"#), Ok(Message::Truncate(t)));
    }

    #[test]
    fn an_image_keeps_only_listed_columns_and_says_which_it_has() {
        let c = change(r#"{"record":{"id":9007199254740993,"other":1},"old_record":null,"type":"INSERT","table":"t"}"#);
        let (key, columns, cells) = c.row.unwrap();
        assert_eq!(key, [Cell::Integer(9_007_199_254_740_993)]);
        assert_eq!((&*columns, cells.len()), (&[0][..], 1));
    }

    #[test]
    fn a_changed_key_ends_the_old_row() {
        let c = change(
            r#"{"record":{"x":"a","y":"2","n":1},"old_record":{"x":"a","y":"1","n":1},"type":"UPDATE","table":"c"}"#,
        );
        assert_eq!(c.gone, Some(vec![Cell::Text("a".into()), Cell::Text("1".into())]));
        let same = change(r#"{"record":{"id":1,"a":"n"},"old_record":{"id":1,"a":"o"},"type":"UPDATE","table":"t"}"#);
        assert_eq!(same.gone, None);
    }

    #[test]
    fn a_delete_takes_the_key_from_the_old_row() {
        let c = change(r#"{"record":null,"old_record":{"id":5},"type":"DELETE","table":"t"}"#);
        assert_eq!((c.gone, c.row), (Some(vec![Cell::Integer(5)]), None));
    }

    #[test]
    fn an_unknown_table_is_skipped_whatever_else_it_says() {
        assert_eq!(read(r#"{"v":7,"table":"x;--"}"#), Ok(Message::Skipped("x;--".into())));
    }

    #[test]
    fn broken_messages_say_what_is_wrong_and_nothing_of_the_row() {
        let cases = [
            ("null", "is not an object"),
            ("[1]", "is not an object"),
            ("{}", "names no table"),
            (r#"{"table":5}"#, "names no table"),
            (r#"{"v":2,"table":"t","keys":[]}"#, "has a version"),
            (r#"{"v":1,"table":"t"}"#, "must have \"keys\""),
            (r#"{"v":1,"table":"t","keys":[[1]]}"#, "must have \"keys\""),
            (r#"{"v":1,"table":"c","keys":[["a"]]}"#, "must have \"keys\""),
            (r#"{"v":1,"table":"c","keys":[["a",null]]}"#, "must have \"keys\""),
            (r#"{"type":"INSERT","table":"t","record":null}"#, "has no record"),
            (r#"{"type":"INSERT","table":"t","record":"secret"}"#, "has a record that is neither"),
            (r#"{"type":"INSERT","table":"t","record":{"a":"secret"}}"#, "lacks the key column \"id\""),
            (r#"{"type":"INSERT","table":"t","record":{"id":null}}"#, "lacks the key column \"id\""),
            (r#"{"type":"INSERT","table":"t","record":{"id":"secret"}}"#, "column \"id\" is not a 64-bit integer"),
            (r#"{"type":"DELETE","table":"t","record":null,"old_record":null}"#, "has no old_record"),
            (r#"{"type":"UPSERT","table":"t","record":{"id":1}}"#, "has no known type"),
        ];
        for (text, expected) in cases {
            let Err(problem) = read(text) else { panic!("{text} was understood") };
            assert!(problem.reason.starts_with(expected), "{text}: {}", problem.reason);
            assert!(!problem.reason.contains("secret"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in proptest::prelude::any::<String>()) {
            read(&text).ok();
            read(&format!(r#"{{"table":"t","type":"INSERT","record":{text}}}"#)).ok();
        }
    }
}
