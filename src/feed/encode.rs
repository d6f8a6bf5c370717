//! Messages as clients read them: values as Postgres writes them, and of which types they are. No IO.

use super::change::Operation;
use super::changes::Change;
use super::shape::Shape;
use crate::core::schema::{Column, ColumnType};
use crate::core::token::Seen;
use crate::core::value::{Cell, Key};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What stands between two messages; none has a line break within.
pub(super) const SEPARATOR: &str = ",\n";

/// Messages of one answer.
#[derive(Debug, Default)]
pub(super) struct Messages {
    text: String,
    /// What they tell is of this cut, and changes what came before.
    cut: Option<i64>,
}

impl Messages {
    /// Of changes up to a cut.
    pub fn up_to(cut: i64) -> Self {
        Self { text: String::new(), cut: Some(cut) }
    }

    /// What brings one who has a shape's rows as they were to a cut; `may_lack`: it may have some of them, or not.
    pub fn of<'a>(
        shape: &Shape,
        types: &Types,
        cut: i64,
        changes: impl IntoIterator<Item = &'a Change>,
        may_lack: bool,
    ) -> Self {
        let mut messages = Self::up_to(cut);
        for change in changes {
            for operation in shape.operations(change, may_lack) {
                let cells = change.now.as_deref().filter(|_| *operation != Operation::Delete);
                messages.push(shape, types, *operation, &change.key, cells);
            }
        }
        messages
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// A row of a shape, by all of its table's cells; of one that is gone, its key.
    pub fn push(&mut self, shape: &Shape, types: &Types, operation: Operation, key: &Key, cells: Option<&[Cell]>) {
        let column = |at: usize, cell: &Cell| {
            (shape.table.columns[at].name.clone(), types.value(&shape.table.columns[at], cell))
        };
        let value: Map<String, Value> = match cells {
            Some(cells) => shape.columns.iter().filter_map(|&at| Some(column(at, cells.get(at)?))).collect(),
            None => shape.table.key.iter().zip(key).map(|(&at, cell)| column(at, cell)).collect(),
        };
        let source = &shape.table.source;
        let mut headers = json!({"operation": operation.name(), "relation": [source.schema, source.table]});
        if let Some(cut) = self.cut {
            headers["lsn"] = json!(cut.to_string());
        }
        if !self.text.is_empty() {
            self.text.push_str(SEPARATOR);
        }
        self.text.push_str(&json!({"key": key_text(shape, key), "value": value, "headers": headers}).to_string());
    }

    /// All of them.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// That a client that has all before has all there is at this cut.
pub(super) fn up_to_date(cut: i64) -> String {
    json!({"headers": {"control": "up-to-date", "global_last_seen_lsn": cut.to_string()}}).to_string()
}

/// Which transactions of the source what a client has sees.
pub(super) fn snapshot_end(seen: &Seen) -> String {
    let running: Vec<String> = seen.running.iter().map(i64::to_string).collect();
    json!({"headers": {"control": "snapshot-end", "xmin": seen.xmin.to_string(), "xmax": seen.xmax.to_string(), "xip_list": running}})
        .to_string()
}

/// That a client has to begin anew.
pub(super) fn must_refetch() -> String {
    json!([{"headers": {"control": "must-refetch"}}]).to_string()
}

/// `"schema"."table"/"1"/"2"`, by which clients tell rows apart.
fn key_text(shape: &Shape, key: &Key) -> String {
    let parts = key.iter().map(|cell| {
        // A slash stands for itself where there are two.
        format!("\"{}\"", cell.to_postgres_text().unwrap_or_default().replace('/', "//"))
    });
    format!("{}/{}", shape.table.source.quoted(), parts.collect::<Vec<_>>().join("/"))
}

/// The source's types of a table's columns, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Types(BTreeMap<String, String>);

impl Types {
    /// From the JSON object that the replica keeps of them.
    pub fn read(json: Option<&str>) -> Self {
        Self(json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default())
    }

    /// As Postgres writes the value of a column.
    fn value(&self, column: &Column, cell: &Cell) -> Value {
        let is_boolean =
            column.kind == ColumnType::Boolean || self.0.get(&column.name).is_some_and(|name| name == "boolean");
        match cell {
            Cell::Null => Value::Null,
            Cell::Integer(number) if is_boolean => json!(if *number == 0 { "false" } else { "true" }),
            cell => json!(cell.to_postgres_text()),
        }
    }

    /// What `electric-schema` says of a shape's columns.
    pub fn schema(&self, shape: &Shape) -> String {
        let of = |&at: &usize| {
            let column = &shape.table.columns[at];
            let mut described = self.described(column);
            if let Some(place) = shape.table.key.iter().position(|key| *key == at) {
                described.insert("pk_index".to_owned(), json!(place));
                described.insert("not_null".to_owned(), json!(true));
            }
            (column.name.clone(), Value::Object(described))
        };
        Value::Object(shape.columns.iter().map(of).collect()).to_string()
    }

    fn described(&self, column: &Column) -> Map<String, Value> {
        let declared = self.0.get(&column.name).map(String::as_str);
        let whole = |name: &str| Map::from_iter([("type".to_owned(), json!(name))]);
        // Whatever the source has there, these are written as the replica's type is.
        let is_own = matches!(column.kind, ColumnType::Boolean | ColumnType::Blob);
        let Some(declared) = declared.filter(|_| !is_own) else { return whole(by_kind(column.kind)) };
        let (element, dimensions) = match declared.find('[') {
            Some(at) => (&declared[..at], declared[at..].matches('[').count()),
            None => (declared, 0),
        };
        // What is kept as JSON is that, whatever it was.
        if column.kind == ColumnType::Json && !["json", "jsonb"].contains(&declared) {
            return whole("jsonb");
        }
        // A type that only a MySQL has and no client knows goes by what the replica makes of it.
        let is_bits = column.kind == ColumnType::Integer && parts(element).0 == "bit";
        let name = if is_bits || is_mysqls(element) { by_kind(column.kind) } else { short(element) };
        let mut described = whole(name);
        if dimensions > 0 {
            described.insert("dims".to_owned(), json!(dimensions));
        }
        described
    }
}

fn by_kind(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Integer => "int8",
        ColumnType::Real => "float8",
        ColumnType::Text => "text",
        ColumnType::Boolean => "bool",
        ColumnType::Json => "jsonb",
        ColumnType::Blob => "bytea",
        ColumnType::Decimal => "numeric",
    }
}

