//! What was touched since a mark, by the server's binlog: keys of tables, which of them have to be counted because rows
//! went by a cascade, and which have to be read whole. Read as far as a view reaches, and kept until the next one.

use super::noted::{Effects, MOST_OPEN_BYTES, Noted, size};
use super::watched::Watched;
use crate::core::error::Error;
use crate::core::message::MarkedKey;
use crate::mysql::MySqlUrl;
use crate::mysql::binlog::{Event, Failed, Place, Said, Stream, Tail};
use mysql_async::binlog::events::{RowsEventData, TableMapEvent};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of keys that are kept, about: what is behind them waits until they are read.
const MOST_BYTES: usize = 48 << 20;

/// How far a mark may lie behind although nothing has touched its table: so much is read again by the next process.
const FAR: u64 = 1 << 20;

/// Events behind a view that are read with it.
const MOST_BEHIND: usize = 1_000;

/// How long the server may take for the next event up to a place that it has told itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// And for a stream that does not end before it, with a rest between two that grows.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);
const STREAM_REST: Duration = Duration::from_millis(20);

/// Between two views of which the first has not shown yet what the log has told.
const REST: Duration = Duration::from_millis(1);

/// How long a place before an XA COMMIT is kept: the engine may follow the log late, and no view tells.
const XA_TIME: Duration = Duration::from_secs(3);

/// All up to here was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub binlog: Place,
    /// When the file was begun, where that is known: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<u32>,
}

impl Mark {
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// A place between two marks.
    pub fn place(binlog: Place) -> String {
        serde_json::to_string(&Self { binlog, made: None }).unwrap_or_default()
    }
}

/// Where a view lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// It shows all that was committed before this; `None`: nobody knows of any place.
    pub from: Option<Place>,
    /// And nothing that was behind this.
    pub to: Place,
}

/// What was touched of a table.
pub(super) struct Since {
    /// Its keys in the order of their last transactions, each with where that ended.
    pub keys: Vec<(MarkedKey, Arc<Place>)>,
    /// All up to here is among them.
    pub mark: String,
    /// Whether that is all up to the view.
    pub is_all: bool,
    /// Rows may have gone that no key tells of.
    pub has_cascaded: bool,
    /// The mark that was given lies far behind.
    pub is_far: bool,
}

/// The reader.
pub(super) struct Marks {
    url: MySqlUrl,
    /// The server's number.
    server: u32,
    watched: BTreeMap<(String, String), Watched>,
    noted: BTreeMap<Arc<str>, Noted>,
    stream: Option<Stream>,
    /// All up to here is noted.
    at: Option<Place>,
    /// When a file was begun.
    made: Option<(String, u32)>,
    /// The transaction that is being read.
    open: Effects,
    is_open: bool,
    /// Transactions that are prepared: what each touches.
    prepared: BTreeMap<String, Effects>,
    /// Where XA COMMITs stand, and when they were read.
    late: VecDeque<(Place, Instant)>,
    /// Bytes of all keys that are noted.
    bytes: usize,
    /// Where the last transaction that touched a table has ended, and what the last view is sure to have shown: a transaction
    /// is in the log before a view shows it.
    touched: Option<Place>,
    seen: Option<Place>,
    /// Something was altered in these databases since the catalog was read.
    is_altered: bool,
    databases: BTreeSet<String>,
}

impl Marks {
    pub fn new(url: MySqlUrl) -> Self {
        Self {
            url,
            server: 0,
            watched: BTreeMap::new(),
            noted: BTreeMap::new(),
            stream: None,
            at: None,
            made: None,
            open: Effects::default(),
            is_open: false,
            prepared: BTreeMap::new(),
            late: VecDeque::new(),
            bytes: 0,
            touched: None,
            seen: None,
            is_altered: true,
            databases: BTreeSet::new(),
        }
    }

    /// These tables of this server, whose log has a file that was begun at that time, from now on; what is known holds where
    /// they are the same as before.
    pub fn watch(
        &mut self,
        (server, made): (u32, Option<(String, u32)>),
        watched: BTreeMap<(String, String), Watched>,
        databases: BTreeSet<String>,
        is_same: bool,
    ) {
        (self.watched, self.databases) = (watched, databases);
        (self.server, self.made) = (server, made);
        if !is_same {
            self.give_up();
            self.noted.clear();
            (self.prepared, self.bytes) = (BTreeMap::new(), 0);
        }
    }

    /// A view of these tables is opened; what is noted of others would never be fetched.
    pub fn view(&mut self, names: &[&str], from: Option<&Place>) {
        self.seen = from.cloned().or(self.seen.take());
        let bytes = &mut self.bytes;
        self.noted.retain(|name, noted| {
            let is_kept = names.contains(&&**name);
            *bytes -= if is_kept { 0 } else { noted.keys.keys().map(size).sum::<usize>() };
            is_kept
        });
    }

