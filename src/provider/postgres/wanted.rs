//! Which tables of a Postgres are pulled, and how they are defined.

use crate::core::draft::Document;
use crate::core::error::{Error, Result};
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::init::{self, InitOptions};
use std::sync::Arc;

/// What is pulled.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// These tables, as they are defined.
    Defined(Arc<Schema>),
    /// Tables by their names, defined as `pgflume init` would each time that they are looked at.
    Named(InitOptions),
}

impl Wanted {
    /// The definitions, by what the catalog says now.
    pub(super) async fn schema(&self, client: &Client) -> Result<Arc<Schema>> {
        let options = match self {
            Self::Defined(schema) => return Ok(schema.clone()),
            Self::Named(options) => options,
        };
        let outcome = init::propose(client, options, &Document::empty()).await;
        let outcome = outcome.map_err(|e| match e.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => Error::halt(other.to_string()),
        })?;
        let schema = Schema::parse(&outcome.text);
        schema.map(Arc::new).map_err(|e| Error::halt(format!("the tables cannot be defined: {e}")))
    }

    /// Whether somebody asked for just this table, so that it is an error where it cannot be read.
    pub(super) fn spells_out(&self, schema: &str, table: &str) -> bool {
        match self {
            Self::Defined(_) => true,
            Self::Named(options) => {
                options.tables.iter().any(|name| *name == table || *name == format!("{schema}.{table}"))
            }
        }
    }
}
