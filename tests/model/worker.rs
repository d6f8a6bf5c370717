//! A worker: the step as a state machine that goes on by one action at a time, in the order of
//! `src/sync`. What it decides, and what a batch becomes, is the product's own code.

use super::intake::{self, Chunk};
use super::mutants::Mutant;
use super::postgres::{Data, Failed, Kept, MARKED, NAMES, Opened, Phase, Postgres, Queued, TABLES, Version};
use super::target::{Request, Target};
use super::world::Names;
use pgflume::core::position::{Entry, Fate, Head, Standing};
use pgflume::core::reconcile::{self, Decision, Divergence, Replay, RetainedStep};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// The parts that a worker talks to, and what it leaves for the judge.
pub struct Surroundings<'a> {
    pub postgres: &'a mut Postgres,
    pub target: &'a mut Target,
    /// Where that is.
    pub address: &'static str,
    pub names: &'a mut Names,
    pub mutant: Mutant,
    /// Whether steps keep what they take.
    pub keeps: bool,
    /// What happened, for the judge and for a trace.
    pub events: Vec<Event>,
}

/// What the judge has to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something for a reader only.
    Note(String),
    Healed(Divergence),
    /// Caught up from what is kept.
    Replayed,
    Halted(String),
    /// The queue was empty and nothing was left to rebuild.
    Idle,
}

/// A step under way.
#[derive(Clone)]
pub struct Step {
    opened: Opened,
    /// Where the replica is by now, and where it was when the step began.
    head: Head,
    acknowledged: i64,
    is_durable: bool,
    has_taken_all: bool,
    /// Has it had its share of messages.
    is_full: bool,
    taken: Vec<Queued>,
    chunks: VecDeque<Chunk>,
    dead: Vec<(usize, usize, Version)>,
    resyncs: [super::postgres::Resync; TABLES],
    /// Taken and not yet read.
    group: Vec<Queued>,
    /// What it was named for its pages.
    name: Option<Rc<str>>,
    keeps: bool,
    /// As `pgflume.kept` has it.
    tokens: Vec<String>,
    copied: BTreeSet<String>,
}

/// Where a worker is.
#[derive(Clone)]
enum Place {
    Idle,
    Locked(Opened),
    Ahead(Opened, Head, Head),
    Working(Box<Step>),
    /// For an answer to this request.
    Waiting(u32, Then),
    /// A nuke: to be announced, to be done.
    Nuke,
    Announced(String),
}

/// What follows an answer.
#[derive(Clone)]
enum Then {
    Applied(Box<Step>, Head),
    Reset(Opened),
    Nuked(Opened, Head),
}

pub struct Worker {
    place: Place,
    /// Where the replica is, as the last step left it.
    head: Option<Head>,
    healing: Option<String>,
    /// The first snapshot of this session.
    first: Option<Rc<Data>>,
}

/// A failure that ends the session: whatever is under way is rolled back.
struct Broken;

type Next = Result<Place, Broken>;

impl Worker {
    pub fn new() -> Self {
        Self { place: Place::Idle, head: None, healing: None, first: None }
    }

    /// Begins a nuke, if nothing is under way.
    pub fn nuke(&mut self) -> bool {
        let is_idle = matches!(self.place, Place::Idle);
        if is_idle {
            self.place = Place::Nuke;
        }
        is_idle
    }

    /// The request whose answer it waits for.
    pub fn awaited(&self) -> Option<u32> {
        match self.place {
            Place::Waiting(id, _) => Some(id),
            _ => None,
        }
    }

    /// The transaction that it has open.
    pub fn opened(&self) -> Option<&Opened> {
        match &self.place {
            Place::Idle | Place::Nuke | Place::Announced(_) => None,
            Place::Locked(opened) | Place::Ahead(opened, ..) => Some(opened),
            Place::Working(step) | Place::Waiting(_, Then::Applied(step, _)) => Some(&step.opened),
            Place::Waiting(_, Then::Reset(opened) | Then::Nuked(opened, _)) => Some(opened),
        }
    }

    /// Gives up what is under way, and begins a new session.
    pub fn give_up(&mut self, postgres: &mut Postgres) {
        if let Some(opened) = self.opened() {
            postgres.rollback(opened);
        }
        *self = Self::new();
    }

