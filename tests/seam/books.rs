//! Dead letters, rebuilds, comparisons and definitions.

use super::{Bench, Worker};
use pgflume::core::message::MarkedKey;
use pgflume::postgres::books::comparisons::{self, Pass};
use pgflume::postgres::books::dead_letters::{Dead, DeadLetter, Refusal, Superseded};
use pgflume::postgres::books::rebuilds::{Phase, Reason, Rebuild};
use pgflume::postgres::queue::Taken;
use std::collections::BTreeSet;
use std::time::Duration;

/// So that two times differ.
const MOMENT: Duration = Duration::from_millis(1);

fn key(key: &str) -> MarkedKey {
    vec![key.to_owned()]
}

fn of_key(name: &str, problem: &str) -> DeadLetter {
    DeadLetter::of_key("t", vec![Some(name.to_owned())], Refusal::Value, problem)
}

fn of_message(keys: &[&str], msg_id: i64) -> DeadLetter {
    let taken = Taken { msg_id, text: Some("{}".into()), is_damaged: false, age_seconds: 0.0 };
    DeadLetter::of_message(Some("t"), keys.iter().map(|one| key(one)).collect(), &taken, Refusal::Message, "odd")
}

/// Writes letters, and gives the id of the last.
async fn bury(worker: &Worker, letters: &[DeadLetter]) -> i64 {
    let known = worker.link.supersedable().await.unwrap();
    worker.link.dead_letter(letters, &known).await.unwrap();
    worker.link.look().await.unwrap().dead[1]
}

pub async fn letters_are_told_once(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    assert_eq!(worker.step().await.dead, [0, 0]);
    assert_eq!(bury(&worker, &[]).await, 0);
    let first = bury(&worker, &[of_key("1", "odd"), of_key("1", "odd")]).await;
    assert!(first > 0);
    assert_eq!(worker.link.letters_of("t").await.unwrap().len(), 1, "the same is said once");
    assert_eq!(bury(&worker, &[of_key("1", "odd")]).await, first, "and not again");
    let second = bury(&worker, &[of_key("1", "odder"), of_key("2", "odd")]).await;
    assert_eq!(second, first + 2, "another reason, another key");
    bury(&worker, &[of_message(&["1"], 7)]).await;
    bury(&worker, &[of_message(&["1"], 7)]).await;
    assert_eq!(worker.link.letters_of("t").await.unwrap().len(), 5, "messages are told each time");
    worker.link.rollback().await.unwrap();
    assert!(worker.link.supersedable().await.unwrap().is_empty());
}

pub async fn letters_are_superseded_wholly_or_in_part(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    worker.step().await;
    let message = bury(&worker, &[of_message(&["1", "2"], 7)]).await;
    let single = bury(&worker, &[of_key("1", "odd")]).await;
    let covered = async |keys: &[&str], newer: Option<i64>| {
        let mut known = worker.link.supersedable().await.unwrap();
        keys.iter().for_each(|one| known.cover("t", &key(one), newer));
        known.superseded()
    };
    assert!(covered(&["3"], None).await.wholly.is_empty());
    let older = covered(&["2"], Some(7)).await;
    assert!(older.wholly.is_empty() && older.partly.is_empty());
    let by_first = covered(&["1"], Some(8)).await;
    assert_eq!(
        (&by_first.wholly[..], &by_first.partly[..]),
        (&[single][..], &[(message, BTreeSet::from([key("1")]))][..])
    );
    assert_eq!(worker.link.supersede(&by_first).await.unwrap(), 1);
    assert_eq!(worker.link.supersede(&Superseded::default()).await.unwrap(), 0);
    let again = covered(&["1"], None).await;
    assert!(again.wholly.is_empty() && again.partly.is_empty(), "it is noted on the letter");
    let by_second = covered(&["2"], None).await;
    assert_eq!(by_second.wholly, [message]);
    assert_eq!(worker.link.supersede(&by_second).await.unwrap(), 1);
    assert_eq!(worker.link.supersede(&by_second).await.unwrap(), 0);
    assert!(worker.link.supersedable().await.unwrap().is_empty());
}

