//! Compares what Postgres acknowledged with where the replica is, and decides. Pure: the step asks,
//! acts, and asks again. Whatever is not certainly harmless stops with a reason; nothing is guessed.

use super::position::{Entry, Fate, Head, Identity, Progress, Standing};
use std::collections::BTreeSet;

/// Where a worker stands.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// What its Postgres is.
    pub identity: &'a Identity,
    /// What a replica says that it belongs to (`Standing`).
    pub owner: &'a str,
    /// Where its replica is: [`crate::replica::address`].
    pub address: &'a str,
}

impl Here<'_> {
    /// Whether the queue's replica is said to be somewhere else.
    fn is_elsewhere(&self, progress: &Progress) -> bool {
        progress.address.as_ref().is_some_and(|address| address != self.address)
    }
}

/// What the step does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Both agree: go on from here.
    GoOn(Head),
    /// First contact: announce an epoch, then start it on both sides.
    Pair,
    /// The replica has the announced epoch already: record it.
    Adopt(Head),
    /// The replica is ahead: look at its ledger ([`ahead`]).
    Ahead {
        /// What was acknowledged.
        from: Head,
        /// Where the replica is.
        to: Head,
    },
    /// One side lost something or was replaced.
    Stop(Divergence),
}

/// Why the two sides cannot go on together. Each says what happened, and the remedy where a resync is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// The replica lost acknowledged batches.
    #[error("the replica is behind: it has lost batches that it had acknowledged (restored, or failed over)")]
    Behind,
    /// The replica has no head, or that of another pairing.
    #[error("the replica is not the one that this queue was paired with (replaced, or emptied)")]
    OtherReplica,
    /// Postgres is another, or at another point of its history.
    #[error(
        "Postgres is not the one that the replica was paired with (restored, failed over, or the queue was recreated)"
    )]
    OtherSource,
}

/// Compares both sides. A replica that is just where Postgres acknowledged it to be carries its pairing along,
/// wherever it is.
pub(crate) fn decide(progress: &Progress, here: Here<'_>, head: Option<&Head>) -> Decision {
    use Decision::{Adopt, Ahead, GoOn, Pair, Stop};
    if let Some(head) = head
        && progress.next_epoch.as_ref() == Some(&head.epoch)
        && head.seq == 0
    {
        return Adopt(head.clone());
    }
    let (acknowledged, head) = match (&progress.head, head) {
        // Nothing was ever acknowledged, so nothing is lost.
        (acknowledged, None) if acknowledged.as_ref().is_none_or(|a| a.seq == 0) && !here.is_elsewhere(progress) => {
            return Pair;
        }
        (None, _) | (_, None) => return Stop(Divergence::OtherReplica),
        (Some(acknowledged), Some(head)) => (acknowledged, head),
    };
    if progress.paired_with.as_ref().is_some_and(|paired| here.identity.is_other_than(paired)) {
        return Stop(Divergence::OtherSource);
    }
    if acknowledged.epoch != head.epoch {
        return Stop(Divergence::OtherReplica);
    }
    if acknowledged == head {
        return GoOn(head.clone());
    }
    if head.seq > acknowledged.seq {
        return Ahead { from: acknowledged.clone(), to: head.clone() };
    }
    Stop(Divergence::Behind)
}

/// The same of a replica that says whose it is: one of another database is no position of ours, whatever it is. A copy
/// of a database brings all bookkeeping along.
pub(crate) fn decide_on(progress: &Progress, here: Here<'_>, there: &Standing) -> Decision {
    if is_of_a_copy(here, there) {
        return Decision::Stop(Divergence::OtherSource);
    }
    decide(progress, here, there.head.as_ref())
}

fn is_of_a_copy(here: Here<'_>, there: &Standing) -> bool {
    let owners = (Owner::parse(here.owner), there.owner.as_deref().and_then(Owner::parse));
    matches!(owners, (Some(here), Some(there)) if here.is_beside(there))
}

/// Whether a nuke that leaves the tables empty is to be finished: it is announced, and the replica is at the start of
/// an epoch that nobody remembers, as an earlier one leaves it that was cut short.
pub(crate) fn is_half_nuked(progress: &Progress, head: Option<&Head>) -> bool {
    let is_forgotten = head.is_some_and(|head| head.seq == 0 && !progress.knows(&head.epoch));
    progress.next_epoch.is_some() && !progress.refills && is_forgotten
}

