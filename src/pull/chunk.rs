//! Brings a table of which much is to be read: in parts, each a transaction of its own with the place that it leads to,
//! over as many views as it takes. What changes meanwhile is found by the next look, because the mark that is kept at the
//! end is that of the first view.

use super::closing::Closed;
use super::read::{Read, covered, letters, sorted};
use super::session::Session;
use super::writer::Writer;
use super::writer::{Outcome, Written};
use crate::core::batch::RowState;
use crate::core::error::{Error, Result};
use crate::core::failpoint::{self, PullRule};
use crate::core::schema::Table;
use crate::provider::{Part, View};
use crate::replica::head::fenced;
use crate::replica::pulls::{Progress, PulledTable};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// A closing transaction may come to hold so many times as much.
const MOST_GROWTH: usize = 16;

impl Session<'_> {
    /// Reads on from where the table is, until nothing is left, or the view had its time. Whether the table equals the
    /// view then; `is_last`: all others that can be read do.
    pub(super) async fn chunks(&mut self, view: &View, name: &str, began: Instant, is_last: bool) -> Result<bool> {
        let mut standing = self.standing_of(name);
        let Some(described) = self.description.tables.get(name) else { return Ok(false) };
        let (table, finds_unchanged) = (described.table.clone(), described.finds_unchanged);
        let place = standing.place.take().filter(|_| standing.until.is_some());
        let look = self.source.look(name, standing.since.as_deref(), place.as_deref()).await?;
        if look.changed.is_none() {
            standing.since = None; // the mark tells nothing any more
        }
        // What was read in an earlier view may be otherwise by now.
        let is_of_one_view = look.place.is_none();
        // Where rows have moved it begins anew, and what changed since the first view is still found.
        if standing.until.is_none() || !PullRule::FirstMark.holds() {
            standing.until = Some(look.mark.clone());
        }
        if standing.since.is_none() && look.place.is_none() && self.writer.replica.is_empty(&table).await? {
            self.plain.insert(name.to_owned());
        }
        let mut doubts = BTreeMap::new();
        if let Some(meanwhile) = &look.meanwhile {
            // Cut short, it is all read again: it may be by then as it was before.
            (standing.since, standing.until) = (Some(meanwhile.clone()), Some(look.mark.clone()));
            let doubt = PulledTable { until: None, place: None, rows: None, ..standing.clone() };
            doubts.insert(name.to_owned(), doubt);
        }
        if look.mark.is_empty() {
            return Err(Error::retry(
                "nobody can tell yet up to where the source shows what it has committed (a transaction is open for long); it will be tried again",
            ));
        }
        self.source.make_durable().await?;
        failpoint::reach(failpoint::DURABLE);
        let mut part = self.source.next(self.pull.pace.part).await?;
        failpoint::reach(failpoint::READ);
        let (mut first_place, mut has_written) = (None, false);
        loop {
            let is_plain = self.plain.contains(name) || standing.since.is_some() && !finds_unchanged;
            let has_moved = *first_place.get_or_insert_with(|| part.place.clone()) != part.place;
            let is_over = part.is_end || has_moved && began.elapsed() >= self.pull.pace.view_time;
            let (is_end, is_read_whole) = (part.is_end, part.is_end && standing.since.is_none());
            // Of what is read again each time nothing has to be said as long as it is as it was.
            let may_be_idle = finds_unchanged && standing.since.is_some() && !has_written;
            end(&mut standing, &part);
            let mut written = written(&self.writer, view, &table, part, is_plain, &standing).await?;
            written.progress.compared.extend(is_read_whole.then(|| name.to_owned()));
            written.doubts.clone_from(&doubts);
            let is_idle = may_be_idle && written.is_nothing();
            has_written |= !is_idle;
            if is_over {
                // Else its place is not kept: it is read again, without the rows that stand aside now.
                if !is_idle && self.writer.write(written).await? == Outcome::Rejected {
                    return Ok(false);
                }
                if is_end {
                    self.growth = (self.growth * 2).min(MOST_GROWTH);
                }
                // What is read again each time would be as much in the next view.
                return Ok(is_end
                    && finds_unchanged
                    && is_of_one_view
                    && self.close_read(view, name, look, is_last).await? == Closed::Equal);
            }
            if self.pull.is_stopping() {
                return Err(self.pull.stopped());
            }
            if is_idle {
                part = self.source.next(self.pull.pace.part).await?;
                continue;
            }
            // The next one is read meanwhile.
            let (outcome, next) =
                futures_util::join!(self.writer.write(written), self.source.next(self.pull.pace.part));
            if outcome? == Outcome::Rejected {
                return Ok(false);
            }
            part = next?;
        }
    }
}

/// Where the table is with this part.
fn end(standing: &mut PulledTable, part: &Part) {
    standing.place.clone_from(&part.place);
    if part.is_end {
        (standing.since, standing.place, standing.rows) = (standing.until.take(), None, None);
    }
}

async fn written(
    writer: &Writer,
    view: &View,
    table: &Arc<Table>,
    part: Part,
    is_plain: bool,
    standing: &PulledTable,
) -> Result<Written> {
    let Read { mut items, unfit } = sorted(table, part.found);
    let dead = writer.standing.dead.get(&table.name);
    items.retain(|item| !writer.has_refused(item));
    let covered = covered(dead, &items);
    if !is_plain {
        let found = writer.replica.compare(table, &items, None, writer.at()).await?.ok_or_else(fenced)?;
        let wanted: std::collections::BTreeSet<usize> =
            found.missing.into_iter().chain(found.different).chain(found.refused).collect();
        let mut position = 0..;
        items.retain(|item| position.next().is_some_and(|i| wanted.contains(&i)) || item.state == RowState::Gone);
    }
    let letters = letters(table, dead, unfit)?;
    let progress = Progress {
        source: Some(view.position.clone()),
        tables: BTreeMap::from([(table.name.clone(), standing.clone())]),
        letters,
        covered: covered.into_iter().map(|key| (table.name.clone(), key)).collect(),
        ..Progress::default()
    };
    Ok(Written { items, progress, ..Written::default() })
}
