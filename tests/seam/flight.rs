//! Transactions, locks, the single flight and where the replica is.

use super::{Bench, LONG, Place, SHORT, Worker, fault, head, put, send, until};
use pgflume::core::error::{Cause, ErrorKind};
use pgflume::core::position::{Head, Lsn};
use pgflume::core::token::Token;
use pgflume::postgres::link::{Begun, Savepoint};
use std::time::Duration;

pub async fn a_step_sees_rows_and_messages_as_of_one_snapshot(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 1, "old").await;
    worker.step().await;
    put(bench, 1, "new").await;
    put(bench, 2, "new").await;
    assert_eq!(worker.values(&[1, 2]).await, [Some("old".into()), None]);
    assert_eq!(worker.take().await.messages.len(), 1);
    assert!(!worker.link.has_any().await.unwrap());
    worker.link.commit().await.unwrap();
    assert_eq!(worker.queued().await.len(), 2);
}

pub async fn the_snapshot_is_taken_behind_the_locks(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    assert_eq!(worker.begin().await, Begun::Locked);
    put(bench, 1, "late").await;
    let before = worker.link.lock().await.unwrap().unwrap();
    put(bench, 2, "too late").await;
    assert_eq!(worker.values(&[1, 2]).await, [Some("late".into()), None]);
    assert_eq!(worker.take().await.messages.len(), 1);
    worker.link.rollback().await.unwrap();
    let after = worker.step().await;
    assert!(after.xid.parse::<u64>().unwrap() > before.xid.parse::<u64>().unwrap());
    assert_eq!((after.identity, after.owner), (before.identity, before.owner));
    assert!(after.at >= before.at, "{} {}", after.at, before.at);
}

pub async fn who_waits_for_locks_sees_what_is_committed_meanwhile(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    worker.link.begin_waiting(LONG).await.unwrap();
    assert!(worker.link.wait_for_flight().await.unwrap());
    put(bench, 1, "new").await;
    assert_eq!(worker.values(&[1]).await, [Some("new".into())]);
    assert!(worker.link.has_any().await.unwrap());
}

pub async fn one_has_the_flight_at_a_time(bench: &impl Bench) {
    let (one, other) = (Worker::new(bench).await, Worker::new(bench).await);
    one.step().await;
    for _ in 0..2 {
        assert_eq!(other.begin().await, Begun::Locked, "locks of steps are no hindrance");
        assert!(other.link.lock().await.unwrap().is_none());
        let failed = other.link.has_any().await.unwrap_err();
        assert_eq!(fault(&failed), ("25P02", Some(Cause::Other)));
        other.link.rollback().await.unwrap();
    }
    assert!(other.link.look().await.unwrap().progress.head.is_none());
    one.link.rollback().await.unwrap();
    other.step().await;
    assert_eq!(one.begin().await, Begun::Locked);
    assert!(one.link.lock().await.unwrap().is_none());
    one.link.rollback().await.unwrap();
    other.link.commit().await.unwrap();
    one.step().await;
}

pub async fn a_step_may_open_with_what_it_takes(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 1, "x").await;
    for ends in [false, true] {
        let opened = worker.open(ends).await.unwrap().unwrap();
        assert_eq!(opened.taken.unwrap().messages.len(), 1);
        opened.measured.unwrap();
        let fingerprint = worker.link.fingerprint().await.unwrap();
        assert_eq!(opened.fingerprint.map(Result::unwrap), ends.then_some(fingerprint));
        assert_eq!(worker.values(&[1]).await, [Some("x".into())], "at the same snapshot");
        worker.link.rollback_to(Savepoint::Take).await.unwrap();
        assert_eq!(worker.take().await.messages.len(), 1);
        if ends { worker.link.commit().await } else { worker.link.rollback().await }.unwrap();
    }
    assert!(worker.queued().await.is_empty());
}

pub async fn a_step_that_cannot_open_takes_nothing(bench: &impl Bench) {
    let (worker, other) = (Worker::new(bench).await, Worker::new(bench).await);
    put(bench, 1, "x").await;
    other.step().await;
    assert!(worker.open(true).await.unwrap().is_none(), "another has the flight");
    assert!(worker.link.peek().await.unwrap(), "nothing is begun, and nothing taken");
    other.link.rollback().await.unwrap();
    for place in [Place::Table, Place::Queue] {
        let mut application = bench.begin().await;
        assert!(application.lock(place, LONG).await);
        assert!(worker.open(true).await.unwrap().is_none(), "somebody has a lock");
        assert_eq!(worker.link.calls().await.unwrap(), 0, "nothing is begun");
        application.rollback().await;
    }
    assert_eq!(worker.queued().await.len(), 1);
}