/// What a replica says that it belongs to: `system-database/queue/name`, where `database` is an OID that an older
/// version left out. A database keeps its OID when it is renamed, and its name when it is made anew from a dump.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    system: &'a str,
    database: Option<&'a str>,
    queue: &'a str,
    name: &'a str,
}

impl<'a> Owner<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (first, queue, name) = (parts.next()?, parts.next()?, parts.next()?);
        let (system, database) = first.split_once('-').map_or((first, None), |(s, d)| (s, Some(d)));
        Some(Self { system, database, queue, name })
    }

    fn is_same_database(self, other: Self) -> bool {
        let has_same_oid = self.database.zip(other.database).is_some_and(|(a, b)| a == b);
        self.system == other.system && (has_same_oid || self.name == other.name)
    }

    /// Whether it is another database of the same server.
    fn is_beside(self, other: Self) -> bool {
        self.system == other.system && !self.is_same_database(other)
    }

    fn is_same(here: &str, there: &str) -> bool {
        match (Owner::parse(here), Owner::parse(there)) {
            (Some(here), Some(there)) => here.is_same_database(there) && here.queue == there.queue,
            _ => here == there,
        }
    }
}

/// Why two sides are not brought together again, whatever could be rebuilt. Each ends with the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    /// There is nothing to rebuild from.
    #[error(
        "no table can be read from Postgres, so what is missing cannot be brought back by a resync: POST /nuke, or `pgflume nuke`, starts anew with what is queued"
    )]
    NothingReadable,
    /// A queue has one replica.
    #[error(
        "this queue is paired with a replica at another address than LIBSQL_URL, and what is here does not go on from there: correct LIBSQL_URL, or move the queue here with `pgflume nuke` (POST /nuke), which fills this one from Postgres; to keep both, give this one a queue of its own with QUEUE_NAME and `pgflume setup`"
    )]
    Elsewhere,
    /// A queue has one replica, and this one was it.
    #[error(
        "this was the queue's replica until a worker went on with another one at another address (one that it was moved or copied to, or that was nuked there): find that worker by its LIBSQL_URL. If the queue is to stay there, correct LIBSQL_URL here; to take it back, stop that worker and run `pgflume nuke` (POST /nuke) here, which fills this one from Postgres; to keep both, give one of them a queue of its own with QUEUE_NAME and `pgflume setup`"
    )]
    Left,
    /// Somebody else's replica, and this queue has none yet.
    #[error(
        "this queue has never been paired, and the replica belongs to another: check LIBSQL_URL and QUEUE_NAME; if this replica is to be taken over, `pgflume nuke` (POST /nuke)"
    )]
    NeverPaired,
    /// Two queues would take one replica from each other for ever.
    #[error(
        "the replica belongs to another queue or another database: check LIBSQL_URL, QUEUE_NAME and PGMQ_URL, and give each queue a replica of its own; if this one is to be taken over, `pgflume nuke` (POST /nuke)"
    )]
    Stranger,
}

/// What stands in the way of healing two sides that diverged. A position that this queue does not know is one of
/// its own where the replica says that this source wrote it: one side was restored, or the bookkeeping in Postgres was
/// made anew.
pub(crate) fn obstacle(progress: &Progress, here: Here<'_>, there: &Standing) -> Option<Obstacle> {
    let is_known = there.head.as_ref().is_some_and(|head| progress.knows(&head.epoch));
    if here.is_elsewhere(progress) {
        return Some(if is_known { Obstacle::Left } else { Obstacle::Elsewhere });
    }
    there.head.as_ref()?;
    if is_of_a_copy(here, there) {
        return Some(Obstacle::Stranger);
    }
    if is_known || there.owner.as_deref().is_some_and(|owner| Owner::is_same(here.owner, owner)) {
        return None;
    }
    Some(if progress.head.is_none() { Obstacle::NeverPaired } else { Obstacle::Stranger })
}

