//! The tables that `schema.json` names.

use super::finding::{Finding, asked};
use crate::core::codes;
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::{Schema, quoted_list};
use crate::postgres::catalog::Access;
use crate::postgres::{Client, catalog};
use tokio_postgres::types::Type;

/// What `sql/doctor_tables.sql` asks, and tables without a key.
pub(super) async fn examine(client: &Client, schema: &Schema, queue: &QueueName) -> Result<Vec<Finding>> {
    let mut arrays: [Vec<String>; 4] = Default::default();
    for table in schema.tables() {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let columns = serde_json::json!(columns).to_string();
        let all = [table.name.clone(), table.source.schema.clone(), table.source.table.clone(), columns];
        arrays.iter_mut().zip(all).for_each(|(array, value)| array.push(value));
    }
    let [names, schemas, tables, columns] = &arrays;
    let parameters = [names, schemas, tables, columns].map(|array| (array as _, Type::TEXT_ARRAY));
    let mut found = asked(client, include_str!("../../../sql/doctor_tables.sql"), &parameters).await?;
    found.extend(keyless(client, schema, queue).await?);
    Ok(found)
}

async fn keyless(client: &Client, schema: &Schema, queue: &QueueName) -> Result<Vec<Finding>> {
    let sources = catalog::read(client, schema, queue).await?.tables;
    let keyless = sources.iter().filter(|(_, source)| source.access == Access::Readable && source.order.is_empty());
    let finding = |(name, source): (&String, &catalog::SourceTable)| {
        let key = quoted_list(source.table.key_columns().map(|column| column.name.as_str()));
        let relation = source.table.source.quoted();
        Finding::new(&codes::NO_KEY, name, format!("nothing makes {key} of {relation} unique"))
            .mended_by(format!("alter table {relation} add primary key ({key})"))
    };
    Ok(keyless.map(finding).collect())
}
