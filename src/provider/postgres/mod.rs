//! Pulls from a Postgres where nothing may be installed, by SELECT alone: rows by the transaction that wrote them, what
//! is gone by a count, both at one snapshot.

mod about;
mod dialect;
mod known;
mod listing;
mod mark;
mod reading;
mod view;
mod wanted;

use crate::core::absent::{self, AsksKeys};
use crate::core::error::{Error, Result};
use crate::core::message::MarkedKey;
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift::definition_version;
use crate::postgres::rows::{self, Server, page};
use crate::postgres::{Client, PgUrl, Purpose};
use crate::provider::stamps::StampOptions;
use crate::provider::{Begun, Description, Follows, Found, Limits, Look, Part, Provider, Source, View};
pub use about::{About, about};
use async_trait::async_trait;
use known::Known;
use listing::Listing;
use mark::{Position, text};
use reading::Reading;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use view::Snapshot;
pub use wanted::Wanted;

/// How often a view whose tables were altered since they were described is begun anew.
const TRIES: u32 = 3;

/// How long the source may take to write to disk what it has committed.
const FLUSH_TIME: Duration = Duration::from_secs(10);

/// Between two looks whether it has.
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// A Postgres, and what is pulled of it.
#[derive(Debug, Clone)]
pub struct PostgresProvider {
    /// Where it is.
    pub url: PgUrl,
    /// What is replicated.
    pub wanted: Wanted,
    /// Bytes beyond which a row is not fetched.
    pub row_bytes: i64,
    /// How changed rows are told of what is no table.
    pub stamps: StampOptions,
}

#[async_trait]
impl Provider for PostgresProvider {
    async fn open(&self) -> Result<Box<dyn Source>> {
        let client = self.url.pinned(Purpose::Pull).await?;
        let server = Server::ask(&client).await?;
        let (known, snapshot, reading) = (Known::default(), None, None);
        Ok(Box::new(Connection {
            provider: self.clone(),
            client,
            server,
            beside: OnceCell::new(),
            known,
            snapshot,
            reading,
        }))
    }
}

/// A connection to it.
struct Connection {
    provider: PostgresProvider,
    client: Client,
    server: Server,
    /// Commits what flushes its WAL.
    beside: OnceCell<Client>,
    known: Known,
    snapshot: Option<Snapshot>,
    reading: Option<Reads>,
}

/// What is being read.
enum Reads {
    Versions(Reading),
    Listing(Listing),
}

impl Connection {
    fn snapshot(&self) -> Result<&Snapshot> {
        self.snapshot.as_ref().ok_or_else(no_view)
    }

    /// Gives up what is being read: rows that nobody takes keep every later answer waiting behind them.
    fn leave(&mut self) {
        self.reading = None;
    }

    /// A table that is to be read, by plans that suit it.
    async fn source(&mut self, name: &str) -> Result<Arc<SourceTable>> {
        self.leave();
        let (source, is_listed) = (self.known.source(name)?, self.known.listed(name).is_some());
        let snapshot = self.snapshot.as_mut().ok_or_else(no_view)?;
        if is_listed || snapshot.is_set_for_listing {
            rows::admit(&self.client, source.kind, self.server).await?;
            snapshot.is_set_for_listing = is_listed;
        }
        if is_listed {
            rows::listing::plan_freely(&self.client).await?;
        }
        Ok(source)
    }

    async fn flush(&self) -> Result<()> {
        let beside = self.beside.get_or_try_init(|| self.provider.url.pinned(Purpose::Beside)).await?;
        rows::flush(beside).await
    }
}

fn no_view() -> Error {
    Error::retry("the view of Postgres is over; it will be opened again")
}

#[async_trait]
impl Source for Connection {
    async fn describe(&mut self) -> Result<Arc<Description>> {
        let PostgresProvider { wanted, row_bytes, stamps, .. } = &self.provider;
        self.known = known::read(&self.client, wanted, *row_bytes, stamps).await?;
        Ok(self.known.description.clone())
    }

    fn outgrown(&self, before: &str, now: &str) -> Option<String> {
        definition_version::outgrown(before, now)
    }

    fn columns(&self, definition: &str) -> BTreeSet<String> {
        definition_version::columns(definition)
    }

    fn follows(&self, before: &str, now: &str) -> Follows {
        let read = |text: &str| serde_json::from_str::<Position>(text).ok();
        match (read(before), read(now)) {
            (Some(before), Some(now)) => now.follows(&before),
            _ => Follows::Other("what was read before is not known".into()),
        }
    }

