//! What the SQL of a table is written with beside the table itself: types of the key, and types and functions of
//! `where`. The worker needs a right to name them. Reads the catalog only.

use crate::core::error::Result;
use crate::core::schema::quote;
use crate::postgres::Client;
use crate::postgres::drift::recorded::Called;
use std::collections::BTreeSet;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// What one table's SQL is written with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    schemas: BTreeSet<String>,
    /// As SQL, with their arguments.
    functions: BTreeSet<String>,
    /// What `where` calls.
    pub called: BTreeSet<Called>,
    /// What this role cannot open to the worker, each with the remedy.
    pub closed: BTreeSet<String>,
}

impl Uses {
    /// These as well.
    pub fn add(&mut self, other: Self) {
        self.schemas.extend(other.schemas);
        self.functions.extend(other.functions);
        self.called.extend(other.called);
        self.closed.extend(other.closed);
    }

    /// The SQL of the rights that the worker needs, a statement each.
    pub fn grants(&self) -> impl Iterator<Item = String> + '_ {
        let schemas = self.schemas.iter().map(|s| format!("grant usage on schema {} to pgflume_worker;\n", quote(s)));
        let functions = self.functions.iter().map(|f| format!("grant execute on function {f} to pgflume_worker;\n"));
        schemas.chain(functions)
    }

    fn add_schema(&mut self, schema: String, can_be_opened: bool) {
        if !can_be_opened {
            let name = quote(&schema);
            self.closed.insert(format!(
                "the worker has to name types or functions of schema {name}, which this role cannot open to it: let its owner run `grant usage on schema {name} to pgflume_worker`"
            ));
        } else {
            self.schemas.insert(schema);
        }
    }
}

/// What the types of a key are named by.
pub async fn of_key(client: &Client, oid: u32, key: &[&str]) -> Result<Uses> {
    let sql = include_str!("../../../sql/inspect_key_schemas.sql");
    let mut uses = Uses::default();
    for row in client.query_typed(sql, &[(&oid, Type::OID), (&key, Type::TEXT_ARRAY)]).await? {
        uses.add_schema(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(uses)
}

/// What the filter of the probe is written with, in the probe's transaction.
pub(crate) async fn of_filter(client: &Client) -> Result<Uses> {
    let rows = client.query_typed(include_str!("../../../sql/inspect_filter_uses.sql"), &[]).await?;
    let mut uses = Uses::default();
    for row in &rows {
        add_used(&mut uses, row)?;
    }
    for row in client.query_typed(include_str!("../../../sql/inspect_filter_depends.sql"), &[]).await? {
        uses.called.insert(Called { kind: row.try_get(0)?, schema: row.try_get(1)?, name: row.try_get(2)? });
    }
    Ok(uses)
}

fn add_used(uses: &mut Uses, row: &Row) -> Result<()> {
    let (schema, name): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    if let Some(name) = name {
        uses.called.insert(Called { schema: schema.clone(), name, kind: None });
    }
    let (to_grant, may_grant): (Option<String>, bool) = (row.try_get(2)?, row.try_get(4)?);
    match to_grant {
        Some(function) if may_grant => drop(uses.functions.insert(function)),
        Some(function) => drop(uses.closed.insert(format!(
            "`where` calls {function}, which not everybody may execute: let its owner run `grant execute on function {function} to pgflume_worker`"
        ))),
        None => {}
    }
    uses.add_schema(schema, row.try_get(3)?);
    Ok(())
}
