//! What of a table has changed since a mark: by the stamps of its rows, else by digests of all of them.

use super::known::Entry;
use super::ranges::{self, By};
use super::reading::{Reading, key_texts};
use super::statements::{MySql, Readable};
use crate::core::error::{Error, Result, Side};
use crate::core::message::MarkedKey;
use crate::mysql::catalog::get;
use crate::mysql::session::{Session, of_table};
use crate::provider::Look;
use crate::provider::stamps::{Listed, StampMark};

/// Up to so many rows a table without stamps is read whenever something has changed, whoever asked for it or not.
const MOST_ROWS: i64 = 10_000;

/// And of so many bytes, as the server counts them.
const MOST_BYTES: u64 = 64 << 20;

/// So many changed rows are read by their keys; more by a walk over the table.
const MOST_KEYS: i64 = 100_000;

/// Begins to read all rows, behind a place.
pub(super) fn all(entry: &Entry, place: Option<&str>, mark: String) -> (Reading, Look) {
    let place: Option<MarkedKey> = place.and_then(|text| serde_json::from_str(text).ok());
    let place = place.filter(|place| place.len() == entry.readable.table.key.len());
    let begins = place.as_ref().map(super::reading::place);
    let look = Look { mark, place: begins, ..Look::default() };
    (Reading::pages(entry.readable.clone(), None, place, true), look)
}

/// Looks, and begins to read; `is_close`: all that digests tell is asked for, whenever that was last.
pub(super) async fn look(
    session: &mut Session,
    entry: &Entry,
    since: Option<&str>,
    place: Option<&str>,
    is_close: bool,
) -> Result<(Reading, Look)> {
    let Entry { readable, listed, is_view, .. } = entry;
    let Listed { stamps, ladder, .. } = listed;
    let name = &readable.table.name;
    let failed = |e: Error| of_table(e, name);
    let since = since.and_then(|text| StampMark::read(text, stamps));
    let now = clock(session).await?;
    let place: Option<MarkedKey> = place.and_then(|text| serde_json::from_str(text).ok());
    let place = place.filter(|place| place.len() == readable.table.key.len());
    if let (None, Some(place)) = (&since, place) {
        // It goes on where an earlier view has ended, whose mark is kept: nothing is counted yet.
        let mark = text(&StampMark::begin(stamps, vec![None; stamps.len()], now, String::new()));
        return Ok(all(entry, Some(&super::reading::place(&place)), mark));
    }
    let rows = entry.count(session).await?;
    if *is_view {
        // No index sees to it.
        let keys = session.row(&readable.count_keys(), ()).await.map_err(failed)?;
        let (keyless, keys): (i64, i64) = (get(&keys, 0)?, get(&keys, 1)?);
        if keyless > 0 || keys < rows {
            let problem = format!(
                "{} shows {rows} rows under {keys} keys, {keyless} of them without one: choose another primaryKey, or leave rows out by `where`",
                readable.name
            );
            return Err(Error::halt(problem).of_table(name, Side::Source));
        }
    }
    if let Some(problem) = problem(&readable.name, listed, rows) {
        return Err(Error::halt(problem).of_table(name, Side::Source));
    }
    let newest = newest(session, entry).await?;
    let Some(mark) = since else {
        // What changes while it is read may be as it was when it is looked at next: the first digests meet none.
        let mark = StampMark::begin(stamps, newest, now, String::new());
        let look = Look { mark: text(&mark), count: Some(rows), ..Look::default() };
        return Ok((Reading::pages(readable.clone(), None, None, true), look));
    };
    if stamps.is_empty() {
        return by_ranges(session, entry, mark, rows, now, is_close).await;
    }
    let rung = ladder.rung(&mark, now);
    let condition = ladder.condition::<MySql>(stamps, &mark, rung);
    let chosen = session.row(&readable.count_where(&condition), ()).await.map_err(failed)?;
    let chosen: i64 = get(&chosen, 0)?;
    let reading = if chosen > MOST_KEYS {
        Reading::pages(readable.clone(), Some(condition), None, false)
    } else {
        let keys = session.rows(&readable.keys_where(&condition), ()).await.map_err(failed)?;
        let keys: Vec<MarkedKey> = keys.into_iter().map(|row| key_texts(readable, row)).collect::<Result<_>>()?;
        Reading::keys(readable.clone(), keys)
    };
    let after = mark.after(newest, now, rung, String::new());
    let changed = Some(usize::try_from(chosen).unwrap_or(usize::MAX));
    Ok((reading, Look { mark: text(&after), changed, count: Some(rows), is_far: rung > 0, ..Look::default() }))
}