pub async fn what_is_seen_beside_a_step_holds_if_it_saw_as_much(bench: &impl Bench) {
    let (worker, other) = (Worker::new(bench).await, Worker::new(bench).await);
    let mut is_changed = false;
    loop {
        let looked = other.link.fingerprint_beside().await.unwrap();
        let Some((fingerprint, looked)) = looked else { return }; // it cannot be told
        if is_changed {
            bench.remake_column().await;
        }
        let opened = worker.open(false).await.unwrap().unwrap();
        assert!(opened.fingerprint.is_none());
        let holds = looked.holds(&Token::Snapshot(opened.snapshot.seen.unwrap()));
        assert_eq!(worker.link.fingerprint().await.unwrap() == fingerprint, !is_changed);
        worker.link.rollback().await.unwrap();
        if is_changed {
            return assert!(!holds, "it has not seen the change");
        }
        is_changed = holds; // others of this server may have committed in between: then once more
    }
}

pub async fn a_dropped_link_gives_the_flight_back(bench: &impl Bench) {
    let (one, other) = (Worker::new(bench).await, Worker::new(bench).await);
    send(bench, "{}").await;
    one.step().await;
    assert_eq!(one.take().await.messages.len(), 1);
    drop(one);
    until("the flight is free", async || {
        assert_eq!(other.begin().await, Begun::Locked);
        let locked = other.link.lock().await.unwrap();
        if locked.is_none() {
            other.link.rollback().await.unwrap();
        }
        locked.is_some()
    })
    .await;
    assert_eq!(other.take().await.messages.len(), 1);
}

pub async fn the_flight_is_waited_for_as_long_as_one_may(bench: &impl Bench) {
    let (one, other) = (Worker::new(bench).await, Worker::new(bench).await);
    one.step().await;
    other.link.begin_waiting(SHORT).await.unwrap();
    assert!(!other.link.wait_for_flight().await.unwrap());
    other.link.rollback().await.unwrap();
    other.link.begin_waiting(LONG).await.unwrap();
    let release = async {
        tokio::time::sleep(SHORT).await;
        one.link.commit().await.unwrap();
    };
    let (waited, ()) = tokio::join!(other.link.wait_for_flight(), release);
    assert!(waited.unwrap());
    assert_eq!(one.begin().await, Begun::Locked);
    assert!(one.link.lock().await.unwrap().is_none());
}

pub async fn a_step_that_was_overtaken_says_so(bench: &impl Bench) {
    let (one, other) = (Worker::new(bench).await, Worker::new(bench).await);
    assert_eq!(one.begin().await, Begun::Locked);
    assert!(!one.link.has_any().await.unwrap(), "this takes the snapshot");
    let snapshot = other.step().await;
    other.link.advance(&head(1), &snapshot.identity, true).await.unwrap();
    other.link.commit().await.unwrap();
    let overtaken = one.link.lock().await.unwrap_err();
    assert_eq!((overtaken.sqlstate(), overtaken.kind()), (Some("40001"), &ErrorKind::Overtaken));
    one.link.rollback().await.unwrap();
    assert_eq!(one.step().await.progress.head, Some(head(1)));
}

pub async fn a_step_does_not_wait_for_its_locks(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    for (place, begun) in [(Place::Table, Begun::TableTaken), (Place::Queue, Begun::QueueTaken)] {
        let mut application = bench.begin().await;
        assert!(application.lock(place, LONG).await);
        assert_eq!(worker.begin().await, begun);
        let blocked = worker.link.blocked(&[worker.t(), worker.w()]).await.unwrap();
        assert_eq!(blocked, if place == Place::Table { vec!["t"] } else { vec![] });
        assert_eq!(worker.link.begin(&[worker.w()]).await.unwrap() == Begun::Locked, place == Place::Table);
        worker.link.rollback().await.unwrap();
        application.rollback().await;
        assert_eq!(worker.begin().await, Begun::Locked);
        worker.link.rollback().await.unwrap();
    }
}