/// A type without its digits, and what stands behind them.
fn parts(declared: &str) -> (&str, &str) {
    match (declared.find('('), declared.rfind(')')) {
        (Some(open), Some(close)) if open < close => (&declared[..open], &declared[close + 1..]),
        _ => (declared, ""),
    }
}

/// Whether a type is one of MySQL's that has no like in Postgres.
fn is_mysqls(declared: &str) -> bool {
    ["year", "enum", "set"].contains(&parts(declared).0)
}

/// The name that clients know a type by, without its digits: Postgres' types, and those of MySQL that are like one.
fn short(declared: &str) -> &str {
    let (name, behind) = parts(declared);
    let is_zoned = behind.ends_with("with time zone");
    let is_unsigned = declared.contains(" unsigned");
    match name.split(" unsigned").next().unwrap_or(name) {
        "tinyint" => "int2",
        "smallint" | "mediumint" if is_unsigned => "int4",
        "smallint" => "int2",
        "int" | "integer" if is_unsigned => "int8",
        "bigint" if is_unsigned => "numeric",
        "mediumint" | "int" | "integer" => "int4",
        "bigint" => "int8",
        "decimal" => "numeric",
        "float" => "float4",
        "double" => "float8",
        "char" => "bpchar",
        "tinytext" | "mediumtext" | "longtext" => "text",
        "datetime" => "timestamp",
        "real" => "float4",
        "double precision" => "float8",
        "boolean" => "bool",
        "character varying" => "varchar",
        "character" => "bpchar",
        "timestamp" if is_zoned => "timestamptz",
        "time" if is_zoned => "timetz",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time with time zone" => "timetz",
        "time without time zone" => "time",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;

    fn shape(json: &str) -> Shape {
        Shape::of(Schema::parse(json).unwrap().get("t").unwrap()).unwrap()
    }

    #[test]
    fn types_go_by_the_names_that_clients_know() {
        for (declared, expected) in [
            ("bigint", "int8"),
            ("numeric(10,2)", "numeric"),
            ("character varying(20)", "varchar"),
            ("timestamp(3) with time zone", "timestamptz"),
            ("timestamp(3) without time zone", "timestamp"),
            ("timestamp with time zone", "timestamptz"),
            ("uuid", "uuid"),
            ("tinyint(4)", "int2"),
            ("smallint(5) unsigned", "int4"),
            ("mediumint", "int4"),
            ("int(11)", "int4"),
            ("int unsigned", "int8"),
            ("int(10) unsigned zerofill", "int8"),
            ("bigint(20) unsigned", "numeric"),
            ("decimal(10,2) unsigned", "numeric"),
            ("double", "float8"),
            ("varchar(20)", "varchar"),
            ("longtext", "text"),
            ("datetime(6)", "timestamp"),
            ("timestamp", "timestamp"),
        ] {
            assert_eq!(short(declared), expected, "{declared}");
        }
        let shape = shape(
            r#"{"t":{"primaryKey":["b","a"],"columns":{"a":"INTEGER","b":"TEXT","tags":"TEXT","list":"JSON","x":"REAL"},"feed":{"public":true}}}"#,
        );
        let types = Types::read(Some(r#"{"a":"bigint","b":"text","tags":"integer[]","list":"integer[]"}"#));
        let schema: Value = serde_json::from_str(&types.schema(&shape)).unwrap();
        assert_eq!(
            schema,
            json!({"a": {"type": "int8", "pk_index": 1, "not_null": true}, "b": {"type": "text", "pk_index": 0, "not_null": true},
                "tags": {"type": "int4", "dims": 1}, "list": {"type": "jsonb"}, "x": {"type": "float8"}})
        );
    }

    #[test]
    fn what_has_no_like_in_postgres_goes_by_the_type_in_the_replica() {
        let shape = shape(
            r#"{"t":{"primaryKey":"y","columns":{"y":"INTEGER","e":"TEXT","ok":"BOOLEAN","tiny":"INTEGER","b":"BLOB","n":"DECIMAL"},"feed":{"public":true}}}"#,
        );
        let types = Types::read(Some(
            r#"{"y":"year(4)","e":"enum('a)','b')","ok":"tinyint(1)","tiny":"tinyint(1)","b":"varbinary(9)","n":"bigint(20) unsigned"}"#,
        ));
        let schema: Value = serde_json::from_str(&types.schema(&shape)).unwrap();
        let of = |column: &str| schema[column]["type"].as_str().unwrap().to_owned();
        assert_eq!(["y", "e", "ok", "tiny", "b", "n"].map(of), ["int8", "text", "bool", "int2", "bytea", "numeric"]);
        assert_eq!(types.value(&shape.table.columns[2], &Cell::Integer(1)), json!("true"));
        assert_eq!(types.value(&shape.table.columns[3], &Cell::Integer(1)), json!("1"));
    }

    #[test]
    fn messages_are_as_clients_read_them() {
        let shape = shape(
            r#"{"t":{"source":"s.\"T\"","primaryKey":["b","a"],"columns":{"a":"INTEGER","b":"TEXT","ok":"INTEGER","bytes":"BLOB","n":"TEXT"},"feed":{"public":true}}}"#,
        );
        let types = Types::read(Some(r#"{"ok":"boolean"}"#));
        let cells = [
            Cell::Integer(i64::MAX),
            Cell::Text("x/\"y".into()),
            Cell::Integer(1),
            Cell::Blob(vec![0, 255]),
            Cell::Null,
        ];
        let key = vec![cells[1].clone(), cells[0].clone()];
        let mut messages = Messages::up_to(7);
        messages.push(&shape, &types, Operation::Insert, &key, Some(&cells));
        messages.push(&shape, &types, Operation::Delete, &key, None);
        let all: Value = serde_json::from_str(&format!("[{}]", messages.into_text())).unwrap();
        let name = r#""s"."T"/"x//"y"/"9223372036854775807""#;
        let headers = |operation| json!({"operation": operation, "relation": ["s", "T"], "lsn": "7"});
        let key = json!({"a": "9223372036854775807", "b": "x/\"y"});
        let mut whole = key.clone();
        whole
            .as_object_mut()
            .unwrap()
            .extend(json!({"ok": "true", "bytes": "\\x00ff", "n": null}).as_object().unwrap().clone());
        assert_eq!(
            all,
            json!([
                {"key": name, "value": whole, "headers": headers("insert")},
                {"key": name, "value": key, "headers": headers("delete")},
            ])
        );
    }
}