pub async fn letters_of_a_table_tell_keys(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    worker.step().await;
    let of_target = DeadLetter::of_key("t", vec![Some("2".into())], Refusal::Target, "odd");
    let of_null = DeadLetter::of_key("t", vec![None], Refusal::Value, "odd");
    let mut of_nothing = of_message(&["3"], 8);
    of_nothing.message = None;
    let elsewhere = DeadLetter::of_key("w", vec![Some("9".into())], Refusal::Value, "odd");
    bury(&worker, &[of_key("1", "odd"), of_target, of_null, of_message(&["3"], 7), of_nothing, elsewhere]).await;
    let tell = |dead: &Dead| match dead {
        Dead::Key(key) => format!("key {key:?}"),
        Dead::Target(key) => format!("target {key:?}"),
        Dead::Message(text, _) => text.clone(),
    };
    let mut told: Vec<_> = worker.link.letters_of("t").await.unwrap().iter().map(tell).collect();
    told.sort_unstable();
    assert_eq!(told, [r#"key [""]"#, r#"key ["1"]"#, r#"target ["2"]"#, "{}"]);
}

async fn pending(worker: &Worker) -> Vec<Rebuild> {
    worker.link.pending().await.unwrap()
}

/// Begins a step of which nothing is asked yet.
async fn calm(bench: &impl Bench) -> Worker {
    let worker = Worker::new(bench).await;
    worker.link.cancel_rebuilds().await.unwrap();
    assert!(!worker.step().await.is_rebuilding);
    worker
}

/// A copy that has come far.
fn far(rebuild: &Rebuild) -> Rebuild {
    Rebuild {
        cursor: Some(key("7")),
        rows: 10,
        removed: 2,
        estimated: Some(100),
        busy_ms: 5,
        problem: Some("slow".into()),
        unfit: 3,
        ordered_by: Some("id".into()),
        ..rebuild.clone()
    }
}

pub async fn rebuilds_are_asked_for_and_recorded(bench: &impl Bench) {
    let worker = calm(bench).await;
    let link = &worker.link;
    link.schedule(&["w", "w"], Reason::Request).await.unwrap();
    link.commit().await.unwrap();
    tokio::time::sleep(MOMENT).await;
    assert!(worker.step().await.is_rebuilding);
    link.schedule(&["t"], Reason::Evolve).await.unwrap();
    let names: Vec<_> = pending(&worker).await.into_iter().map(|rebuild| rebuild.name).collect();
    assert_eq!((names, link.rebuilding().await.unwrap()), (vec!["w".to_owned(), "t".to_owned()], 2));
    let new = pending(&worker).await.remove(0);
    assert_eq!((new.phase, new.cursor.clone(), new.fresh, new.rows), (Phase::Copy, None, false, 0));
    let far = far(&new);
    link.record_rebuild(&far).await.unwrap();
    assert_eq!(pending(&worker).await[0], far);
    link.record_rebuild(&Rebuild { phase: Phase::Done, ..far.clone() }).await.unwrap();
    link.record_rebuild(&Rebuild { name: "unknown".into(), ..far.clone() }).await.unwrap();
    assert_eq!((pending(&worker).await.len(), link.rebuilding().await.unwrap()), (1, 1));
    link.commit().await.unwrap();
    tokio::time::sleep(MOMENT).await;
    worker.step().await;
    link.schedule(&["w"], Reason::Nuke).await.unwrap();
    let again = pending(&worker).await.remove(1);
    let ordered_by = far.ordered_by.clone();
    assert_eq!(again, Rebuild { ordered_by, ..new }, "from the start, behind the others");
}

pub async fn an_empty_table_is_noted_before_its_copy_begins(bench: &impl Bench) {
    let worker = calm(bench).await;
    let link = &worker.link;
    link.schedule(&["t", "w"], Reason::Request).await.unwrap();
    let empty = async || pending(&worker).await.into_iter().map(|rebuild| rebuild.fresh).collect::<Vec<_>>();
    assert_eq!(empty().await, [false, false]);
    link.note_empty(&["t", "w", "unknown"]).await.unwrap();
    assert_eq!(empty().await, [true, true]);
    let [t, w] = <[Rebuild; 2]>::try_from(pending(&worker).await).unwrap();
    link.record_rebuild(&far(&t)).await.unwrap();
    link.record_rebuild(&Rebuild { fresh: false, ..far(&w) }).await.unwrap();
    assert_eq!(empty().await, [true, false], "one whose key has changed begins anew");
    link.note_empty(&["t", "w"]).await.unwrap();
    assert_eq!(empty().await, [true, false], "not once it has begun");
    link.schedule(&["t"], Reason::Request).await.unwrap();
    link.schedule_sweep("w").await.unwrap();
    assert_eq!(empty().await, [false, false]);
}

pub async fn a_sweep_joins_what_is_under_way(bench: &impl Bench) {
    let worker = calm(bench).await;
    let link = &worker.link;
    link.schedule_sweep("t").await.unwrap();
    let new = pending(&worker).await.remove(0);
    assert_eq!((new.phase, new.cursor.clone(), new.fresh), (Phase::Sweep, None, false));
    let far = far(&new);
    for (before, after, has_cursor, is_new) in [
        (Phase::Copy, Phase::Copy, true, false),
        (Phase::Failed, Phase::Copy, false, false),
        (Phase::Sweep, Phase::Sweep, false, false),
        (Phase::Done, Phase::Sweep, false, true),
    ] {
        link.record_rebuild(&Rebuild { phase: before, ..far.clone() }).await.unwrap();
        link.schedule_sweep("t").await.unwrap();
        let mut expected = Rebuild { phase: after, problem: None, unfit: 0, ..far.clone() };
        expected.cursor = expected.cursor.filter(|_| has_cursor);
        if is_new {
            (expected.rows, expected.removed, expected.busy_ms) = (0, 0, 0);
        }
        assert_eq!(pending(&worker).await, [expected], "{before:?}");
    }
}

pub async fn rebuilds_begin_anew_or_are_forgotten(bench: &impl Bench) {
    let worker = calm(bench).await;
    let link = &worker.link;
    link.schedule(&["t", "w"], Reason::Request).await.unwrap();
    for rebuild in pending(&worker).await {
        link.record_rebuild(&Rebuild { phase: Phase::Done, ..far(&rebuild) }).await.unwrap();
    }
    assert!(pending(&worker).await.is_empty());
    link.restart_rebuilds().await.unwrap();
    let again = pending(&worker).await;
    assert_eq!(again.len(), 2);
    for rebuild in again {
        assert_eq!((rebuild.phase, rebuild.cursor, rebuild.fresh), (Phase::Copy, None, false));
        assert_eq!((rebuild.rows, rebuild.removed, rebuild.estimated, rebuild.busy_ms), (0, 0, None, 0));
        assert_eq!((rebuild.problem, rebuild.unfit, rebuild.ordered_by.as_deref()), (None, 0, Some("id")));
    }
    link.cancel_rebuilds().await.unwrap();
    link.restart_rebuilds().await.unwrap();
    assert!(pending(&worker).await.is_empty());
}

pub async fn a_problem_is_noted_on_what_waits(bench: &impl Bench) {
    let worker = calm(bench).await;
    let link = &worker.link;
    link.set_problem("t", "no table").await.unwrap();
    link.schedule(&["t"], Reason::Request).await.unwrap();
    assert_eq!(pending(&worker).await[0].problem, None);
    link.set_problem("t", "no right").await.unwrap();
    let mut waits = pending(&worker).await.remove(0);
    assert_eq!(waits.problem.as_deref(), Some("no right"));
    waits.phase = Phase::Done;
    link.record_rebuild(&waits).await.unwrap();
    link.set_problem("t", "no reason").await.unwrap();
    link.schedule_sweep("t").await.unwrap();
    assert_eq!(pending(&worker).await[0].problem, None);
}

pub async fn comparisons_go_on_where_they_were(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    let link = &worker.link;
    worker.step().await;
    let load = async |ordering: &str| link.comparison("t", ordering).await.unwrap();
    assert_eq!(load("id").await, Pass::default());
    let mut pass = Pass { phase: comparisons::Phase::Compare, cursor: Some(key("5")), rows: 5, different: 1 };
    link.record_comparison("t", &pass, "id").await.unwrap();
    assert_eq!((load("id").await, load("other").await), (pass.clone(), Pass::default()));
    pass = Pass { phase: comparisons::Phase::Sweep, rows: 9, ..pass };
    link.record_comparison("t", &pass, "other").await.unwrap();
    assert_eq!((load("id").await, load("other").await), (Pass::default(), pass.clone()));
    link.record_comparison("t", &Pass { phase: comparisons::Phase::Done, ..pass.clone() }, "other").await.unwrap();
    assert_eq!(load("other").await, pass, "what is done is finished by another call");
    link.finish_comparison("t", &pass, None).await.unwrap();
    link.finish_comparison("w", &pass, Some(1.5)).await.unwrap();
    assert_eq!((load("other").await, link.comparison("w", "id").await.unwrap()), (Pass::default(), Pass::default()));
    link.record_comparison("t", &pass, "id").await.unwrap();
    link.forget_compared().await.unwrap();
    assert_eq!(load("id").await, Pass::default());
    link.record_comparison("t", &pass, "id").await.unwrap();
    let identity = link.look().await.unwrap().identity;
    link.pair(&super::head(1), &identity, "here").await.unwrap();
    assert_eq!(load("id").await, Pass::default(), "another replica");
}

pub async fn definitions_succeed_each_other(bench: &impl Bench) {
    let mut worker = Worker::new(bench).await;
    assert_eq!(worker.step().await.definition_version, None);
    assert!(worker.link.recorded_definitions().await.unwrap().is_empty());
    assert!(worker.link.record_definitions(&worker.known.definition_version).await.unwrap().is_empty());
    worker.link.commit().await.unwrap();
    let first = worker.step().await.definition_version;
    assert_eq!(first.as_deref(), Some(worker.known.definition_version.hash()));
    let kept = worker.link.recorded_definitions().await.unwrap();
    assert_eq!(kept, BTreeSet::from(["t".to_owned(), "w".to_owned()]));
    assert!(worker.link.record_definitions(&worker.known.definition_version).await.unwrap().is_empty());
    worker.link.commit().await.unwrap();
    bench.remake_column().await;
    worker.known = worker.link.known().await.unwrap();
    worker.step().await;
    let outgrown = worker.link.record_definitions(&worker.known.definition_version).await.unwrap();
    assert_eq!(outgrown.iter().map(|one| (one.table.as_str(), one.is_swept)).collect::<Vec<_>>(), [("t", false)]);
    worker.link.commit().await.unwrap();
    assert_ne!(worker.step().await.definition_version, first);
    assert!(worker.link.record_definitions(&worker.known.definition_version).await.unwrap().is_empty());
}