    /// A table is read whole in this view: the mark that it gets, if there can be one. What comes behind that is noted on, unless it is much:
    /// others would have no room.
    pub fn read_whole(&mut self, name: &str, view: &Span) -> Option<String> {
        let from = view.from.as_ref()?;
        let late = self.late.iter().filter(|(_, read)| read.elapsed() < XA_TIME).map(|(before, _)| before);
        let mark = late.chain([from, &view.to]).min().cloned().unwrap_or_else(|| from.clone());
        // Nothing is forgotten before the mark is kept: until then it is asked for from the old one.
        let bytes = self.noted.get(name).map_or(0, |noted| noted.keys.keys().map(size).sum::<usize>());
        if bytes > MOST_BYTES / 4 {
            self.noted.remove(name);
            self.bytes -= bytes;
        }
        Some(self.mark(mark))
    }

    /// A mark at a place.
    fn mark(&self, binlog: Place) -> String {
        let made = self.made.as_ref().filter(|(file, _)| *file == binlog.file).map(|(_, made)| *made);
        serde_json::to_string(&Mark { binlog, made }).unwrap_or_default()
    }

    /// What was touched of a table behind a mark, or behind `place`, as far as a view may show it; `None` where it has to be
    /// read whole.
    pub async fn since(
        &mut self,
        name: &str,
        mark: &Mark,
        place: Option<&Place>,
        view: &Span,
    ) -> Result<Option<Since>, Failed> {
        let since = &mark.binlog;
        if !since.is_of_log(&view.to) || *since > view.to {
            return Ok(None);
        }
        let is_known = |noted: &Noted| noted.from.as_ref().is_some_and(|from| from <= since);
        let is_known = self.noted.get(name).is_some_and(is_known);
        let read = async {
            if !is_known {
                self.begin(mark).await?;
            }
            self.forget(name, since);
            self.read_to(&view.to).await
        };
        match read.await {
            Err(Failed::Gone(why)) => {
                tracing::warn!(
                    table = name,
                    "its rows are compared: the binlog from {}:{} on is gone ({why})",
                    since.file,
                    since.at
                );
                self.noted.clear();
                self.late.clear();
                (self.at, self.bytes, self.made, self.touched, self.seen) = (None, 0, None, None, None);
                return Ok(None);
            }
            read => read?,
        }
        let Some(noted) = self.noted.get(name) else { return Ok(None) };
        if noted.whole.as_ref().is_some_and(|whole| **whole > *since) {
            return Ok(None);
        }
        let known = self.at.clone().unwrap_or_else(|| since.clone());
        let is_all = known >= view.to;
        self.late.retain(|(_, read)| read.elapsed() < XA_TIME);
        let late = self.late.iter().map(|(before, _)| before);
        let to = late
            .chain([&known, view.from.as_ref().unwrap_or(since), &view.to])
            .min()
            .cloned()
            .unwrap_or_else(|| since.clone())
            .max(since.clone());
        let behind = place.unwrap_or(since);
        let mut keys: Vec<(MarkedKey, Arc<Place>)> = noted
            .keys
            .iter()
            .filter(|(_, end)| ***end > *behind)
            .map(|(key, end)| (key.clone(), end.clone()))
            .collect();
        keys.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
        let has_cascaded = noted.cascaded.as_ref().is_some_and(|cascaded| **cascaded > *since);
        // What was counted once need not be again.
        let is_far = has_cascaded || to.file != since.file || to.at.saturating_sub(since.at) > FAR;
        Ok(Some(Since { keys, mark: self.mark(to), is_all, has_cascaded, is_far }))
    }

    /// The catalog is read now.
    pub fn read_catalog(&mut self) {
        // What was altered before a log is read is not told by it.
        self.is_altered = self.at.is_none();
    }

    /// Whether something may have been altered up to a place since the catalog was read.
    pub async fn may_be_altered(&mut self, until: &Place) -> Result<bool, Failed> {
        if !self.is_altered {
            self.read_to(until).await?;
        }
        Ok(self.is_altered || self.at.as_ref().is_none_or(|at| at < until))
    }

    /// Whether a log is read.
    pub fn is_reading(&self) -> bool {
        self.at.is_some()
    }