/// Whether the replica is ahead only because an acknowledgement was lost: its ledger leads without a
/// gap from `from` to `to`, and all that it was made of will come again: the messages are queued as they were,
/// or, for pages of a table, Postgres knows the step that read them. In a history in which one is missing, rows
/// may be in the replica that this Postgres never had; and an image that is listed twice was put back in between,
/// so what was applied before it may be younger.
pub fn ahead(from: &Head, to: &Head, ledger: &[Entry], fates: &[Fate]) -> Result<(), Divergence> {
    let mut at = from;
    for entry in ledger {
        if entry.parent != at.token || entry.head.seq != at.seq + 1 || entry.head.epoch != at.epoch {
            return Err(Divergence::Behind);
        }
        at = &entry.head;
    }
    if at != to {
        return Err(Divergence::Behind);
    }
    let mut images = BTreeSet::new();
    let is_listed_once = ledger.iter().flat_map(|entry| &entry.images).all(|id| images.insert(id));
    if fates.len() == ledger.len() && !fates.contains(&Fate::Lost) && is_listed_once {
        Ok(())
    } else {
        Err(Divergence::OtherSource)
    }
}

/// One acknowledged step whose messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedStep {
    /// Where the replica was when it began.
    pub after: Head,
    /// The tokens of the batches that it applied from there.
    pub tokens: Vec<String>,
    /// Tables of which it wrote rows that no message names: pages of a copy, repairs.
    pub copied: Vec<String>,
}

impl RetainedStep {
    fn end(&self) -> (i64, &str) {
        let token = self.tokens.last().unwrap_or(&self.after.token);
        (self.after.seq + self.tokens.len() as i64, token)
    }

    /// Whether its batches, the last one left out, lead to `head`.
    fn passes(&self, head: &Head) -> bool {
        let batches = usize::try_from(head.seq - self.after.seq);
        match batches {
            Ok(0) => self.after.token == head.token,
            Ok(n) if n < self.tokens.len() => self.tokens[n - 1] == head.token,
            _ => false,
        }
    }
}

/// What brings a replica that fell back up to date again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Messages that were taken at this position or later are put back on the queue.
    pub from_seq: i64,
    /// Tables that are copied again.
    pub copied: BTreeSet<String>,
}

