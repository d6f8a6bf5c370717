//! Finds what the replica has and the source does not. Where both sort keys alike, ranges of them are counted on both
//! sides first; else all keys of the replica are looked for.

use crate::core::error::Result;
use crate::core::keys::texts_of;
use crate::core::message::MarkedKey;
use crate::core::value::Key;
use crate::provider::{Described, Source};
use crate::replica::Replica;
use crate::replica::compare::KeyRange;
use std::collections::BTreeSet;

/// Rows of a range, and keys that are looked for at once: a server answers at most 10 MB.
const RANGE_ROWS: i64 = 4_000;

/// What is known of a table whose surplus is looked for.
pub(super) struct Surplus<'a> {
    pub described: &'a Described,
    /// Rows of the replica.
    pub rows: i64,
    /// Keys that the source has and the replica does not.
    pub missing: Vec<Key>,
    /// Keys that are known to go.
    pub gone: &'a BTreeSet<Key>,
    /// So many keys are wanted.
    pub wanted: usize,
}

/// The keys of the replica that no replicated row of the source has, but for those that are known to go.
pub(super) async fn find(source: &mut dyn Source, replica: &Replica, surplus: &Surplus<'_>) -> Result<Vec<Key>> {
    match surplus.described.sorts_alike {
        true => by_ranges(source, replica, surplus).await,
        false => by_all(source, replica, surplus).await,
    }
}

async fn by_ranges(source: &mut dyn Source, replica: &Replica, surplus: &Surplus<'_>) -> Result<Vec<Key>> {
    let table = &surplus.described.table;
    let bounds = replica.every(table, RANGE_ROWS).await?;
    let texts: Vec<MarkedKey> = bounds.iter().filter_map(texts_of).collect();
    let counts = source.counts(&table.name, &texts).await?;
    let range_of = |key: &Key| bounds.partition_point(|bound| bound < key);
    let mut expected = counts;
    for key in &surplus.missing {
        if let Some(count) = expected.get_mut(range_of(key)) {
            *count -= 1;
        }
    }
    let mut found = Vec::new();
    for (i, expected) in expected.into_iter().enumerate() {
        let rows = if i < bounds.len() { RANGE_ROWS } else { surplus.rows - RANGE_ROWS * bounds.len() as i64 };
        if expected >= rows {
            continue;
        }
        let range = KeyRange { after: i.checked_sub(1).and_then(|i| bounds.get(i)), up_to: bounds.get(i) };
        let keys = replica.keys_in(table, range, usize::MAX).await?;
        found.extend(absent(source, surplus, keys).await?);
        if found.len() >= surplus.wanted {
            break;
        }
    }
    Ok(found)
}

async fn by_all(source: &mut dyn Source, replica: &Replica, surplus: &Surplus<'_>) -> Result<Vec<Key>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let keys = replica.keys_after(&surplus.described.table, after.as_ref(), RANGE_ROWS).await?;
        let is_short = (keys.len() as i64) < RANGE_ROWS;
        after = keys.last().cloned().or(after);
        found.extend(absent(source, surplus, keys).await?);
        if is_short || found.len() >= surplus.wanted {
            return Ok(found);
        }
    }
}

async fn absent(source: &mut dyn Source, surplus: &Surplus<'_>, keys: Vec<Key>) -> Result<Vec<Key>> {
    let (keys, texts): (Vec<Key>, Vec<MarkedKey>) = keys
        .into_iter()
        .filter(|key| !surplus.gone.contains(key))
        .filter_map(|key| texts_of(&key).map(|texts| (key, texts)))
        .unzip();
    let absent = source.absent(&surplus.described.table.name, &texts).await?;
    Ok(absent.into_iter().map(|i| keys[i].clone()).collect())
}
