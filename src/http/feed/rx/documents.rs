//! Rows as the documents of RxDB, and documents as changes of rows. No IO.
//!
//! A document has its table's columns as JSON: an INTEGER is a number where JavaScript has it exactly, else text; BOOLEAN is
//! true or false, REAL a number, JSON is itself, and all else is text as Postgres writes it. The key is text, as RxDB has it.
//! What is null is left out. Of a row that is gone there is the key, and `_deleted`.

use crate::core::schema::{ColumnType, Op, Table};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What says that a document is gone.
const DELETED: &str = "_deleted";

/// The integers that JavaScript has exactly end here.
const MOST_EXACT: i64 = (1 << 53) - 1;

/// A document, or a row's columns.
pub(super) type Document = Map<String, Value>;

/// A change that somebody made to a document.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub op: Op,
    /// For `POST /v1/push`.
    pub json: Value,
}

/// The name of a table's key; `None` where it has several columns.
pub(super) fn key(table: &Table) -> Option<&str> {
    match table.key[..] {
        [at] => Some(&table.columns[at].name),
        _ => None,
    }
}

/// The documents of messages, each once, as it is in the end.
pub(super) fn of_messages(table: &Table, messages: Vec<Value>) -> Vec<Document> {
    let (mut order, mut last) = (Vec::new(), BTreeMap::new());
    for message in messages {
        let Value::Object(mut message) = message else { continue };
        let (Some(Value::String(key)), Some(Value::Object(value))) = (message.remove("key"), message.remove("value"))
        else {
            continue;
        };
        let is_gone = message.get("headers").is_some_and(|headers| headers["operation"] == "delete");
        if last.insert(key.clone(), of_row(table, value, is_gone)).is_none() {
            order.push(key);
        }
    }
    order.iter().filter_map(|key| last.remove(key)).collect()
}

/// A row's columns as a document.
pub(super) fn of_row(table: &Table, row: Document, is_gone: bool) -> Document {
    let fed = table.fed_columns();
    let mut document = Document::new();
    for (at, column) in table.columns.iter().enumerate().filter(|(at, _)| fed.contains(at) || table.key.contains(at)) {
        match row.get(&column.name) {
            Some(Value::Null) | None => {}
            Some(value) if table.key.contains(&at) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                document.insert(column.name.clone(), json!(text));
            }
            Some(value) => drop(document.insert(column.name.clone(), typed(column.kind, value))),
        }
    }
    document.insert(DELETED.to_owned(), json!(is_gone));
    document
}

fn typed(kind: ColumnType, value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    let found = match (kind, text.as_str()) {
        (ColumnType::Boolean | ColumnType::Integer, "true" | "t") => Some(json!(true)),
        (ColumnType::Boolean | ColumnType::Integer, "false" | "f") => Some(json!(false)),
        (ColumnType::Integer, text) => {
            text.parse::<i64>().ok().filter(|number| number.abs() <= MOST_EXACT).map(|number| json!(number))
        }
        (ColumnType::Real, text) => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|n| json!(n)),
        (ColumnType::Json, text) => serde_json::from_str(text).ok(),
        _ => None,
    };
    found.unwrap_or_else(|| value.clone())
}

/// Only the key of a document, which is gone.
pub(super) fn gone(table: &Table, document: &Document) -> Document {
    let key = table.key_columns().filter_map(|column| Some((column.name.clone(), document.get(&column.name)?.clone())));
    key.chain([(DELETED.to_owned(), json!(true))]).collect()
}

