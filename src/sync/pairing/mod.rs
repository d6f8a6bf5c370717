//! What comes before a step may go on: the first pairing of a queue with a replica, a lost
//! acknowledgement, the healing of two sides that diverged, and the reset that `/nuke` asks for. Each
//! change of epoch is announced in Postgres first, so that a crash in between is recognised and finished.

pub(super) mod foreign;
pub(super) mod keys;
pub(super) mod lacking;
mod reshape;

use crate::core::error::{Error, Result};
use crate::core::failpoint::Rule;
use crate::core::message::Message;
use crate::core::position::{Head, Standing};
use crate::core::reconcile::{Decision, Divergence, Here, Obstacle, Replay};
use crate::core::schema::Schema;
use crate::core::{failpoint, message, reconcile};
use crate::postgres::Purpose;
use crate::postgres::awake::awake;
use crate::postgres::books::progress::Snapshot;
use crate::postgres::books::rebuilds::Reason;
use crate::postgres::link::Link;
use crate::postgres::queue::Taken;
use crate::replica::freshness::Feeds;
use crate::replica::inventory::Inventory;
use crate::replica::{Replica, address};
use crate::sync::drained::Drained;
use crate::sync::session::Session;
use crate::sync::worker::Worker;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long `/nuke` waits for a drain that is running.
const RESET_PATIENCE: Duration = Duration::from_secs(20);

/// What `status` says of messages that others took.
const LOSSES: &str = "messages_removed";

/// What to do with the step that asked.
pub(in crate::sync) enum Ready {
    /// Both sides agree on this position.
    At(Head),
    /// Something was changed and committed: begin the step again.
    Again,
}

/// Refuses a replica that is not this queue's before anything of it is changed, and says what a step would heal. What
/// is found without the lock may be over by the time that it is read; a step looks again under it.
/// `snapshot` was taken before: what is acknowledged in it is in the replica already.
pub(crate) async fn look(
    snapshot: &Snapshot,
    address: &str,
    replica: Option<(&Replica, &Inventory)>,
) -> Result<Option<Divergence>> {
    let here = snapshot.here(address);
    let read = |is_plain| standing(replica, is_plain);
    let decided = |there: &Standing| reconcile::decide_on(&snapshot.progress, here, there);
    // A plain read changes nothing, and may be an older one: nobody is refused by it alone.
    if !matches!(decided(&read(true).await?), Decision::Stop(_)) {
        return Ok(None);
    }
    let there = read(false).await?;
    let Decision::Stop(divergence) = decided(&there) else { return Ok(None) };
    match reconcile::obstacle(&snapshot.progress, here, &there) {
        Some(obstacle) => Err(refusal(divergence, obstacle)),
        None => Ok(Some(divergence)),
    }
}

/// Where a replica stands that an older version may have made, or none.
async fn standing(replica: Option<(&Replica, &Inventory)>, is_plain: bool) -> Result<Standing> {
    let Some((replica, there)) = replica.filter(|(_, there)| there.has_bookkeeping()) else {
        return Ok(Standing::default());
    };
    let has = |column| there.column("_pgflume_head", column).is_some();
    match (has("owner"), has("captured"), is_plain) {
        (true, true, true) => replica.standing_read().await,
        (true, true, false) => replica.standing().await,
        (true, false, is_plain) => replica.standing_before(is_plain).await,
        (false, _, true) => Ok(Standing { head: replica.head_read().await?, ..Standing::default() }),
        (false, _, false) => Ok(Standing { head: replica.head().await?, ..Standing::default() }),
    }
}

fn refusal(divergence: Divergence, obstacle: Obstacle) -> Error {
    match obstacle {
        Obstacle::NothingReadable => Error::side(format!("{divergence}; {obstacle}")),
        // What it is not is said already.
        _ => Error::side(format!("nothing was taken and nothing was changed: {obstacle}")),
    }
}

impl Snapshot {
    fn here<'a>(&'a self, address: &'a str) -> Here<'a> {
        Here { identity: &self.identity, owner: &self.owner, address }
    }
}

