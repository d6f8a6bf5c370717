//! The text of a `schema.json`, to which members are added and in which nothing else changes: not a space
//! of what the user wrote. Takes text, gives text. No IO.

use super::definition::{Definition, json_string};
use crate::core::json::edit::{append, members};
use crate::core::schema::{ColumnType, Schema, SchemaError};
use std::ops::Range;

/// Where the JSON Schema of `schema.json` is published. `docs/schema-v1.json` is the file behind it.
pub const JSON_SCHEMA: &str = "https://raw.githubusercontent.com/pgflume/pgflume/main/docs/schema-v1.json";

/// A `schema.json` that is there already, or an empty one.
#[derive(Debug, Clone)]
pub struct Document {
    text: String,
    /// Its tables; none in a file that names none yet.
    pub schema: Schema,
}

impl Document {
    /// One that names no table.
    pub fn empty() -> Self {
        let text = format!("{{\n  \"$schema\": {}\n}}\n", json_string(JSON_SCHEMA));
        Self { text, schema: Schema::default() }
    }

    /// Checks the text completely: what is broken is not touched. A file without tables is none that is broken.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        if text.trim().is_empty() {
            return Ok(Self::empty());
        }
        let names_none = members(text).is_some_and(|all| all.iter().all(|(name, _)| name == "$schema"));
        let schema = if names_none { Schema::default() } else { Schema::parse(text)? };
        Ok(Self { text: text.to_owned(), schema })
    }

    /// The text with these tables at its end, and these columns at the end of each table's.
    pub fn with(&self, tables: &[Definition], columns: &[(String, Vec<(String, ColumnType)>)]) -> String {
        let mut edits: Vec<(usize, String)> = Vec::new();
        for (table, more) in columns.iter().filter(|(_, more)| !more.is_empty()) {
            if let Some(object) = self.columns_of(table) {
                let pairs = more.iter().map(|(n, kind)| format!("{}: {}", json_string(n), json_string(kind.name())));
                edits.push(append(&self.text, object, &pairs.collect::<Vec<_>>()));
            }
        }
        if !tables.is_empty() {
            let written: Vec<_> = tables.iter().map(|t| t.to_string().trim_start().to_owned()).collect();
            let start = self.text.len() - self.text.trim_start().len();
            let (at, mut text) = append(&self.text, start..self.text.trim_end().len(), &written);
            if !text.starts_with("\n") && !text.starts_with(",\n") {
                text = format!("{}\n  {}\n", if text.starts_with(',') { "," } else { "" }, written.join(",\n  "));
            }
            edits.push((at, text));
        }
        // From the end, so that places stay where they are.
        edits.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut text = self.text.clone();
        for (at, insertion) in edits {
            text.insert_str(at, &insertion);
        }
        text
    }

    /// Where the braces of a table's `columns` are.
    fn columns_of(&self, table: &str) -> Option<Range<usize>> {
        let tables = members(&self.text)?;
        let (_, definition) = tables.iter().find(|(name, _)| name == table)?;
        let all = members(definition.get())?;
        let columns = all.iter().find(|(name, _)| name == "columns")?.1.get();
        // A raw value is a part of the text that it was read from.
        let start = (columns.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        Some(start..start + columns.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Definition {
        Definition {
            name: name.into(),
            source: None,
            key: vec!["id".into()],
            columns: vec![("id".into(), ColumnType::Integer)],
            indexes: Vec::new(),
            left_out: Vec::new(),
        }
    }

    const ADDED: &str =
        "\"new\": {\n    \"primaryKey\": \"id\",\n    \"columns\": {\n      \"id\": \"INTEGER\"\n    }\n  }";

    #[test]
    fn tables_are_added_at_the_end_and_the_rest_keeps_its_form() {
        let old = r#""old": { "columns": {"id":"TEXT"},   "primaryKey": "id" }"#;
        let cases = [
            ("{}".to_owned(), format!("{{\n  {ADDED}\n}}")),
            ("{\n}\n".to_owned(), format!("{{\n  {ADDED}\n}}\n")),
            (format!("{{{old}}}"), format!("{{{old},\n  {ADDED}\n}}")),
            (format!("\n{{ {old} }}\n\n"), format!("\n{{ {old},\n  {ADDED}\n }}\n\n")),
            (format!("{{\n {old}\n}}"), format!("{{\n {old},\n  {ADDED}\n}}")),
            (format!("{{\n {old} }}"), format!("{{\n {old},\n  {ADDED}\n }}")),
        ];
        for (text, expected) in cases {
            let made = Document::parse(&text).unwrap().with(&[table("new")], &[]);
            assert_eq!(made, expected);
            Schema::parse(&made).unwrap();
        }
        let made = Document::empty().with(&[table("a"), table("b")], &[]);
        assert!(made.starts_with("{\n  \"$schema\": \"https://") && made.ends_with("  }\n}\n"), "{made}");
        assert_eq!(Schema::parse(&made).unwrap().tables().count(), 2);
    }

    #[test]
    fn columns_are_added_in_the_manner_of_those_that_are_there() {
        let more = [("a\"b".to_owned(), ColumnType::Json), ("c".to_owned(), ColumnType::Real)];
        for (columns, expected) in [
            (r#"{"id":"TEXT"}"#, r#"{"id":"TEXT", "a\"b": "JSON", "c": "REAL"}"#),
            (r#"{ "id": "TEXT" }"#, r#"{ "id": "TEXT", "a\"b": "JSON", "c": "REAL" }"#),
            (
                "{\n      \"id\": \"TEXT\"\n    }",
                "{\n      \"id\": \"TEXT\",\n      \"a\\\"b\": \"JSON\",\n      \"c\": \"REAL\"\n    }",
            ),
            (
                "{\n\t\t\"id\": \"TEXT\"\n\t}",
                "{\n\t\t\"id\": \"TEXT\",\n\t\t\"a\\\"b\": \"JSON\",\n\t\t\"c\": \"REAL\"\n\t}",
            ),
        ] {
            let around = |columns: &str| {
                format!(
                    r#"{{"x":{{"primaryKey":"id","columns":{{"id":"BLOB"}}}}, "t": {{"columns": {columns}, "primaryKey": "id"}}}}"#
                )
            };
            let document = Document::parse(&around(columns)).unwrap();
            let made = document.with(&[], &[("t".to_owned(), more.to_vec())]);
            assert_eq!(made, around(expected));
            Schema::parse(&made).unwrap();
            let both = document.with(&[table("new")], &[("t".to_owned(), more.to_vec())]);
            assert_eq!(Schema::parse(&both).unwrap().tables().count(), 3, "{both}");
        }
    }

    #[test]
    fn a_broken_file_is_refused() {
        for text in ["{", "[]", r#"{"t": {}}"#, r#"{"$schema": "x", "t": 1}"#] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
        for text in ["", " \n", "{}", r#"{"$schema": "x"}"#] {
            assert_eq!(Document::parse(text).unwrap().schema.tables().count(), 0, "{text}");
        }
    }
}