pub async fn who_waits_for_a_table_comes_before_the_next_step(bench: &impl Bench) {
    let (one, other) = (Worker::new(bench).await, Worker::new(bench).await);
    put(bench, 1, "old").await;
    let snapshot = one.step().await;
    assert!(!other.link.is_waited_for(&snapshot.xid).await.unwrap());
    let mut application = bench.begin().await;
    let truncation = async {
        assert!(application.truncate(LONG).await);
        application.commit().await;
    };
    let look = async {
        until("it waits", async || other.link.is_waited_for(&snapshot.xid).await.unwrap()).await;
        assert_eq!(other.link.blocked(&[other.t(), other.w()]).await.unwrap(), ["t"]);
        assert_eq!(other.begin().await, Begun::TableTaken);
        assert_eq!(one.values(&[1]).await, [Some("old".into())], "who has the table goes on");
        one.link.rollback().await.unwrap();
        let table_is_free = other.link.wait_for_table(other.t()).await.unwrap();
        assert!(table_is_free && !other.link.is_waited_for(&snapshot.xid).await.unwrap());
        other.step().await;
        assert_eq!(other.values(&[1]).await, [None]);
    };
    tokio::join!(truncation, look);
}

pub async fn a_table_is_waited_for_a_moment(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    assert!(worker.link.lock_wait() > Duration::ZERO);
    assert!(worker.link.wait_for_table(worker.t()).await.unwrap());
    let mut application = bench.begin().await;
    assert!(application.lock(Place::Table, LONG).await, "nothing is held after the wait");
    assert!(!worker.link.wait_for_table(worker.t()).await.unwrap());
    assert!(worker.link.wait_for_table(worker.w()).await.unwrap());
    let release = async {
        tokio::time::sleep(SHORT).await;
        application.rollback().await;
    };
    let (waited, ()) = tokio::join!(worker.link.wait_for_table(worker.t()), release);
    assert!(waited.unwrap());
}

pub async fn the_queue_is_waited_for_a_moment(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    assert!(worker.link.wait_for_queue().await.unwrap());
    let mut application = bench.begin().await;
    assert!(application.lock(Place::Queue, LONG).await);
    assert!(!worker.link.wait_for_queue().await.unwrap());
    application.rollback().await;
    assert!(worker.link.wait_for_queue().await.unwrap());
}

pub async fn a_step_keeps_truncations_away(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 1, "old").await;
    worker.step().await;
    let mut application = bench.begin().await;
    assert!(!application.truncate(SHORT).await);
    application.rollback().await;
    let mut application = bench.begin().await;
    assert!(!application.lock(Place::Queue, SHORT).await);
    application.rollback().await;
    assert_eq!(worker.values(&[1]).await, [Some("old".into())]);
    worker.link.rollback().await.unwrap();
    let mut application = bench.begin().await;
    assert!(application.truncate(LONG).await);
    application.commit().await;
    worker.step().await;
    assert!(worker.link.is_empty(worker.t()).await.unwrap());
}

pub async fn a_truncation_empties_what_was_not_locked(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 1, "old").await;
    assert_eq!(worker.link.begin(&[]).await.unwrap(), Begun::Locked);
    worker.link.lock().await.unwrap().unwrap();
    let mut application = bench.begin().await;
    assert!(application.truncate(LONG).await);
    application.commit().await;
    assert!(worker.link.is_empty(worker.t()).await.unwrap(), "whatever the snapshot saw");
    assert_eq!(worker.values(&[1]).await, [None]);
}

pub async fn a_failure_is_cured_by_a_savepoint_only(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let link = &worker.link;
    let id = send(bench, "{}").await;
    worker.step().await;
    link.savepoint(Savepoint::Take, None).await.unwrap();
    assert_eq!(worker.take().await.messages.len(), 1);
    link.savepoint(Savepoint::Read, Some(LONG)).await.unwrap();
    link.wake().await.unwrap();
    assert_eq!(link.calls().await.unwrap(), 1);
    link.try_key(worker.t(), &["x".into()]).await.unwrap_err();
    for failed in [link.ping().await, link.wake().await, link.release(Savepoint::Read).await] {
        assert_eq!(fault(&failed.unwrap_err()), ("25P02", Some(Cause::Other)));
    }
    for _ in 0..2 {
        link.rollback_to(Savepoint::Read).await.unwrap();
        link.ping().await.unwrap();
        assert_eq!(link.calls().await.unwrap(), 0);
        link.try_key(worker.t(), &["x".into()]).await.unwrap_err();
    }
    link.rollback_to(Savepoint::Take).await.unwrap();
    assert_eq!(super::ids(&worker.take().await), [id]);
    link.release(Savepoint::Take).await.unwrap();
    link.commit().await.unwrap();
    assert!(worker.queued().await.is_empty());
}

