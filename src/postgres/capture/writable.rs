//! A table that clients may write, under inspection: what `setup` refuses about it, and what it warns of.

use super::tables::Finding;
use super::template::shown;
use super::types::SourceColumn;
use crate::core::error::Result;
use crate::core::schema::{Conflict, SourceName, Table, Writable};
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// What the time of a change has to be.
const STAMP_TYPE: &str = "timestamptz";

impl Finding<'_> {
    /// Looks at what is needed so that clients may write a table.
    pub(super) async fn writable(
        &mut self,
        table: &Table,
        oid: u32,
        has_row_security: bool,
        columns: &BTreeMap<String, SourceColumn>,
    ) -> Result<()> {
        let Some(writable) = &table.writable else { return Ok(()) };
        self.check_policies(table, writable, oid, has_row_security).await?;
        self.check_domains(table, oid).await?;
        match &writable.conflict {
            Conflict::LastWriteWins { stamp } => self.check_stamp(table, stamp, columns),
            Conflict::Custom { function } => self.check_function(table, function).await?,
            _ => {}
        }
        Ok(())
    }

    fn check_stamp(&mut self, table: &Table, stamp: &str, columns: &BTreeMap<String, SourceColumn>) {
        let is_stamp = |column: &SourceColumn| !column.is_array && column.base.as_deref() == Some(STAMP_TYPE);
        if columns.get(stamp).is_some_and(|column| !is_stamp(column)) {
            self.refuse(
                &format!("{}.writable.stamp", table.name),
                format!("{} is no {STAMP_TYPE}: the times of other types mean another moment elsewhere", shown(stamp)),
            );
        }
    }

    /// A change names some columns, and Postgres would ask the types of the others what they think of null.
    async fn check_domains(&mut self, table: &Table, oid: u32) -> Result<()> {
        let sql = include_str!("../../../sql/inspect_domains.sql");
        for row in self.client.query_typed(sql, &[(&oid, Type::OID)]).await? {
            let column: String = row.try_get(0)?;
            self.refuse(
                &format!("{}.writable", table.name),
                format!("the type of {} is a domain that is NOT NULL, so that no change could leave it out; let the column be NOT NULL instead", shown(&column)),
            );
        }
        Ok(())
    }

    async fn check_policies(&mut self, table: &Table, writable: &Writable, oid: u32, is_on: bool) -> Result<()> {
        let (source, quoted) = (shown(&self.name.quoted()), self.name.quoted());
        if !is_on {
            if !writable.unchecked {
                self.refuse(
                    &format!("{}.writable", table.name),
                    format!(
                        "{source} has no row-level security, so that whoever has a token could write everybody's rows; run \
                         `alter table {quoted} enable row level security` and say by policies who may write what, or write \"unchecked\": true"
                    ),
                );
            }
            return Ok(());
        }
        let sql = "select exists (select from pg_catalog.pg_policy p where p.polrelid operator(pg_catalog.=) $1)";
        let has_policies: bool = self.client.query_typed_one(sql, &[(&oid, Type::OID)]).await?.try_get(0)?;
        if !has_policies {
            self.warnings.push(format!(
                "{source} is writable and has no policy, so nobody may write it; make one with `create policy`"
            ));
        }
        Ok(())
    }

    async fn check_function(&mut self, table: &Table, function: &SourceName) -> Result<()> {
        let sql = include_str!("../../../sql/inspect_conflict.sql");
        let names: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&function.schema, Type::TEXT), (&function.table, Type::TEXT)];
        if self.client.query_typed(sql, &names).await?.is_empty() {
            self.refuse(
                &format!("{}.writable.function", table.name),
                format!(
                    "there is no function {0}(jsonb, jsonb, jsonb) that returns jsonb; create it",
                    shown(&function.quoted())
                ),
            );
        }
        Ok(())
    }
}
