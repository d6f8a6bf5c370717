//! Pulls from a MySQL or MariaDB at one snapshot: the rows that its binlog tells of; or, by SELECT alone, rows by stamps that
//! writers set, else by a digest of all rows, and what is gone by a count.

mod about;
mod definition;
mod init;
mod known;
mod listing;
mod marks;
mod noted;
mod position;
mod quiet;
mod ranges;
mod reading;
mod statements;
mod wanted;
mod watched;
mod way;

use crate::core::error::{Error, Result};
use crate::core::message::MarkedKey;
use crate::mysql::MySqlUrl;
use crate::mysql::binlog::{Failed, Place};
use crate::mysql::catalog::get;
use crate::mysql::session::{self, Session};
use crate::provider::stamps::StampOptions;
use crate::provider::{Begun, Description, Follows, Found, Limits, Look, Part, Provider, Source, View};
pub use about::{About, about};
use async_trait::async_trait;
use definition::Definition;
pub(crate) use init::init;
use known::{Entry, Known};
use marks::{Mark, Marks, Span};
use position::Position;
use quiet::Looked;
pub use quiet::Quiet;
use reading::Reading;
use statements::may_filter_by_more;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
pub use wanted::Wanted;
use way::Way;

/// A state of MySQL's errors.
const NO_SUCH_TABLE: &str = "42S02";

/// How often a server is asked for its clock that was slow to answer in between.
const CLOCK_TRIES: u32 = 5;

/// Ranges that one statement counts.
const RANGES: usize = 50;

/// A MySQL or MariaDB, and what is pulled of it.
#[derive(Debug, Clone)]
pub struct MySqlProvider {
    /// Where it is.
    pub url: MySqlUrl,
    /// What is replicated.
    pub wanted: Wanted,
    /// Bytes beyond which a row is not fetched.
    pub row_bytes: i64,
    /// How changed rows are told.
    pub stamps: StampOptions,
    /// What is known of tables that do not change.
    pub quiet: Quiet,
}

#[async_trait]
impl Provider for MySqlProvider {
    async fn open(&self) -> Result<Box<dyn Source>> {
        let session = Session::open(&self.url).await?;
        Ok(Box::new(Connection {
            provider: self.clone(),
            session,
            known: Known::default(),
            way: Way::default(),
            marks: Marks::new(self.url.clone()),
            reading: None,
            broken: BTreeMap::new(),
            is_open: false,
            binlog: None,
            committed: None,
            is_close: false,
            log: None,
            looked: BTreeMap::new(),
        }))
    }
}

/// A connection to it.
struct Connection {
    provider: MySqlProvider,
    session: Session,
    known: Known,
    way: Way,
    marks: Marks,
    reading: Option<Reading>,
    /// Tables that could not be read, and why.
    broken: BTreeMap<String, String>,
    /// Whether a view is.
    is_open: bool,
    /// Where in the binlog it lies, where that is read.
    binlog: Option<Span>,
    /// All before this place in it was committed once.
    committed: Option<Place>,
    /// Whether looks compare all they can.
    is_close: bool,
    /// Where the log was when the view was opened, where whoever may only SELECT is told that.
    log: Option<String>,
    /// What the looks of this view have found by which later ones may be spared.
    looked: BTreeMap<String, Looked>,
}

/// What keeps the binlog from being read.
fn failed(e: Failed) -> Error {
    match e {
        Failed::Error(e) => e,
        Failed::Forbidden => Error::retry("the login may no longer read the binlog; it is asked again what it may"),
        Failed::Gone(why) => Error::retry(format!("the binlog is gone ({why}); the tables are compared")),
    }
}

fn no_view() -> Error {
    Error::retry("the view of MySQL is over; it will be opened again")
}

impl Connection {
    /// When the server was started, by its own clock.
    async fn started(&mut self) -> Result<i64> {
        const CLOCK: &str = "select cast(unix_timestamp() as signed)";
        for _ in 0..CLOCK_TRIES {
            let before: i64 = get(&self.session.row(CLOCK, ()).await?, 0)?;
            let uptime: String = get(&self.session.row("show global status like 'Uptime'", ()).await?, 1)?;
            let after: i64 = get(&self.session.row(CLOCK, ()).await?, 0)?;
            if after - before <= 1 {
                return Ok(before - uptime.parse::<i64>().unwrap_or_default());
            }
        }
        Err(Error::retry("MySQL takes seconds to say how long it has run; it will be asked again"))
    }

