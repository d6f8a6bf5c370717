//! Several workers of one Postgres: a queue each, its own tables in its own replica, a table that two queues have,
//! and what is refused.

use crate::parts::{Program, Sqld, SqldOptions};
use crate::store::show;
use crate::support::{Db, Home, Path, until};
use pgflume::core::secret::Secret;
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use std::sync::atomic::{AtomicUsize, Ordering};

const ORDERS: &str = r#""orders":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}"#;
const ITEMS: &str = r#""items":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}"#;
/// In both queues' files, and not the same columns.
const WHOLE: &str = r#""shared":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}"#;
const NARROW: &str = r#""shared":{"primaryKey":"id","columns":{"id":"INTEGER"},"where":"id > 0"}"#;

const TABLES: &str =
    "create table orders (id int primary key, v text); create table items (id int primary key, v text);
    create table shared (id int primary key, v text);
    insert into orders select -i, 'old' from generate_series(1, 30) i;
    insert into items select -i, 'old' from generate_series(1, 20) i;
    insert into shared select i, 'old' from generate_series(-10, -1) i";
/// Transactions of a test, when one worker dies, and when it comes back.
const WRITES: usize = 300;
const DIES_AT: usize = 80;
const RETURNS_AT: usize = 200;

/// A worker, its queue, and where its replica is.
struct Worker {
    program: Program,
    queue: &'static str,
    home: Target,
}

impl Worker {
    fn new(db: &Db, queue: &'static str, tables: &[&str], home: Target) -> Self {
        let url = match &home {
            Target::File(path) => format!("file:{}", path.display()),
            Target::Remote { url, .. } => url.clone(),
            Target::Given(_) => unreachable!(),
        };
        let mut program = Program::new(
            &format!("{{{}}}", tables.join(",")),
            &[("PGMQ_URL", &db.url()), ("QUEUE_NAME", queue), ("LIBSQL_URL", &url)],
        );
        if let Target::Remote { token: Some(token), .. } = &home {
            program.set("LIBSQL_AUTH_TOKEN", token.expose());
        }
        Self { program, queue, home }
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        let replica = Replica::open(&self.home).await.unwrap();
        let rows = replica.query(sql, vec![]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join("|")).collect()
    }

    /// The tables that are marked on its queue.
    async fn marked(&self, db: &Db) -> Vec<String> {
        db.all(&format!("select distinct message->>'table' from pgmq.q_{} order by 1", self.queue)).await
    }

    async fn queued(&self, db: &Db) -> i64 {
        db.one(&format!("select count(*) from pgmq.q_{}", self.queue)).await.parse().unwrap()
    }

    /// One call of `/sync`, and whether anything is left.
    async fn sync(&self) -> bool {
        let answer = self.program.call("POST", "/sync").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let said = answer.json();
        said["queued"] == 0 && said["rebuilding"] == 0 && said["busy"] != true
    }

    /// Its replica has these tables with as many rows, all as in Postgres, and nothing besides.
    async fn assert_equal(&self, tables: &[(&str, String)]) {
        let said = self.program.said(&["verify"]).await;
        for (table, rows) in tables {
            assert!(said.contains(&format!("{table}: equal, {rows} rows")), "{said}");
        }
        let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
        assert_eq!(self.tables().await, names, "the other's tables have no place here");
        assert_eq!(self.rows("SELECT \"table\" FROM _pgflume_tables ORDER BY 1").await, names);
        assert_eq!(
            self.rows("SELECT name || ' ' || kind FROM _pgflume_syncs").await,
            [format!("{} queue", self.queue)]
        );
    }

    /// The replica's, bookkeeping aside.
    async fn tables(&self) -> Vec<String> {
        let there = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_pgflume_*' \
             AND name NOT GLOB 'sqlite_*' AND name NOT GLOB 'libsql_*' ORDER BY name";
        self.rows(there).await
    }
}

