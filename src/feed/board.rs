//! What is known of a table that clients wait for: its last changes, kept for those who are a little late, and who has to
//! hear of which. No IO.

use super::body::Body;
use super::changes::{Changes, Found};
use super::delta::Delta;
use super::encode::Types;
use super::figures::Figures;
use super::grouped::Grouped;
use super::listeners::Listeners;
use super::memory::Memory;
use super::offset::{Offset, Walked};
use super::shape::Shape;
use super::snapshot::{Snapshot, later};
use crate::core::failpoint::FeedRule;
use crate::core::schema::Table;
use crate::replica::feed_reads::Fed;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Changes that are kept of a table, in bytes.
const KEPT_BYTES: usize = 64 << 20;

/// How long changes are kept: who is later asks the replica.
const KEPT_TIME: Duration = Duration::from_secs(60);

/// Cuts at which it changed that are kept of a table.
const KEPT: usize = 4_096;

/// A table that nobody has waited for is looked at anew.
const IDLE: Duration = Duration::from_secs(2);

/// Of how many of them what they say to each shape is kept, too.
const KEPT_PIECES: usize = 4;

/// Cuts that are known of a table: 80 s of one each 5 ms.
const KNOWN_CUTS: usize = 16_384;

/// Values that are looked up while nobody else can begin or end to wait.
const LOOKED_UP: usize = 256;

/// One table's.
pub struct Board {
    table: Arc<Table>,
    /// Nobody but its replica knows how far it is.
    is_pulled: bool,
    /// The columns that clients are fed, and those by which rows are told apart.
    needed: BTreeSet<usize>,
    figures: Figures,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often it was begun.
    begun: u64,
    /// Where it is, as far as it is followed.
    at: Option<At>,
    /// Those who wait.
    waiting: Listeners,
    /// When the last one left.
    left_at: Option<Instant>,
    /// By their tokens' subjects, those who may have written.
    writers: BTreeMap<String, (watch::Sender<()>, usize)>,
}

/// Where a table is.
struct At {
    generation: Arc<str>,
    /// From which cut on all changes are known.
    from: i64,
    /// Before this cut more changed than is worth telling.
    lost: i64,
    cut: i64,
    /// The last cuts that it was seen at.
    cuts: VecDeque<i64>,
    deltas: VecDeque<Arc<Delta>>,
    bytes: usize,
    seen: Seen,
    /// What the cut sees of the source, where clients write there.
    snapshot: Snapshot,
}

/// When a board was looked after: how often it was begun, and how often it went on since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    begun: u64,
    went_on: u64,
}

/// What a client hears from the board.
#[derive(Debug)]
pub enum Heard {
    /// These changes, up to a cut.
    Changes(Body, i64),
    /// That nothing concerns it up to this cut.
    Nothing(Body, i64),
    /// That too much has changed: it begins anew, with this generation from this cut on.
    Anew(String, i64),
    /// There is no memory.
    Busy,
    /// The replica has to be asked.
    Unknown,
}

/// One who waits.
pub struct Waiting {
    board: Arc<Board>,
    name: String,
    news: watch::Receiver<()>,
    /// Whose token it has, and when what that wrote is there.
    writer: Option<(String, watch::Receiver<()>)>,
}

impl Waiting {
    /// By which its shape is told apart.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose token it has.
    pub(super) fn subject(&self) -> Option<&str> {
        self.writer.as_ref().map(|(subject, _)| subject.as_str())
    }