impl Session<'_> {
    fn start(&self, epoch: String) -> Head {
        Head::start(epoch, self.worker.chance.token())
    }

    /// Compares the acknowledged position with the replica's and acts on the difference.
    pub(in crate::sync) async fn agree(&mut self, snapshot: &Snapshot, done: &mut Drained) -> Result<Ready> {
        let there = self.replica.standing().await?;
        match reconcile::decide_on(&snapshot.progress, snapshot.here(&self.address), &there) {
            Decision::GoOn(head) => self.go_on(snapshot, head, &there).await,
            Decision::Pair => self.pair(snapshot, there.head.as_ref()).await,
            Decision::Adopt(head) => {
                self.link.pair(&head, &snapshot.identity, &self.address).await?;
                match snapshot.progress.refills {
                    // Another worker may have rebuilt tables after the announcement, and a nuke emptied them then.
                    true => self.link.restart_rebuilds().await?,
                    // A nuke that leaves them empty, and was cut short.
                    false => self.link.cancel_rebuilds().await?,
                }
                failpoint::reach(failpoint::PAIRED);
                self.link.commit().await?;
                tracing::info!(epoch = head.epoch, "the queue is paired with the replica");
                Ok(Ready::Again)
            }
            Decision::Ahead { from, to } => match self.acknowledge_late(snapshot, &from, &to, done).await? {
                Ok(ready) => Ok(ready),
                Err(divergence) => self.heal(snapshot, &there, divergence).await,
            },
            Decision::Stop(divergence) => self.heal(snapshot, &there, divergence).await,
        }
    }

    /// Both sides agree. What they remember of each other is brought up to date; where the replica is, by the commit of
    /// the next step that applies something.
    async fn go_on(&mut self, snapshot: &Snapshot, head: Head, there: &Standing) -> Result<Ready> {
        if snapshot.progress.paired_with.as_ref().is_some_and(|paired| snapshot.identity.has_moved_since(paired)) {
            tracing::warn!("Postgres was promoted or restored; nothing that the replica has was lost");
        }
        let marked = self.sources.values().filter(|s| s.is_marked()).map(|s| s.table.name.clone());
        let captured: BTreeSet<String> = there.captured.iter().cloned().chain(marked).collect();
        if there.owner.as_ref() != Some(&snapshot.owner) || captured != there.captured {
            self.replica.sign(&head, &snapshot.owner, &captured).await?;
        }
        let remembered = snapshot.progress.address.as_ref();
        if remembered != Some(&self.address) {
            self.link.move_to(&self.address).await?;
            if remembered.is_some() && !std::mem::replace(&mut self.has_moved, true) {
                tracing::warn!("the replica is at another address than before; nothing that it has was lost");
            }
        }
        Ok(Ready::At(head))
    }

    /// Brings two sides together that diverged: announces a new epoch together with a resync of all
    /// tables, then starts it on the replica. The next step adopts it, and further ones rebuild.
    async fn heal(&mut self, snapshot: &Snapshot, there: &Standing, divergence: Divergence) -> Result<Ready> {
        let head = there.head.as_ref();
        if let Some(obstacle) = reconcile::obstacle(&snapshot.progress, snapshot.here(&self.address), there) {
            return Err(self.refuse(divergence, obstacle).await?);
        }
        if divergence == Divergence::Behind && self.replay(snapshot, head).await? {
            return Ok(Ready::Again);
        }
        if let Some(epoch) = self.healing.clone().filter(|epoch| snapshot.progress.next_epoch.as_ref() == Some(epoch)) {
            self.replica.reset(head, &self.start(epoch), (self.feeds(), &snapshot.owner), None).await?;
            failpoint::reach(failpoint::RESET);
            self.link.rollback().await?;
            return Ok(Ready::Again);
        }
        if !self.sources.values().any(|s| s.unpageable().is_none()) {
            return Err(self.refuse(divergence, Obstacle::NothingReadable).await?);
        }
        if reconcile::is_half_nuked(&snapshot.progress, head) {
            return self.finish_nuke(snapshot, head).await;
        }
        let epoch = self.worker.chance.token();
        self.link.announce(&epoch, &self.address, true).await?;
        self.link.note_healing(divergence.name()).await?;
        let names: Vec<&str> = self.sources.keys().map(String::as_str).collect();
        self.link.schedule(&names, Reason::Healed(divergence.name())).await?;
        self.link.commit().await?;
        failpoint::reach(failpoint::ANNOUNCED);
        tracing::error!(
            divergence = divergence.name(),
            tables = names.len(),
            "{divergence}; all tables are compared with Postgres and rebuilt, readable all the while"
        );
        self.healing = Some(epoch);
        Ok(Ready::Again)
    }

    /// A nuke that leaves the tables empty was cut short, asked for again, and cut short before the replica learned of
    /// it: it is at the first one's epoch, which nobody remembers.
    async fn finish_nuke(&self, snapshot: &Snapshot, head: Option<&Head>) -> Result<Ready> {
        let Some(epoch) = snapshot.progress.next_epoch.clone() else { return Ok(Ready::Again) };
        let to = self.start(epoch);
        let work = self.replica.reset(head, &to, (self.feeds(), &snapshot.owner), Some(&self.schema));
        awake(|| self.link.pulse(), work).await?;
        failpoint::reach(failpoint::RESET);
        self.link.rollback().await?;
        Ok(Ready::Again)
    }

    async fn refuse(&self, divergence: Divergence, obstacle: Obstacle) -> Result<Error> {
        // Whoever lost the single flight meanwhile has compared an old position with a new one.
        self.link.ping().await?;
        Ok(refusal(divergence, obstacle))
    }

    /// Catches up a replica that fell back from the messages that are kept, if they go back far enough: they are
    /// put back on the queue, and the progress back to where the replica is.
    async fn replay(&self, snapshot: &Snapshot, head: Option<&Head>) -> Result<bool> {
        let (Some(head), Some(acknowledged)) = (head, &snapshot.progress.head) else { return Ok(false) };
        let kept = self.link.retained(&head.epoch).await?;
        let Some(Replay { from_seq, copied }) = reconcile::replay(head, acknowledged, &kept) else { return Ok(false) };
        if !self.link.can_put_back(&head.epoch, from_seq).await? {
            return Ok(false);
        }
        let messages = self.link.put_back(&head.epoch, from_seq).await?;
        // What was noted of tables whose copies have not begun was noted of the replica that is gone.
        let noted = self.link.pending().await?.into_iter().filter(|rebuild| rebuild.fresh).map(|rebuild| rebuild.name);
        let copied: BTreeSet<String> = copied.into_iter().chain(noted).collect();
        let copied: Vec<&str> = copied.iter().map(String::as_str).collect();
        self.link.schedule(&copied, Reason::Healed(Divergence::Behind.name())).await?;
        self.replica.break_feed(None).await?;
        self.link.advance(head, &snapshot.identity, false).await?;
        self.link.note_healing("behind, caught up from kept messages").await?;
        self.link.forget_compared().await?;
        self.link.commit().await?;
        tracing::error!(
            batches = acknowledged.seq - head.seq,
            messages,
            tables = ?copied,
            "{}; what it lost is taken again", Divergence::Behind
        );
        Ok(true)
    }

    /// Dead letters that are older than images which the replica has.
    async fn supersede_by(&mut self, taken: &[Taken]) -> Result<()> {
        let mut dead_letters = self.link.supersedable().await?;
        if dead_letters.is_empty() {
            return Ok(());
        }
        for message in taken {
            if let Ok(Message::Image(table, _, keys)) =
                message::parse(message.text.as_deref().unwrap_or_default(), &self.schema)
            {
                keys.iter().for_each(|key| dead_letters.cover(&table.name, key, Some(message.msg_id)));
            }
        }
        self.supersede(&dead_letters.superseded()).await
    }

    /// Others have taken messages off the queue: what changed meanwhile can only be found by copying.
    pub(in crate::sync) async fn heal_losses(&self) -> Result<()> {
        let losses = self.link.take_losses().await?;
        // One that cannot be read now waits with its problem.
        let captured = self.sources.values().filter(|s| s.captured);
        let names: Vec<&str> = captured.map(|s| s.table.name.as_str()).collect();
        self.link.schedule(&names, Reason::Healed(LOSSES)).await?;
        self.link.note_healing(LOSSES).await?;
        self.link.commit().await?;
        tracing::error!(
            ?losses,
            tables = names.len(),
            "somebody took messages off the queue (a purge, a delete, another consumer): the captured tables are copied again; let nobody else read this queue"
        );
        Ok(())
    }

    /// First contact: announces an epoch, then starts it on the replica. The next step adopts it.
    async fn pair(&self, snapshot: &Snapshot, head: Option<&Head>) -> Result<Ready> {
        match &snapshot.progress.next_epoch {
            None => {
                self.link.announce(&self.worker.chance.token(), &self.address, true).await?;
                self.link.commit().await?;
                failpoint::reach(failpoint::ANNOUNCED);
            }
            Some(epoch) => {
                self.replica.reset(head, &self.start(epoch.clone()), (self.feeds(), &snapshot.owner), None).await?;
                failpoint::reach(failpoint::RESET);
                self.link.rollback().await?;
            }
        }
        Ok(Ready::Again)
    }

    /// The replica is ahead: if only the acknowledgement was lost, catches it up. Marks that were
    /// applied are still queued and will be taken again, which is harmless; images are not.
    async fn acknowledge_late(
        &mut self,
        snapshot: &Snapshot,
        from: &Head,
        to: &Head,
        done: &mut Drained,
    ) -> Result<Result<Ready, Divergence>> {
        let ledger = self.replica.ledger_between(from, to).await?;
        let fates = self.link.fates(&ledger).await?;
        if let Err(divergence) = reconcile::ahead(from, to, &ledger, &fates)
            && Rule::Ledger.holds()
        {
            return Ok(Err(divergence));
        }
        let images: Vec<i64> = ledger.iter().flat_map(|entry| entry.images.iter().copied()).collect();
        let taken = self.link.acknowledge(&images, self.worker.keeps()).await?;
        self.supersede_by(&taken).await?;
        let messages = taken.len() as u64;
        // Of which tables it has rows that no message names is not known: a replica that falls back behind them is
        // rebuilt.
        let is_named = ledger.iter().all(|entry| !entry.provenance.is_empty());
        if let Some(window) = self.worker.retention.filter(|_| is_named) {
            let tokens: Vec<String> = ledger.iter().map(|entry| entry.head.token.clone()).collect();
            self.link.retain(from, &tokens, &BTreeSet::new(), window).await?;
        }
        self.link.advance(to, &snapshot.identity, false).await?;
        self.link.move_to(&self.address).await?;
        failpoint::reach(failpoint::LATE);
        self.link.commit().await?;
        done.processed += messages;
        tracing::warn!(
            batches = ledger.len(),
            messages,
            "an acknowledgement had been lost; the replica's ledger replaces it"
        );
        Ok(Ok(Ready::Again))
    }
}