/// A transaction that touches every table.
fn write(i: usize) -> String {
    format!(
        "begin; insert into orders values ({i}, 'o'); insert into items values ({i}, 'i'); insert into shared values ({i}, 's');
        update orders set v = v || {i} where id = {i} / 2; delete from items where id = {i} - 7 and {i} % 3 = 0;
        update shared set v = v || {i} where id in ({i} / 3, -1); delete from shared where id = {i} - 5 and {i} % 4 = 0; commit"
    )
}

fn sqld_of(sqld: &Sqld) -> Target {
    Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) }
}

async fn counts(db: &Db) -> [String; 4] {
    let count = async |of: &str| db.one(&format!("select count(*) from {of}")).await;
    [count("orders").await, count("items").await, count("shared").await, count("shared where id > 0").await]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_with_a_queue_each_keep_a_replica_each_whichever_dies() {
    let (db, file, sqld) = (Db::new().await, Home::new(Path::File), Sqld::start(SqldOptions::default()));
    db.sql(TABLES).await;
    let mut follows = Worker::new(&db, "orders_libsql", &[ORDERS, WHOLE], file.target());
    let mut called = Worker::new(&db, "items_libsql", &[ITEMS, NARROW], sqld_of(&sqld));
    for worker in [&follows, &called] {
        worker.program.said(&["setup"]).await;
    }
    // Each table is marked where it is named, and one that both name is marked for both.
    db.sql(&write(0)).await;
    assert_eq!(follows.marked(&db).await, ["orders", "shared"]);
    assert_eq!(called.marked(&db).await, ["items", "shared"]);

    follows.program.serve(&["--follow"]);
    called.program.serve(&[]);
    let done = AtomicUsize::new(0);
    let reached = async |number: usize| until("writes go on", async || done.load(Ordering::SeqCst) >= number).await;
    let writer = async {
        for i in 1..=WRITES {
            db.sql(&write(i)).await;
            done.store(i, Ordering::SeqCst);
        }
    };
    let second = Db::existing(&db.name, db.cluster()).await;
    let dying = async {
        reached(DIES_AT).await;
        follows.program.kill();
        reached(RETURNS_AT).await;
        // Nobody takes them now; the other's are another queue's.
        let marked = follows.marked(&second).await;
        follows.program.serve(&["--follow"]);
        marked
    };
    let calling = async {
        while done.load(Ordering::SeqCst) < WRITES {
            called.sync().await;
        }
    };
    let ((), marked, ()) = futures_util::join!(writer, dying, calling);
    assert_eq!(marked, ["orders", "shared"]);
    // The one that is called dies, too, and has to be called again.
    called.program.kill();
    db.sql(&write(WRITES + 1)).await;
    assert_eq!(called.marked(&db).await, ["items", "shared"]);
    called.program.serve(&[]);
    until("what is called has all", async || called.sync().await).await;
    until("what follows has all", async || follows.queued(&db).await == 0).await;
    let [orders, items, shared, above] = counts(&db).await;
    follows.assert_equal(&[("orders", orders), ("shared", shared)]).await;
    called.assert_equal(&[("items", items), ("shared", above)]).await;
    for queue in [follows.queue, called.queue] {
        assert_eq!(db.one(&format!("select count(*) from pgmq.q_{queue}_dead")).await, "0");
    }
    assert_eq!(db.all("select queue from pgflume.progress order by 1").await, ["items_libsql", "orders_libsql"]);

    // One queue's end is not the other's, not even for the table that both have.
    follows.program.kill();
    let said = follows.program.said(&["teardown", "--yes", "--queue"]).await;
    assert!(said.contains("another queue uses them"), "{said}");
    db.sql(&write(WRITES + 2)).await;
    assert_eq!(called.marked(&db).await, ["items", "shared"]);
    until("it goes on", async || called.sync().await).await;
    let [_, items, _, above] = counts(&db).await;
    called.assert_equal(&[("items", items), ("shared", above)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_queue_into_one_replica_is_refused_and_the_first_goes_on() {
    for path in crate::support::PATHS {
        let (db, home, own) = (Db::new().await, Home::new(path), Home::new(path));
        db.sql(TABLES).await;
        let mut first = Worker::new(&db, "first", &[ORDERS, WHOLE], home.target());
        let mut second = Worker::new(&db, "second", &[ITEMS], home.target());
        first.program.said(&["setup"]).await;
        first.program.serve(&["--follow"]);
        // Ready it is before it has asked the replica whose it is.
        until("the first is ready", async || first.program.call("GET", "/ready").await.status == 200).await;
        let paired = "SELECT count(*) FROM sqlite_master WHERE name = '_pgflume_syncs'";
        until("the first is paired", async || {
            first.rows(paired).await == ["1"] && first.rows("SELECT name FROM _pgflume_syncs").await == ["first"]
        })
        .await;
        // Postgres first, so that nothing is missed.
        let said = second.program.refused(&["setup"], 1).await;
        assert!(
            said.contains("Postgres is set up, and the replica is not: ") && !said.contains("nothing was"),
            "{said}"
        );
        db.sql(&write(1)).await;
        assert_eq!(second.marked(&db).await, ["items"]);
        let waiting = second.queued(&db).await;
        let refusal = "the replica belongs to another";
        let said = second.program.refused(&["sync"], 1).await;
        assert!(said.contains(refusal) && said.contains("QUEUE_NAME"), "{said}");
        let said = second.program.run(&["doctor"]).await;
        assert_eq!(said.status.code(), Some(4), "{said:?}");
        assert!(String::from_utf8_lossy(&said.stdout).contains("PF-205"), "{said:?}");
        second.program.serve(&["--follow"]);
        until("it says so", async || second.program.call("GET", "/ready").await.body.contains(refusal)).await;
        second.program.kill();
        assert_eq!(second.queued(&db).await, waiting, "nothing is taken");
        until("the first goes on", async || first.queued(&db).await == 0).await;
        let [orders, items, shared, _] = counts(&db).await;
        first.assert_equal(&[("orders", orders), ("shared", shared)]).await;
        // With a replica of its own nothing is missing.
        second = Worker::new(&db, "second", &[ITEMS], own.target());
        second.program.said(&["setup"]).await;
        second.program.said(&["sync"]).await;
        second.assert_equal(&[("items", items)]).await;
    }
}

/// Neither has been paired, and both begin at once.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_queues_that_meet_an_empty_replica_at_once_one_gets_it() {
    for path in crate::support::PATHS {
        for _ in 0..4 {
            let (db, home, own) = (Db::new().await, Home::new(path), Home::new(path));
            db.sql(TABLES).await;
            let one = Worker::new(&db, "one", &[ORDERS], home.target());
            let two = Worker::new(&db, "two", &[ITEMS], home.target());
            one.program.said(&["setup"]).await;
            two.program.said(&["setup"]).await;
            let (first, second) = futures_util::join!(one.program.run(&["sync"]), two.program.run(&["sync"]));
            let (winner, loser) = match (first.status.code(), second.status.code()) {
                (Some(0), Some(1)) => (one, two),
                (Some(1), Some(0)) => (two, one),
                _ => panic!("{path:?}: {first:?}\n{second:?}"),
            };
            let said = loser.program.refused(&["sync"], 1).await;
            assert!(said.contains("the replica belongs to another"), "{said}");
            winner.program.said(&["sync"]).await;
            let [orders, items, ..] = counts(&db).await;
            let table = |worker: &Worker| match worker.queue {
                "one" => [("orders", orders.clone())],
                _ => [("items", items.clone())],
            };
            // Both make their tables before one has the replica: the other's stay behind, empty.
            for name in winner.tables().await {
                if name != table(&winner)[0].0 {
                    assert_eq!(winner.rows(&format!("SELECT count(*) FROM {name}")).await, ["0"]);
                    winner.rows(&format!("DROP TABLE {name}")).await;
                }
            }
            winner.assert_equal(&table(&winner)).await;
            let alone: &[&str] = if loser.queue == "one" { &[ORDERS] } else { &[ITEMS] };
            let loser = Worker::new(&db, loser.queue, alone, own.target());
            // It has begun to pair with the one that it did not get.
            let begun = loser.program.run(&["sync"]).await;
            if !begun.status.success() {
                assert!(String::from_utf8_lossy(&begun.stderr).contains("pgflume nuke"), "{begun:?}");
                loser.program.said(&["nuke", "--yes"]).await;
                loser.program.said(&["sync"]).await;
            }
            loser.assert_equal(&table(&loser)).await;
        }
    }
}

/// One process may have several queues, each with a replica of its own, and a pull beside one of them.
#[tokio::test(flavor = "multi_thread")]
async fn one_process_runs_several_queues_and_refuses_two_into_one_replica() {
    let db = Db::new().await;
    db.sql(TABLES).await;
    let program = Program::new(&format!("{{{ORDERS}}}"), &[]);
    program.write("items.json", &format!("{{{ITEMS}}}"));
    program.write("shared.json", &format!("{{{WHOLE}}}"));
    let file = |to: [&str; 2]| {
        serde_json::json!({
            "connections": {"hub": {"url": db.url()}, "a": {"url": "file:a.db"}, "b": {"url": "file:b.db"},
                            "c": {"url": "file:./b.db"}},
            "syncs": {"orders": {"from": "hub", "to": to[0], "queue": "one", "schema": "schema.json"},
                      "items": {"from": "hub", "to": to[1], "queue": "two", "schema": "items.json"},
                      "shared": {"from": "hub", "to": "a", "schema": "shared.json"}},
        })
        .to_string()
    };
    for to in [["b", "b"], ["b", "c"]] {
        program.write("pgflume.json", &file(to));
        for command in [&["sync"][..], &["serve"]] {
            let said = program.refused(command, 2).await;
            assert!(said.contains("\"orders\"") || said.contains("\"items\""), "{said}");
            assert!(said.contains("one queue a replica") || said.contains("feeds by its queue, too"), "{said}");
        }
    }
    program.write("pgflume.json", &file(["a", "b"]));
    for sync in ["orders", "items"] {
        program.said(&["setup", "--sync", sync]).await;
    }
    db.sql(&write(1)).await;
    program.said(&["sync"]).await;
    let counts = counts(&db).await;
    for (sync, count) in ["orders", "items", "shared"].iter().zip(&counts) {
        let said = program.said(&["verify", "--sync", sync]).await;
        assert!(said.contains(&format!("{sync}: equal, {count} rows")), "{said}");
    }
}

/// pg_cron posts to one address for a whole database.
#[tokio::test(flavor = "multi_thread")]
async fn setup_says_whom_cron_does_not_ask() {
    let db = Db::new().await;
    db.sql(TABLES).await;
    let home = Home::new(Path::File);
    let mut first = Worker::new(&db, "first", &[ORDERS], home.target());
    let mut second = Worker::new(&db, "second", &[ITEMS], home.target());
    first.program.set("SYNC_URL", "http://one.example/sync");
    let said = first.program.said(&["setup"]).await;
    assert!(!said.contains("one address"), "{said}");
    let said = second.program.said(&["setup"]).await;
    assert!(said.contains("one address") && said.contains("queue first"), "{said}");
    assert!(!said.contains("until now"), "{said}");
    second.program.set("SYNC_URL", "http://two.example/sync");
    let said = second.program.said(&["setup"]).await;
    assert!(said.contains("until now") && said.contains("queue first"), "{said}");
    assert!(!said.contains("one.example"), "an address may hold a secret: {said}");
    let said = second.program.said(&["setup"]).await;
    assert!(said.contains("one address") && !said.contains("until now"), "{said}");
    assert_eq!(db.one("select pgflume.get_libsql_sync_url()").await, "http://two.example/sync");
}
