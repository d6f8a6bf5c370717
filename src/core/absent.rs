//! The search for keys of the replica that the source lacks: asked for many at once, and where the source fails, in
//! smaller parts. A key that it refuses to convert is looked for by its text: none is taken for absent without a look.
//! No IO: who asks is told by [`AsksKeys`].

use super::error::Result;
use super::halving::Search;
use super::message::MarkedKey;
use async_trait::async_trait;
use std::collections::BTreeSet;

/// What a source can be asked about the keys of one table. `None`: it fails at one of them, and can be asked on.
#[async_trait]
pub trait AsksKeys: Sync {
    /// The positions of those that no replicated row has.
    async fn absent(&self, keys: &[MarkedKey]) -> Result<Option<Vec<usize>>>;
    /// Whether this is a key at all.
    async fn try_key(&self, key: &MarkedKey) -> Result<Option<()>>;
    /// The same as [`absent`](Self::absent) by the texts of all rows; without `filtered` of those, too, that are not
    /// replicated.
    async fn absent_by_text(&self, keys: &[MarkedKey], filtered: bool) -> Result<Option<Vec<usize>>>;
    /// Whether the table is replicated in part.
    fn is_filtered(&self) -> bool;
}

/// Positions among the keys that were asked for.
#[derive(Debug, Default)]
pub struct Absent {
    /// The source has no such row, or none that is replicated.
    pub gone: Vec<usize>,
    /// Nobody knows: the source fails at the key, or at its row.
    pub doubtful: Vec<usize>,
}

/// Which of `keys` the source lacks.
pub async fn absent(source: &impl AsksKeys, keys: &[MarkedKey]) -> Result<Absent> {
    let (mut found, mut refused) = (Absent::default(), Vec::new());
    let mut search = Search::of(keys.len(), usize::MAX);
    while let Some(range) = search.take(usize::MAX) {
        let part = &keys[range.clone()];
        match source.absent(part).await? {
            Some(gone) => found.gone.extend(gone.into_iter().map(|i| range.start + i)),
            None if range.len() > 1 => search.halve(&range),
            None => match source.try_key(&part[0]).await? {
                Some(()) => found.doubtful.push(range.start),
                None => refused.push(range.start),
            },
        }
    }
    look_for_texts(source, keys, refused, &mut found).await?;
    Ok(found)
}

/// Keys that the source does not take as such, among the texts of all rows; then of those that are there, among the
/// rows that are replicated.
async fn look_for_texts(
    source: &impl AsksKeys,
    texts: &[MarkedKey],
    mut places: Vec<usize>,
    found: &mut Absent,
) -> Result<()> {
    for filtered in [false, true] {
        if places.is_empty() || filtered && !source.is_filtered() {
            break;
        }
        let keys: Vec<_> = places.iter().map(|&place| texts[place].clone()).collect();
        let Some(gone) = source.absent_by_text(&keys, filtered).await? else {
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
