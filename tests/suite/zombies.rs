//! Requests that reach sqld after their time: each is held in a proxy, and delivered when the world has moved on.

use crate::parts::{Fault, Proxy};
use crate::snapshot::write_by_hand;
use crate::support::{Db, Home, Path, Rig, config, repository_schema};
use pgflume::replica::target::Target;
use pgflume::sync::{Worker, pairing};
use std::time::Duration;

/// A worker behind a proxy, another without, and the port behind it.
async fn rig() -> (Rig, Worker, Proxy, u16) {
    let home = Home::new(Path::Sqld);
    let Target::Remote { url, token } = home.target() else { unreachable!() };
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port);
    let db = Db::new().await;
    let late = Target::Remote { url: proxy.url(), token };
    let zombie = Worker::new(config(&db.url(), late, repository_schema()));
    (Rig::with(db, home, repository_schema()), zombie, proxy, port)
}

fn insert(name: &str) -> String {
    format!(r#"{{"type":"UPDATE","table":"orgs","record":{{"id":"a","name":"{name}"}},"old_record":{{"id":"a"}}}}"#)
}

/// A drain of `zombie` whose writing request stays in the proxy; it does not know what became of it.
async fn drain_with_the_write_held(zombie: &Worker, proxy: &Proxy) {
    proxy.set(Fault::HoldWrite);
    let done = zombie.drain(Duration::ZERO).await;
    assert!(done.is_err(), "the outcome was to be unknown: {done:?}");
    proxy.set(Fault::Pass);
    assert_eq!(proxy.held(), 1, "one write was to be held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_after_another_worker_went_on_changes_nothing() {
    let (rig, zombie, proxy, port) = rig().await;
    rig.db.send(&insert("first")).await;
    rig.drain().await;
    rig.db.send(&insert("late")).await;
    drain_with_the_write_held(&zombie, &proxy).await;
    rig.db.send(&insert("newer")).await;
    rig.drain().await;
    let before = rig.rows("SELECT seq, token FROM _pgflume_head").await;
    proxy.deliver(port);
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["newer"]);
    assert_eq!(rig.rows("SELECT seq, token FROM _pgflume_head").await, before);
    rig.db.send(&insert("newest")).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["newest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_after_its_worker_gave_up_is_known_to_whoever_comes_next() {
    let (rig, zombie, proxy, port) = rig().await;
    rig.db.send(&insert("first")).await;
    rig.drain().await;
    rig.db.send(&insert("late")).await;
    drain_with_the_write_held(&zombie, &proxy).await;
    // Nobody went on: the request is as good as it was, and the ledger says what it did.
    proxy.deliver(port);
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["late"]);
    rig.db.send(&insert("newer")).await;
    let done = rig.drain().await;
    assert_eq!((done.processed, done.queued), (2, 0));
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["newer"]);
    assert_eq!(rig.db.one("select healed_from from pgflume.progress").await, "NULL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_an_older_epoch_changes_nothing() {
    let (rig, zombie, proxy, port) = rig().await;
    rig.db.send(&insert("first")).await;
    rig.drain().await;
    rig.db.send(&insert("late")).await;
    drain_with_the_write_held(&zombie, &proxy).await;
    pairing::nuke(&rig.worker, None, false).await.unwrap();
    proxy.deliver(port);
    assert_eq!(rig.rows("SELECT count(*) FROM orgs").await, ["0"], "empty as the nuke left it");
    rig.drain().await;
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["late"], "the message was still queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_just_after_the_replica_lost_its_tail_changes_nothing() {
    let (rig, zombie, proxy, port) = rig().await;
    for name in ["first", "second"] {
        rig.db.send(&insert(name)).await;
        rig.drain().await;
    }
    rig.db.send(&insert("late")).await;
    drain_with_the_write_held(&zombie, &proxy).await;
    let older = "UPDATE _pgflume_head SET seq = seq - 1, token = (SELECT parent FROM _pgflume_ledger l WHERE l.seq = _pgflume_head.seq)";
    write_by_hand(&rig, older).await;
    write_by_hand(&rig, "UPDATE orgs SET name = 'first'").await;
    let answers = proxy.deliver(port);
    assert!(answers[0].contains("200 OK"), "{answers:?}");
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["first"], "no row on top of a gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_delivered_twice_is_applied_once() {
    let (rig, zombie, proxy, port) = rig().await;
    rig.db.send(&insert("first")).await;
    rig.drain().await;
    rig.db.send(&insert("twice")).await;
    drain_with_the_write_held(&zombie, &proxy).await;
    proxy.deliver(port);
    proxy.deliver(port);
    write_by_hand(&rig, "UPDATE orgs SET name = 'by hand'").await;
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT name FROM orgs").await, ["by hand"]);
}