    /// The next action. `dice` decides what is left open: sizes, times, queries that fail.
    pub fn act(&mut self, around: &mut Surroundings, dice: u8) {
        let place = std::mem::replace(&mut self.place, Place::Idle);
        let kept = self.awaited_transaction(&place);
        match self.next(around, place, dice) {
            Ok(place) => self.place = place,
            Err(Broken) => {
                if let Some(opened) = kept {
                    around.postgres.rollback(&opened);
                }
                *self = Self::new();
            }
        }
    }

    fn awaited_transaction(&self, place: &Place) -> Option<Opened> {
        let worker = Self { place: place.clone(), head: None, healing: None, first: None };
        worker.opened().cloned()
    }

    fn next(&mut self, around: &mut Surroundings, place: Place, dice: u8) -> Next {
        match place {
            Place::Idle => Ok(self.lock(around)),
            Place::Locked(opened) => self.agree(around, opened, dice),
            Place::Ahead(opened, from, to) => self.acknowledge_late(around, opened, &from, &to, dice),
            Place::Working(step) => self.work(around, step, dice),
            Place::Waiting(id, then) => self.answered(around, id, then),
            Place::Nuke => Ok(self.announce_nuke(around)),
            Place::Announced(epoch) => self.empty(around, epoch, dice),
        }
    }

    fn lock(&mut self, around: &mut Surroundings) -> Place {
        let Some(opened) = around.postgres.lock(around.mutant != Mutant::NoLock) else { return Place::Idle };
        self.first.get_or_insert_with(|| opened.snapshot.clone());
        Place::Locked(opened)
    }

    /// As `Session::begin` and `Session::agree`.
    fn agree(&mut self, around: &mut Surroundings, mut opened: Opened, dice: u8) -> Next {
        if around.mutant == Mutant::NoAddress {
            Rc::make_mut(&mut opened.snapshot).progress.address = Some(around.address.into());
        }
        if opened.snapshot.losses > 0 && around.mutant != Mutant::NoLosses {
            return self.heal_losses(around, &opened);
        }
        let progress = &opened.snapshot.progress;
        let known = self.head.take();
        let is_here = progress.address.as_deref() == Some(around.address);
        if is_here && known.is_some() && known == progress.head {
            return Ok(begun(opened, known.ok_or(Broken)?, around.keeps));
        }
        if dice.is_multiple_of(32) {
            return Err(Broken); // the query failed
        }
        let head = around.target.now.head.clone();
        let address = around.address;
        match reconcile::decide(progress, opened.snapshot.here(address), head.as_ref()) {
            Decision::GoOn(head) => {
                around.target.sign(opened.snapshot.owner());
                Ok(begun(opened, head, around.keeps))
            }
            Decision::Pair => self.pair(around, opened, head),
            Decision::Adopt(head) => {
                around.note(|| format!("adopts {}", head.epoch));
                let restarts = around.mutant != Mutant::NoRestart;
                let committed = around.postgres.commit(&opened, &[0, 1], &[], |data| {
                    adopt(data, &head, address);
                    if restarts {
                        data.schedule(false);
                    }
                });
                self.committed(committed)
            }
            Decision::Ahead { from, to } => Ok(Place::Ahead(opened, from, to)),
            Decision::Stop(divergence) => self.heal(around, opened, head, divergence),
        }
    }

    fn committed(&mut self, result: Result<(), Failed>) -> Next {
        match result {
            Ok(()) | Err(Failed::Conflict) => Ok(Place::Idle),
            Err(Failed::Gone) => Err(Broken),
        }
    }

    fn pair(&mut self, around: &mut Surroundings, opened: Opened, head: Option<Head>) -> Next {
        match opened.snapshot.progress.next_epoch.clone() {
            Some(epoch) => Ok(reset(around, opened, head, epoch)),
            None => {
                let epoch = around.names.next("e");
                around.note(|| format!("announces {epoch}"));
                let address = around.address;
                let committed = around.postgres.commit(&opened, &[], &[], |data| data.announce(&epoch, address));
                self.committed(committed)
            }
        }
    }

