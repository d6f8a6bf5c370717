//! Whether anything in the catalog has changed that a replicated table depends on: looked at before each step, so
//! that it costs a fraction of one. What has changed is for `traits`. Takes a client, changes nothing.

use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::core::token::Seen;
use crate::postgres::Client;
use std::borrow::Cow;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// What is asked.
const QUESTION: &str = include_str!("../../../sql/catalog_fingerprint.sql");

/// The same by the function that `setup` makes.
const CALL: &str = "select pgflume.catalog_state($1, $2, $3, $4, $5)";

/// Whether the function is this version's, and may be called.
const IS_CURRENT: &str = "select 1 from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'pgflume' and p.proname = 'catalog_state' and p.prosrc = $1
        and pg_catalog.has_function_privilege(p.oid, 'execute')";

/// The same question where there is no schema `pgflume`: nothing was recorded by `setup`.
pub(crate) fn without_bookkeeping(sql: &str) -> String {
    let nothing = "(select null::pg_catalog.text as queue, null::pg_catalog.text as name, null::pg_catalog.jsonb as definition where false)";
    sql.replace("pgflume.captured", nothing)
}

/// How to ask one server.
#[derive(Debug, Clone)]
pub struct Watch {
    sql: Cow<'static, str>,
}

/// The body of the function. It keeps its plan, and planning takes longer than running.
pub(crate) fn function_body() -> String {
    format!("\n#variable_conflict use_column\nbegin\n    return (\n{QUESTION}    );\nend\n")
}

impl Watch {
    /// Finds out whether the function is there, and looks for the first time. Outside of a transaction.
    pub async fn begin(client: &Client, schema: &Schema, queue: &QueueName) -> Result<(Self, String)> {
        // Compiling it would take many times as long as running it.
        client.begin("read only", "set local jit = off").await?;
        let found = client.query_typed(IS_CURRENT, &[(&function_body(), Type::TEXT)]).await?;
        let watch = Self { sql: Cow::Borrowed(if found.is_empty() { QUESTION } else { CALL }) };
        let seen = watch.look(client, schema, queue).await?;
        client.commit().await?;
        Ok((watch, seen))
    }

    /// The same of a server on which nothing is installed.
    pub fn bare() -> Self {
        Self { sql: Cow::Owned(without_bookkeeping(QUESTION)) }
    }

    /// A text that any such change makes another. It compares with one of the same server only. In a step.
    pub async fn look(&self, client: &Client, schema: &Schema, queue: &QueueName) -> Result<String> {
        Ok(self.ask(client, &self.sql, schema, queue).await?.try_get(0)?)
    }

    /// The same outside of a step, and what it has seen; `None` where that is not worth it.
    pub async fn look_beside(
        &self,
        client: &Client,
        schema: &Schema,
        queue: &QueueName,
    ) -> Result<Option<(String, Seen)>> {
        if self.sql != CALL {
            return Ok(None); // without the function, which has settings of its own, it takes too long
        }
        let sql = format!("select ({}) as text, pg_catalog.pg_current_snapshot()::pg_catalog.text", self.sql);
        let row = self.ask(client, &sql, schema, queue).await?;
        let seen = Seen::parse(row.try_get(1)?).ok_or_else(|| Error::retry("Postgres gave no snapshot"))?;
        Ok(Some((row.try_get(0)?, seen)))
    }

    async fn ask(&self, client: &Client, sql: &str, schema: &Schema, queue: &QueueName) -> Result<Row> {
        let (schemas, tables): (Vec<&str>, Vec<&str>) =
            schema.tables().map(|t| (t.source.schema.as_str(), t.source.table.as_str())).unzip();
        let (prefix, table) = (format!("pgflume_{}_", queue.as_str()), format!("q_{}", queue.as_str()));
        let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
            (&schemas, Type::TEXT_ARRAY),
            (&tables, Type::TEXT_ARRAY),
            (&prefix, Type::TEXT),
            (&table, Type::TEXT),
            (&queue.as_str(), Type::TEXT),
        ];
        Ok(client.query_typed_one(sql, &parameters).await?)
    }
}