    /// Comes back when there is something to hear that was not there when this was last called, or when waiting began; or, with
    /// `true`, when what its token's subject has written is there.
    pub async fn news(&mut self) -> bool {
        let written = async {
            match &mut self.writer {
                Some((_, written)) => written.changed().await.is_ok(),
                None => false,
            }
        };
        tokio::select! {
            biased;
            Ok(()) = self.news.changed() => false,
            true = written => true,
            else => std::future::pending().await,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.board.state();
        state.waiting.leave(&self.name);
        state.left_at = Some(Instant::now());
        if let Some((subject, _)) = &self.writer {
            state.leave_writer(subject);
        }
    }
}

impl Board {
    /// Of a table that is fed, by a sync that pulls or by a queue.
    pub fn new(table: Arc<Table>, is_pulled: bool) -> Self {
        let needed = table.fed_columns().into_iter().chain(table.fed_filters().into_iter().flatten()).collect();
        Self { table, is_pulled, needed, figures: Figures::default(), state: Mutex::default() }
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// What its clients were answered.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The columns that are read for all.
    pub(super) fn needed(&self) -> &BTreeSet<usize> {
        &self.needed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait, for how many different shapes.
    pub fn counts(&self) -> (usize, usize) {
        self.state().waiting.counts()
    }

    /// Whether anybody waits.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Begins to wait; `None` where there is no room for the values that its shape is found by.
    pub fn wait(self: &Arc<Self>, shape: &Arc<Shape>, subject: Option<&str>, room: &Memory) -> Option<Waiting> {
        let (name, mut state) = (shape.name(), self.state());
        let news = state.waiting.enter(&name, shape, room)?;
        let subject = subject.filter(|_| self.is_written());
        let writer = subject.map(|subject| (subject.to_owned(), state.enter_writer(subject)));
        drop(state);
        Some(Waiting { board: self.clone(), name, news, writer })
    }

    /// Whether clients write there, too.
    pub(super) fn is_written(&self) -> bool {
        self.table.writable.is_some()
    }

    /// What somebody has written is there.
    pub(super) fn tell_writer(&self, subject: &str) {
        if let Some((written, _)) = self.state().writers.get(subject) {
            written.send_replace(());
        }
    }

    /// The generation and the cut that it has come to; `None` where nobody has looked lately.
    pub fn at(&self) -> Option<(Arc<str>, i64)> {
        self.state().at.as_ref().map(|at| (at.generation.clone(), at.cut))
    }

    /// Lets go of what nobody is late for any more.
    pub(super) fn tidy(&self) {
        let mut state = self.state();
        let is_idle = state.left_at.is_some_and(|at| at.elapsed() > IDLE) && state.waiting.is_empty();
        let idle = if is_idle { state.at.take() } else { None };
        let is_old = |at: &At| at.deltas.front().is_some_and(|delta| delta.age() > KEPT_TIME);
        let old: Vec<_> = state.at.iter_mut().flat_map(|at| at.let_go_while(is_old)).collect();
        drop(state);
        drop((idle, old)); // beside the lock
    }

    /// When it was last looked after; `None` where nobody has lately.
    pub fn seen(&self) -> Option<Seen> {
        self.state().at.as_ref().map(|at| at.seen)
    }

    /// What one hears who was told of a cut. `follows`: whether what it has is of a generation; `asked`: when it was last
    /// told by the replica that the cut is one.
    pub fn hear(
        &self,
        (shape, name): (&Shape, &str),
        offset: Offset,
        follows: impl FnOnce(&str) -> bool,
        asked: Option<Seen>,
        memory: &Memory,
    ) -> Heard {
        let Some((generation, _)) = self.at().filter(|(generation, _)| follows(generation)) else {
            return Heard::Unknown;
        };
        let (deltas, cut, snapshot) = {
            let state = self.state();
            let (Some(at), Offset::At(since, Walked::Done)) = (&state.at, offset) else { return Heard::Unknown };
            if at.generation != generation {
                return Heard::Unknown;
            }
            if since < at.lost {
                return Heard::Anew(generation.to_string(), at.cut);
            }
            // A replica that fell back may have lost a cut whose number is among those of its new ones; that of a sync that
            // pulls also after it was asked.
            let asked = asked.filter(|_| !self.is_pulled);
            let is_known = at.cuts.binary_search(&since).is_ok() || asked.is_some_and(|asked| at.seen.is_behind(asked));
            let is_known = is_known || !FeedRule::Known.holds();
            if !is_known || since < at.from || since > at.cut {
                return Heard::Unknown;
            }
            let later = at.deltas.partition_point(|delta| delta.to <= since);
            (at.deltas.iter().skip(later).cloned().collect::<Vec<_>>(), at.cut, at.snapshot.clone())
        };
        let Offset::At(since, _) = offset else { return Heard::Unknown };
        if deltas.first().is_some_and(|delta| !delta.leads(since)) {
            return Heard::Unknown;
        }
        let pieces: Option<Vec<_>> = deltas.iter().map(|delta| delta.piece(shape, name, memory)).collect();
        match pieces {
            None => Heard::Busy,
            Some(pieces) => match (Body { pieces, up_to_date: Some(cut), snapshot }) {
                body if body.is_empty() => Heard::Nothing(body, cut),
                body => Heard::Changes(body, cut),
            },
        }
    }

    /// Begins at where the table is, or forgets it; whoever waits asks.
    pub(super) fn begin(&self, fed: Option<&Fed>) {
        self.begin_behind(fed, None, None);
    }

    /// The same; `lost`: nobody is told what changed before this cut; `snapshot`: what the table sees of the source.
    pub(super) fn begin_behind(&self, fed: Option<&Fed>, lost: Option<i64>, snapshot: Snapshot) {
        let snapshot = later(fed.and_then(|fed| fed.seen.clone()), snapshot);
        let mut state = self.state();
        let seen = Seen { begun: state.begun + 1, went_on: 0 };
        let begun = fed.and_then(|fed| {
            let (generation, cut, lost) = ((*fed.generation).into(), fed.at_cut()?, lost.unwrap_or(i64::MIN));
            let (cuts, deltas) = ([cut].into(), VecDeque::new());
            Some(At {
                generation,
                from: cut,
                lost,
                cut,
                cuts,
                deltas,
                bytes: 0,
                seen,
                snapshot: snapshot.filter(|_| self.is_written()),
            })
        });
        state.begun += 1;
        let told = if begun.is_some() { state.waiting.all() } else { Vec::new() };
        let before = std::mem::replace(&mut state.at, begun);
        drop(state);
        drop(before); // beside the lock, as whoever waits is told
        told.iter().for_each(|listener| listener.tell());
    }

    /// What was found behind the cut that it had come to.
    pub(super) fn go_on(&self, found: Found, memory: &Memory, snapshot: Snapshot) {
        match found {
            Found::Apart(_) | Found::Overtaken => {}
            Found::Unready => self.begin(None),
            Found::Broken(fed) => self.begin_behind(Some(&fed), None, snapshot),
            Found::TooMuch(fed, cut) => self.begin_behind(Some(&fed), Some(cut), snapshot),
            Found::Changes(fed, cut, changes) => self.add(&fed, (cut, snapshot), changes, memory),
        }
    }

    fn add(
        &self,
        fed: &Fed,
        (cut, snapshot): (i64, Snapshot),
        Changes { first, all, bytes }: Changes,
        memory: &Memory,
    ) {
        let snapshot = later(fed.seen.clone(), snapshot).filter(|_| self.is_written());
        let Some(first) = first else {
            return self.state().at.iter_mut().for_each(|at| at.go_on(cut, snapshot.clone()));
        };
        let changes = Grouped::new(&self.table, all);
        let bytes = bytes + changes.bytes();
        let taken = loop {
            let oldest = match memory.take(bytes) {
                Some(taken) => break taken,
                None => self.state().at.as_mut().and_then(At::let_go),
            };
            if oldest.is_none() {
                return self.begin_behind(Some(fed), None, snapshot);
            }
        };
        let types = Types::read(fed.types.as_deref());
        let delta = Arc::new(Delta::new((first, changes), cut, types, bytes, taken));
        let mut state = self.state();
        let Some(at) = &mut state.at else { return };
        at.go_on(cut, snapshot);
        at.bytes += bytes;
        let old = at.deltas.iter().rev().nth(KEPT_PIECES).cloned();
        at.deltas.push_back(delta.clone());
        let let_go = at.let_go_while(|at| at.bytes > KEPT_BYTES || at.deltas.len() > KEPT);
        drop(state);
        drop(let_go); // beside the lock
        // What the late are told is made again: whoever was in time has it.
        old.iter().for_each(|old| old.forget_pieces());
        self.tell(delta.changes());
    }

    /// Tells all whom changes concern; whoever comes meanwhile hears of them without.
    fn tell(&self, changes: &Grouped) {
        let mut near = self.state().waiting.open();
        for at in changes.columns().filter(|at| self.state().waiting.is_indexed(*at)) {
            let mut values = changes.values(at).map(|value| (at, value.clone(), 0));
            loop {
                let some: Vec<_> = values.by_ref().take(LOOKED_UP).collect();
                if some.is_empty() {
                    break;
                }
                let found = self.state().waiting.having(&some);
                near.extend(found);
            }
        }
        near.values().filter(|listener| changes.touches(&listener.shape)).for_each(|listener| listener.tell());
    }
}

impl Seen {
    /// Whether it has gone on since then.
    fn is_behind(self, other: Self) -> bool {
        self.begun == other.begun && self.went_on > other.went_on
    }
}

impl At {
    /// It was found to have come to a cut, from the last one.
    fn go_on(&mut self, cut: i64, snapshot: Snapshot) {
        (self.cut, self.snapshot, self.seen.went_on) = (cut, snapshot, self.seen.went_on + 1);
        if self.cuts.back() != Some(&cut) {
            self.cuts.push_back(cut);
        }
        if self.cuts.len() > KNOWN_CUTS {
            self.cuts.pop_front();
        }
    }

    /// Lets go of the oldest changes, which whoever holds the lock is not to drop.
    #[must_use]
    fn let_go(&mut self) -> Option<Arc<Delta>> {
        let oldest = self.deltas.pop_front()?;
        (self.bytes, self.from) = (self.bytes - oldest.bytes, oldest.to);
        Some(oldest)
    }

    #[must_use]
    fn let_go_while(&mut self, is_so: impl Fn(&Self) -> bool) -> Vec<Arc<Delta>> {
        std::iter::from_fn(|| if is_so(self) { self.let_go() } else { None }).collect()
    }
}

impl State {
    fn enter_writer(&mut self, subject: &str) -> watch::Receiver<()> {
        let (written, count) = self.writers.entry(subject.to_owned()).or_insert_with(|| (watch::Sender::new(()), 0));
        *count += 1;
        written.subscribe()
    }

    fn leave_writer(&mut self, subject: &str) {
        if let Some((_, count)) = self.writers.get_mut(subject) {
            *count -= 1;
            if *count == 0 {
                self.writers.remove(subject);
            }
        }
    }
}