    /// As `Session::heal_losses`: the tables that marks feed.
    fn heal_losses(&mut self, around: &mut Surroundings, opened: &Opened) -> Next {
        around.note(|| "copies what others took".into());
        let committed = around.postgres.commit(opened, &[MARKED], &[], |data| {
            data.losses -= opened.snapshot.losses;
            data.resyncs[MARKED].schedule(false);
        });
        self.committed(committed)
    }

    fn heal(&mut self, around: &mut Surroundings, opened: Opened, head: Option<Head>, divergence: Divergence) -> Next {
        let progress = &opened.snapshot.progress;
        let there = Standing { head: head.clone(), ..around.target.standing() };
        if let Some(obstacle) = reconcile::obstacle(progress, opened.snapshot.here(around.address), &there) {
            // Whoever lost the single flight has compared an old position with a new one.
            if around.postgres.is_running(&opened) {
                around.events.push(Event::Halted(format!("{divergence}; {obstacle}")));
            }
            return Err(Broken);
        }
        if divergence == Divergence::Behind
            && let Some(replay) = replay(around, &opened, head.as_ref())
            && let Some(head) = &head
        {
            return self.replay(around, &opened, head, &replay);
        }
        if let Some(epoch) = self.healing.clone().filter(|epoch| progress.next_epoch.as_ref() == Some(epoch)) {
            return Ok(reset(around, opened, head, epoch));
        }
        let epoch = around.names.next("e");
        around.note(|| format!("heals ({divergence}), announces {epoch}"));
        let address = around.address;
        let committed = around.postgres.commit(&opened, &[0, 1], &[], |data| {
            data.announce(&epoch, address);
            data.schedule(false);
        });
        if committed.is_ok() {
            around.events.push(Event::Healed(divergence));
            self.healing = Some(epoch);
        }
        self.committed(committed)
    }

    /// As `Session::replay`.
    fn replay(&mut self, around: &mut Surroundings, opened: &Opened, head: &Head, replay: &Replay) -> Next {
        around.note(|| format!("takes again what was taken from {} on; copies {:?}", replay.from_seq, replay.copied));
        let new_ids = (around.mutant == Mutant::NewIds).then(|| around.postgres.next_id());
        let copied: Vec<usize> = (0..TABLES).filter(|&t| replay.copied.contains(NAMES[t])).collect();
        let committed = around.postgres.commit(opened, &copied, &[], |data| {
            data.put_back(&head.epoch, replay.from_seq, new_ids);
            copied.iter().for_each(|&table| data.resyncs[table].schedule(false));
            data.advance(head);
        });
        if committed.is_ok() {
            around.events.push(Event::Replayed);
        }
        self.committed(committed)
    }

    /// The ledger is read after the head: something may have come in between.
    fn acknowledge_late(
        &mut self,
        around: &mut Surroundings,
        opened: Opened,
        from: &Head,
        to: &Head,
        dice: u8,
    ) -> Next {
        if dice.is_multiple_of(32) {
            return Err(Broken);
        }
        let ledger = around.target.ledger_between(from, to);
        let fates = fates(around.mutant, &opened.snapshot, &ledger);
        if around.mutant != Mutant::NoLedger
            && let Err(divergence) = reconcile::ahead(from, to, &ledger, &fates)
        {
            return self.heal(around, opened, Some(to.clone()), divergence);
        }
        around.note(|| format!("an acknowledgement was lost: now at {}", brief(to)));
        let images: Vec<i64> = ledger.iter().flat_map(|entry| entry.images.iter().copied()).collect();
        let queue = &opened.snapshot.queue;
        let taken: Vec<Queued> = queue.iter().filter(|m| images.contains(&m.id)).copied().collect();
        let tokens = ledger.iter().map(|entry| entry.head.token.clone()).collect();
        let step = RetainedStep { after: from.clone(), tokens, copied: Vec::new() };
        let is_named = ledger.iter().all(|entry| !entry.provenance.is_empty());
        let kept = (around.keeps && is_named).then(|| Kept { step, messages: taken.clone() });
        let address = around.address;
        let committed = around.postgres.commit(&opened, &[], &taken, |data| {
            data.queue.retain(|m| !images.contains(&m.id));
            kept.into_iter().for_each(|kept| data.keep(kept, forgotten(dice)));
            data.advance(to);
            data.move_to(address);
        });
        self.committed(committed)
    }