    /// Opens a snapshot of these tables, and finds out where in the binlog it lies.
    async fn open(&mut self, tables: &[&str]) -> Result<()> {
        (self.is_open, self.binlog, self.log) = (true, None, None);
        let is_looked_at = |table: &&str| self.known.entry(table).is_ok_and(|entry| entry.may_be_spared());
        if !tables.iter().any(is_looked_at) {
            return self.open_snapshot().await;
        }
        let log = quiet::before_snapshot(&mut self.session).await?;
        self.open_snapshot().await?;
        self.log = if log.is_some() { log } else { quiet::in_snapshot(&mut self.session).await? };
        Ok(())
    }

    async fn open_snapshot(&mut self) -> Result<()> {
        const SNAPSHOT: &str = "start transaction with consistent snapshot, read only";
        if self.way.binlog.is_err() {
            return self.session.run(SNAPSHOT).await;
        }
        let from = self.committed().await?;
        self.session.run(SNAPSHOT).await?;
        let to = self.end_of_log().await?;
        // Before a log is read, nobody knows of an XA COMMIT that the engine has not followed yet: some time before has to do.
        let from = match (&self.way.place, from) {
            (Some(place), Some(from)) if !self.marks.is_reading() && *place < from => Some(place.clone()),
            (_, from) => from,
        };
        self.binlog = Some(Span { from, to });
        Ok(())
    }

    /// A place before which all is committed for whoever opens a snapshot after this, if there is any that is known.
    async fn committed(&mut self) -> Result<Option<Place>> {
        if self.session.server.is_mariadb {
            return way::committed(&mut self.session).await.map(Some);
        }
        let place = self.end_of_log().await?;
        if way::engine_follows(&mut self.session).await? {
            self.committed = Some(place);
        } else {
            self.committed = self.committed.take().filter(|before| before.is_of_log(&place) && *before <= place);
        }
        Ok(self.committed.clone())
    }

    /// What has changed of a table whose changes nobody tells.
    async fn listed(&mut self, entry: &Entry, since: Option<&str>, place: Option<&str>) -> Result<(Reading, Look)> {
        let (name, compare) = (&entry.readable.table.name, entry.listed.compare);
        let log = self.log.as_ref().filter(|_| entry.may_be_spared());
        if let (Some(log), Some(since), false) = (log, since, self.is_close)
            && let Some(rows) = self.provider.quiet.rows(name, log, since, compare)
            && !listing::is_to_look_back(&mut self.session, entry, since).await?
        {
            let look = Look { mark: since.to_owned(), changed: Some(0), count: Some(rows), ..Look::default() };
            return Ok((Reading::nothing(entry.readable.clone()), look));
        }
        let at = Instant::now();
        let (reading, look) = listing::look(&mut self.session, entry, since, place, self.is_close).await?;
        if let (Some(log), Some(rows)) = (log, look.count) {
            let looked = Looked { log: log.clone(), mark: look.mark.clone(), rows, at };
            self.looked.insert(name.clone(), looked);
        }
        Ok((reading, look))
    }

    async fn end_of_log(&mut self) -> Result<Place> {
        let none = || Error::retry("MySQL no longer keeps a binlog; it will be asked again");
        way::status(&mut self.session).await?.map(|(place, _)| place).ok_or_else(none)
    }

