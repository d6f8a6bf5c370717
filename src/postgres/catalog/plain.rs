//! Tables whose columns are of Postgres' plainest types: for who has no catalog to ask, as a simulator has none. No IO.

use super::{Access, SourceColumn, SourceTable};
use crate::core::schema::{ColumnType, Table};
use crate::core::value::binary::Wire;
use std::sync::Arc;
use tokio_postgres::types::Type;

impl SourceTable {
    /// A readable table of `int8` and of `text` sorted by bytes, whose key is its index.
    pub fn plain(table: &Arc<Table>, oid: u32, is_captured: bool) -> Self {
        let mut plain = Self::missing(table);
        plain.columns =
            table.columns.iter().zip(1..).map(|(column, number)| plain_column(column.kind, number)).collect();
        plain.order.clone_from(&table.key);
        (plain.oid, plain.access, plain.captured) = (oid, Access::Readable, is_captured);
        plain
    }

    /// The same with a column that was dropped and made anew: another number, another column.
    pub fn renumber(&mut self, position: usize, number: i16) {
        if let Some(column) = self.columns.get_mut(position) {
            column.number = number;
        }
    }
}

fn plain_column(kind: ColumnType, number: i16) -> SourceColumn {
    let (base, wire) = match kind {
        ColumnType::Integer => (Type::INT8, Wire::Integer),
        _ => (Type::TEXT, Wire::Text),
    };
    let operator = |sign: &str| format!("operator(pg_catalog.{sign})");
    SourceColumn {
        cast: format!("pg_catalog.{}", base.name()),
        is_domain: false,
        is_bytes: false,
        runs_from_text: false,
        declared: base.name().to_owned(),
        under_domains: base.name().to_owned(),
        base,
        wire,
        equals: operator("="),
        greater: operator(">"),
        at_least: operator(">="),
        at_most: operator("<="),
        by_bytes: true,
        sorted_by: String::new(),
        number,
        is_array: false,
        has_arrays_inside: false,
        is_string_in_json: false,
        partitions: false,
    }
}