    async fn begin(&mut self, tables: &[&str]) -> Result<Begun> {
        let sources = self.known.sources(tables)?;
        for _ in 0..TRIES {
            match view::begin(&self.client, &self.known, &sources, self.server).await? {
                view::Opened::Snapshot(snapshot) => {
                    let (position, at) = (text(&snapshot.position), snapshot.at.clone());
                    let view = View { position, at, seen: snapshot.seen.clone() };
                    rows::note_large(&self.client, sources.iter().map(AsRef::as_ref).collect()).await?;
                    self.snapshot = Some(*snapshot);
                    return Ok(Begun::View(view));
                }
                view::Opened::Altered => return Ok(Begun::Changed),
                view::Opened::Locked => {
                    let locked = view::locked(&self.client, &sources, self.server).await?;
                    if !locked.is_empty() {
                        return Ok(Begun::Locked(locked));
                    }
                }
            }
        }
        Err(Error::retry("tables are locked by turns; they will be read again"))
    }

    async fn look(&mut self, table: &str, since: Option<&str>, place: Option<&str>) -> Result<Look> {
        let source = self.source(table).await?;
        let (reads, look) = match self.known.listed(table) {
            Some(listed) => {
                let (listing, look) = Listing::begin(&self.client, source, listed, since).await?;
                (Reads::Listing(listing), look)
            }
            None => {
                let snapshot = self.snapshot.as_mut().ok_or_else(no_view)?;
                let (reading, look) = Reading::begin(&self.client, source, snapshot, since, place).await?;
                (Reads::Versions(reading), look)
            }
        };
        self.reading = Some(reads);
        Ok(look)
    }

    async fn next(&mut self, limits: Limits) -> Result<Part> {
        match self.reading.as_mut().ok_or_else(no_view)? {
            Reads::Versions(reading) => reading.next(&self.client, limits).await,
            Reads::Listing(listing) => listing.next(&self.client, limits).await,
        }
    }

    async fn rows(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<(usize, Found)>> {
        let source = self.source(table).await?;
        reading::by_keys(&self.client, &source, keys).await
    }

    async fn absent(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<usize>> {
        let source = self.source(table).await?;
        let asked = Asked { client: &self.client, source: &source };
        Ok(absent::absent(&asked, keys).await?.gone)
    }

    async fn counts(&mut self, table: &str, bounds: &[MarkedKey]) -> Result<Vec<i64>> {
        let source = self.source(table).await?;
        page::counts(&self.client, &source, bounds).await
    }

    async fn is_whole(&mut self) -> Result<bool> {
        self.leave();
        for (name, leaves) in &self.snapshot()?.leaves {
            let source = self.known.source(name)?;
            if !rows::versions::leaves(&self.client, &source).await?.files.keys().eq(leaves.files.keys()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn make_durable(&mut self) -> Result<()> {
        let snapshot = self.snapshot()?;
        if snapshot.position.is_standby {
            return Ok(()); // it replays what is on its disk
        }
        let (began, mut has_asked) = (Instant::now(), false);
        while !rows::is_flushed(&self.client, &snapshot.lsn).await? {
            if began.elapsed() > FLUSH_TIME {
                return Err(Error::retry("Postgres has not flushed its WAL yet; it will be tried again"));
            }
            // A role that may not write still reads what the WAL writer flushes by itself.
            if !std::mem::replace(&mut has_asked, true)
                && let Err(e) = self.flush().await
            {
                tracing::debug!(error = %e, "the flush of Postgres' WAL is waited for");
            }
            tokio::time::sleep(FLUSH_LOOK).await;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        (self.snapshot, self.reading) = (None, None);
        self.client.rollback().await.map_err(Error::from)
    }
}

/// A table of a view, behind savepoints.
struct Asked<'a> {
    client: &'a Client,
    source: &'a SourceTable,
}

#[async_trait]
impl AsksKeys for Asked<'_> {
    async fn absent(&self, keys: &[MarkedKey]) -> Result<Option<Vec<usize>>> {
        reading::attempt(self.client, self.source, rows::absent::among(self.client, self.source, keys)).await
    }

    async fn try_key(&self, key: &MarkedKey) -> Result<Option<()>> {
        reading::attempt(self.client, self.source, rows::absent::try_key(self.client, self.source, key)).await
    }

    async fn absent_by_text(&self, keys: &[MarkedKey], filtered: bool) -> Result<Option<Vec<usize>>> {
        let asked = rows::absent::among_texts(self.client, self.source, keys, filtered);
        reading::attempt(self.client, self.source, asked).await
    }

    fn is_filtered(&self) -> bool {
        self.source.table.filter.is_some()
    }
}