    /// What the binlog tells of a table since a mark; `None` where it has to be read whole.
    async fn told(
        &mut self,
        entry: &Entry,
        since: &str,
        place: Option<&str>,
        view: &Span,
    ) -> Result<Option<(Reading, Look)>> {
        let Some(mark) = Mark::read(since) else { return Ok(None) };
        let place = place.and_then(Mark::read).map(|place| place.binlog);
        let name = &entry.readable.table.name;
        let since = match self.marks.since(name, &mark, place.as_ref(), view).await {
            Ok(Some(since)) => since,
            Ok(None) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let is_to_be_counted = since.has_cascaded || may_filter_by_more(&entry.readable.table);
        let count = match since.is_all && is_to_be_counted {
            true => Some(entry.count(&mut self.session).await?),
            false => None,
        };
        let place = place.map(Mark::place);
        let look = Look {
            changed: Some(since.keys.len()),
            count,
            tells_gone: since.is_all && !is_to_be_counted,
            is_far: since.is_far,
            place: place.clone(),
            mark: since.mark,
            meanwhile: None,
        };
        Ok(Some((Reading::told(entry.readable.clone(), since.keys, place), look)))
    }

    /// Whether the tables of this view, whose definitions it holds, are as they were described.
    async fn is_current(&mut self) -> Result<bool> {
        // What altered them is in the log before another session may use them again.
        if self.binlog.is_some() && self.marks.is_reading() {
            let end = self.end_of_log().await?;
            if !self.marks.may_be_altered(&end).await.map_err(failed)? {
                return Ok(true);
            }
        }
        self.marks.read_catalog();
        Ok(self.known.is_current(&mut self.session).await? && self.way.is_current(&mut self.session).await?)
    }

    async fn view(&mut self) -> Result<View> {
        // MariaDB alone knows the second: a variable that is not there is an error.
        let history = match self.session.server.is_mariadb {
            true => "select cast(@@server_id as char), @@gtid_binlog_pos, @@gtid_slave_pos <> ''",
            false => "select @@server_uuid, '', @@read_only",
        };
        let row = self.session.row(history, ()).await?;
        let (server, gtids, is_replica): (String, String, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let position = Position {
            started: self.started().await?,
            server,
            database: self.provider.url.database().to_owned(),
            gtids: Position::gtids(&gtids),
            is_replica: is_replica != 0,
            binlog: self.binlog.as_ref().map(|span| span.to.clone()),
        };
        let clock = "select concat(left(date_format(utc_timestamp(6), '%Y-%m-%dT%H:%i:%s.%f'), 23), 'Z')";
        let at = self.session.row(clock, ()).await?;
        let position = serde_json::to_string(&position).unwrap_or_default();
        Ok(View { position, at: get(&at, 0)?, seen: None })
    }
}

#[async_trait]
impl Source for Connection {
    async fn describe(&mut self) -> Result<Arc<Description>> {
        let MySqlProvider { url, wanted, row_bytes, stamps, .. } = &self.provider;
        let way = way::find(&mut self.session, url).await?;
        let known = known::read(&mut self.session, url.database(), wanted, *row_bytes, stamps, &way).await?;
        let mut databases = wanted.databases(url.database());
        databases.extend(way.databases().cloned());
        self.marks.watch(
            (way.server, way.made.clone()),
            known.watched.clone(),
            databases,
            way.is_like(&self.way) && known.is_like(&self.known),
        );
        (self.known, self.way) = (known, way);
        for (table, problem) in &self.broken {
            self.known.put_aside(table, problem.clone());
        }
        Ok(self.known.description.clone())
    }

    fn outgrown(&self, before: &str, now: &str) -> Option<String> {
        let now = Definition::read(now)?;
        match Definition::read(before) {
            Some(before) => now.outgrows(&before),
            None => Some("by which definition its rows were read is not known".into()),
        }
    }

    fn columns(&self, definition: &str) -> BTreeSet<String> {
        Definition::read(definition).map(Definition::columns).unwrap_or_default()
    }

    async fn hidden(&mut self, definition: &str) -> Result<Option<String>> {
        let Some(source) = Definition::read(definition).and_then(|definition| definition.source()) else {
            return Ok(None);
        };
        if let Some(shown) = self.known.shown(&source) {
            return Ok(shown.map(str::to_owned));
        }
        match self.session.rows(&format!("select 1 from {source} limit 0"), ()).await {
            Ok(_) => Ok(Some(wanted::LOCKED.to_owned())),
            Err(e) if e.sqlstate() == Some(NO_SUCH_TABLE) => Ok(None),
            Err(e) if e.is_locked() || e.sqlstate().is_some() => Ok(Some(e.to_string())),
            Err(e) => Err(e),
        }
    }

    fn follows(&self, before: &str, now: &str) -> Follows {
        let read = |text: &str| serde_json::from_str::<Position>(text).ok();
        match (read(before), read(now)) {
            (Some(before), Some(now)) => now.follows(&before),
            _ => Follows::Other("what was read before is not known".into()),
        }
    }

    async fn begin(&mut self, tables: &[&str]) -> Result<Begun> {
        self.end().await?;
        self.open(tables).await?;
        self.marks.view(tables, self.binlog.as_ref().and_then(|span| span.from.as_ref()));
        let view = self.view().await?;
        let mut locked = Vec::new();
        for table in tables {
            let entry = self.known.entry(table)?;
            // Keeps its definition as it is until the view ends; one that was altered since the snapshot says so.
            let touched = self.session.rows(&format!("select 1 from {} limit 0", entry.readable.name), ()).await;
            match touched {
                Ok(_) => {}
                Err(e) if e.is_locked() => locked.push((*table).to_owned()),
                Err(e) if e.needs_operator() && e.sqlstate().is_some() => {
                    self.end().await?;
                    // Where nothing was altered, it is this table that cannot be read, and others can.
                    if self.known.is_current(&mut self.session).await? {
                        self.broken.insert((*table).to_owned(), e.to_string());
                    }
                    tracing::debug!(error = %e, table, "the tables are described again");
                    return Ok(Begun::Changed);
                }
                Err(e) => return Err(e),
            }
        }
        if !locked.is_empty() {
            self.end().await?;
            return Ok(Begun::Locked(locked));
        }
        if !self.is_current().await? {
            self.end().await?;
            return Ok(Begun::Changed);
        }
        Ok(Begun::View(view))
    }

    async fn look(&mut self, table: &str, since: Option<&str>, place: Option<&str>) -> Result<Look> {
        let entry = self.known.entry(table)?;
        let (reading, look) = match self.binlog.clone().filter(|_| entry.is_told) {
            None => self.listed(&entry, since, place).await?,
            Some(view) => {
                let told = match since {
                    Some(since) => self.told(&entry, since, place, &view).await?,
                    None => None,
                };
                match told {
                    Some(told) => told,
                    None => {
                        // Without one it can be read, and not be kept.
                        let mark = self.marks.read_whole(table, &view).unwrap_or_default();
                        listing::all(&entry, place.filter(|_| since.is_none()), mark)
                    }
                }
            }
        };
        self.reading = Some(reading);
        Ok(look)
    }

    fn look_closely(&mut self) {
        self.is_close = true;
    }

    async fn next(&mut self, limits: Limits) -> Result<Part> {
        self.reading.as_mut().ok_or_else(no_view)?.next(&mut self.session, limits).await
    }

    async fn rows(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<(usize, Found)>> {
        let entry = self.known.entry(table)?;
        reading::by_keys(&mut self.session, &entry.readable, keys).await
    }

    async fn absent(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<usize>> {
        let entry = self.known.entry(table)?;
        reading::absent(&mut self.session, &entry.readable, keys).await
    }

    async fn counts(&mut self, table: &str, bounds: &[MarkedKey]) -> Result<Vec<i64>> {
        let entry = self.known.entry(table)?;
        let number = |key: &MarkedKey| key.first().and_then(|text| text.parse::<i64>().ok());
        let bounds: Vec<i64> = bounds.iter().map(number).collect::<Option<_>>().ok_or_else(no_view)?;
        let starts = std::iter::once(None).chain(bounds.iter().copied().map(Some));
        let ends = bounds.iter().copied().map(Some).chain([None]);
        let ranges: Vec<(Option<i64>, Option<i64>)> = starts.zip(ends).collect();
        let mut counts = vec![0; ranges.len()];
        for (start, some) in ranges.chunks(RANGES).enumerate().map(|(i, some)| (i * RANGES, some)) {
            let (sql, parameters) = entry.readable.counts(some);
            for row in self.session.rows(&sql, parameters).await.map_err(|e| session::of_table(e, table))? {
                let (at, count): (usize, i64) = (get(&row, 0)?, get(&row, 1)?);
                if let Some(place) = counts.get_mut(start + at) {
                    *place = count;
                }
            }
        }
        Ok(counts)
    }

    async fn is_whole(&mut self) -> Result<bool> {
        Ok(true)
    }

    async fn make_durable(&mut self) -> Result<()> {
        // A server that lost what it had committed is seen by its position, and compared anew.
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        (self.reading, self.is_close) = (None, false);
        self.looked.clear();
        if std::mem::take(&mut self.is_open) {
            self.session.run("rollback").await?;
        }
        Ok(())
    }

    fn taken(&mut self) {
        self.provider.quiet.keep(std::mem::take(&mut self.looked));
    }

    fn tells(&self) -> bool {
        self.marks.is_reading()
    }

    async fn changed(&mut self, within: Duration) -> Result<Option<bool>> {
        self.marks.wait(within).await.map_err(failed)
    }
}
