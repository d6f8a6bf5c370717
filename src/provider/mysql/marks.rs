//! What was touched since a mark, by the server's binlog: keys of tables, which of them have to be counted because rows
//! went by a cascade, and which have to be read whole. Read as far as a view reaches, and kept until the next one.

use crate::core::message::MarkedKey;
use crate::mysql::MySqlUrl;
use crate::mysql::binlog::{Event, Failed, Layout, Place, Said, Stream, Tail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of keys that are kept, about: what is behind them waits until they are read.
const MOST_BYTES: usize = 48 << 20;

/// And of one transaction: tables of a larger one are read whole.
const MOST_OPEN_BYTES: usize = 64 << 20;

/// What a key takes beside its texts, about.
const KEY_BYTES: usize = 96;

/// How far a mark may lie behind although nothing has touched its table: so much is read again by the next process.
const FAR: u64 = 1 << 20;

/// Events behind a view that are read with it.
const MOST_BEHIND: usize = 1_000;

/// How long the server may take for the next event up to a place that it has told itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// All up to here was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub binlog: Place,
}

impl Mark {
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn text(binlog: Place) -> String {
        serde_json::to_string(&Self { binlog }).unwrap_or_default()
    }
}

/// A table of which events are of interest.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched {
    /// By which names it is replicated, and how its rows stand in the log.
    pub targets: Vec<(Arc<str>, Layout)>,
    /// What follows from its rows.
    pub parent: Option<Parent>,
}

/// What the log does not tell of rows that follow others.
#[derive(Debug, Clone, Default)]
pub(super) struct Parent {
    /// How rows stand in the log; `None` where that is not known.
    pub layout: Option<Layout>,
    /// Tables that lose rows with this one.
    pub counted: BTreeSet<Arc<str>>,
    /// Tables whose rows change when rows of this one go, or get another key.
    pub changed: BTreeSet<Arc<str>>,
}

/// What was touched of a table.
pub(super) struct Since {
    /// Its keys in the order of their last transactions, each with where that ended.
    pub keys: Vec<(MarkedKey, Arc<Place>)>,
    /// All up to here is among them.
    pub mark: Place,
    /// Whether that is all up to the view.
    pub is_all: bool,
    /// Rows may have gone that no key tells of.
    pub has_cascaded: bool,
    /// The mark that was given lies far behind.
    pub is_far: bool,
}

/// What happened to a table in a transaction.
enum Effect {
    Key(MarkedKey),
    Cascade,
    Whole,
}

/// What happened in a transaction, by the names of its tables.
type Effects = Vec<(Arc<str>, Effect)>;

/// What is known of a table from a place on.
#[derive(Default)]
struct Noted {
    from: Option<Place>,
    keys: HashMap<MarkedKey, Arc<Place>>,
    cascaded: Option<Arc<Place>>,
    whole: Option<Arc<Place>>,
}

/// The reader.
pub(super) struct Marks {
    url: MySqlUrl,
    watched: BTreeMap<(String, String), Watched>,
    noted: BTreeMap<Arc<str>, Noted>,
    stream: Option<Stream>,
    /// All up to here is noted.
    at: Option<Place>,
    /// The transaction that is being read.
    open: Effects,
    is_open: bool,
    open_bytes: usize,
    /// Transactions that are prepared: where each begins, and what it touches.
    prepared: BTreeMap<String, (Place, Effects)>,
    /// Bytes of all keys that are noted.
    bytes: usize,
    /// Where the last transaction that touched a table has ended, and what the last view saw: a transaction is in the log
    /// before a view shows it.
    touched: Option<Place>,
    seen: Option<Place>,
}

impl Marks {
    pub fn new(url: MySqlUrl) -> Self {
        Self {
            url,
            watched: BTreeMap::new(),
            noted: BTreeMap::new(),
            stream: None,
            at: None,
            open: Vec::new(),
            is_open: false,
            open_bytes: 0,
            prepared: BTreeMap::new(),
            bytes: 0,
            touched: None,
            seen: None,
        }
    }

    /// These tables from now on; what is known holds where they are the same as before.
    pub fn watch(&mut self, watched: BTreeMap<(String, String), Watched>, is_same: bool) {
        self.watched = watched;
        if !is_same {
            self.give_up();
            self.noted.clear();
            (self.prepared, self.bytes) = (BTreeMap::new(), 0);
        }
    }

    /// These tables are asked for next; what is noted of others would never be fetched.
    pub fn keep(&mut self, names: &[&str]) {
        let bytes = &mut self.bytes;
        self.noted.retain(|name, noted| {
            let is_kept = names.contains(&&**name);
            *bytes -= if is_kept { 0 } else { noted.keys.keys().map(size).sum::<usize>() };
            is_kept
        });
    }

