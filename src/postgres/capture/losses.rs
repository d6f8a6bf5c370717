//! Which column types of `schema.json` would lose something of the source's values. Takes a definition and
//! the types of the source's columns, gives what `setup` refuses. No IO.

use crate::core::schema::fit::Fit;
use crate::core::schema::{Column, ColumnType, Table};
use crate::postgres::catalog::columns::TypedColumn;

/// What is refused: path below the table, and the reason with the remedy.
pub fn refusals(table: &Table, types: &[TypedColumn]) -> Vec<(String, String)> {
    let columns = table.columns.iter().enumerate();
    columns
        .filter_map(|(i, column)| {
            let found = types.iter().find(|t| t.name == column.name)?;
            let problem = problem(table, i, column, found)?;
            Some((format!("{}.columns.{}", table.name, column.name), problem))
        })
        .collect()
}

fn problem(table: &Table, position: usize, column: &Column, found: &TypedColumn) -> Option<String> {
    let is_key = table.key.contains(&position);
    let pg_type = &found.pg_type;
    let better = if is_key { pg_type.default_key_type() } else { pg_type.default_type() }.name();
    let (kind, name) = (column.kind.name(), pg_type.shown());
    let is_text = !["int2", "int4", "int8", "numeric", "bool", "json", "jsonb"].contains(&pg_type.name.as_str());
    if is_key && column.kind == ColumnType::Json && (is_text || pg_type.is_array) {
        return Some(format!("JSON is no text that Postgres takes back as a key of type {name}; declare it {better}"));
    }
    if is_key && column.kind == ColumnType::Real && pg_type.name == "numeric" {
        return Some(format!("REAL is no text that Postgres takes back as a key of type {name}; declare it {better}"));
    }
    match pg_type.fit(column.kind) {
        Fit::Lossless => None,
        Fit::Unfit(why) => Some(format!("{kind} cannot hold {name}: {why}; declare it {better}")),
        Fit::Lossy(why) if is_key => {
            Some(format!("{kind} does not tell all {name} keys apart: {why}; declare it {better}"))
        }
        Fit::Lossy(_) if table.lossy.contains(&position) => None,
        Fit::Lossy(why) => Some(format!(
            "{kind} loses something of {name}: {why}; declare it {better}, or add {:?} to \"lossy\" if that is intended",
            column.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;
    use crate::core::schema::fit::PgType;

    #[test]
    fn a_loss_has_to_be_intended_and_a_key_may_have_none() {
        let typed = |name: &str, pg: &str| TypedColumn {
            name: name.into(),
            not_null: true,
            pg_type: PgType { name: pg.into(), kind: 'b', is_built_in: true, is_array: false, digits: None },
        };
        let refused = |columns: &str, more: &str| {
            let json = format!(r#"{{"t": {{"primaryKey": "id", "columns": {columns}{more}}}}}"#);
            let table = Schema::parse(&json).unwrap().get("t").unwrap().clone();
            let types = [typed("id", "text"), typed("price", "numeric"), typed("at", "timestamptz")];
            refusals(&table, &types).into_iter().map(|(p, why)| format!("{p}: {why}")).collect::<Vec<_>>().join("\n")
        };
        let price = r#"{"id": "TEXT", "price": "REAL"}"#;
        assert_eq!(refused(r#"{"id": "TEXT", "price": "DECIMAL", "at": "TEXT"}"#, ""), "");
        assert!(refused(price, "").starts_with("t.columns.price: REAL loses something of numeric"));
        assert!(refused(price, "").contains("declare it DECIMAL, or add \"price\" to \"lossy\""));
        assert_eq!(refused(price, r#", "lossy": ["price"]"#), "");
        let unfit = refused(r#"{"id": "TEXT", "at": "INTEGER"}"#, r#", "lossy": ["at"]"#);
        assert!(unfit.starts_with("t.columns.at: INTEGER cannot hold timestamptz"), "{unfit}");
        let key = refused(r#"{"id": "INTEGER"}"#, r#", "lossy": ["id"]"#);
        assert!(key.starts_with("t.columns.id: INTEGER does not tell all text keys apart"), "{key}");
    }
}