/// Whether what is kept leads without a gap from the replica's `head` to what was `acknowledged`. `kept` is
/// sorted by position.
pub fn replay(head: &Head, acknowledged: &Head, kept: &[RetainedStep]) -> Option<Replay> {
    let first = kept.iter().position(|step| step.after.epoch == head.epoch && step.passes(head))?;
    let steps = &kept[first..];
    let is_whole = steps.windows(2).all(|two| two[0].end() == (two[1].after.seq, two[1].after.token.as_str()));
    let is_ours = head.epoch == acknowledged.epoch;
    let reaches = steps.last().is_some_and(|last| last.end() == (acknowledged.seq, acknowledged.token.as_str()));
    let replay = || Replay {
        from_seq: steps[0].after.seq,
        copied: steps.iter().flat_map(|step| step.copied.iter().cloned()).collect(),
    };
    (is_whole && is_ours && reaches).then(replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(epoch: &str, seq: i64, token: &str) -> Head {
        Head { epoch: epoch.into(), seq, token: token.into() }
    }

    fn identity(source: &str) -> Identity {
        Identity { source: source.into(), queue: 1 }
    }

    fn progress(head: Option<Head>, next_epoch: Option<&str>) -> Progress {
        let next_epoch = next_epoch.map(Into::into);
        Progress {
            head,
            next_epoch,
            paired_with: Some(identity("pg/1")),
            refills: true,
            address: Some("here".into()),
            past_epochs: Vec::new(),
        }
    }

    #[test]
    fn every_case_is_told_apart() {
        let at = head("e", 5, "t5");
        let stop = |d| Decision::Stop(d);
        let cases = [
            (progress(None, None), "pg/1", None, Decision::Pair),
            (progress(None, Some("n")), "pg/1", None, Decision::Pair),
            (progress(None, Some("n")), "pg/1", Some(head("n", 0, "t")), Decision::Adopt(head("n", 0, "t"))),
            (
                progress(Some(at.clone()), Some("n")),
                "pg/1",
                Some(head("n", 0, "t")),
                Decision::Adopt(head("n", 0, "t")),
            ),
            (progress(Some(at.clone()), Some("n")), "pg/1", Some(at.clone()), Decision::GoOn(at.clone())),
            (progress(None, None), "pg/1", Some(head("x", 3, "t")), stop(Divergence::OtherReplica)),
            (progress(Some(head("e", 0, "t")), None), "pg/1", None, Decision::Pair),
            (progress(Some(at.clone()), None), "pg/1", None, stop(Divergence::OtherReplica)),
            (progress(Some(at.clone()), None), "pg/1", Some(at.clone()), Decision::GoOn(at.clone())),
            (progress(Some(at.clone()), None), "other/1", Some(at.clone()), stop(Divergence::OtherSource)),
            (progress(Some(at.clone()), None), "pg/2", Some(at.clone()), Decision::GoOn(at.clone())),
            (progress(Some(at.clone()), None), "pg/1", Some(head("x", 5, "t5")), stop(Divergence::OtherReplica)),
            (progress(Some(at.clone()), None), "pg/1", Some(head("e", 4, "t4")), stop(Divergence::Behind)),
            (progress(Some(at.clone()), None), "pg/1", Some(head("e", 5, "other")), stop(Divergence::Behind)),
            (
                progress(Some(at.clone()), None),
                "pg/1",
                Some(head("e", 6, "t6")),
                Decision::Ahead { from: at.clone(), to: head("e", 6, "t6") },
            ),
        ];
        for (progress, source, replica, expected) in cases {
            let identity = identity(source);
            let here = Here { identity: &identity, owner: "we", address: "here" };
            assert_eq!(decide(&progress, here, replica.as_ref()), expected, "{progress:?} {replica:?}");
        }
    }

    #[test]
    fn a_replica_at_another_address_carries_its_pairing_and_an_empty_one_has_none() {
        let identity = identity("pg/1");
        let there = Here { identity: &identity, owner: "we", address: "there" };
        let at = head("e", 5, "t5");
        let paired = progress(Some(at.clone()), None);
        assert_eq!(decide(&paired, there, Some(&at)), Decision::GoOn(at.clone()), "moved");
        let announced = progress(None, Some("n"));
        assert_eq!(decide(&announced, there, None), Decision::Stop(Divergence::OtherReplica), "being paired elsewhere");
        let fresh = progress(Some(head("e", 0, "t")), None);
        for (progress, head, why, expected) in [
            (&paired, None, "empty", Obstacle::Elsewhere),
            (&fresh, None, "empty, and nothing acknowledged", Obstacle::Elsewhere),
            (&paired, Some(head("e", 4, "t4")), "an older copy", Obstacle::Left),
            (&paired, Some(head("x", 5, "t5")), "another epoch", Obstacle::Elsewhere),
        ] {
            assert!(matches!(decide(progress, there, head.as_ref()), Decision::Stop(_)), "{why}");
            let standing = Standing { head, owner: Some("we".into()), ..Standing::default() };
            assert_eq!(obstacle(progress, there, &standing), Some(expected), "{why}");
        }
        let unknown = Progress { address: None, ..paired };
        assert_eq!(obstacle(&unknown, there, &Standing::default()), None, "paired by an older version");
    }

    #[test]
    fn a_position_that_nobody_knows_is_healed_where_this_source_wrote_it_and_refused_where_not() {
        let identity = identity("pg/1");
        let here = Here { identity: &identity, owner: "we", address: "here" };
        let mut paired = progress(Some(head("e", 5, "t5")), None);
        paired.past_epochs.push("old".into());
        let never = Progress { address: None, ..progress(None, None) };
        let cases = [
            (&paired, None, None, None),
            (&paired, Some("old"), Some("they"), None),
            (&paired, Some("x"), Some("we"), None),
            (&paired, Some("x"), Some("they"), Some(Obstacle::Stranger)),
            (&paired, Some("x"), None, Some(Obstacle::Stranger)),
            (&never, Some("x"), Some("we"), None),
            (&never, Some("x"), Some("they"), Some(Obstacle::NeverPaired)),
            (&never, Some("x"), None, Some(Obstacle::NeverPaired)),
        ];
        for (progress, epoch, owner, expected) in cases {
            let head = epoch.map(|e| head(e, 9, "t"));
            let there = Standing { head, owner: owner.map(Into::into), ..Standing::default() };
            assert_eq!(obstacle(progress, here, &there), expected, "{epoch:?} {owner:?}");
        }
    }

    #[test]
    fn a_copy_of_a_database_is_a_stranger_and_a_renamed_or_restored_one_is_not() {
        let identity = identity("pg/1/20");
        let at = head("e", 5, "t5");
        let paired = Progress { paired_with: Some(self::identity("pg/1")), ..progress(Some(at.clone()), None) };
        let here = Here { identity: &identity, owner: "pg-20/q/k1", address: "here" };
        for (owner, is_stranger) in [
            ("pg-20/q/k1", false),
            ("pg-20/q/before it was renamed", false),
            ("pg-10/q/k1", false),
            ("pg/q/k1", false),
            ("another-10/q/k2", false),
            ("pg-10/q/k2", true),
            ("pg/q/k2", true),
        ] {
            let there = Standing { head: Some(at.clone()), owner: Some(owner.into()), ..Standing::default() };
            let expected =
                if is_stranger { Decision::Stop(Divergence::OtherSource) } else { Decision::GoOn(at.clone()) };
            assert_eq!(decide_on(&paired, here, &there), expected, "{owner}");
            assert_eq!(obstacle(&paired, here, &there), is_stranger.then_some(Obstacle::Stranger), "{owner}");
        }
        assert!(
            identity.is_other_than(&self::identity("pg/1/10")) && !identity.is_other_than(&self::identity("pg/9/20"))
        );
        assert!(
            !identity.has_moved_since(&self::identity("pg/1")) && identity.has_moved_since(&self::identity("pg/2"))
        );
    }

    #[test]
    fn only_a_lost_acknowledgement_is_harmless() {
        let entry = |seq, parent: &str| Entry {
            head: head("e", seq, &format!("t{seq}")),
            parent: parent.into(),
            xid: "1".into(),
            lsn: "0/1".into(),
            images: vec![],
            provenance: Default::default(),
        };
        let (from, to) = (head("e", 5, "t5"), head("e", 7, "t7"));
        let ledger = [entry(6, "t5"), entry(7, "t6")];
        let fine = [Fate::Queued, Fate::Known];
        assert_eq!(ahead(&from, &to, &ledger, &fine), Ok(()));
        assert_eq!(ahead(&from, &to, &ledger[1..], &fine[1..]), Err(Divergence::Behind), "a gap");
        assert_eq!(ahead(&from, &to, &ledger[..1], &fine[..1]), Err(Divergence::Behind), "an end missing");
        assert_eq!(
            ahead(&from, &to, &[entry(6, "x"), entry(7, "t6")], &fine),
            Err(Divergence::Behind),
            "another branch"
        );
        let fates = [Fate::Queued, Fate::Lost];
        assert_eq!(ahead(&from, &to, &ledger, &fates), Err(Divergence::OtherSource), "a message is missing");
        let mut again = ledger;
        again.iter_mut().for_each(|entry| entry.images = vec![4]);
        assert_eq!(ahead(&from, &to, &again, &fine), Err(Divergence::OtherSource), "an image was applied again");
    }

    #[test]
    fn only_an_unbroken_chain_of_kept_steps_is_replayed() {
        let step = |seq, token: &str, tokens: &[&str], copied: &[&str]| RetainedStep {
            after: head("e", seq, token),
            tokens: tokens.iter().map(|t| (*t).into()).collect(),
            copied: copied.iter().map(|t| (*t).into()).collect(),
        };
        let kept = [
            step(3, "t3", &["t4"], &["old"]),
            step(4, "t4", &["t5", "t6"], &[]),
            step(6, "t6", &["t7"], &["a"]),
            step(7, "t7", &["t8"], &["b"]),
        ];
        let to = head("e", 8, "t8");
        let copied = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let expected = |from_seq, names: &[&str]| Some(Replay { from_seq, copied: copied(names) });
        assert_eq!(replay(&head("e", 7, "t7"), &to, &kept), expected(7, &["b"]));
        assert_eq!(replay(&head("e", 5, "t5"), &to, &kept), expected(4, &["a", "b"]), "within a step");
        assert_eq!(replay(&head("e", 4, "t4"), &to, &kept), expected(4, &["a", "b"]));
        for (at, why) in [
            (head("e", 5, "other"), "another branch"),
            (head("e", 2, "t2"), "before what is kept"),
            (head("x", 5, "t5"), "another epoch"),
            (head("e", 8, "t8"), "not behind"),
            (head("e", 9, "t9"), "ahead"),
        ] {
            assert_eq!(replay(&at, &to, &kept), None, "{why}");
        }
        let gap = [kept[1].clone(), kept[3].clone()];
        assert_eq!(replay(&head("e", 5, "t5"), &to, &gap), None, "a gap");
        assert_eq!(replay(&head("e", 5, "t5"), &head("e", 9, "t9"), &kept), None, "an end missing");
    }
}
