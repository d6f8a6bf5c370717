//! Messages: taking, giving back, keeping and putting back.

use super::{Bench, LONG, Place, Take, Worker, head, ids, put, send};
use pgflume::core::error::ErrorKind;
use pgflume::core::message::mark_of;
use pgflume::core::position::{Entry, Fate, Provenance};
use pgflume::postgres::link::Savepoint;
use pgflume::postgres::queue::{self, Paused};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// A batch of a replica's ledger.
pub fn entry(provenance: Provenance) -> Entry {
    let (parent, xid, lsn) = (String::new(), String::new(), String::new());
    Entry { head: head(1), parent, xid, lsn, images: Vec::new(), provenance: Arc::new(provenance) }
}

pub async fn ids_are_not_in_the_order_of_commits(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let (mut early, mut late) = (bench.begin().await, bench.begin().await);
    let first = early.send("1").await;
    let second = late.send("2").await;
    let third = early.send("3").await;
    assert!(first < second && second < third);
    late.commit().await;
    worker.step().await;
    assert_eq!(ids(&worker.take().await), [second]);
    early.commit().await;
    assert!(worker.take().await.messages.is_empty());
    worker.link.commit().await.unwrap();
    worker.step().await;
    let taking = worker.take().await;
    assert_eq!((ids(&taking), taking.has_more), (vec![first, third], false));
}

pub async fn a_take_leaves_what_it_was_told_to_leave(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let texts = [
        r#"{"v":1,"table":"t","keys":[["1"]]}"#,
        r#"{"type":"DELETE","table":"t","old_record":{"id":1}}"#,
        r#"{"v":1,"table":"w","keys":[["1"]]}"#,
        r#"{"type":"DELETE","table":"w","old_record":{"id":1}}"#,
        "[]",
        "null",
        r#"{"v":1,"table":7}"#,
        r#"{"v":null,"table":"t"}"#,
    ];
    let mut sent = Vec::new();
    for text in texts {
        sent.push(send(bench, text).await);
    }
    let cases = [
        (vec![], vec![], vec![0, 1, 2, 3, 4, 5, 6, 7]),
        (vec!["t"], vec![], vec![1, 2, 3, 4, 5, 6]),
        (vec!["t", "w"], vec!["w"], vec![1, 4, 5, 6]),
        (vec!["w"], vec!["w"], vec![0, 1, 4, 5, 6, 7]),
    ];
    for (marks, images, left) in cases {
        let paused = Paused { marks, images };
        worker.step().await;
        let taking = worker.take_as(&paused, |take| take).await.unwrap();
        let expected: Vec<i64> = left.iter().map(|&i| sent[i]).collect();
        assert_eq!((ids(&taking), taking.has_more), (expected, false), "{paused:?}");
        assert_eq!(worker.link.has_any().await.unwrap(), left.len() < sent.len());
        let after = worker.take_as(&paused, |take| Take { after: sent[3], ..take }).await.unwrap();
        assert!(after.messages.is_empty());
        worker.link.rollback().await.unwrap();
    }
    worker.step().await;
    let taking = worker.take_as(&Paused::default(), |take| Take { after: sent[5], ..take }).await.unwrap();
    assert_eq!(ids(&taking), sent[6..]);
    for message in &taking.messages {
        let place = sent.iter().position(|id| *id == message.msg_id).unwrap();
        assert_eq!(json(message.text.as_ref().unwrap()), json(texts[place]));
    }
}

pub async fn a_take_says_whether_there_is_more(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let mut sent = Vec::new();
    for i in 0..5 {
        sent.push(send(bench, &mark_of(if i == 4 { "w" } else { "t" }, &[vec![i.to_string()]])).await);
    }
    worker.step().await;
    let paused = Paused { marks: vec!["w"], images: vec![] };
    let part = async |after: i64, limit: i64| {
        let taking = worker.take_as(&paused, |take| Take { after, limit, ..take }).await.unwrap();
        (ids(&taking), taking.has_more)
    };
    assert_eq!(part(i64::MIN, 3).await, (sent[..3].to_vec(), true));
    send(bench, "[]").await;
    assert_eq!(part(sent[2], 3).await, (sent[3..4].to_vec(), false), "none that may be taken, at this snapshot");
    assert_eq!(part(sent[3], 3).await, (vec![], false));
}