pub async fn a_failed_transaction_ends_without_a_word(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let link = &worker.link;
    worker.step().await;
    link.wake().await.unwrap();
    link.try_key(worker.t(), &["x".into()]).await.unwrap_err();
    link.commit().await.unwrap();
    assert_eq!(link.calls().await.unwrap(), 0, "nothing was committed nonetheless");
    link.rollback().await.unwrap();
    link.rollback().await.unwrap();
    let nowhere = link.savepoint(Savepoint::Take, None).await.unwrap_err();
    assert_eq!(nowhere.cause(), Some(Cause::Other));
    worker.step().await;
}

pub async fn a_statement_on_its_own_leaves_nothing_open(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let other = Worker::new(bench).await;
    let failed = worker.link.try_key(worker.t(), &["x".into()]).await.unwrap_err();
    assert_eq!(failed.cause(), Some(Cause::Row));
    worker.link.wake().await.unwrap();
    assert_eq!(other.link.calls().await.unwrap(), 1);
    worker.link.schedule_sweep("t").await.unwrap();
    assert!(other.link.look().await.unwrap().is_rebuilding);
    let mut application = bench.begin().await;
    assert!(application.lock(Place::Table, SHORT).await && application.lock(Place::Queue, SHORT).await);
}

pub async fn statements_run_in_the_order_in_which_they_were_begun(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let link = &worker.link;
    send(bench, "{}").await;
    worker.step().await;
    let (set, taken, called, noted) = tokio::join!(
        biased;
        link.savepoint(Savepoint::Take, None),
        worker.take(),
        link.wake(),
        link.calls(),
    );
    set.unwrap();
    called.unwrap();
    assert_eq!((taken.messages.len(), noted.unwrap()), (1, 1));
    link.rollback_to(Savepoint::Take).await.unwrap();
    assert_eq!((worker.take().await.messages.len(), link.calls().await.unwrap()), (1, 0));
}

pub async fn what_is_flushed_is_on_disk(bench: &impl Bench) {
    let (worker, other) = (Worker::new(bench).await, Worker::new(bench).await);
    put(bench, 1, "x").await;
    let snapshot = worker.step().await;
    let position = worker.link.wal_position().await.unwrap();
    other.link.flush().await.unwrap();
    assert!(worker.link.is_flushed(&position).await.unwrap());
    assert!(Some(worker.take().await.flushed_to) >= Lsn::parse(&snapshot.lsn));
    assert!(!other.link.is_flushed("FFFFFFFF/0").await.unwrap());
}

pub async fn the_name_of_a_step_is_known_to_others(bench: &impl Bench) {
    use super::takes::entry;
    use pgflume::core::position::{Fate, Provenance};
    let (worker, other) = (Worker::new(bench).await, Worker::new(bench).await);
    worker.step().await;
    other.link.name_step("late").await.unwrap();
    let fates = async |worker: &Worker| {
        let entries = ["late", "never"].map(|name| entry(Provenance::named(name.into())));
        worker.link.fates(&entries).await.unwrap()
    };
    assert_eq!(fates(&worker).await, [Fate::Lost, Fate::Lost], "its snapshot is older");
    worker.link.rollback().await.unwrap();
    worker.step().await;
    assert_eq!(fates(&worker).await, [Fate::Known, Fate::Lost]);
    assert_eq!(fates(&other).await, [Fate::Known, Fate::Lost]);
}

pub async fn notes_are_counted(bench: &impl Bench) {
    let (worker, other) = (Worker::new(bench).await, Worker::new(bench).await);
    assert_eq!((other.link.calls().await.unwrap(), worker.step().await.calls), (0, 0));
    other.link.wake().await.unwrap();
    other.link.wake().await.unwrap();
    assert_eq!((other.link.calls().await.unwrap(), worker.link.calls().await.unwrap()), (2, 0));
    worker.link.rollback().await.unwrap();
    assert_eq!(worker.step().await.calls, 2);
}

