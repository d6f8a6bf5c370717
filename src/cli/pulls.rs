//! Syncs of `pgflume.json` → what does them.

use crate::config::{Origin, Pair};
use crate::mysql::MySqlUrl;
use crate::postgres::PgUrl;
use crate::postgres::init::InitOptions;
use crate::provider::mysql::{self, MySqlProvider};
use crate::provider::postgres::{PostgresProvider, Wanted};
use crate::provider::{Provider, StampOptions};
use crate::pull::Pull;
use std::sync::Arc;

/// What pulls a pair.
pub(super) fn pull(pair: &Pair) -> Pull {
    let definition = &pair.definition;
    let pull = Pull::new(definition.name.clone(), provider(pair), pair.target.clone(), pair.adopt);
    let pull = match &pair.schema {
        Some(schema) => pull.feeding(schema),
        None => pull,
    };
    pull.with_retries(definition.retries)
        .logging_for(pair.feeding.retention)
        .beating(pair.heartbeat)
        .comparing(definition.compare.as_ref().map(|every| every.time))
}

/// What it reads.
pub(super) fn provider(pair: &Pair) -> Arc<dyn Provider> {
    let definition = &pair.definition;
    let stamps = StampOptions {
        columns: definition.changed.clone(),
        every: definition.every.time,
        is_compared: definition.is_compare_said && definition.compare.is_some(),
        compare: definition.compare.as_ref().map(|every| every.time),
    };
    let (tables, exclude, row_bytes) = (definition.tables.clone(), definition.exclude.clone(), pair.row_bytes);
    match &pair.source {
        Origin::Postgres(url) => {
            let wanted = match &pair.schema {
                Some(schema) => Wanted::Defined(schema.clone()),
                // What is there keeps its type until somebody writes a schema file.
                None => Wanted::Named(InitOptions { tables, exclude, add_columns: false, numbers: false }),
            };
            Arc::new(PostgresProvider { url: PgUrl::clone(url), wanted, row_bytes, stamps })
        }
        Origin::MySql(url) => {
            let wanted = match &pair.schema {
                Some(schema) => mysql::Wanted::Defined(schema.clone()),
                None => mysql::Wanted::Named { tables, exclude },
            };
            Arc::new(MySqlProvider {
                url: MySqlUrl::clone(url),
                wanted,
                row_bytes,
                stamps,
                quiet: mysql::Quiet::default(),
            })
        }
    }
}
