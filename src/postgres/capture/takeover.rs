//! The triggers that a table has against those that it should have: what is in place, what is in the
//! way, and what the original migration left, its functions that give the secret away included.

use super::facts::{Exposed, Inspected, Leftover};
use super::functions::Function;
use super::names::{Event, function_name};
use super::source::Source;
use super::triggers::Trigger;
use super::types::Pin;
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::SourceName;
use crate::postgres::Client;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The schema of our functions.
const OUR_SCHEMA: &str = "pgflume";

/// A trigger as the catalog shows it.
#[derive(Debug)]
pub(crate) struct ExistingTrigger {
    on: SourceName,
    trigger: String,
    enabled: String,
    schema: String,
    function: String,
    body_sha256: String,
    settings: Vec<String>,
    is_safe: bool,
    is_clone: bool,
}

impl ExistingTrigger {
    /// From a row of `inspect_triggers.sql`.
    pub fn read(row: &tokio_postgres::Row) -> Result<Self> {
        Ok(Self {
            on: SourceName { schema: row.try_get(0)?, table: row.try_get(1)? },
            trigger: row.try_get(2)?,
            enabled: row.try_get(3)?,
            schema: row.try_get(4)?,
            function: row.try_get(5)?,
            body_sha256: row.try_get(6)?,
            settings: sorted(row.try_get(7)?),
            is_safe: row.try_get(8)?,
            is_clone: row.try_get(9)?,
        })
    }

    /// One of ours, of this queue.
    pub fn is_ours(&self) -> bool {
        self.schema == OUR_SCHEMA
    }

    fn runs(&self, function: &Function, sha256: &str) -> bool {
        self.is_safe
            && self.enabled == "A"
            && self.function == function.name
            && self.body_sha256 == sha256
            && self.settings == settings(function)
    }
}

fn settings(function: &Function) -> Vec<String> {
    let pinned = function.pins.iter().map(|p: &Pin| {
        let (name, value) = p.setting();
        format!("{name}={value}")
    });
    sorted(pinned.chain(["search_path=\"\"".to_owned()]).collect())
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}

fn sha256_hex(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

impl Exposed {
    /// All that there are.
    pub async fn read(client: &Client) -> Result<Vec<Self>> {
        let rows = client.query_typed(include_str!("../../../sql/inspect_exposed.sql"), &[]).await?;
        rows.iter().map(|row| Ok(Self { function: row.try_get(0)?, grantees: row.try_get(1)? })).collect()
    }
}

/// Sorts what was found on a source and its partitions.
pub fn compare(source: Source, queue: &QueueName, found: &[ExistingTrigger], has_rows: bool) -> Result<Inspected> {
    let functions: BTreeMap<String, (Function, String)> = Function::all(&source, queue)?
        .into_iter()
        .map(|f| (f.name.clone(), (f.clone(), sha256_hex(&f.body))))
        .collect();
    let in_place = |on: &SourceName, event: Event, function: &str| {
        let wanted = functions.get(function);
        let name = event.trigger(queue);
        found.iter().any(|f| f.on == *on && f.trigger == name && wanted.is_some_and(|(w, sha256)| f.runs(w, sha256)))
    };
    let clones =
        source.partitions.iter().all(|p| in_place(p, Event::Row, &function_name(queue, &source.name, Event::Row)));
    let is_captured = clones && Trigger::all(&source, queue).iter().all(|t| in_place(&t.on, t.event, &t.function));
    let wanted: Vec<String> = source.events().iter().map(|e| e.trigger(queue)).collect();
    let fires = |event: Event| {
        let name = event.trigger(queue);
        found.iter().any(|f| f.on == source.name && f.trigger == name && f.is_ours() && f.is_safe && f.enabled == "A")
    };
    let is_watched = ([Event::Insert, Event::Update, Event::Delete].into_iter().all(fires) || fires(Event::Row))
        && fires(Event::Truncate);
    let obsolete = found.iter().filter(|f| f.is_ours() && !f.is_clone && !wanted.contains(&f.trigger));
    let leftovers = found.iter().filter(|f| !f.is_ours() && !f.trigger.starts_with("pgflume_"));
    Ok(Inspected {
        is_captured,
        obsolete: obsolete.map(|f| (f.on.clone(), f.trigger.clone())).collect(),
        leftovers: leftovers.map(|f| Leftover { on: f.on.clone(), trigger: f.trigger.clone() }).collect(),
        is_watched,
        has_rows,
        source,
    })
}
