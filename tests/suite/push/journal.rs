//! A request that is sent again is answered again, and done once, whatever was cut meanwhile.

use super::{Written, new, push_to, statuses, update};
use crate::parts::Proxy;
use crate::support::{Db, until};
use pgflume::push::Failure;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Writes down each row that was written, as often as it was.
const AUDIT: &str = "
    create table audit (id text, what text);
    create function audit() returns trigger language plpgsql as $$
        begin insert into public.audit values (new.id, new.title); return new; end $$;
    create trigger audit after insert or update on todos for each row execute function audit()";

fn audited() -> String {
    format!("{}; {AUDIT}", super::TODOS)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_answered_again_and_done_once() {
    let written = Written::with(&audited(), &super::todos("")).await;
    let first = written.ann("k", json!([new("1", "x")])).await;
    let again = written.ann("k", json!([new("1", "x")])).await;
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!((&first["txid"], &first["results"]), (&again["txid"], &again["results"]));
    let refused = written.ann("bad", json!([new("2", "bad")])).await;
    written.db.sql("alter table todos drop constraint todos_title_check").await;
    let again = written.ann("bad", json!([new("2", "bad")])).await;
    assert_eq!(
        (&again["duplicate"], &again["results"]),
        (&json!(true), &refused["results"]),
        "what is refused stays so"
    );
    let conflict = || update("1", json!({"title": "y"}), json!({"title": "z"}));
    let told = written.ann("conflict", json!([conflict()])).await;
    written.db.sql("update todos set title = 'z'").await;
    assert_eq!(written.ann("conflict", json!([conflict()])).await["results"], told["results"]);
    assert_eq!(written.db.one("select count(*) from audit where id = '1'").await, "2", "ours, and the update beside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_its_first_users_and_stands_for_one_request() {
    let written = Written::todos("").await;
    written.ann("k", json!([new("1", "x")])).await;
    let bob = written.push(&written.claims("bob", "a"), "k", json!([new("1", "x")])).await;
    assert!(matches!(bob, Err(Failure::KeyTaken)), "{bob:?}");
    let other = written.push(&written.claims("ann", "a"), "k", json!([new("2", "x")])).await;
    assert!(matches!(other, Err(Failure::KeyTaken)), "{other:?}");
    assert_eq!(written.db.one("select count(*) from todos").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_with_one_key_write_once() {
    let written = Written::with(&audited(), &super::todos("")).await;
    let all = (0..20).map(|_| written.ann("k", json!([new("1", "x")])));
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| answer["duplicate"] == false).count(), 1);
    let txids: BTreeSet<u64> = answers.iter().map(|answer| answer["txid"].as_u64().unwrap()).collect();
    assert_eq!(txids.len(), 1);
    assert_eq!(written.db.all("select id from audit").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_killed_before_the_commit_has_written_nothing() {
    let written = Written::with(&audited(), &super::todos("")).await;
    written.ann("0", json!([new("1", "x")])).await;
    let other = written.existing().await;
    other.sql("begin; lock table todos in share mode").await;
    let ann = written.claims("ann", "a");
    let pushing = written.push(&ann, "k", json!([new("2", "x")]));
    let killing = async {
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where datname = current_database() and application_name like '% push' and wait_event_type = 'Lock'";
        until("it waits, and is killed", async || written.db.one(kill).await == "1").await;
        other.sql("rollback").await;
    };
    let (cut, ()) = futures_util::join!(pushing, killing);
    assert!(matches!(cut, Err(Failure::Again(_))), "{cut:?}");
    assert_eq!(written.db.one("select count(*) from pgflume.pushes").await, "1");
    let again = written.ann("k", json!([new("2", "x")])).await;
    assert_eq!((statuses(&again), &again["duplicate"]), (vec!["applied"], &json!(false)));
    assert_eq!(written.db.all("select id from audit order by 1").await, ["1", "2"]);
}

/// A commit that waits for a standby which never comes is on disk, and its session can be ended while it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_was_told_is_found_in_the_journal() {
    let cluster = crate::intruders::cluster_of_its_own();
    let db = Db::named("untold".to_owned(), cluster, "with_pgmq").await;
    let written = Written::on(db, &audited(), &super::todos("")).await;
    written.db.sql("alter system set synchronous_standby_names = 'nobody'").await;
    written.db.sql("select pg_reload_conf()").await;
    until("commits wait", async || {
        written.db.one("select current_setting('synchronous_standby_names')").await == "nobody"
    })
    .await;
    let ann = written.claims("ann", "a");
    let pushing = written.push(&ann, "k", json!([new("1", "x")]));
    let killing = async {
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where application_name like '% push' and wait_event = 'SyncRep'";
        until("its commit waits, and it is killed", async || written.db.one(kill).await == "1").await;
    };
    let (cut, ()) = futures_util::join!(pushing, killing);
    assert!(matches!(cut, Err(Failure::Again(_))), "{cut:?}");
    written.db.sql("alter system reset synchronous_standby_names").await;
    written.db.sql("select pg_reload_conf()").await;
    let again = written.ann("k", json!([new("1", "x")])).await;
    assert_eq!((statuses(&again), &again["duplicate"]), (vec!["applied"], &json!(true)));
    assert_eq!(written.db.all("select id from audit").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_a_lock_and_a_time_out_are_to_be_tried_again() {
    let is_again = |tried: Result<Value, Failure>| assert!(matches!(tried, Err(Failure::Again(_))), "{tried:?}");
    let slow = "create function slow() returns trigger language plpgsql as $$
            begin if new.title = 'slow' then perform pg_catalog.pg_sleep(60); end if;
                  if new.title = 'serial' then raise exception using errcode = '40001'; end if; return new; end $$;
        create trigger slow before insert on todos for each row execute function slow()";
    let written = Written::with(&format!("{}; {slow}", super::TODOS), &super::todos("")).await;
    let ann = written.claims("ann", "a");
    let (slow, serial) = futures_util::join!(
        written.push(&ann, "slow", json!([new("1", "slow")])),
        written.push(&ann, "serial", json!([new("2", "serial")]))
    );
    is_again(slow);
    is_again(serial);
    written.db.sql("begin; lock table todos").await;
    is_again(written.push(&ann, "locked", json!([new("3", "x")])).await);
    written.db.sql("rollback; insert into todos (id, org, title) values ('a', 'a', 'x'), ('b', 'a', 'x')").await;
    let other = written.existing().await;
    other.sql("set deadlock_timeout = '1min'; begin; update todos set title = 'y' where id = 'b'").await;
    let change = |id: &str| update(id, json!({"note": "x"}), json!({"note": null}));
    let closing = async {
        let waits = "select count(*) from pg_stat_activity where datname = current_database() and application_name like '% push' and wait_event_type = 'Lock'";
        until("it waits for the other", async || written.db.one(waits).await == "1").await;
        other.sql("update todos set title = 'y' where id = 'a'; rollback").await;
    };
    is_again(futures_util::join!(written.push(&ann, "deadlock", json!([change("a"), change("b")])), closing).0);
    assert_eq!(written.db.one("select count(*) from pgflume.pushes").await, "0");
    assert_eq!(statuses(&written.ann("locked", json!([new("3", "x")])).await), ["applied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_and_what_is_not_stays() {
    let written = Written::todos("").await;
    let fill = "insert into pgflume.pushes (client, key, digest, at, result)
                select 'old', i, '', now() - interval '8 days', '{}' from generate_series(1, 15000) i;
                insert into pgflume.pushes (client, key, digest, at, result) values ('c', 'kept', '', now() - interval '6 days', '{}')";
    written.db.sql(fill).await;
    let mut pushed = 0;
    until("the old ones are gone", async || {
        pushed += 1;
        let id = format!("p{pushed}");
        written.ann(&id, json!([new(&id, "x")])).await;
        written.db.one("select count(*) from pgflume.pushes where client = 'old'").await == "0"
    })
    .await;
    assert_eq!(pushed, 2, "ten thousand at a time");
    assert_eq!(written.db.one("select count(*) from pgflume.pushes").await, "3");
}

/// Clients that send again whatever is cut, while connections are: killed by Postgres, and dropped on their way.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_hundred_is_done_once_while_connections_are_cut() {
    let written = Arc::new(Written::with(&audited(), &super::todos("")).await);
    let port = written.db.cluster().port();
    let proxy = Proxy::start(port);
    let url = written.db.url().replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let pushes = Arc::new(Written::pushes_at(&url, &written.login, &written.schema));
    let is_done = AtomicBool::new(false);
    let cuts = std::cell::Cell::new(0);
    let cutting = async {
        let mut random = rand::rngs::StdRng::seed_from_u64(16);
        let killer = Written::existing(&written).await;
        while !is_done.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(random.random_range(2..25))).await;
            cuts.set(cuts.get() + 1);
            match random.random_range(0..3) {
                0 => proxy.drop_connections(),
                _ => drop(killer.all("select pg_terminate_backend(pid) from (select pid from pg_stat_activity where datname = current_database() and application_name like '% push' order by random() limit 2) x").await),
            }
        }
    };
    let clients = (0..8).map(|client| {
        let (pushes, written) = (pushes.clone(), written.clone());
        tokio::spawn(async move {
            let (mut tries, mut told) = (0, 0);
            for n in (client..200).step_by(8) {
                let (key, id) = (format!("k{n}"), n.to_string());
                loop {
                    tries += 1;
                    assert!(tries < 20_000, "it never ends");
                    match push_to(&pushes, &written.claims("ann", "a"), &key, json!([new(&id, "x")])).await {
                        Ok(answer) => {
                            assert_eq!(statuses(&answer), ["applied"], "{answer}");
                            told += u32::from(answer["duplicate"] == Value::Bool(true));
                            break;
                        }
                        Err(Failure::Again(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            (tries, told)
        })
    });
    let finishing = async {
        let done = futures_util::future::join_all(clients.collect::<Vec<_>>()).await;
        is_done.store(true, Ordering::Relaxed);
        done.into_iter().map(Result::unwrap).fold((0, 0), |(a, b), (tries, told)| (a + tries, b + told))
    };
    let ((tries, told), ()) = futures_util::join!(finishing, cutting);
    println!("{} cuts, {tries} tries, {told} found in the journal", cuts.get());
    assert!(tries > 200, "nothing was cut");
    assert_eq!(written.db.one("select count(*) from todos").await, "200");
    let twice = "select coalesce(max(n), 0) from (select count(*) n from audit group by id) x";
    assert_eq!(
        (written.db.one("select count(*) from audit").await, written.db.one(twice).await),
        ("200".into(), "1".into())
    );
}