pub async fn a_take_is_cut_where_it_has_bytes_enough(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    // Random enough for no compression to matter.
    let text = format!("\"{}\"", "x".repeat(3 * 1024 * 1024));
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(send(bench, &text).await);
    }
    worker.step().await;
    let taking = worker.take().await;
    assert_eq!((ids(&taking), taking.has_more), (sent[..2].to_vec(), true), "the one that exceeds them comes along");
    assert_eq!(ids(&worker.take().await), sent[2..]);
}

pub async fn a_message_that_is_too_large_comes_without_its_text(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let small = send(bench, "{}").await;
    let large = send(bench, &format!(r#"{{"table":"t","x":"{}"}}"#, "x".repeat(5_000))).await;
    worker.step().await;
    worker.link.savepoint(Savepoint::Take, None).await.unwrap();
    let taking = worker.take_as(&Paused::default(), |take| Take { most_bytes: 4_000, ..take }).await.unwrap();
    assert_eq!((ids(&taking), &taking.large), (vec![small, large], &vec![large]));
    assert!(taking.messages.iter().all(|message| message.text.is_none() == (message.msg_id == large)));
    worker.link.rollback_to(Savepoint::Take).await.unwrap();
    assert_eq!(worker.link.dead_letter_large(&[large, large + 1], "too large").await.unwrap(), 1);
    worker.link.commit().await.unwrap();
    assert_eq!(worker.queued().await, [small]);
    let snapshot = worker.step().await;
    assert_eq!(snapshot.dead.len(), 2);
    assert!(snapshot.dead[1] > 0 && !snapshot.has_losses);
    assert_eq!(worker.link.letters_of("t").await.unwrap().len(), 1);
}

pub async fn what_was_taken_is_given_back_but_for_what_is_acknowledged(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let mut sent = Vec::new();
    for text in ["1", "2", "3"] {
        sent.push(send(bench, text).await);
    }
    worker.step().await;
    worker.link.savepoint(Savepoint::Take, None).await.unwrap();
    assert_eq!(ids(&worker.take().await), sent);
    worker.link.rollback_to(Savepoint::Take).await.unwrap();
    let taken = worker.link.acknowledge(&sent[..2], false).await.unwrap();
    assert_eq!(taken.len(), 2);
    worker.link.release(Savepoint::Take).await.unwrap();
    worker.link.commit().await.unwrap();
    assert_eq!(worker.queued().await, sent[2..]);
    assert!(!worker.link.look().await.unwrap().has_losses);
}

pub async fn an_acknowledgement_gives_what_was_there_in_order(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let (first, second) = (send(bench, "1").await, send(bench, "2").await);
    worker.step().await;
    let taken = worker.link.acknowledge(&[second, first, second + 9], false).await.unwrap();
    let taken: Vec<_> = taken.iter().map(|message| (message.msg_id, message.text.as_deref())).collect();
    assert_eq!(taken, [(first, Some("1")), (second, Some("2"))]);
    assert!(worker.link.acknowledge(&[first], false).await.unwrap().is_empty());
}

pub async fn a_message_that_somebody_deleted_overtakes(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let (first, second) = (send(bench, "1").await, send(bench, "2").await);
    worker.step().await;
    let mut application = bench.begin().await;
    application.delete_message(second).await;
    application.commit().await;
    assert_eq!(worker.take_as(&Paused::default(), |take| Take { limit: 1, ..take }).await.unwrap().messages.len(), 1);
    let overtaken = worker.take_as(&Paused::default(), |take| take).await.unwrap_err();
    assert_eq!((overtaken.sqlstate(), overtaken.kind()), (Some("40001"), &ErrorKind::Overtaken));
    worker.link.rollback().await.unwrap();
    assert_eq!(worker.queued().await, [first]);
}

pub async fn a_message_that_somebody_has_read_overtakes(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let id = send(bench, "1").await;
    worker.step().await;
    let mut application = bench.begin().await;
    application.touch_message(id).await;
    application.commit().await;
    let overtaken = worker.link.acknowledge(&[id], false).await.unwrap_err();
    assert_eq!((overtaken.sqlstate(), overtaken.kind()), (Some("40001"), &ErrorKind::Overtaken));
    worker.link.rollback().await.unwrap();
    assert_eq!(worker.queued().await, [id], "it is taken whether or not it is hidden");
    assert!(!worker.link.look().await.unwrap().has_losses);
}

pub async fn a_message_that_somebody_holds_is_locked(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let id = send(bench, "1").await;
    let mut application = bench.begin().await;
    application.delete_message(id).await;
    worker.step().await;
    let locked = worker.take_as(&Paused::default(), |take| take).await.unwrap_err();
    assert_eq!((locked.sqlstate(), locked.kind()), (Some("55P03"), &ErrorKind::Locked));
    application.rollback().await;
    worker.link.rollback().await.unwrap();
    assert_eq!(worker.queued().await, [id]);
}

pub async fn what_is_kept_is_put_back_in_its_place(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let (link, before) = (&worker.link, worker.pair().await);
    let (first, second) = (send(bench, "1").await, send(bench, "2").await);
    for (after, next, id) in [(before.clone(), head(2), first), (head(2), head(3), second)] {
        let snapshot = worker.step().await;
        let taking = worker.take_as(&Paused::default(), |take| Take { keeps: true, limit: 1, ..take }).await.unwrap();
        assert_eq!(ids(&taking), [id]);
        let copied = BTreeSet::from(["w".to_owned()]);
        link.retain(&after, std::slice::from_ref(&next.token), &copied, LONG).await.unwrap();
        link.advance(&next, &snapshot.identity, false).await.unwrap();
        link.commit().await.unwrap();
    }
    let newer = send(bench, "3").await;
    worker.step().await;
    let kept = link.retained("e").await.unwrap();
    assert_eq!(kept.iter().map(|step| step.after.clone()).collect::<Vec<_>>(), [before, head(2)]);
    assert_eq!((&kept[1].tokens[..], &kept[1].copied[..]), (&["token 3".to_owned()][..], &["w".to_owned()][..]));
    assert!(link.retained("other").await.unwrap().is_empty());
    assert!(link.can_put_back("e", 1).await.unwrap());
    assert_eq!(link.put_back("other", 0).await.unwrap(), 0);
    assert_eq!(link.put_back("e", 2).await.unwrap(), 1);
    assert_eq!(link.put_back("e", 1).await.unwrap(), 1);
    assert!(link.retained("e").await.unwrap().is_empty());
    link.commit().await.unwrap();
    worker.step().await;
    let taking = worker.take().await;
    assert_eq!(ids(&taking), [first, second, newer]);
    let text = |id: i64| taking.messages.iter().find(|message| message.msg_id == id).unwrap().text.clone().unwrap();
    assert_eq!((text(first), text(second)), ("1".into(), "2".into()));
    assert!(send(bench, "4").await > newer);
}

pub async fn what_is_older_than_the_window_is_forgotten(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let (link, before) = (&worker.link, worker.pair().await);
    let keep = async |seq: i64, window: Duration| {
        worker.step().await;
        link.retain(&head(seq), &["x".to_owned()], &BTreeSet::new(), window).await.unwrap();
        let kept = link.retained("e").await.unwrap().iter().map(|step| step.after.seq).collect::<Vec<_>>();
        link.commit().await.unwrap();
        kept
    };
    assert_eq!(keep(before.seq, LONG).await, [1]);
    assert_eq!(keep(2, LONG).await, [1, 2]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(keep(2, Duration::from_millis(1)).await, [2, 2], "whole steps only");
    assert_eq!(keep(3, LONG).await, [2, 2, 3]);
    worker.step().await;
    let identity = link.look().await.unwrap().identity;
    link.pair(&head(4), &identity, "here").await.unwrap();
    assert!(link.retained("e").await.unwrap().is_empty());
}

pub async fn what_is_sent_again_has_its_id_where_that_is_free(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let (first, second) = (send(bench, "1").await, send(bench, "2").await);
    worker.step().await;
    worker.link.acknowledge(&[first], false).await.unwrap();
    let again = [(Some(first), "11"), (Some(second), "22"), (Some(second + 50), "33"), (None, "44")];
    let again: Vec<_> = again.into_iter().map(|(id, text)| (id, text.to_owned())).collect();
    worker.link.send_again(&again).await.unwrap();
    worker.link.commit().await.unwrap();
    worker.step().await;
    let mut taken: Vec<_> = worker.take().await.messages.into_iter().map(|m| (m.msg_id, m.text.unwrap())).collect();
    taken.sort_unstable();
    let texts: Vec<_> = taken.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["11", "2", "22", "33", "44"]);
    assert_eq!((taken[0].0, taken[1].0), (first, second));
    assert!(taken[2].0 > second && taken[4].0 < second + 50);
}

pub async fn marks_are_messages_like_others(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    worker.step().await;
    let keys: Vec<_> = (0..501).map(|i| vec![i.to_string()]).collect();
    assert_eq!(worker.link.mark("t", &keys).await.unwrap(), 2);
    assert_eq!(worker.link.mark("t", &[]).await.unwrap(), 0);
    assert!(worker.link.has_any().await.unwrap());
    let mut taken = worker.take().await.messages;
    taken.sort_unstable_by_key(|message| message.msg_id);
    let texts: Vec<_> = taken.iter().map(|message| json(message.text.as_ref().unwrap())).collect();
    assert_eq!(texts, [json(&mark_of("t", &keys[..500])), json(&mark_of("t", &keys[500..]))]);
}

pub async fn the_queue_is_counted(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let counted = async || {
        let (depth, counted) = (worker.link.depth().await.unwrap(), worker.link.counted().await.unwrap());
        (worker.link.peek().await.unwrap(), depth, counted, worker.link.has_any().await.unwrap())
    };
    assert_eq!(counted().await, (false, 0, Some(0), false));
    send(bench, "1").await;
    send(bench, "2").await;
    assert_eq!(counted().await, (true, 2, Some(2), true));
    let mut application = bench.begin().await;
    assert!(application.lock(Place::Queue, LONG).await);
    assert_eq!((worker.link.counted().await.unwrap(), worker.link.depth().await.unwrap()), (None, 1));
    let locked = worker.link.peek().await.unwrap_err();
    assert_eq!((locked.sqlstate(), locked.kind()), (Some("55P03"), &ErrorKind::Locked));
    application.rollback().await;
    assert_eq!(counted().await.1, 2);
}

pub async fn fates_are_told_by_what_is_queued(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    for text in ["1", r#"{"b":1,"a":2}"#, "3"] {
        send(bench, text).await;
    }
    worker.step().await;
    worker.link.savepoint(Savepoint::Take, None).await.unwrap();
    let mut taken = worker.take().await.messages;
    taken.sort_unstable_by_key(|message| message.msg_id);
    let part = |range: std::ops::Range<usize>| entry(queue::provenance(taken[range].iter()));
    let mut other = queue::provenance(taken[..1].iter());
    other.digest.replace_range(..1, if other.digest.starts_with('0') { "1" } else { "0" });
    let entries = [part(0..2), part(0..2), part(2..3), entry(other)];
    assert_eq!(worker.link.fates(&entries).await.unwrap(), [Fate::Lost; 4]);
    worker.link.rollback_to(Savepoint::Take).await.unwrap();
    let queued = [Fate::Queued, Fate::Queued, Fate::Queued, Fate::Lost];
    assert_eq!(worker.link.fates(&entries).await.unwrap(), queued);
    worker.link.acknowledge(&[taken[0].msg_id], false).await.unwrap();
    assert_eq!(worker.link.fates(&entries).await.unwrap(), [Fate::Lost, Fate::Lost, Fate::Queued, Fate::Lost]);
}

pub async fn triggers_mark_what_changed(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let mut application = bench.begin().await;
    application.put(1, "a").await;
    application.put(1, "a").await;
    application.put(1, "b").await;
    application.rekey(1, 2).await;
    application.delete(2).await;
    application.delete(2).await;
    application.commit().await;
    put(bench, 3, "x").await;
    let mut application = bench.begin().await;
    assert!(application.truncate(LONG).await);
    application.commit().await;
    let mut application = bench.begin().await;
    application.put(9, "x").await;
    application.rollback().await;
    worker.step().await;
    let mut taken = worker.take().await.messages;
    taken.sort_unstable_by_key(|message| message.msg_id);
    let texts: Vec<_> = taken.iter().map(|message| json(message.text.as_ref().unwrap())).collect();
    let mark = |keys: &[&str]| json(&mark_of("t", &keys.iter().map(|key| vec![(*key).to_owned()]).collect::<Vec<_>>()));
    let truncated = json(r#"{"v":1,"table":"t","truncate":true}"#);
    assert_eq!(texts, [mark(&["1"]), mark(&["1"]), mark(&["1", "2"]), mark(&["2"]), mark(&["3"]), truncated]);
}