pub async fn an_epoch_is_announced_and_paired(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let link = &worker.link;
    let first = worker.step().await;
    assert_eq!((first.progress.head, first.progress.next_epoch, first.progress.refills), (None, None, true));
    assert_eq!((first.progress.paired_with, first.progress.address), (None, None));
    link.announce("e", "there", false).await.unwrap();
    link.commit().await.unwrap();
    let announced = worker.step().await.progress;
    assert_eq!((announced.next_epoch.as_deref(), announced.refills), (Some("e"), false));
    assert_eq!((announced.address.as_deref(), announced.head), (Some("there"), None));
    link.pair(&head(1), &first.identity, "here").await.unwrap();
    link.commit().await.unwrap();
    let paired = worker.step().await.progress;
    assert_eq!((paired.head, paired.next_epoch, paired.refills), (Some(head(1)), None, false));
    assert_eq!((paired.paired_with, paired.address.as_deref()), (Some(first.identity.clone()), Some("here")));
    link.move_to("elsewhere").await.unwrap();
    link.advance(&head(2), &first.identity, true).await.unwrap();
    link.note_healing("behind").await.unwrap();
    let moved = link.look().await.unwrap().progress;
    assert_eq!((moved.address.as_deref(), moved.head), (Some("elsewhere"), Some(head(2))));
    link.rollback().await.unwrap();
    assert_eq!(link.look().await.unwrap().progress.head, Some(head(1)));
}

pub async fn past_epochs_are_remembered(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let identity = worker.step().await.identity;
    let pair = async |epoch: String| {
        let head = Head { epoch, seq: 0, token: String::new() };
        worker.link.pair(&head, &identity, "here").await.unwrap();
        worker.link.look().await.unwrap().progress.past_epochs
    };
    for (epoch, past) in [("a", vec![]), ("b", vec!["a"]), ("c", vec!["a", "b"]), ("a", vec!["a", "b", "c"])] {
        assert_eq!(pair(epoch.into()).await, past);
    }
    assert_eq!(pair("d".into()).await, ["b", "c", "a"], "once each, the newest last");
    let mut past = Vec::new();
    for i in 0..110 {
        past = pair(format!("{i}")).await;
    }
    assert_eq!((past.len(), past[0].as_str(), past[past.len() - 1].as_str()), (100, "9", "108"));
}

pub async fn a_request_is_redeemed_once(bench: &impl Bench) {
    let (worker, other) = (Worker::new(bench).await, Worker::new(bench).await);
    worker.step().await;
    assert!(!worker.link.is_redeemed("a").await.unwrap() && worker.link.redeem("a").await.unwrap());
    assert!(!worker.link.redeem("a").await.unwrap() && worker.link.is_redeemed("a").await.unwrap());
    assert!(!other.link.is_redeemed("a").await.unwrap());
    worker.link.rollback().await.unwrap();
    assert!(worker.link.redeem("a").await.unwrap() && !other.link.redeem("a").await.unwrap());
}

pub async fn losses_are_told_once(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.push(send(bench, "{}").await);
    }
    assert!(!worker.step().await.has_losses);
    worker.take_as(&Default::default(), |take| super::Take { limit: 1, ..take }).await.unwrap();
    worker.link.commit().await.unwrap();
    assert!(!worker.step().await.has_losses, "a step's own takes are none");
    worker.link.rollback().await.unwrap();
    for ids in [&sent[1..3], &sent[3..]] {
        let mut application = bench.begin().await;
        for id in ids {
            application.delete_message(*id).await;
        }
        application.commit().await;
    }
    assert!(worker.step().await.has_losses);
    let losses = worker.link.take_losses().await.unwrap();
    assert_eq!((losses.len(), losses[0].0.as_str(), losses[0].2), (1, "DELETE", 2), "one a transaction");
    assert!(worker.link.take_losses().await.unwrap().is_empty());
    worker.link.commit().await.unwrap();
    assert!(!worker.step().await.has_losses);
}

pub async fn the_catalog_is_watched(bench: &impl Bench) {
    let link = bench.connect().await;
    link.ensure().await.unwrap();
    let worker = Worker::new(bench).await;
    let seen = async || {
        worker.step().await;
        let seen = worker.link.fingerprint().await.unwrap();
        worker.link.rollback().await.unwrap();
        seen
    };
    assert!(worker.t().is_marked() && !worker.w().is_marked());
    put(bench, 1, "x").await;
    assert_eq!(seen().await, worker.known.fingerprint);
    link.begin(&[]).await.unwrap();
    assert!(link.fingerprint().await.is_err(), "nothing to compare it with");
    link.rollback().await.unwrap();
    bench.remake_column().await;
    let altered = seen().await;
    assert_ne!(altered, worker.known.fingerprint);
    assert_eq!(link.known().await.unwrap().fingerprint, altered);
}