    fn work(&mut self, around: &mut Surroundings, mut step: Box<Step>, dice: u8) -> Next {
        if let Some(chunk) = step.chunks.pop_front() {
            return Ok(send(around, step, chunk));
        }
        if !around.postgres.is_running(&step.opened) {
            return Err(Broken);
        }
        if !step.group.is_empty() {
            read(around, &mut step, dice);
        } else if !step.is_full {
            take(around, &mut step, dice)?;
        } else if step.may_copy() && !dice.is_multiple_of(4) {
            self.page(around, &mut step, dice);
        } else {
            return self.acknowledge(around, *step, dice);
        }
        Ok(Place::Working(step))
    }

    fn page(&self, around: &mut Surroundings, step: &mut Step, dice: u8) {
        let Some(name) = step.name.clone() else { return name_step(around, step) };
        let stale = self.first.clone().filter(|_| around.mutant == Mutant::OldPage);
        let snapshot = stale.unwrap_or_else(|| step.opened.snapshot.clone());
        let Some(table) = step.next_table() else { return };
        let rows = 1 + usize::from(dice / 4 % 2);
        let there = &around.target.now.rows[table];
        let chunk = intake::page(&snapshot, there, table, &mut step.resyncs[table], rows, &name, &mut step.dead);
        if !chunk.items.is_empty() {
            step.chunks.push_back(chunk);
        }
        if step.has_taken_all && !step.may_copy() {
            step.chunks.push_back(intake::told(&name));
        }
    }

    /// The last thing of a step.
    fn acknowledge(&mut self, around: &mut Surroundings, step: Step, dice: u8) -> Next {
        let before = step.opened.snapshot.resyncs;
        let moved: Vec<usize> = (0..TABLES).filter(|&t| step.resyncs[t] != before[t]).collect();
        self.head = Some(step.head.clone());
        if step.taken.is_empty() && moved.is_empty() {
            around.postgres.rollback(&step.opened);
            if !step.opened.snapshot.is_rebuilding() && step.has_taken_all {
                around.events.push(Event::Idle);
            }
            return Ok(Place::Idle);
        }
        around.note(|| format!("acknowledges {} messages at {}", step.taken.len(), brief(&step.head)));
        let is_gone = around.mutant == Mutant::AcknowledgesFirst;
        let taken = if is_gone { &[] } else { &step.taken[..] };
        let address = around.address;
        let committed = around.postgres.commit(&step.opened, &moved, taken, |data| {
            data.queue.retain(|m| !step.taken.iter().any(|t| t.id == m.id));
            for &(table, key, version) in &step.dead {
                data.bury(table, key, version);
            }
            for &table in &moved {
                data.resyncs[table] = step.resyncs[table];
            }
            step.kept().into_iter().for_each(|kept| data.keep(kept, forgotten(dice)));
            data.advance(&step.head);
            data.move_to(address);
        });
        match committed {
            Ok(()) if dice.is_multiple_of(16) => Err(Broken), // the answer is lost
            Ok(()) => Ok(Place::Idle),
            Err(Failed::Conflict) => {
                self.head = None;
                Ok(Place::Idle)
            }
            Err(Failed::Gone) => Err(Broken),
        }
    }

    fn answered(&mut self, around: &mut Surroundings, id: u32, then: Then) -> Next {
        let Some(is_written) = around.target.answer(id) else { return Ok(Place::Waiting(id, then)) };
        if !is_written {
            around.note(|| "is fenced".into());
            return Err(Broken);
        }
        match then {
            Then::Applied(mut step, head) => {
                step.head = head;
                Ok(Place::Working(step))
            }
            Then::Reset(opened) => {
                around.postgres.rollback(&opened);
                Ok(Place::Idle)
            }
            Then::Nuked(opened, head) => {
                let address = around.address;
                let committed = around.postgres.commit(&opened, &[0, 1], &[], |data| {
                    adopt(data, &head, address);
                    data.schedule(true);
                });
                committed.map(|()| Place::Idle).map_err(|_| Broken)
            }
        }
    }

