//! What Postgres says about the replicated tables: whether they are there, readable and captured, and
//! of what types their columns are. One round trip for all tables.

use super::{Schema, Table, literal};
use crate::config::QueueName;
use crate::error::Result;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// One replicated table as Postgres has it.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// Its definition.
    pub table: Arc<Table>,
    /// Whether rows can be read.
    pub access: Access,
    /// Whether `setup`'s triggers mark its changes.
    pub captured: bool,
    /// The columns, in the order of `table.columns`; empty unless readable.
    pub columns: Vec<SourceColumn>,
}

/// Whether the worker can read a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Readable,
    /// There is no such table.
    Missing,
    /// The role may not.
    Forbidden,
    /// It lacks this column.
    Lacks(String),
}

impl Access {
    /// What is wrong and the mend; `None` where nothing is.
    pub fn problem(&self, table: &Table) -> Option<String> {
        let source = table.source.quoted();
        match self {
            Self::Readable => None,
            Self::Missing => Some(format!(
                "{source} does not exist, or is no table: create it, or remove {:?} from schema.json",
                table.name
            )),
            Self::Forbidden => Some(format!("{source} may not be read: grant select on it to the worker's role")),
            Self::Lacks(column) => Some(format!("{source} lacks the column {column:?}: correct schema.json")),
        }
    }
}

/// One column as Postgres has it.
#[derive(Debug, Clone)]
pub struct SourceColumn {
    /// Its type, as SQL that casts text into it.
    pub cast: String,
    /// The type under its domains.
    pub base: Type,
    /// The equality that its index uses: an extension's type has its own outside the search path.
    pub equals: String,
}

/// Reads the catalog for every table of `schema`.
pub async fn read(client: &Client, schema: &Schema, queue: &QueueName) -> Result<BTreeMap<String, SourceTable>> {
    let tables: Vec<&Arc<Table>> = schema.tables().collect();
    let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
    let schemas: Vec<&str> = tables.iter().map(|t| t.source.schema.as_str()).collect();
    let sources: Vec<&str> = tables.iter().map(|t| t.source.table.as_str()).collect();
    let sql = SQL.replace("{trigger_prefix}", &literal(&format!("pgflume_{}_", queue.as_str())));
    let arrays =
        [(&names as _, Type::TEXT_ARRAY), (&schemas as _, Type::TEXT_ARRAY), (&sources as _, Type::TEXT_ARRAY)];
    // format_type() leaves out schemas that are on the search path, and steps run with an empty one.
    client.batch_execute("begin read only; set local search_path = ''").await?;
    let rows = client.query_typed(&sql, &arrays).await?;
    client.batch_execute("commit").await?;

    let mut found: BTreeMap<String, SourceTable> = tables
        .into_iter()
        .map(|t| {
            (
                t.name.clone(),
                SourceTable { table: t.clone(), access: Access::Missing, captured: false, columns: Vec::new() },
            )
        })
        .collect();
    let mut columns: BTreeMap<String, BTreeMap<String, SourceColumn>> = BTreeMap::new();
    for row in rows {
        let name: String = row.try_get(0)?;
        let Some(entry) = found.get_mut(&name) else {
            continue;
        };
        entry.access = if row.try_get(1)? { Access::Readable } else { Access::Forbidden };
        entry.captured = row.try_get(2)?;
        let base: u32 = row.try_get(5)?;
        let column = SourceColumn {
            cast: row.try_get(4)?,
            base: Type::from_oid(base).unwrap_or(Type::UNKNOWN),
            equals: row.try_get(6)?,
        };
        columns.entry(name).or_default().insert(row.try_get(3)?, column);
    }
    for (name, entry) in &mut found {
        if entry.access == Access::Readable {
            let there = columns.remove(name).unwrap_or_default();
            match entry
                .table
                .columns
                .iter()
                .map(|c| there.get(&c.name).cloned().ok_or(&c.name))
                .collect::<Result<_, _>>()
            {
                Ok(all) => entry.columns = all,
                Err(missing) => entry.access = Access::Lacks(missing.clone()),
            }
        }
    }
    Ok(found)
}

/// `format_type(…, -1)`: with NULL it writes `character` for char(n), and a cast to that cuts to one letter.
const SQL: &str = "
select w.name,
       has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'),
       exists (select from pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled <> 'D'
               and g.tgname in ({trigger_prefix} || 'insert', {trigger_prefix} || 'row')),
       a.attname::text,
       format_type(a.atttypid, -1),
       base.oid,
       coalesce((select format('operator(%I.%s)', opn.nspname, o.oprname)
                 from pg_opclass oc
                 join pg_am am on am.oid = oc.opcmethod and am.amname = 'btree'
                 join pg_amop p on p.amopfamily = oc.opcfamily and p.amopstrategy = 3
                                and p.amoplefttype = oc.opcintype and p.amoprighttype = oc.opcintype
                 join pg_operator o on o.oid = p.amopopr
                 join pg_namespace opn on opn.oid = o.oprnamespace
                 where oc.opcdefault and oc.opcintype = base.oid limit 1), 'operator(pg_catalog.=)')
from unnest($1::text[], $2::text[], $3::text[]) as w(name, schema, source)
join pg_namespace n on n.nspname = w.schema
join pg_class c on c.relnamespace = n.oid and c.relname = w.source and c.relkind in ('r', 'p', 'v')
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
cross join lateral (
    with recursive b(oid, kind, below) as (
        select t.oid, t.typtype, t.typbasetype from pg_type t where t.oid = a.atttypid
        union all select t.oid, t.typtype, t.typbasetype from b join pg_type t on t.oid = b.below where b.kind = 'd')
    select b.oid from b where b.kind <> 'd') base";
