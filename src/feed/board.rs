//! What is known of a table that clients wait for: its last changes, kept for those who are a little late, and who has to
//! hear of which. No IO.

use super::body::Body;
use super::changes::{Changes, Found};
use super::delta::Delta;
use super::encode::Types;
use super::figures::Figures;
use super::memory::Memory;
use super::offset::{Offset, Walked};
use super::shape::Shape;
use super::snapshot::{Snapshot, later};
use crate::core::failpoint::FeedRule;
use crate::core::schema::Table;
use crate::core::value::Cell;
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

/// One table's.
pub struct Board {
    table: Arc<Table>,
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
    /// By the names of their shapes, those who wait.
    waiting: BTreeMap<String, Group>,
    /// By a column and a value that a row has there, whom it concerns.
    index: BTreeMap<(usize, Cell), BTreeSet<String>>,
    /// Whom all rows concern.
    open: BTreeSet<String>,
    /// When the last one left.
    left_at: Option<Instant>,
    /// By their tokens' subjects, those who may have written.
    writers: BTreeMap<String, (watch::Sender<()>, usize)>,
}

/// Where a table is.
struct At {
    generation: String,
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

/// All who wait for the same.
struct Group {
    shape: Arc<Shape>,
    news: watch::Sender<()>,
    count: usize,
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
        state.leave(&self.name);
        if let Some((subject, _)) = &self.writer {
            state.leave_writer(subject);
        }
    }
}

impl Board {
    /// Of a table that is fed.
    pub fn new(table: Arc<Table>) -> Self {
        let needed = table.fed_columns().into_iter().chain(table.fed_filters().into_iter().flatten()).collect();
        Self { table, needed, figures: Figures::default(), state: Mutex::default() }
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
        let state = self.state();
        (state.waiting.values().map(|group| group.count).sum(), state.waiting.len())
    }

