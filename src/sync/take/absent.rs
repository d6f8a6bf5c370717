//! Which keys of the replica the source lacks: asked for many at once, and where Postgres fails, in smaller parts. A
//! key that Postgres refuses to convert is looked for by its text: it is never taken for absent without a look.

use crate::core::error::Result;
use crate::core::value::Key;
use crate::postgres::catalog::SourceTable;
use crate::sync::halving::Search;
use crate::sync::session::Session;
use std::collections::BTreeSet;

/// Positions among the keys that were asked for.
#[derive(Debug, Default)]
pub(in crate::sync) struct Absent {
    /// The source has no such row, or none that is replicated.
    pub gone: Vec<usize>,
    /// Nobody knows: Postgres fails at the key, or at its row.
    pub doubtful: Vec<usize>,
}

/// Which of `keys`, with their texts, the source lacks.
pub(in crate::sync) async fn absent(
    session: &Session<'_>,
    source: &SourceTable,
    keys: &[(Key, Vec<String>)],
) -> Result<Absent> {
    let texts: Vec<Vec<String>> = keys.iter().map(|(_, texts)| texts.clone()).collect();
    let (mut found, mut refused) = (Absent::default(), Vec::new());
    let mut search = Search::of(texts.len(), usize::MAX);
    while let Some(range) = search.take(usize::MAX) {
        let part = &texts[range.clone()];
        match session.attempt(source, session.link.absent(source, part)).await?.ok() {
            Some(gone) => found.gone.extend(gone.into_iter().map(|i| range.start + i)),
            None if range.len() > 1 => search.halve(&range),
            None => match session.attempt(source, session.link.try_key(source, &part[0])).await?.ok() {
                Some(()) => found.doubtful.push(range.start),
                None => refused.push(range.start),
            },
        }
    }
    look_for_texts(session, source, &texts, refused, &mut found).await?;
    Ok(found)
}

/// Keys that Postgres does not take as such, among the texts of all rows; then of those that are there, among the
/// rows that are replicated.
async fn look_for_texts(
    session: &Session<'_>,
    source: &SourceTable,
    texts: &[Vec<String>],
    mut places: Vec<usize>,
    found: &mut Absent,
) -> Result<()> {
    for filtered in [false, true] {
        if places.is_empty() || filtered && source.table.filter.is_none() {
            break;
        }
        let keys: Vec<_> = places.iter().map(|&place| texts[place].clone()).collect();
        let look = session.link.absent_by_text(source, &keys, filtered);
        let Ok(gone) = session.attempt(source, look).await? else {
            found.doubtful.append(&mut places);
            break;
        };
        let gone: BTreeSet<usize> = gone.into_iter().map(|i| places[i]).collect();
        places.retain(|place| !gone.contains(place));
        found.gone.extend(gone);
    }
    found.gone.sort_unstable();
    Ok(())
}