/// Drops and recreates the replicated tables in a new epoch, and with `refill` asks for a copy of those
/// that can be read. The queue is left as it is: purging it would destroy changes that commit meanwhile.
///
/// `request` is the id of a signed request, which works once.
pub async fn nuke(worker: &Worker, request: Option<&str>, refill: bool) -> Result<Nuked> {
    // It is there from now on, and so it has its address.
    let replica = Replica::open(&worker.target).await?;
    let address = address::of(&worker.target);
    foreign::refuse(worker, &replica, &replica.inventory().await?, &worker.schema).await?;
    let link = worker.source.connect(Purpose::Nuke).await?;
    link.ensure().await?;
    let sources = if refill { link.known().await?.sources } else { BTreeMap::new() };
    // A captured one that cannot be read now waits with its problem.
    let refilled: Vec<&str> = sources.values().filter(|s| s.can_be_copied()).map(|s| s.table.name.as_str()).collect();
    let snapshot = locked(worker, link.as_ref()).await?;
    worker.told.unsee();
    if let Some(id) = request
        && link.is_redeemed(id).await?
    {
        link.rollback().await?;
        return Ok(Nuked::Replayed);
    }
    let epoch = match snapshot.progress.head {
        Some(head) if !Rule::NewEpoch.holds() => head.epoch,
        _ => worker.chance.token(),
    };
    link.announce(&epoch, &address, refill).await?;
    // Before the tables are emptied: a nuke that is cut short is finished by a drain, which only pairs.
    link.schedule(&refilled, Reason::Nuke).await?;
    link.commit().await?;
    failpoint::reach(failpoint::ANNOUNCED);

    let snapshot = locked(worker, link.as_ref()).await?;
    if snapshot.progress.next_epoch.as_deref() != Some(epoch.as_str()) {
        return Err(Error::retry("another nuke came in between; try again"));
    }
    // In the transaction that ends with the nuke: one that fails may be tried again with the same id.
    if let Some(id) = request
        && !link.redeem(id).await?
    {
        link.rollback().await?;
        return Ok(Nuked::Replayed);
    }
    let head = awake(|| link.pulse(), empty(&replica, worker, &snapshot, epoch)).await?;
    link.pair(&head, &snapshot.identity, &address).await?;
    link.cancel_rebuilds().await?;
    link.schedule(&refilled, Reason::Nuke).await?;
    link.note_empty(&refilled).await?;
    failpoint::reach(failpoint::PAIRED);
    link.commit().await?;
    let epoch = head.epoch;
    tracing::warn!(epoch, ?refilled, "the replica was nuked: its tables are empty and follow schema.json");
    Ok(Nuked::Done)
}