    /// Waits until a transaction has touched a table; whether one has. `None` where nothing is read yet.
    pub async fn wait(&mut self, limit: Duration) -> Result<Option<bool>, Failed> {
        let deadline = Instant::now() + limit;
        let Some(at) = self.at.clone() else { return Ok(None) };
        if self.stream.as_ref().is_none_or(|stream| stream.tail == Tail::Ends) {
            self.give_up();
            self.stream = Some(self.open(&at, Tail::Waits).await?);
        }
        if self.touched > self.seen {
            tokio::time::sleep(REST).await; // the engine follows the log
        }
        // What was late is looked at again.
        let late = self.late.front().map(|(_, read)| *read + XA_TIME);
        let until = late.map_or(deadline, |late| late.min(deadline));
        if late.is_some_and(|late| late <= Instant::now()) {
            self.late.pop_front();
            return Ok(Some(true));
        }
        while self.touched <= self.seen && self.bytes < MOST_BYTES {
            let left = until.saturating_duration_since(Instant::now());
            match self.next(left).await {
                Ok(true) => {}
                // There may be less time left than silence is borne.
                Ok(false) if Instant::now() < until => {}
                Ok(false) => return Ok(Some(until < deadline)),
                Err(e) => {
                    self.give_up();
                    return Err(e);
                }
            }
        }
        Ok(Some(true))
    }

    async fn open(&self, from: &Place, tail: Tail) -> Result<Stream, Failed> {
        let made = self.made.as_ref().filter(|(file, _)| *file == from.file).map(|(_, made)| *made);
        Stream::open(&self.url, self.server, from, made, tail).await
    }

