//! What others have added to replicated tables, and what stands in the way of batches there.

use super::Replica;
use super::inventory::Inventory;
use super::unique::Unique;
use crate::core::codes::{self, Code};
use crate::core::error::Result;
use crate::core::schema::{Schema, ddl, quote};
use crate::core::value::Cell;
use std::collections::BTreeSet;

/// Something on a replicated table that is not ours.
pub(crate) struct Stranger {
    /// What it is.
    pub code: &'static Code,
    /// The table, as `schema.json` names it.
    pub table: String,
    /// What was found.
    pub what: String,
    /// SQL that takes it away, where that is possible by itself.
    pub drop: Option<String>,
}

const FOREIGN_KEYS: &str = "SELECT DISTINCT m.name, f.\"table\" FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'";

impl Replica {
    /// Foreign keys, unique indexes and triggers of others on the tables of `schema`.
    pub(crate) async fn strangers(&self, schema: &Schema, there: &Inventory) -> Result<Vec<Stranger>> {
        let mut all = Vec::new();
        for row in self.query(FOREIGN_KEYS, Vec::new()).await? {
            let [Cell::Text(of), Cell::Text(to)] = &row[..] else { continue };
            let table = schema.tables().find(|table| table.name.to_lowercase() == of.to_lowercase());
            all.extend(table.map(|table| Stranger {
                code: &codes::REPLICA_FOREIGN_KEYS,
                table: table.name.clone(),
                what: format!("it refers to {to:?}"),
                drop: None,
            }));
        }
        for table in schema.tables() {
            let key: BTreeSet<_> = table.key_columns().map(|column| Some(column.name.to_lowercase())).collect();
            let own = ddl::key_index_name(table).to_lowercase();
            let uniques = there.uniques.get(&table.name.to_lowercase()).into_iter().flatten();
            let is_others =
                |(name, unique): &(&String, &Unique)| **name != own && unique.columns != key && !unique.is_primary;
            for (name, _) in uniques.filter(is_others) {
                let made = there.indexes.get(name).filter(|made| !made.sql.is_empty());
                all.push(Stranger {
                    code: &codes::REPLICA_UNIQUE,
                    table: table.name.clone(),
                    what: format!("the index {name:?} makes other columns than the key unique"),
                    drop: made.map(|made| format!("DROP INDEX {}", quote(&made.name))),
                });
            }
            let of_table = there.triggers.values().filter(|made| made.on == table.name.to_lowercase());
            all.extend(of_table.map(|made| Stranger {
                code: &codes::REPLICA_TRIGGERS,
                table: table.name.clone(),
                what: format!("the trigger {:?} runs with each batch", made.name),
                drop: Some(format!("DROP TRIGGER {}", quote(&made.name))),
            }));
        }
        Ok(all)
    }
}
