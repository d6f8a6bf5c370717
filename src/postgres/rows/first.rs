//! The one row of an answer.

use crate::core::error::{Error, Result};
use crate::postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

pub(super) async fn first<T>(client: &Client, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<T>
where
    T: for<'a> FromSql<'a>,
{
    Ok(first_row(client, sql, parameters).await?.try_get(0)?)
}

pub(super) async fn first_row(client: &Client, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row> {
    let mut rows = client.query_typed(sql, parameters).await?;
    rows.pop().ok_or_else(|| Error::retry("Postgres gave no answer"))
}