    /// Takes the next event; whether there was one.
    async fn next(&mut self, patience: Duration) -> Result<bool, Failed> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let watched = &self.watched;
        let is_wanted = |database: &str, table: &str| watched.contains_key(&(database.to_owned(), table.to_owned()));
        let Some((place, event)) = stream.next(patience, is_wanted).await? else { return Ok(false) };
        if let Some((file, made)) = stream.made()
            && self.made.as_ref().is_none_or(|known| (known.0.as_str(), known.1) != (file, made))
        {
            self.made = Some((file.to_owned(), made));
        }
        self.take(place, event);
        Ok(true)
    }

    /// Reads from a mark on, all tables.
    async fn begin(&mut self, mark: &Mark) -> Result<(), Failed> {
        let from = &mark.binlog;
        self.give_up();
        self.at = None;
        self.stream = Some(Stream::open(&self.url, self.server, from, mark.made, Tail::Ends).await?);
        self.at = Some(from.clone());
        (self.prepared, self.bytes) = (BTreeMap::new(), 0);
        let names = self.watched.values().flat_map(|table| &table.targets).map(|(name, _)| name.clone());
        let noted = |name| (name, Noted { from: Some(from.clone()), ..Noted::default() });
        self.noted = names.map(noted).collect();
        Ok(())
    }

    /// The connection is of no use any more; what was read in whole transactions is.
    fn give_up(&mut self) {
        self.stream = None;
        (self.open, self.is_open) = (Effects::default(), false);
    }

    /// Up to a place that the server has told, or as far as there is room.
    async fn read_to(&mut self, until: &Place) -> Result<(), Failed> {
        let (began, mut streams) = (Instant::now(), 0);
        while self.at.as_ref().is_some_and(|at| at < until) && self.bytes < MOST_BYTES {
            match (&self.stream, &self.at) {
                (Some(stream), _) if !stream.has_ended() => {}
                (_, Some(at)) => {
                    // One that has ended before it was there is another server's, cut short, or not given out so far yet.
                    if streams > 0 && began.elapsed() > SHORT_PATIENCE {
                        let short =
                            "MySQL's binlog ends before a place that the server has told; it will be tried again";
                        return Err(Failed::Error(Error::retry(short)));
                    }
                    if streams > 1 {
                        tokio::time::sleep(STREAM_REST * (1 << streams.min(6))).await;
                    }
                    streams += 1;
                    let at = at.clone();
                    self.give_up();
                    self.stream = Some(self.open(&at, Tail::Ends).await?);
                }
                (_, None) => return Ok(()),
            }
            match self.next(PATIENCE).await {
                Ok(_) => {}
                // It may have waited too long for us.
                Err(Failed::Error(e)) if e.is_passing() && streams == 0 => self.give_up(),
                Err(e) => {
                    self.give_up();
                    return Err(e);
                }
            }
        }
        // To the end of the log, if that is near: a connection that is given up before it is logged as broken.
        for _ in 0..MOST_BEHIND {
            let ends = |stream: &Stream| stream.tail == Tail::Ends && !stream.has_ended();
            if self.bytes >= MOST_BYTES || !self.stream.as_ref().is_some_and(ends) {
                break;
            }
            match self.next(PATIENCE).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    self.give_up();
                    break;
                }
            }
        }
        Ok(())
    }

    /// Notes what has happened.
    fn take(&mut self, place: Place, event: Event) {
        match event {
            Event::Others => self.is_open = true,
            Event::Rows(rows) => self.touch(*rows),
            Event::Said(Said::Begin) => self.is_open = true,
            Event::End | Event::Said(Said::End) => self.end(place),
            Event::Said(Said::EndOf(id)) => {
                self.late.extend(self.at.clone().map(|before| (before, Instant::now())));
                match self.prepared.remove(&id) {
                    Some(effects) => self.open.add(effects),
                    // It was prepared before we began to read.
                    None => self.watched.values().for_each(|watched| self.open.follow_all(watched)),
                }
                self.end(place);
            }
            Event::Said(Said::RollbackOf(id)) => {
                self.prepared.remove(&id);
                self.end(place);
            }
            Event::Prepared(id) => {
                let effects = std::mem::take(&mut self.open);
                // What is more than is kept is not known when it is committed.
                if self.prepared.values().map(|effects| effects.bytes).sum::<usize>() < MOST_OPEN_BYTES {
                    self.prepared.insert(id, effects);
                }
                (self.is_open, self.at) = (false, Some(place));
            }
            Event::Said(Said::Alters(names)) => {
                self.is_altered |= self.databases.iter().any(|database| names.concern(database));
                for ((database, table), watched) in &self.watched {
                    if names.mean(database, table) {
                        self.open.follow_all(watched);
                    }
                }
                self.end_unless_open(place);
            }
            Event::Unknown | Event::Said(Said::Unknown) => {
                self.is_altered = true;
                self.watched.values().for_each(|watched| self.open.follow_all(watched));
                self.end_unless_open(place);
            }
            Event::Said(said @ (Said::Redefines | Said::Harmless | Said::Nothing)) => {
                self.is_altered |= said == Said::Redefines;
                self.pass_over(place);
            }
            Event::Other => self.pass_over(place),
            Event::Announced => {}
            // What a crash has torn has no end.
            Event::File => {
                (self.open, self.is_open) = (Effects::default(), false);
                self.at = Some(place);
            }
        }
    }

    /// Rows of a table were touched.
    fn touch(&mut self, (rows, map): (RowsEventData<'static>, TableMapEvent<'static>)) {
        self.is_open = true;
        let of = (map.database_name().into_owned(), map.table_name().into_owned());
        let Some(watched) = self.watched.get(&of) else { return };
        if let Some(parent) = &watched.parent {
            let touched = parent.layout.as_ref().and_then(|layout| layout.touched(&rows, &map));
            let (go, change) = touched.map_or((true, true), |touched| (touched.deletes, touched.changes_referred));
            if go {
                self.open.follow(&parent.on_delete);
            }
            if change {
                self.open.follow(&parent.on_update);
            }
        }
        for (name, layout) in &watched.targets {
            match layout.touched(&rows, &map) {
                Some(touched) => {
                    self.open.bytes += touched.keys.iter().map(size).sum::<usize>();
                    self.open.keys.extend(touched.keys.into_iter().map(|key| (name.clone(), key)));
                }
                None => drop(self.open.whole.insert(name.clone())),
            }
        }
        self.open.shrink();
    }

    fn pass_over(&mut self, place: Place) {
        if !self.is_open {
            self.at = Some(place);
        }
    }

    fn end_unless_open(&mut self, place: Place) {
        if !self.is_open {
            self.end(place);
        }
    }

    /// A transaction ends here, and its rows can be read.
    fn end(&mut self, place: Place) {
        let (end, open) = (Arc::new(place.clone()), std::mem::take(&mut self.open));
        if !open.is_empty() {
            self.touched = Some(place.clone());
        }
        for (name, key) in open.keys {
            let Some(noted) = self.noted.get_mut(&name) else { continue };
            let added = size(&key);
            self.bytes += if noted.keys.insert(key, end.clone()).is_none() { added } else { 0 };
        }
        for name in open.cascaded {
            if let Some(noted) = self.noted.get_mut(&name) {
                noted.cascaded = Some(end.clone());
            }
        }
        for name in open.whole {
            if let Some(noted) = self.noted.get_mut(&name) {
                noted.whole = Some(end.clone());
                self.bytes -= noted.keys.drain().map(|(key, _)| size(&key)).sum::<usize>();
            }
        }
        (self.is_open, self.at) = (false, Some(place));
    }

    /// What was touched of a table up to here is in the replica.
    fn forget(&mut self, name: &str, until: &Place) {
        let Some(noted) = self.noted.get_mut(name) else { return };
        let mut bytes = 0;
        noted.keys.retain(|key, end| {
            let is_kept = **end > *until;
            bytes += if is_kept { 0 } else { size(key) };
            is_kept
        });
        self.bytes -= bytes;
        noted.from = noted.from.take().map(|from| from.max(until.clone()));
    }
}