    fn announce_nuke(&mut self, around: &mut Surroundings) -> Place {
        let Some(opened) = around.postgres.lock(around.mutant != Mutant::NoLock) else { return Place::Nuke };
        let epoch = around.names.next("e");
        around.note(|| format!("announces a nuke, {epoch}"));
        let address = around.address;
        let committed = around.postgres.commit(&opened, &[0, 1], &[], |data| {
            data.announce(&epoch, address);
            data.schedule(false);
        });
        if committed.is_ok() { Place::Announced(epoch) } else { Place::Idle }
    }

    fn empty(&mut self, around: &mut Surroundings, epoch: String, dice: u8) -> Next {
        let Some(opened) = around.postgres.lock(around.mutant != Mutant::NoLock) else {
            return Ok(Place::Announced(epoch));
        };
        if opened.snapshot.progress.next_epoch.as_ref() != Some(&epoch) || dice.is_multiple_of(32) {
            around.postgres.rollback(&opened);
            return Err(Broken);
        }
        let (from, to) = (around.target.now.head.clone(), around.names.start(epoch));
        around.note(|| format!("nukes: {}", brief(&to)));
        let owner = opened.snapshot.owner().to_owned();
        let id = around.target.send(Request::Reset { from, to: to.clone(), owner, empties: true });
        Ok(Place::Waiting(id, Then::Nuked(opened, to)))
    }
}

/// As `progress::pair`.
fn adopt(data: &mut Data, head: &Head, address: &str) {
    data.move_to(address);
    let progress = &mut data.progress;
    if let Some(old) = progress.head.replace(head.clone()) {
        progress.past_epochs.retain(|epoch| *epoch != old.epoch);
        progress.past_epochs.push(old.epoch);
    }
    progress.next_epoch = None;
    progress.paired_with = Some(data.identity.clone());
    data.kept.clear();
}

/// What is to be taken again.
fn replay(around: &Surroundings, opened: &Opened, head: Option<&Head>) -> Option<Replay> {
    let (head, acknowledged) = (head?, opened.snapshot.progress.head.as_ref()?);
    let kept = opened.snapshot.kept_steps(&head.epoch);
    if around.mutant != Mutant::NoChain {
        return reconcile::replay(head, acknowledged, &kept);
    }
    let first = kept.iter().rposition(|step| step.after.seq <= head.seq).unwrap_or(0);
    let copied = kept[first..].iter().flat_map(|step| step.copied.iter().cloned()).collect();
    Some(Replay { from_seq: kept.get(first)?.after.seq, copied })
}

fn fates(mutant: Mutant, snapshot: &Data, ledger: &[Entry]) -> Vec<Fate> {
    let mut fates = snapshot.fates(ledger);
    for (fate, entry) in fates.iter_mut().zip(ledger) {
        match (mutant, entry.provenance.is_empty()) {
            (Mutant::NoWitness, false) => *fate = Fate::Queued,
            (Mutant::NoName, true) => *fate = Fate::Known,
            _ => {}
        }
    }
    fates
}

/// How much of what is kept is too old by now.
fn forgotten(dice: u8) -> usize {
    if dice % 4 == 3 { usize::from(dice / 4 % 8) } else { 0 }
}

/// Starts the announced epoch on the replica, whose rows stay.
fn reset(around: &mut Surroundings, opened: Opened, from: Option<Head>, epoch: String) -> Place {
    let to = around.names.start(epoch);
    around.note(|| format!("starts {}", brief(&to)));
    let owner = opened.snapshot.owner().to_owned();
    let id = around.target.send(Request::Reset { from, to, owner, empties: false });
    Place::Waiting(id, Then::Reset(opened))
}

fn begun(opened: Opened, head: Head, keeps: bool) -> Place {
    let resyncs = opened.snapshot.resyncs;
    Place::Working(Box::new(Step {
        opened,
        acknowledged: head.seq,
        head,
        is_durable: false,
        has_taken_all: false,
        is_full: false,
        taken: Vec::new(),
        chunks: VecDeque::new(),
        dead: Vec::new(),
        resyncs,
        group: Vec::new(),
        name: None,
        keeps,
        tokens: Vec::new(),
        copied: BTreeSet::new(),
    }))
}

