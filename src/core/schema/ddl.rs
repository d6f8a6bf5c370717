//! What SQLite is told about a replicated table. Takes a [`Table`], gives SQL; runs nothing.

use super::names::{quote, quoted_list};
use super::table::{Column, ColumnType, Table};

/// The declared type: one of the five whose affinity keeps every value as it is
/// (<https://sqlite.org/datatype3.html>, "Determination of column affinity").
pub(crate) fn declared_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Integer => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Blob => "BLOB",
        ColumnType::Text | ColumnType::Json | ColumnType::Decimal => "TEXT",
    }
}

/// `CREATE TABLE IF NOT EXISTS`. Keys are NOT NULL, because SQLite lets NULL into a primary key.
pub fn create_table(table: &Table) -> String {
    let columns = table.columns.iter().enumerate().map(|(i, column)| {
        let not_null = if table.key.contains(&i) { " NOT NULL" } else { "" };
        format!("{} {}{not_null}", quote(&column.name), declared_type(column.kind))
    });
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({}))",
        quote(&table.name),
        columns.collect::<Vec<_>>().join(", "),
        key_list(table)
    )
}

/// The name of an index: the one that Capgo's worker gives, so that a take-over builds none twice.
pub fn index_name(table: &Table, index: &[usize]) -> String {
    let columns: Vec<_> = index.iter().map(|&i| table.columns[i].name.as_str()).collect();
    index_name_of(&table.name, &columns)
}

/// The same of a table that is not defined yet.
pub(crate) fn index_name_of(table: &str, columns: &[impl AsRef<str>]) -> String {
    let columns: Vec<_> = columns.iter().map(AsRef::as_ref).collect();
    format!("idx_{table}_{}", columns.join("_"))
}

/// `CREATE INDEX IF NOT EXISTS`.
pub fn create_index(table: &Table, index: &[usize]) -> String {
    format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} ({})",
        quote(&index_name(table, index)),
        quote(&table.name),
        quoted_list(index.iter().map(|&i| table.columns[i].name.as_str()))
    )
}

/// `ALTER TABLE … ADD COLUMN`. It may be NULL, because there are rows already.
pub fn add_column(table: &Table, column: &Column) -> String {
    format!("ALTER TABLE {} ADD COLUMN {} {}", quote(&table.name), quote(&column.name), declared_type(column.kind))
}

/// `DROP TABLE IF EXISTS`.
pub fn drop_table(table: &Table) -> String {
    format!("DROP TABLE IF EXISTS {}", quote(&table.name))
}

/// `"a", "b"`: the key's columns.
pub(crate) fn key_list(table: &Table) -> String {
    quoted_list(table.key_columns().map(|c| c.name.as_str()))
}

/// `"a" COLLATE BINARY, "b" COLLATE BINARY`: the key's columns, told apart by every byte, whatever collation the
/// replica's table declares. Numbers have none, and SQLite takes no rowid for one with a collation.
pub(crate) fn exact_key_list(table: &Table) -> String {
    table.key_columns().map(exact).collect::<Vec<_>>().join(", ")
}

fn exact(column: &Column) -> String {
    format!("{}{}", quote(&column.name), collation(column.kind))
}

/// What makes a comparison of values of this kind exact.
pub fn collation(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Integer | ColumnType::Real | ColumnType::Boolean => "",
        ColumnType::Text | ColumnType::Json | ColumnType::Decimal | ColumnType::Blob => " COLLATE BINARY",
    }
}

/// The name of the unique index over the key of a table that declares another one. No table may be called so, and
/// no other index is.
pub(crate) fn key_index_name(table: &Table) -> String {
    format!("_pgflume_key_{}", table.name)
}

/// `CREATE UNIQUE INDEX` of that name.
pub(crate) fn create_key_index(table: &Table) -> String {
    let columns: Vec<_> = table.key_columns().map(|c| format!("{} COLLATE BINARY", quote(&c.name))).collect();
    format!("CREATE UNIQUE INDEX {} ON {} ({})", quote(&key_index_name(table)), quote(&table.name), columns.join(", "))
}

/// `DROP INDEX IF EXISTS` of it.
pub(crate) fn drop_key_index(table: &Table) -> String {
    format!("DROP INDEX IF EXISTS {}", quote(&key_index_name(table)))
}

/// Whether a column declared so changes text of this kind: any affinity but TEXT and none turns `1.10`
/// into 1.1 (<https://sqlite.org/datatype3.html>, section 3.1).
pub(crate) fn mangles(declared: &str, kind: ColumnType) -> bool {
    let declared = declared.to_uppercase();
    let is_number = declared.contains("INT");
    let is_text = ["CHAR", "CLOB", "TEXT", "BLOB"].iter().any(|t| declared.contains(t)) || declared.is_empty();
    declared_type(kind) == "TEXT" && (is_number || !is_text)
}

/// Whether a column declared so keeps values of this kind as they are: neither text turned into numbers,
/// nor numbers into text, nor floats into integers.
pub fn fits(declared: &str, kind: ColumnType) -> bool {
    let declared = declared.to_uppercase();
    let has = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
    let is_integer = has(&["INT"]);
    let is_text = !is_integer && has(&["CHAR", "CLOB", "TEXT"]);
    let is_plain = !is_integer && !is_text && (declared.is_empty() || has(&["BLOB"]));
    let is_real = !is_integer && !is_text && !is_plain && has(&["REAL", "FLOA", "DOUB"]);
    is_plain
        || match kind {
            ColumnType::Blob => true,
            ColumnType::Text | ColumnType::Json | ColumnType::Decimal => is_text,
            ColumnType::Real => is_real,
            ColumnType::Integer | ColumnType::Boolean => !is_text && !is_real,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_that_turn_text_into_numbers_are_known() {
        for (declared, kind, expected) in [
            ("TEXT", ColumnType::Decimal, false),
            ("varchar(20)", ColumnType::Text, false),
            ("", ColumnType::Json, false),
            ("JSON", ColumnType::Json, true),
            ("DECIMAL", ColumnType::Decimal, true),
            ("INTEGER", ColumnType::Text, true),
            ("BOOLEAN", ColumnType::Boolean, false),
        ] {
            assert_eq!(mangles(declared, kind), expected, "{declared}");
        }
    }

    #[test]
    fn a_declared_type_fits_where_it_changes_no_value() {
        for (declared, kinds) in [
            ("INTEGER", "INTEGER BOOLEAN BLOB"),
            ("BOOLEAN", "INTEGER BOOLEAN BLOB"),
            ("TEXT", "TEXT JSON DECIMAL BLOB"),
            ("REAL", "REAL BLOB"),
            ("BLOB", "INTEGER REAL TEXT BOOLEAN JSON BLOB DECIMAL"),
        ] {
            for kind in ColumnType::all() {
                let expected = kinds.split(' ').any(|name| name == kind.name());
                assert_eq!(fits(declared, kind), expected, "{declared} {}", kind.name());
            }
        }
    }
}
