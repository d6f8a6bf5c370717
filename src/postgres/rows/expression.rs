//! How a column is selected: as it is where its binary form is known, else as text. Gives SQL.

use crate::core::schema::ColumnType;
use crate::core::value::OTHER_BOUNDS;
use crate::core::value::binary::Wire;
use crate::postgres::catalog::SourceColumn;
use tokio_postgres::types::Type;

/// The SQL that gives a column's value as it is to come.
pub(super) fn selected(kind: ColumnType, column: &SourceColumn, reference: &str) -> String {
    if column.wire == Wire::Text { expression(kind, column, reference) } else { reference.to_owned() }
}

/// The SQL that gives a column's value as the text that `value::from_text` takes.
pub(crate) fn expression(kind: ColumnType, column: &SourceColumn, reference: &str) -> String {
    match (kind, &column.base) {
        (ColumnType::Json, base) if *base != Type::JSON && *base != Type::JSONB => {
            let json = format!("pg_catalog.to_jsonb({})::pg_catalog.text", json_source(column, reference));
            match other_bounds(column, reference) {
                Some(test) => format!("case when {test} then '{OTHER_BOUNDS}' else {json} end"),
                None => json,
            }
        }
        (ColumnType::Text, base) if [Type::TIMESTAMP, Type::TIMESTAMPTZ, Type::DATE].contains(base) => {
            format!("(pg_catalog.to_jsonb({reference}) operator(pg_catalog.#>>) '{{}}')")
        }
        _ => column.text_of(reference),
    }
}

/// What JSON is made of. An enum and a range are strings there, unless somebody has made a cast to JSON, which may
/// come between a look and the read: made of their text, none is run.
fn json_source(column: &SourceColumn, reference: &str) -> String {
    match (column.is_string_in_json, column.is_array) {
        (false, _) => reference.to_owned(),
        (true, false) => column.text_of(reference),
        (true, true) => format!("({})::pg_catalog.text[]", column.text_of(reference)),
    }
}

/// SQL that is true where an array has a lower bound other than 1; `None` where the type has no arrays.
/// Those inside a value show only in its text: a text there that looks like one counts as one.
fn other_bounds(column: &SourceColumn, reference: &str) -> Option<String> {
    if column.has_arrays_inside {
        let bounds = r#"(^|[(,"{])(\[-?[0-9]+:-?[0-9]+\])+=\{"#;
        return Some(format!("{} operator(pg_catalog.~) '{bounds}'", column.text_of(reference)));
    }
    column.is_array.then(|| format!("pg_catalog.array_dims({reference}) operator(pg_catalog.~) '\\[(?!1:)'"))
}