impl Step {
    fn next_table(&self) -> Option<usize> {
        let is_under_way = |&t: &usize| self.resyncs[t].phase != Phase::Done;
        (0..TABLES).filter(is_under_way).find(|&t| t == MARKED || self.has_taken_all)
    }

    fn may_copy(&self) -> bool {
        self.next_table().is_some()
    }

    /// What `pgflume.kept` gets: messages as they are taken, and where the step led, if anywhere.
    fn kept(&self) -> Option<Kept> {
        let after = self.opened.snapshot.progress.head.clone().filter(|_| self.keeps)?;
        let copied = self.copied.iter().cloned().collect();
        Some(Kept { step: RetainedStep { after, tokens: self.tokens.clone(), copied }, messages: self.taken.clone() })
    }
}

/// Takes the oldest messages by deleting them.
fn take(around: &mut Surroundings, step: &mut Step, dice: u8) -> Result<(), Broken> {
    let most = 1 + usize::from(dice % 4);
    let is_left = |m: &&Queued| !step.taken.iter().any(|t| t.id == m.id);
    let group: Vec<Queued> = step.opened.snapshot.queue.iter().filter(is_left).take(most).copied().collect();
    if group.is_empty() {
        (step.has_taken_all, step.is_full) = (true, true);
    }
    step.taken.extend(&group);
    if around.mutant == Mutant::AcknowledgesFirst {
        let taken = &step.taken;
        around.postgres.run(|data| data.queue.retain(|m| !taken.iter().any(|t| t.id == m.id)));
    }
    step.group = group;
    Ok(())
}

fn ensure_durable(around: &mut Surroundings, step: &mut Step) {
    if around.mutant != Mutant::NotDurable {
        around.postgres.flush_to(step.opened.lsn);
    }
    step.is_durable = true;
}

/// As `progress::name_step`: another connection commits it.
fn name_step(around: &mut Surroundings, step: &mut Step) {
    let name: Rc<str> = around.names.next("n").into();
    around.postgres.run(|data| data.steps.push(name.clone()));
    step.name = Some(name);
}

/// Reads what the group marks, at the step's snapshot.
fn read(around: &mut Surroundings, step: &mut Step, dice: u8) {
    if !step.is_durable {
        return ensure_durable(around, step);
    }
    let mut group = std::mem::take(&mut step.group);
    if around.mutant == Mutant::UnsortedImages {
        let by = usize::from(dice) % group.len();
        group.rotate_left(by);
    }
    around.note(|| format!("takes {group:?}"));
    let is_empty = step.taken.len() == step.opened.snapshot.queue.len();
    let ends = is_empty && !step.opened.snapshot.is_rebuilding();
    let is_first = step.tokens.is_empty() && around.mutant != Mutant::NoEmptyBatch;
    step.chunks.extend(intake::chunks(&step.opened.snapshot, &group, ends, is_first, &mut step.dead));
    step.has_taken_all = is_empty;
    step.is_full = is_empty || dice.is_multiple_of(2);
}

/// Sends a batch on, from where the one before led.
fn send(around: &mut Surroundings, mut step: Box<Step>, chunk: Chunk) -> Place {
    let to = around.names.after(&step.head);
    if chunk.provenance.is_empty() {
        step.copied.extend(chunk.items.iter().map(|&(table, ..)| NAMES[table].to_owned()));
    }
    step.tokens.push(to.token.clone());
    let lists_images = around.mutant != Mutant::NoImageList;
    let entry = Entry {
        head: to.clone(),
        parent: step.head.token.clone(),
        xid: step.opened.xid.to_string(),
        lsn: step.opened.lsn.to_string(),
        images: if lists_images { chunk.images } else { Vec::new() },
        provenance: chunk.provenance.into(),
    };
    around.note(|| format!("sends {} after {}: {:?}", brief(&to), step.head.token, chunk.items));
    let (from, acknowledged) = (step.head.clone(), step.acknowledged);
    let id = around.target.send(Request::Apply { from, entry, acknowledged, items: chunk.items });
    Place::Waiting(id, Then::Applied(step, to))
}

fn brief(head: &Head) -> String {
    format!("{}/{}/{}", head.epoch, head.seq, head.token)
}

impl Surroundings<'_> {
    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.names.is_traced {
            self.events.push(Event::Note(text()));
        }
    }
}