/// What brings a row from the document that a client assumed to its new one; `None` where that is nothing.
pub(super) fn change(table: &Table, new: &Document, assumed: Option<&Document>) -> Option<Change> {
    let is_gone = |document: &Document| document.get(DELETED) == Some(&json!(true));
    let known = assumed.filter(|document| !is_gone(document));
    let is_key = |name: &str| table.key_columns().any(|column| column.name == name);
    // What begins so is RxDB's own.
    let is_column = |name: &str| !is_key(name) && !name.starts_with('_');
    let key: Document = gone(table, new).into_iter().filter(|(name, _)| name != DELETED).collect();
    let value = |document: &Document, name: &str| document.get(name).cloned().unwrap_or(Value::Null);
    let change = |op: Op, rest: Value| {
        let mut json = json!({"table": table.name, "op": op.name(), "key": key});
        if let (Some(members), Value::Object(rest)) = (json.as_object_mut(), rest) {
            members.extend(rest);
        }
        Some(Change { op, json })
    };
    let base = |known: &Document| -> Document {
        let fed = table.fed_columns();
        let names = table.columns.iter().enumerate().filter(|(at, _)| fed.contains(at)).map(|(_, c)| c.name.as_str());
        names.filter(|name| is_column(name)).map(|name| (name.to_owned(), value(known, name))).collect()
    };
    match (known, is_gone(new)) {
        (None, true) => None,
        (None, false) => {
            let set: Document = new.clone().into_iter().filter(|(name, _)| is_column(name)).collect();
            change(Op::Insert, json!({"set": set}))
        }
        (Some(known), true) => change(Op::Delete, json!({"base": base(known)})),
        (Some(known), false) => {
            let names: std::collections::BTreeSet<&String> = new.keys().chain(known.keys()).collect();
            let changed = names.into_iter().filter(|name| is_column(name) && value(new, name) != value(known, name));
            let set: Document = changed.map(|name| (name.clone(), value(new, name))).collect();
            if set.is_empty() { None } else { change(Op::Update, json!({"set": set, "base": base(known)})) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;
    use std::sync::Arc;

    fn table() -> Arc<Table> {
        let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","n":"INTEGER","ok":"BOOLEAN","r":"REAL","doc":"JSON","d":"DECIMAL","x":"TEXT"},
            "feed":{"public":true,"columns":["id","n","ok","r","doc","d"]}}}"#;
        Schema::parse(json).unwrap().get("t").unwrap().clone()
    }

    fn object(value: Value) -> Document {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn rows_are_documents_that_javascript_has_exactly() {
        let message = |operation: &str, value: Value| json!({"key": format!("t/{}", value["id"]), "value": value, "headers": {"operation": operation}});
        let messages = vec![
            message(
                "insert",
                json!({"id": "1", "n": "9007199254740991", "ok": "true", "r": "1.5", "doc": "{\"a\": [1]}", "d": "1.10"}),
            ),
            message(
                "insert",
                json!({"id": "2", "n": "-9007199254740992", "ok": null, "r": "NaN", "doc": null, "d": null}),
            ),
            message("delete", json!({"id": "3"})),
            message("insert", json!({"id": "3", "n": "1"})),
            message("delete", json!({"id": "1"})),
            json!({"headers": {"control": "up-to-date"}}),
        ];
        let documents = json!(of_messages(&table(), messages.clone()));
        assert_eq!(
            documents,
            json!([{"id": "1", "_deleted": true}, {"id": "2", "n": "-9007199254740992", "r": "NaN", "_deleted": false},
                {"id": "3", "n": 1, "_deleted": false}])
        );
        assert_eq!(
            json!(of_messages(&table(), messages[..1].to_vec())),
            json!([{"id": "1", "n": 9007199254740991_i64, "ok": true, "r": 1.5, "doc": {"a": [1]}, "d": "1.10", "_deleted": false}])
        );
        let seen = object(json!({"id": 1, "n": "5", "x": "hidden", "ok": false}));
        assert_eq!(json!(of_row(&table(), seen, false)), json!({"id": "1", "n": 5, "ok": false, "_deleted": false}));
    }

    #[test]
    fn documents_are_changes_of_what_was_assumed() {
        let known = object(json!({"id": "1", "n": 1, "ok": true, "_deleted": false}));
        let of =
            |new: Value, assumed: Option<&Document>| change(&table(), &object(new), assumed).map(|change| change.json);
        let base = json!({"n": 1, "ok": true, "r": null, "doc": null, "d": null});
        assert_eq!(
            of(json!({"id": "1", "n": 2, "_deleted": false, "_rev": "x"}), Some(&known)),
            Some(json!({"table": "t", "op": "update", "key": {"id": "1"}, "set": {"n": 2, "ok": null}, "base": base}))
        );
        assert_eq!(of(json!(known), Some(&known)), None);
        let deleted = json!({"id": "1", "_deleted": true});
        assert_eq!(
            of(deleted.clone(), Some(&known)),
            Some(json!({"table": "t", "op": "delete", "key": {"id": "1"}, "base": base}))
        );
        assert_eq!(of(deleted.clone(), None), None);
        let insert = Some(json!({"table": "t", "op": "insert", "key": {"id": "1"}, "set": {"n": 3}}));
        let new = json!({"id": "1", "n": 3, "_deleted": false});
        assert_eq!(of(new.clone(), None), insert);
        assert_eq!(of(new, Some(&object(deleted))), insert);
    }
}
