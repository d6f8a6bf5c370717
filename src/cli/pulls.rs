//! Syncs of `pgflume.json` → what does them.

use crate::config::Pair;
use crate::postgres::init::InitOptions;
use crate::provider::postgres::{PostgresProvider, StampOptions, Wanted};
use crate::pull::Pull;
use std::sync::Arc;

/// What pulls a pair.
pub(super) fn pull(pair: &Pair) -> Pull {
    let definition = &pair.definition;
    Pull::new(definition.name.clone(), Arc::new(provider(pair)), pair.target.clone(), pair.adopt)
        .with_retries(definition.retries)
        .beating(pair.heartbeat)
        .comparing(definition.compare.as_ref().map(|every| every.time))
}

/// What it reads.
pub(super) fn provider(pair: &Pair) -> PostgresProvider {
    let definition = &pair.definition;
    let wanted = match &pair.schema {
        Some(schema) => Wanted::Defined(schema.clone()),
        None => Wanted::Named(InitOptions {
            tables: definition.tables.clone(),
            exclude: definition.exclude.clone(),
            add_columns: false,
            // What is there keeps its type until somebody writes a schema file.
            numbers: false,
        }),
    };
    let stamps = StampOptions {
        columns: definition.changed.clone(),
        every: definition.every.time,
        is_compared: definition.is_compare_said && definition.compare.is_some(),
    };
    PostgresProvider { url: pair.source.clone(), wanted, row_bytes: pair.row_bytes, stamps }
}