    /// Begins to wait.
    pub fn wait(self: &Arc<Self>, shape: &Arc<Shape>, subject: Option<&str>) -> Waiting {
        let (name, mut state) = (shape.name(), self.state());
        let news = state.enter(&name, shape);
        let subject = subject.filter(|_| self.is_written());
        let writer = subject.map(|subject| (subject.to_owned(), state.enter_writer(subject)));
        drop(state);
        Waiting { board: self.clone(), name, news, writer }
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
    pub fn at(&self) -> Option<(String, i64)> {
        self.state().at.as_ref().map(|at| (at.generation.clone(), at.cut))
    }

    /// Lets go of what nobody is late for any more.
    pub(super) fn tidy(&self) {
        let mut state = self.state();
        if state.left_at.is_some_and(|at| at.elapsed() > IDLE) && state.waiting.is_empty() {
            state.at = None;
        }
        if let Some(at) = &mut state.at {
            while at.deltas.front().is_some_and(|delta| delta.age() > KEPT_TIME) && at.drop_oldest() {}
        }
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
        let (deltas, cut, snapshot) = {
            let state = self.state();
            let (Some(at), Offset::At(since, Walked::Done)) = (&state.at, offset) else { return Heard::Unknown };
            if !follows(&at.generation) {
                return Heard::Unknown;
            }
            if since < at.lost {
                return Heard::Anew(at.generation.clone(), at.cut);
            }
            // A replica that fell back may have lost a cut whose number is among those of its new ones.
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
            let (generation, cut, lost) = (fed.generation.clone(), fed.at_cut()?, lost.unwrap_or(i64::MIN));
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
        let is_begun = begun.is_some();
        state.at = begun;
        if is_begun {
            state.waiting.values().for_each(Group::tell);
        }
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
        let mut state = self.state();
        let Some(at) = &mut state.at else { return };
        let Some(first) = first else { return at.go_on(cut, snapshot) };
        let taken = loop {
            match memory.take(bytes) {
                Some(taken) => break taken,
                None if at.drop_oldest() => {}
                None => {
                    drop(state);
                    return self.begin_behind(Some(fed), None, snapshot);
                }
            }
        };
        at.go_on(cut, snapshot);
        let delta = Delta::new((first, all), cut, Types::read(fed.types.as_deref()), bytes, taken);
        let delta = Arc::new(delta);
        at.bytes += delta.bytes;
        // What the late are told is made again: whoever was in time has it.
        at.deltas.iter().rev().nth(KEPT_PIECES).iter().for_each(|old| old.forget_pieces());
        at.deltas.push_back(delta.clone());
        while (at.bytes > KEPT_BYTES || at.deltas.len() > KEPT) && at.drop_oldest() {}
        for name in state.concerned(&delta) {
            if let Some(group) = state.waiting.get(&name) {
                group.tell();
            }
        }
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

    /// Whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.deltas.pop_front() else { return false };
        (self.bytes, self.from) = (self.bytes - oldest.bytes, oldest.to);
        true
    }
}

impl Group {
    fn tell(&self) {
        self.news.send_replace(());
    }
}

impl State {
    fn enter(&mut self, name: &str, shape: &Arc<Shape>) -> watch::Receiver<()> {
        if let Some(group) = self.waiting.get_mut(name) {
            group.count += 1;
            return group.news.subscribe();
        }
        let group = Group { shape: shape.clone(), news: watch::Sender::new(()), count: 1 };
        let news = group.news.subscribe();
        self.waiting.insert(name.to_owned(), group);
        match key(shape) {
            None => drop(self.open.insert(name.to_owned())),
            Some((column, values)) => {
                for value in values {
                    self.index.entry((column, value.clone())).or_default().insert(name.to_owned());
                }
            }
        }
        news
    }

    fn leave(&mut self, name: &str) {
        let Some(group) = self.waiting.get_mut(name) else { return };
        group.count -= 1;
        if group.count > 0 {
            return;
        }
        let Some(group) = self.waiting.remove(name) else { return };
        self.left_at = Some(Instant::now());
        self.open.remove(name);
        for (column, value) in
            key(&group.shape).into_iter().flat_map(|(column, values)| values.iter().map(move |value| (column, value)))
        {
            if let std::collections::btree_map::Entry::Occupied(mut names) = self.index.entry((column, value.clone())) {
                names.get_mut().remove(name);
                if names.get().is_empty() {
                    names.remove();
                }
            }
        }
    }

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

    /// The shapes that a change is one of: by what its rows were, and are.
    fn concerned(&self, delta: &Delta) -> BTreeSet<String> {
        let mut concerned = BTreeSet::new();
        let Some(shape) = self.waiting.values().next().map(|group| group.shape.clone()) else { return concerned };
        let columns: BTreeSet<usize> = self.index.keys().map(|(column, _)| *column).collect();
        let filters = shape.table.fed_filters();
        for change in delta.changes() {
            let is_new = |name: &&String| {
                let group = self.waiting.get(*name);
                !concerned.contains(*name) && group.is_some_and(|group| group.shape.is_touched(change))
            };
            let was = |column: &usize| {
                let place = filters.iter().position(|filter| *filter == Some(*column))?;
                change.was.as_ref()?.get(place)
            };
            let values = columns.iter().flat_map(|column| {
                let now = change.now.as_ref().and_then(|cells| cells.get(*column));
                [was(column), now].into_iter().flatten().map(|value| (*column, value.clone()))
            });
            let by_value = values.filter_map(|key| self.index.get(&key)).flatten();
            let found: Vec<String> = by_value.chain(&self.open).filter(is_new).cloned().collect();
            concerned.extend(found);
        }
        concerned
    }
}

/// The column by which a shape is found, and its values there: the one that has the fewest; `None` where all rows are its.
fn key(shape: &Shape) -> Option<(usize, &Vec<Cell>)> {
    shape.allowed.iter().min_by_key(|(_, values)| values.len()).map(|(column, values)| (*column, values))
}
