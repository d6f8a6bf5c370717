//! What Postgres has that could be replicated: relations, their columns and indexes, at one snapshot.
//! Takes a client, gives facts; judges nothing and changes nothing.

use crate::core::error::Result;
use crate::core::schema::SourceName;
use crate::postgres::Client;
use crate::postgres::catalog::columns;
use crate::postgres::catalog::columns::TypedColumn;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A table, view or anything else that rows can be read from.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: SourceName,
    /// `pg_class.relkind`.
    pub kind: String,
    /// `pg_class.relpersistence`.
    pub persistence: String,
    /// Of what it is a partition.
    pub parent: Option<u32>,
    /// Whether it shows the rows of inheritance children.
    pub has_children: bool,
    /// The extension that made it.
    pub extension: Option<String>,
    /// Its owner, where that is a role that ours is not.
    pub other_owner: Option<String>,
    /// Whether the whole database is Supabase's.
    pub on_supabase: bool,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    /// Of the primary key.
    pub is_primary: bool,
    /// Unique.
    pub is_unique: bool,
    /// Over columns alone, and over all rows.
    pub is_plain: bool,
    /// A B-tree.
    pub is_btree: bool,
    /// Its columns in its order; those of an expression are not there.
    pub columns: Vec<String>,
}

/// Columns and indexes of some relations, by oid.
#[derive(Debug, Default)]
pub(crate) struct Details {
    /// Columns in the table's order.
    pub columns: BTreeMap<u32, Vec<TypedColumn>>,
    /// Indexes, the primary key's first.
    pub indexes: BTreeMap<u32, Vec<Index>>,
}

/// Opens the transaction in which both readings see the same.
pub async fn begin(client: &Client) -> Result<()> {
    Ok(client.begin("isolation level repeatable read read only", "set local quote_all_identifiers = off").await?)
}

/// Everything outside of Postgres' own schemas, in the order in which it is offered.
pub async fn relations(client: &Client) -> Result<Vec<Relation>> {
    let rows = client.query_typed(include_str!("../../../sql/init_relations.sql"), &[]).await?;
    rows.iter().map(relation).collect()
}

fn relation(row: &Row) -> Result<Relation> {
    Ok(Relation {
        oid: row.try_get(0)?,
        name: SourceName { schema: row.try_get(1)?, table: row.try_get(2)? },
        kind: row.try_get(3)?,
        persistence: row.try_get(4)?,
        parent: row.try_get(5)?,
        has_children: row.try_get(6)?,
        extension: row.try_get(7)?,
        other_owner: row.try_get(8)?,
        on_supabase: row.try_get(9)?,
    })
}

/// Columns and indexes of these relations.
pub(crate) async fn details(client: &Client, oids: &[u32]) -> Result<Details> {
    let mut details = Details { columns: columns::read(client, oids).await?, indexes: BTreeMap::new() };
    let sql = include_str!("../../../sql/init_indexes.sql");
    for row in client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await? {
        let index = Index {
            is_primary: row.try_get(1)?,
            is_unique: row.try_get(2)?,
            is_plain: row.try_get(3)?,
            is_btree: row.try_get(4)?,
            columns: row.try_get(5)?,
        };
        details.indexes.entry(row.try_get(0)?).or_default().push(index);
    }
    Ok(details)
}