    /// What was touched of a table behind `since`, or behind `place`, as far as `now`; `None` where it has to be read whole.
    pub async fn since(
        &mut self,
        name: &str,
        since: &Place,
        place: Option<&Place>,
        now: &Place,
    ) -> Result<Option<Since>, Failed> {
        if !since.is_of_log(now) || since > now {
            return Ok(None);
        }
        let is_known = |noted: &Noted| noted.from.as_ref().is_some_and(|from| from <= since);
        if !self.noted.get(name).is_some_and(is_known) {
            if !since.can_begin() {
                return Ok(None);
            }
            match self.begin(since).await {
                Err(Failed::Gone(why)) => {
                    tracing::warn!(
                        table = name,
                        "its rows are compared: the binlog from {}:{} on is gone ({why})",
                        since.file,
                        since.at
                    );
                    return Ok(None);
                }
                begun => begun?,
            }
        }
        self.forget(name, since);
        match self.read_to(now).await {
            Err(Failed::Gone(why)) => {
                tracing::warn!(table = name, "its rows are compared: the binlog is gone ({why})");
                self.noted.clear();
                return Ok(None);
            }
            read => read?,
        }
        let Some(noted) = self.noted.get(name) else { return Ok(None) };
        if noted.whole.as_ref().is_some_and(|whole| **whole > *since) {
            return Ok(None);
        }
        let known = self.at.clone().unwrap_or_else(|| since.clone());
        let is_all = known >= *now;
        let prepared = self.prepared.values().map(|(from, _)| from);
        let mark = prepared.chain([&known, now]).min().cloned().unwrap_or(known.clone());
        let behind = place.unwrap_or(since);
        let mut keys: Vec<(MarkedKey, Arc<Place>)> = noted
            .keys
            .iter()
            .filter(|(_, end)| ***end > *behind)
            .map(|(key, end)| (key.clone(), end.clone()))
            .collect();
        keys.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
        let is_far = mark.file != since.file || mark.at.saturating_sub(since.at) > FAR;
        let has_cascaded = noted.cascaded.as_ref().is_some_and(|cascaded| **cascaded > *since);
        // What is prepared is not in the view: nothing of it has to be read, only looked at again.
        Ok(Some(Since { keys, mark: mark.max(since.clone()), is_all, has_cascaded, is_far }))
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
            self.stream = Some(Stream::open(&self.url, &at, Tail::Waits).await?);
        }
        while self.touched <= self.seen && self.bytes < MOST_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(stream) = &mut self.stream else { return Ok(None) };
            match stream.next(left).await {
                Ok(Some((place, event))) => self.take(place, event),
                // There may be less time left than silence is borne.
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => return Ok(Some(false)),
                Err(e) => {
                    self.give_up();
                    return Err(e);
                }
            }
        }
        Ok(Some(true))
    }

    /// Reads from a place on, all tables.
    async fn begin(&mut self, from: &Place) -> Result<(), Failed> {
        self.give_up();
        self.at = None;
        self.stream = Some(Stream::open(&self.url, from, Tail::Ends).await?);
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
        self.open.clear();
        (self.is_open, self.open_bytes) = (false, 0);
    }

    /// Up to a place that the server has told, or as far as there is room.
    async fn read_to(&mut self, until: &Place) -> Result<(), Failed> {
        self.seen = Some(until.clone());
        let mut has_begun_again = false;
        while self.at.as_ref().is_some_and(|at| at < until) && self.bytes < MOST_BYTES {
            let next = match (&mut self.stream, &self.at) {
                (Some(stream), _) if !stream.has_ended() => stream.next(PATIENCE).await,
                (_, Some(at)) => {
                    let at = at.clone();
                    self.give_up();
                    self.stream = Some(Stream::open(&self.url, &at, Tail::Ends).await?);
                    continue;
                }
                (_, None) => return Ok(()),
            };
            match next {
                Ok(Some((place, event))) => self.take(place, event),
                Ok(None) => {}
                // It may have waited too long for us.
                Err(Failed::Error(e)) if e.is_passing() && !has_begun_again => {
                    has_begun_again = true;
                    self.give_up();
                }
                Err(e) => {
                    self.give_up();
                    return Err(e);
                }
            }
        }
        // To the end of the log, if that is near: a connection that is given up before it is logged as broken.
        for _ in 0..MOST_BEHIND {
            let Some(stream) = self.stream.as_mut().filter(|stream| stream.tail == Tail::Ends) else { break };
            match stream.next(PATIENCE).await {
                Ok(Some((place, event))) => self.take(place, event),
                Ok(None) => break,
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
            Event::Rows(rows) => {
                self.is_open = true;
                let (rows, map) = *rows;
                let of = (map.database_name().into_owned(), map.table_name().into_owned());
                let Some(watched) = self.watched.get(&of) else { return };
                if let Some(parent) = &watched.parent {
                    let touched = parent.layout.as_ref().and_then(|layout| layout.touched(&rows, &map));
                    let (go, change) =
                        touched.map_or((true, true), |touched| (touched.deletes, touched.changes_referred));
                    self.open.extend(parent.effects(go, change));
                }
                for (name, layout) in &watched.targets {
                    match layout.touched(&rows, &map) {
                        Some(touched) => {
                            self.open_bytes += touched.keys.iter().map(size).sum::<usize>();
                            self.open.extend(touched.keys.into_iter().map(|key| (name.clone(), Effect::Key(key))));
                        }
                        None => self.open.push((name.clone(), Effect::Whole)),
                    }
                }
                if self.open_bytes > MOST_OPEN_BYTES {
                    let names: BTreeSet<Arc<str>> = self.open.drain(..).map(|(name, _)| name).collect();
                    self.open = names.into_iter().map(|name| (name, Effect::Whole)).collect();
                    self.open_bytes = 0;
                }
            }
            Event::Said(Said::Begin) => self.is_open = true,
            Event::End | Event::Said(Said::End) => self.end(place),
            Event::Said(Said::EndOf(id)) => {
                match self.prepared.remove(&id) {
                    Some((_, effects)) => self.open.extend(effects),
                    // It was prepared before we began to read.
                    None => self.open.extend(self.watched.values().flat_map(Watched::wholes)),
                }
                self.end(place);
            }
            Event::Said(Said::RollbackOf(id)) => {
                self.prepared.remove(&id);
                self.end(place);
            }
            Event::Prepared(id) => {
                let from = self.at.replace(place.clone()).unwrap_or(place);
                self.prepared.insert(id, (from, std::mem::take(&mut self.open)));
                (self.is_open, self.open_bytes) = (false, 0);
            }
            Event::Said(Said::Alters(names)) => {
                let altered = self.watched.iter().filter(|((database, table), _)| names.mean(database, table));
                self.open.extend(altered.flat_map(|(_, watched)| watched.wholes()));
                self.end_unless_open(place);
            }
            Event::Unknown | Event::Said(Said::Unknown) => {
                self.open.extend(self.watched.values().flat_map(Watched::wholes));
                self.end_unless_open(place);
            }
            Event::Said(Said::Harmless | Said::Nothing) | Event::Other => {
                if !self.is_open {
                    self.at = Some(place);
                }
            }
        }
    }

    fn end_unless_open(&mut self, place: Place) {
        if !self.is_open {
            self.end(place);
        }
    }

    /// A transaction ends here, and its rows can be read.
    fn end(&mut self, place: Place) {
        let end = Arc::new(place.clone());
        if !self.open.is_empty() {
            self.touched = Some(place.clone());
        }
        for (name, effect) in std::mem::take(&mut self.open) {
            let Some(noted) = self.noted.get_mut(&name) else { continue };
            match effect {
                Effect::Cascade => noted.cascaded = Some(end.clone()),
                Effect::Whole => {
                    noted.whole = Some(end.clone());
                    self.bytes -= noted.keys.drain().map(|(key, _)| size(&key)).sum::<usize>();
                }
                Effect::Key(key) => {
                    let added = size(&key);
                    self.bytes += if noted.keys.insert(key, end.clone()).is_none() { added } else { 0 };
                }
            }
        }
        (self.is_open, self.open_bytes) = (false, 0);
        self.at = Some(place);
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

impl Parent {
    /// What follows when rows go, or when they change what others refer to.
    fn effects(&self, go: bool, change: bool) -> impl Iterator<Item = (Arc<str>, Effect)> {
        let cascades = self.counted.iter().filter(move |_| go).map(|name| (name.clone(), Effect::Cascade));
        cascades.chain(self.changed.iter().filter(move |_| go || change).map(|name| (name.clone(), Effect::Whole)))
    }
}

impl Watched {
    /// What may have happened where nothing more is known.
    fn wholes(&self) -> Effects {
        let own = self.targets.iter().map(|(name, _)| (name.clone(), Effect::Whole));
        own.chain(self.parent.iter().flat_map(|parent| parent.effects(true, true))).collect()
    }
}

fn size(key: &MarkedKey) -> usize {
    KEY_BYTES + key.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>()
}