/// Drops and recreates the tables of the replica, at the start of `epoch`.
async fn empty(replica: &Replica, worker: &Worker, snapshot: &Snapshot, epoch: String) -> Result<Head> {
    replica.prepare(&Schema::default()).await?;
    let from = match replica.head().await {
        Err(e) if e.needs_operator() => {
            tracing::warn!(error = %e, "the replica's bookkeeping is made anew");
            replica.forget().await?;
            None
        }
        other => other?,
    };
    let head = Head::start(epoch, worker.chance.token());
    let feeds = Feeds::Queue(worker.queue.as_str());
    replica.reset(from.as_ref(), &head, (feeds, &snapshot.owner), Some(&worker.schema)).await?;
    failpoint::reach(failpoint::RESET);
    Ok(head)
}

/// Counts a nuke that waits for a drain to end, and is followed by none until it has the single flight or has given up.
fn waiting(worker: &Worker) -> impl Drop + '_ {
    struct Waiting<'a>(&'a Worker);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.nukes.fetch_sub(1, Ordering::Relaxed);
        }
    }
    worker.nukes.fetch_add(1, Ordering::Relaxed);
    Waiting(worker)
}

/// How a nuke ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nuked {
    /// The tables are empty.
    Done,
    /// The request's id was used before; nothing was done.
    Replayed,
}

/// Begins a transaction that holds the single flight, waiting for a drain to end.
async fn locked(worker: &Worker, link: &dyn Link) -> Result<Snapshot> {
    let _waiting = waiting(worker);
    link.begin_waiting(RESET_PATIENCE).await?;
    let snapshot = if link.wait_for_flight().await? { link.lock().await? } else { None };
    snapshot.ok_or_else(|| Error::retry("a drain is running; try again when it has ended"))
}

impl Divergence {
    /// One word for `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::OtherReplica => "other_replica",
            Self::OtherSource => "other_source",
        }
    }
}