/// The server's: milliseconds since 1970.
async fn clock(session: &mut Session) -> Result<i64> {
    get(&session.row("select cast(unix_timestamp(now(3)) * 1000 as signed)", ()).await?, 0)
}

/// Whether it is time to look farther back behind the newest stamp: for what was committed long after it was stamped.
pub(super) async fn is_to_look_back(session: &mut Session, entry: &Entry, since: &str) -> Result<bool> {
    let Listed { stamps, ladder, .. } = &entry.listed;
    let Some(mark) = StampMark::read(since, stamps).filter(|_| !stamps.is_empty()) else { return Ok(false) };
    Ok(ladder.rung(&mark, clock(session).await?) > 0)
}

/// What has changed of a table without stamps that has so many rows. Of a large one a look counts; it takes digests behind
/// a whole read, where its rows are to be compared, and of ranges that have another number of rows.
async fn by_ranges(
    session: &mut Session,
    entry: &Entry,
    mark: StampMark,
    rows: i64,
    now: i64,
    is_close: bool,
) -> Result<(Reading, Look)> {
    let Entry { readable, listed, is_view, .. } = entry;
    let is_small = rows <= MOST_ROWS && (!is_long(readable) || bytes(session, entry).await? <= MOST_BYTES);
    let known: i64 = mark.ranges.iter().map(|range| range.rows).sum();
    let age = u128::from(now.abs_diff(mark.digested_at));
    let is_due = is_close || mark.ranges.is_empty() || listed.compare.is_some_and(|every| age >= every.as_millis());
    // The rows of a view lie in no order.
    if !(is_small || (is_due || known != rows) && !is_view) {
        let look = Look { mark: text(&mark), changed: Some(0), count: Some(rows), ..Look::default() };
        return Ok((Reading::nothing(readable.clone()), look));
    }
    let by = if is_small || is_due { By::Digests } else { By::Counts };
    let before = if *is_view && mark.ranges.len() > 1 { &[] } else { &mark.ranges[..] };
    let size = if *is_view { None } else { Some(ranges::size(is_long(readable), rows)) };
    let found = ranges::look(session, readable, before, size, by).await?;
    let digested_at = if is_small || by == By::Counts { mark.digested_at } else { now };
    let meanwhile = found.doubted();
    let meanwhile = text(&StampMark { ranges: meanwhile, digested_at: 0, ..mark.clone() });
    let after = StampMark { ranges: found.ranges, digested_at, ..mark.clone() };
    let look = Look {
        mark: text(&after),
        changed: Some(usize::try_from(found.rows).unwrap_or(usize::MAX)),
        count: Some(rows),
        is_far: after != mark,
        meanwhile: Some(meanwhile),
        ..Look::default()
    };
    Ok((Reading::ranges(readable.clone(), found.changed), look))
}

fn is_long(readable: &Readable) -> bool {
    readable.types.iter().any(|of| of.is_long)
}

/// What the server says that a table takes, about.
async fn bytes(session: &mut Session, entry: &Entry) -> Result<u64> {
    let sql = "select coalesce(t.data_length, 0) + 0 from information_schema.tables t where t.table_schema = ? and t.table_name = ?";
    let (database, table) = &entry.place;
    let found = session.rows(sql, (database, table)).await.map_err(|e| of_table(e, &entry.readable.table.name))?;
    found.first().map_or(Ok(0), |row| get(row, 0))
}

async fn newest(session: &mut Session, entry: &Entry) -> Result<Vec<Option<String>>> {
    let mut newest = Vec::new();
    for stamp in &entry.listed.stamps {
        let sql = entry.readable.newest(stamp);
        let row = session.row(&sql, ()).await.map_err(|e| of_table(e, &entry.readable.table.name))?;
        newest.push(get(&row, 0)?);
    }
    Ok(newest)
}

/// Why a table cannot be pulled, with the remedy.
fn problem(name: &str, listed: &Listed, rows: i64) -> Option<String> {
    let is_too_large = listed.stamps.is_empty() && rows > MOST_ROWS && !listed.is_compared;
    is_too_large.then(|| {
        format!(
            "{name} has {rows} rows and no column that says when one was written last: name one in `changed`, or say in `compare` how often all rows are to be compared"
        )
    })
}

fn text(mark: &StampMark) -> String {
    serde_json::to_string(mark).unwrap_or_default()
}
